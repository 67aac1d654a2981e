"""Small inline SVG, drawn by hand so that it is tiny, escaped and free of scripts and styles.

Every colour is a class of templates/report.css; a curve differs by marker and dash as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from .charts import Chart, Point, Series
from .words import interval, percent

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 40, 58, 26, 42  # the headline stands on the right
HUES = 6
MARKERS = ("circle", "square", "triangle", "diamond", "down", "plus")
_TICK_GAP = 34.0  # least distance of two labels under the axis
_LONGEST_TICK = 7


def tag(name: str, *children: Markup | str, **attributes: object) -> Markup:
    """An element; text children and attribute values are escaped, `_` in names becomes `-`."""
    written = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _short(value))
        for key, value in attributes.items()
        if value is not None
    )
    inside = Markup("").join(escape(child) for child in children)
    return Markup("<{0}{1}>{2}</{0}>").format(name, written, inside)


def _short(value: object) -> object:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else value


@dataclass(frozen=True, slots=True)
class _Scale:
    """Data -> pixels of the plot area; x from 0 to `largest`, y from 0 to 1."""

    largest: float

    def x(self, eps: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * eps / self.largest

    @staticmethod
    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - value)


def accuracy(chart: Chart, uid: str) -> Markup:
    """Robust accuracy against eps, the worst case as headline. `uid`: prefix of its ids."""
    largest = max((p.eps for s in chart.series for p in s.points), default=0.0) or 1.0
    scale = _Scale(largest)
    drawn = [(series, _with_clean(series, chart.clean)) for series in chart.series]
    return tag(
        "svg",
        tag("title", f"{chart.model} on {chart.dataset}: robust accuracy against {chart.norm} eps"),
        tag("desc", describe(chart), id=f"{uid}-d"),
        _axes(chart, scale),
        *(_band(series, points, scale) for series, points in drawn),
        *(_curve(series, points, scale) for series, points in drawn),
        *(_dot(series, p, scale) for series in chart.series for p in series.points),
        *_headline(chart, scale),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        class_="chart",
        aria_describedby=f"{uid}-d",
    )


def describe(chart: Chart) -> str:
    """The chart in words, for who cannot see it."""
    parts = [f"Clean {percent(chart.clean.rate.value)}."] if chart.clean else []
    for series in chart.series:
        values = ", ".join(f"{percent(p.rate.value)} at {p.text}" for p in series.points)
        parts.append(f"{series.name} ({series.kind}): {values}.")
    return " ".join(parts)


def swatch(series: Series) -> Markup:
    """The line and marker of a series, for the legend."""
    line = tag("path", d="M1 7H31", class_=f"line {_class(series)}")
    mark = _marker(series, 16, 7)
    return tag("svg", line, mark, viewBox="0 0 32 14", class_="swatch", aria_hidden="true")


def _class(series: Series) -> str:
    return {"worst-case": "worst", "control": "control"}.get(series.kind, f"h{series.slot % HUES}")


def _with_clean(series: Series, clean: Point | None) -> tuple[Point, ...]:
    """A curve starts at the clean accuracy: at eps 0 nothing can be changed."""
    starts_late = bool(series.points) and series.points[0].eps > 0
    return (clean, *series.points) if clean is not None and starts_late else series.points


def _axes(chart: Chart, scale: _Scale) -> Markup:
    right, floor = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = [tag("text", "robust accuracy, %", x=0, y=12, class_="axis")]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = scale.y(share)
        parts += [
            tag("path", d=f"M{LEFT} {_short(y)}H{right}", class_="grid" if share else "base"),
            tag("text", f"{100 * share:.0f}", x=LEFT - 8, y=y + 4, class_="tick end"),
        ]
    for at, text in _ticks(chart, scale):
        parts += [
            tag("path", d=f"M{_short(at)} {floor}v5", class_="base"),
            tag("text", text, x=at, y=floor + 18, class_="tick mid"),
        ]
    parts.append(tag("text", f"eps ({chart.norm})", x=right, y=HEIGHT - 4, class_="axis end"))
    return tag("g", *parts, aria_hidden="true")


def _ticks(chart: Chart, scale: _Scale) -> list[tuple[float, str]]:
    """Labels at the measured eps, the largest first where they would touch."""
    texts = {p.eps: p.text for series in chart.series for p in series.points} | {0.0: "0"}
    kept: list[tuple[float, str]] = []
    for eps in sorted(texts, reverse=True):
        text = texts[eps] if len(texts[eps]) <= _LONGEST_TICK else f"{eps:.3g}"
        at = scale.x(eps)
        if all(abs(at - other) >= _TICK_GAP for other, _ in kept):
            kept.append((at, text))
    return kept


def _band(series: Series, points: Sequence[Point], scale: _Scale) -> Markup:
    if len(points) < 2:
        return Markup("")
    upper = [_at(scale.x(p.eps), scale.y(p.rate.high)) for p in points]
    lower = [_at(scale.x(p.eps), scale.y(p.rate.low)) for p in reversed(points)]
    return tag("path", d=f"M{'L'.join([*upper, *lower])}Z", class_=f"band {_class(series)}")


def _curve(series: Series, points: Sequence[Point], scale: _Scale) -> Markup:
    if len(points) < 2:
        return Markup("")
    path = "L".join(_at(scale.x(p.eps), scale.y(p.rate.value)) for p in points)
    return tag("path", d=f"M{path}", class_=f"line {_class(series)}")


def _dot(series: Series, point: Point, scale: _Scale) -> Markup:
    rate = point.rate
    said = (
        f"{series.name}, eps {point.text}: {percent(rate.value)}"
        f" [{interval(rate.low, rate.high)}], n {rate.n:,}"
    )
    x, y = scale.x(point.eps), scale.y(rate.value)
    low, high = _short(scale.y(rate.low)), _short(scale.y(rate.high))
    whisker = tag("path", d=f"M{_short(x)} {low}V{high}", class_=f"whisker {_class(series)}")
    return tag("g", tag("title", said), whisker, _marker(series, x, y))


def _headline(chart: Chart, scale: _Scale) -> list[Markup]:
    """The worst case's last value, written beside its point."""
    worst = [series for series in chart.series if series.kind == "worst-case"]
    if not worst or not worst[0].points:
        return []
    last = worst[0].points[-1]
    place = {"x": scale.x(last.eps) + 10, "y": scale.y(last.rate.value) + 5}
    return [tag("text", percent(last.rate.value), class_="headline", aria_hidden="true", **place)]


def _marker(series: Series, x: float, y: float) -> Markup:
    name = "worst" if series.kind == "worst-case" else MARKERS[series.slot % len(MARKERS)]
    return tag("path", d=_MARKS[name](x, y), class_=f"mark {_class(series)}")


def _at(x: float, y: float) -> str:
    return f"{_short(float(x))} {_short(float(y))}"


def _ring(x: float, y: float, r: float) -> str:
    return f"M{_at(x - r, y)}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0Z"


_MARKS: dict[str, Callable[[float, float], str]] = {
    "worst": lambda x, y: _ring(x, y, 5.0),
    "circle": lambda x, y: _ring(x, y, 3.5),
    "square": lambda x, y: f"M{_at(x - 3, y - 3)}h6v6h-6Z",
    "triangle": lambda x, y: f"M{_at(x, y - 4)}l4 7h-8Z",
    "diamond": lambda x, y: f"M{_at(x, y - 4.5)}l4.5 4.5l-4.5 4.5l-4.5 -4.5Z",
    "down": lambda x, y: f"M{_at(x, y + 4)}l-4 -7h8Z",
    "plus": lambda x, y: (
        f"M{_at(x - 1.2, y - 4)}h2.4v2.8h2.8v2.4h-2.8v2.8h-2.4v-2.8h-2.8v-2.4h2.8Z"
    ),
}


def limits(value: float, low: float, high: float, bounds: Sequence[float], status: str) -> Markup:
    """A gate's limits on a short axis around them, with the value and the floor or ceiling."""
    width, left, right = 170.0, 26.0, 144.0
    pad = max(0.6 * (max(high, *bounds) - min(low, *bounds)), 0.01)
    start = max(0.0, math.floor(100 * (min(low, *bounds) - pad)) / 100)
    stop = min(1.0, math.ceil(100 * (max(high, *bounds) + pad)) / 100)

    def at(share: float) -> float:
        return left + (right - left) * (share - start) / (stop - start)

    said = f"value {percent(value)}, limits {interval(low, high)}"
    marks = [tag("path", d=f"M{_at(at(bound), 2)}v18", class_="bound") for bound in bounds]
    return tag(
        "svg",
        tag("title", said),
        tag("text", f"{100 * start:.0f}", x=left - 5, y=15, class_="tick end"),
        tag("text", f"{100 * stop:.0f}", x=right + 5, y=15, class_="tick"),
        tag("path", d=f"M{_at(left, 11)}H{right}", class_="base"),
        tag("path", d=f"M{_at(at(low), 11)}H{_short(at(high))}", class_=f"span {status.lower()}"),
        *marks,
        tag("path", d=_ring(at(value), 11, 3.5), class_=f"spot {status.lower()}"),
        viewBox=f"0 0 {width:.0f} 22",
        role="img",
        class_="limits",
    )


def bars(values: Sequence[float], low: float, high: float) -> Markup:
    """A sample that is no image as small bars between `low` and `high`, from zero if inside."""
    step = 96 / max(len(values), 1)
    span = (high - low) or 1.0
    zero = min(max(0.0, low), high)

    def y(value: float) -> float:
        return 96 * (1 - (min(max(value, low), high) - low) / span)

    drawn = [
        tag(
            "rect",
            x=at * step + 0.1 * step,
            y=min(y(value), y(zero)),
            width=0.8 * step,
            height=max(abs(y(value) - y(zero)), 0.6),
        )
        for at, value in enumerate(values)
    ]
    return tag("svg", *drawn, viewBox="0 0 96 96", class_="bars", aria_hidden="true")
