"""The report in a real browser: silent, offline, accessible, and its one script does its work."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, sync_playwright

from robustbench_lite.report import changes_page, html, svg, trend
from robustbench_lite.types import GateStatus, History, Past
from tests.finished_run import FakeRun, eps
from tests.showcase import HOSTILE, hostile_run, showcase

WIDTHS = (320, 768, 1280, 1920)
CHROMIUM = next(
    (
        path
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (path := shutil.which(name))
    ),
    None,
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None,
    reason="needs Chromium: no chromium, chromium-browser or google-chrome on PATH",
)


@dataclass
class Seen:
    """What a page did that a report must not do."""

    noises: list[str] = field(default_factory=list)

    def watch(self, context: BrowserContext) -> None:
        context.on("request", lambda request: self._asked(request.url))

    def attach(self, page: Page) -> None:
        page.on("console", lambda message: self.noises.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: self.noises.append(f"error: {error}"))
        page.on("dialog", lambda dialog: self.noises.append(f"dialog: {dialog.message}"))

    def _asked(self, url: str) -> None:
        if not url.startswith(("file:", "data:")):
            self.noises.append(f"request: {url[:200]}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    made = showcase(tmp_path_factory.mktemp("runs") / "showcase", n=80)
    html.write(made)
    return made


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    made = hostile_run(tmp_path_factory.mktemp("runs") / "hostile")
    html.write(made)
    return made


@pytest.fixture
def page(browser: Browser, run: FakeRun) -> Iterator[Page]:
    """The showcase, opened; a test that makes it speak or ask for anything fails."""
    with _opened(browser, run) as (opened, seen):
        yield opened
        assert not seen.noises


class _opened:
    def __init__(self, browser: Browser, run: FakeRun | Path, **options: Any) -> None:
        self._context = browser.new_context(
            **{"viewport": {"width": 1280, "height": 900}, **options}
        )
        self._path = run if isinstance(run, Path) else run.path / "report.html"

    def __enter__(self) -> tuple[Page, Seen]:
        seen = Seen()
        seen.watch(self._context)
        page = self._context.new_page()
        seen.attach(page)
        page.goto(self._path.as_uri())
        return page, seen

    def __exit__(self, *_: object) -> None:
        self._context.close()


def texts(found: Locator) -> list[str]:
    return [text.strip() for text in found.all_inner_texts()]


@pytest.mark.parametrize("which", ["run", "hostile"])
def test_it_opens_silently_and_asks_for_nothing(
    browser: Browser, request: pytest.FixtureRequest, which: str
) -> None:
    with _opened(browser, request.getfixturevalue(which)) as (page, seen):
        assert page.locator("h1").inner_text() in (HOSTILE, "showcase")
        assert page.locator("#view").is_visible()
        assert not seen.noises


def test_the_watch_sees_what_it_looks_for(browser: Browser, run: FakeRun) -> None:
    with _opened(browser, run) as (page, seen):
        page.evaluate(
            "document.body.append(Object.assign(new Image(), {src: 'https://e.org/x.png'}))"
        )
        page.evaluate(
            "document.body.insertAdjacentHTML('beforeend', '<b style=\"color: red\">x</b>')"
        )
        page.wait_for_function("document.body.lastChild.tagName === 'B'")
        assert any("e.org" in noise for noise in seen.noises), "blocked by the policy, and said so"
        assert any("style" in noise for noise in seen.noises)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("which", ["run", "hostile"])
def test_no_width_scrolls_sideways(
    browser: Browser, request: pytest.FixtureRequest, which: str, scheme: str
) -> None:
    with _opened(browser, request.getfixturevalue(which), color_scheme=scheme) as (page, _):
        page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            cut = page.evaluate(
                """() => [...document.querySelectorAll('.scroll, pre')].filter(
                    (box) => box.scrollWidth > box.clientWidth && box.tabIndex !== 0).length"""
            )
            assert cut == 0, "what is cut can be scrolled by the keyboard"


@pytest.mark.parametrize("width", [1280, 1320, 1920])
def test_a_desktop_shows_why_without_scrolling(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    box = page.locator(".scroll", has=page.locator("table.gates"))
    assert box.evaluate("box => box.scrollWidth <= box.clientWidth")


def test_everything_can_be_read_without_the_script(browser: Browser, run: FakeRun) -> None:
    with _opened(browser, run, java_script_enabled=False) as (page, seen):
        assert not page.locator("#view").is_visible()
        assert not page.locator("#copy").is_visible()
        assert not page.locator("th button").count()
        said = page.locator("main").inner_text()
        for heading in ("Gates", "Against the baseline", "Transfer", "Distances", "Single pixels"):
            assert heading in said
        assert page.locator("svg.chart .pt title").count() > 20
        assert not seen.noises


def test_a_hidden_model_is_hidden_everywhere_but_in_the_gates(page: Page) -> None:
    gates = texts(page.locator(".gates tbody tr"))
    assert page.locator("figure.card:has-text('undefended')").first.is_visible()
    page.locator("#view summary", has_text="Models").click()
    page.get_by_role("checkbox", name="undefended").uncheck()
    hidden = page.locator("[data-m='m1']")
    assert hidden.count() > 8
    assert not [each for each in hidden.all() if each.is_visible()]
    assert page.locator("[data-m='m0']").first.is_visible()
    assert texts(page.locator(".gates tbody tr")) == gates
    assert "1 of" in page.locator("#filtered").inner_text()
    page.get_by_role("button", name="Show all").click()
    assert page.locator("figure.card:has-text('undefended')").first.is_visible()
    assert not page.locator("#filtered").is_visible()


def test_a_hidden_attack_leaves_charts_and_tables(page: Page) -> None:
    page.locator("#view summary", has_text="Attacks").click()
    box = page.locator("#view label", has_text="fgsm").locator("input")
    key = box.get_attribute("value")
    drawn = page.locator(f"svg.chart [data-a='{key}'], #cells ~ .scroll tr[data-a='{key}']")
    assert drawn.count() > 10
    assert all(each.is_visible() for each in drawn.all() if each.evaluate("e => e.tagName") == "tr")
    box.focus()
    page.keyboard.press("Space")
    assert not [each for each in drawn.all() if each.is_visible()]
    assert page.locator("svg.chart .line.worst").first.is_visible()


def test_columns_sort_as_numbers_within_their_model(page: Page) -> None:
    table = page.locator("table.filterable")
    button = table.get_by_role("button", name="Robust accuracy")
    groups = texts(table.locator("tr.group"))
    for order in ("ascending", "descending"):
        button.focus()
        page.keyboard.press("Enter")
        assert table.locator("th[aria-sort]").get_attribute("aria-sort") == order
        assert texts(table.locator("tr.group")) == groups
        for body in table.locator("tbody").all():
            assert "group" in str(body.locator("tr").first.get_attribute("class"))
            cells = texts(body.locator("tr:not(.group) > td:nth-child(4) .val"))
            numbers = [float(re.sub(r"[^\d.]", "", each)) for each in cells]
            assert numbers == sorted(numbers, reverse=order == "descending")
            assert len(set(numbers)) > 3


def test_budgets_sort_by_their_value(page: Page) -> None:
    table = page.locator("table.filterable")
    table.get_by_role("button", name="Budget").click()
    first = texts(table.locator("tbody").first.locator("tr:not(.group) > td:nth-child(2)"))
    linf = [each for each in dict.fromkeys(first) if each.startswith("linf")]
    assert linf == ["linf 8/255", "linf 0.1", "linf 0.2", "linf 0.3"]


def test_the_filter_keeps_rows_with_every_word(page: Page) -> None:
    table = page.locator("table.filterable")
    page.get_by_role("searchbox").fill("undefended pgd 0.3")
    rows = [row for row in table.locator("tbody tr:not(.group)").all() if row.is_visible()]
    assert [row.locator("th").inner_text() for row in rows] == ["pgd"]
    assert table.locator("tr.group:visible").all_inner_texts() == ["undefended on test"]
    assert page.locator("#said").inner_text() == "1 rows"


def test_a_point_tells_its_value_to_pointer_and_keyboard(page: Page, run: FakeRun) -> None:
    assert run.summary is not None
    tip = page.locator("#tip")
    chart = page.locator("svg.chart").first
    chart.locator(".pt .mark").last.hover()
    linf = [row for row in run.summary.rows if row.attack == "worst-case" and row.norm == "linf"]
    rate = next(row.robust_accuracy for row in linf if row.eps == eps("0.3"))
    assert rate is not None
    said = tip.inner_text()
    assert said.startswith("worst case, eps 0.3: ")
    assert f"{100 * rate.value:.1f} %" in said
    assert said.endswith(f"n {rate.n}")
    chart.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert tip.inner_text().startswith("fgsm, eps 0.1: ")
    assert page.locator("#said").inner_text() == tip.inner_text()
    page.keyboard.press("Escape")
    assert not tip.is_visible()


def test_the_command_is_copied(browser: Browser, run: FakeRun) -> None:
    allowed = ["clipboard-read", "clipboard-write"]
    with _opened(browser, run, permissions=allowed) as (page, _):
        page.get_by_role("button", name="Copy").click()
        page.get_by_role("button", name="Copied").wait_for()
        assert page.evaluate("navigator.clipboard.readText()") == "robeval run 'my suite.yaml'"


def test_keyboard_focus_is_seen(page: Page) -> None:
    for target in ("a[href='#gates']", "th button", ".scroll", "svg.chart", "#copy"):
        page.locator(target).first.focus()
        page.keyboard.press("Shift")  # the last input was the keyboard
        width = page.evaluate("parseFloat(getComputedStyle(document.activeElement).outlineWidth)")
        assert width >= 2, target


def test_printing_keeps_the_content_and_drops_the_controls(page: Page) -> None:
    page.emulate_media(media="print")
    for control in (".rail", "#copy", "input[type=search]"):
        assert not page.locator(control).first.is_visible()
    assert page.locator(".verdict").is_visible()
    assert page.locator("svg.chart").first.is_visible()
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == "rgb(255, 255, 255)"


AXE = files("axe_playwright_python").joinpath("axe.min.js")


def violations(page: Page, where: str, rules: str) -> list[tuple[str, str]]:
    """Serious and critical violations below `where`: rule and the element."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate(f"axe.run({where}, {rules})")
    assert found["passes"] or found["violations"], "the rules were applied"
    return [
        (each["id"], node["html"][:200])
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


@pytest.mark.parametrize(
    ("scheme", "rules"), [("light", "{}"), ("dark", "{runOnly: ['color-contrast']}")]
)
def test_axe_finds_nothing_serious(browser: Browser, run: FakeRun, scheme: str, rules: str) -> None:
    with _opened(browser, run, color_scheme=scheme) as (page, _):
        assert not violations(page, "document", rules)


def test_axe_finds_what_is_planted(page: Page) -> None:
    page.evaluate(
        """() => {
            document.querySelector('.lead').style.opacity = 0.5;
            document.body.appendChild(document.createElement('button')).id = 'nameless';
        }"""
    )
    assert [rule for rule, _ in violations(page, "'.lead'", "{}")] == ["color-contrast"]
    assert [rule for rule, _ in violations(page, "'#nameless'", "{}")] == ["button-name"]


# ---------------------------------------------------------------- the pages of `compare` and `history`


def past(at: int, gate: str, status: GateStatus, name: str) -> Past:
    """A gate of run `at`; a drop where its name says so, a distance, or a share."""
    drop = gate == "drop"
    return Past(
        started=f"2026-01-{at + 1:02}T10:00:00+00:00",
        run=f"run-{at}-{name}",
        suite=name,
        model="candidate",
        model_sha256="25ec00f5600c",
        gate=gate,
        status=status,
        metric="robust_accuracy",
        subject=f"candidate on test, fgsm linf 0.1 {name}",
        threshold="run - baseline >= -0.02" if drop else ">= 0.85",
        value=None if status == "INVALID" else (-0.01 * at if drop else 0.9 - 0.01 * at),
        low=None if status == "INVALID" else (-0.01 * at - 0.02 if drop else 0.87 - 0.01 * at),
        high=None if status == "INVALID" else (-0.01 * at + 0.02 if drop else 0.93 - 0.01 * at),
        n=1000,
        reason=name,
        exit_code=1,
    )


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, run: FakeRun, hostile: FakeRun) -> Path:
    """compare.html and trend.html of a plain and of a hostile run."""
    folder = tmp_path_factory.mktemp("pages")
    statuses: tuple[GateStatus, ...] = ("PASS", "INVALID", "INCONCLUSIVE", "FAIL")
    for kind, made in (("plain", run), ("hostile", hostile)):
        assert made.comparison is not None
        page = changes_page.page(made.comparison, None, made)
        (folder / f"{kind}-compare.html").write_text(page, encoding="utf-8")
        name = HOSTILE if kind == "hostile" else "digits"
        rows = [
            past(at, gate, status, name)
            for gate in ("floor", "drop")
            for at, status in enumerate(statuses)
        ]
        trend.write(
            History(rows=tuple(rows), left_out=(f"'{name}': never judged",)),
            folder / f"{kind}-trend.html",
        )
    return folder


OTHERS = tuple(
    f"{kind}-{name}.html" for kind in ("plain", "hostile") for name in ("compare", "trend")
)


@pytest.mark.parametrize("name", OTHERS)
def test_the_other_pages_are_silent_and_fit_any_width(
    browser: Browser, pages: Path, name: str
) -> None:
    with _opened(browser, pages / name) as (page, seen):
        assert page.locator("h1").is_visible()
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert not seen.noises


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", OTHERS[:2])
def test_axe_finds_nothing_serious_on_the_other_pages(
    browser: Browser, pages: Path, name: str, scheme: str
) -> None:
    with _opened(browser, pages / name, color_scheme=scheme) as (page, _):
        assert not violations(page, "document", "{}")


def test_no_label_of_a_picture_is_cut(browser: Browser, tmp_path: Path) -> None:
    """A minus sign left of the frame would turn -100 into 100."""
    gate = svg.limits((-0.9, -0.8, -0.7), [-0.05], "FAIL", said="", least=-1.0)
    path = tmp_path / "one.html"
    path.write_text(
        f"<!doctype html><style>svg {{ width: 176px }} text {{ font: 10px sans-serif }} .end {{ text-anchor: end }}</style>{gate}"
    )
    with _opened(browser, path) as (page, _):
        assert page.locator("text").first.text_content() == "-100"
        frame = page.locator("svg").bounding_box()
        label = page.locator("text").first.bounding_box()
        assert frame is not None
        assert label is not None
        assert frame["x"] <= label["x"]
