"""A picture of a report, for a README: `python tools/report_screenshot.py RUN/report.html out.png`.

Needs Chromium on the machine and the `test` extra (playwright). `--selector '#curves'` takes one
section, `--dark` the dark theme, `--full` the whole page in place of the first screen.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str:
    """The browser on this machine; ends the program if there is none."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        sys.exit(f"no browser: none of {', '.join(NAMES)} is on PATH")
    return found


def main() -> None:
    """Parse the options and take the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path, help="report.html, or the run directory that holds it")
    parser.add_argument("picture", type=Path, help="the PNG to write")
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=1600)
    parser.add_argument("--scale", type=float, default=1.0, help="pixels of the PNG per CSS pixel")
    parser.add_argument("--selector", help="take the section that holds this element")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--full", action="store_true", help="the whole page")
    options = parser.parse_args()
    page = options.report / "report.html" if options.report.is_dir() else options.report
    if not page.is_file():
        sys.exit(f"there is no report at '{page}'; make one with robeval report RUN")
    take(page, options)


def take(path: Path, options: argparse.Namespace) -> None:
    """Open the report and write the picture."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = browser.new_page(
            viewport={"width": options.width, "height": options.height},
            device_scale_factor=options.scale,
            color_scheme="dark" if options.dark else "light",
        )
        page.goto(path.resolve().as_uri())
        if options.selector:
            section = page.locator("section", has=page.locator(options.selector)).first
            section.screenshot(path=options.picture)
        else:
            page.screenshot(path=options.picture, full_page=options.full)
        browser.close()


if __name__ == "__main__":
    main()
