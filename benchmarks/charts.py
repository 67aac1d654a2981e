"""What plotting libraries write for one chart of the report, beside our own SVG.

`pip install matplotlib altair vl-convert-python pygal plotly` in an environment of its own, then
`python -m benchmarks.charts`. The chart: accuracy against eps, a worst case, five attacks and a
control at three radii, with interval bands. A library that is missing is left out.

- bytes: of one chart, without what a page would hold once
- once: bytes that a page holds once, such as the script of a library
- styles: `style=` attributes and `<style>` elements, which a policy without 'unsafe-inline' blocks
- colours: fixed colours in the drawing, which do not follow a dark theme
- named: whether the drawing has a role, a title and a description for who cannot see it
- installed: megabytes of the distributions that it adds to what robeval needs
"""

from __future__ import annotations

import importlib
import importlib.metadata
import io
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from types import ModuleType

from robustbench_lite.report import curves
from robustbench_lite.report.charts import Chart, Point, Series
from robustbench_lite.stats import rate

RADII = ("2/255", "4/255", "8/255")
NAMES = ("worst case", "fgsm", "pgd", "apgd", "square", "transfer", "uniform-noise")
LEFT = (
    (90, 70, 40),
    (93, 80, 60),
    (92, 74, 48),
    (91, 71, 42),
    (94, 83, 66),
    (95, 91, 84),
    (96, 95, 94),
)
OF = 100


def chart() -> Chart:
    """The chart as the report knows it."""
    clean = Point(0.0, "0", rate(97, OF))
    series = tuple(
        Series(
            name,
            "worst-case" if at == 0 else "control" if at == len(NAMES) - 1 else "attack",
            max(at - 1, 0),
            tuple(
                Point(float(Fraction(text)), text, rate(count, OF))
                for text, count in zip(RADII, LEFT[at], strict=True)
            ),
        )
        for at, name in enumerate(NAMES)
    )
    return Chart("candidate", "test", "linf", clean, series, ())


def lines() -> Iterator[tuple[str, list[float], list[float], list[float], list[float]]]:
    """Name, eps, value, low and high of every curve, from the clean accuracy on."""
    drawn = chart()
    assert drawn.clean is not None
    for series in drawn.series:
        points = (drawn.clean, *series.points)
        yield (
            series.name,
            [p.eps for p in points],
            [p.rate.value for p in points],
            [p.rate.low for p in points],
            [p.rate.high for p in points],
        )


def ours() -> tuple[str, int]:
    """Our own SVG."""
    return str(curves.accuracy(chart(), "c1")), 0


def with_matplotlib() -> tuple[str, int]:
    """The smallest SVG that matplotlib writes: texts as texts, no metadata."""
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("svg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    matplotlib.rcParams["svg.fonttype"] = "none"
    figure, axes = pyplot.subplots(figsize=(4.6, 3))
    for name, x, y, low, high in lines():
        axes.plot(x, y, marker="o", label=name)
        axes.fill_between(x, low, high, alpha=0.1)
    axes.legend()
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return stream.getvalue(), 0


def with_altair() -> tuple[str, int]:
    """The SVG of Vega-Lite, rendered without a browser by vl-convert."""
    altair: ModuleType = importlib.import_module("altair")
    values = [
        {"name": name, "eps": x, "value": y, "low": low, "high": high}
        for name, *columns in lines()
        for x, y, low, high in zip(*columns, strict=True)
    ]
    base = altair.Chart(altair.Data(values=values))
    curve = base.mark_line(point=True).encode(x="eps:Q", y="value:Q", color="name:N")
    band = base.mark_area(opacity=0.1).encode(x="eps:Q", y="low:Q", y2="high:Q", color="name:N")
    stream = io.StringIO()
    (band + curve).properties(width=360, height=230).save(stream, format="svg")
    return stream.getvalue(), 0


def with_pygal() -> tuple[str, int]:
    """The SVG of pygal, without the script that it loads from a server."""
    pygal: ModuleType = importlib.import_module("pygal")
    drawn = pygal.XY(width=460, height=300, js=[])
    for name, x, y, _, _ in lines():
        drawn.add(name, list(zip(x, y, strict=True)))
    return drawn.render(is_unicode=True), 0


def with_plotly() -> tuple[str, int]:
    """The HTML of plotly; its library is needed once on a page, and scripts to see anything."""
    objects: ModuleType = importlib.import_module("plotly.graph_objects")
    offline: ModuleType = importlib.import_module("plotly.offline")
    figure = objects.Figure()
    for name, x, y, _, _ in lines():
        figure.add_trace(objects.Scatter(x=x, y=y, name=name))
    text: str = figure.to_html(include_plotlyjs=False, full_html=False)
    return text, len(offline.get_plotlyjs().encode())


DRAWERS: dict[str, tuple[Callable[[], tuple[str, int]], tuple[str, ...]]] = {
    "robeval": (ours, ()),
    "matplotlib": (
        with_matplotlib,
        ("matplotlib", "contourpy", "cycler", "fonttools", "kiwisolver", "pyparsing"),
    ),
    "altair": (with_altair, ("altair", "vl-convert-python", "narwhals", "jsonschema")),
    "pygal": (with_pygal, ("pygal", "importlib-metadata", "zipp")),
    "plotly": (with_plotly, ("plotly", "narwhals")),
}


def megabytes(names: tuple[str, ...]) -> float:
    """What the files of these distributions take."""
    total = 0
    for name in names:
        for file in importlib.metadata.files(name) or ():
            path = file.locate()
            total += path.stat().st_size if path.is_file() else 0  # type: ignore[attr-defined]
    return total / 1e6


def named(text: str) -> str:
    """What the drawing itself offers to a screen reader."""
    head = text[: text.find(">", text.find("<svg")) + 400]
    offers = [("role", "role=" in head), ("title", "<title>" in text), ("desc", "<desc" in text)]
    return ", ".join(name for name, there in offers if there) or "nothing"


def main() -> None:
    """Print the table."""
    print(
        "| library | version | bytes | once | styles | scripts | colours | named | installed, MB |"
    )
    print("|---" * 9 + "|")
    for name, (draw, distributions) in DRAWERS.items():
        try:
            text, once = draw()
        except ImportError:
            print(f"| {name} | not installed |" + " |" * 7)
            continue
        version = importlib.metadata.version(name) if distributions else ""
        styles = len(re.findall(r"\sstyle=|<style", text))
        scripts = len(re.findall(r"<script", text))
        colours = len(re.findall(r"#[0-9a-fA-F]{3,6}\b|rgba?\(", text))
        print(
            f"| {name} | {version} | {len(text.encode()):,} | {once:,} | {styles} | {scripts}"
            f" | {colours} | {named(text)} | {megabytes(distributions):.1f} |"
        )


if __name__ == "__main__":
    main()
