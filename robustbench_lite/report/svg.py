"""Small inline SVG, written by hand so that it is tiny, escaped and free of scripts and styles.

Every colour is a class of templates/report.css, so that a picture follows the theme of its reader
and the content security policy of the page; a curve differs by marker and dash as well.
docs/report.md says how this compares with what plotting libraries write (`benchmarks/charts.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 40, 62, 26, 42  # the headline stands on the right
HUES = 6
MARKERS = ("circle", "square", "triangle", "diamond", "down", "plus")
_TICK_GAP = 40.0  # least distance of two labels under the axis
_LONGEST_TICK = 7


def tag(name: str, *children: Markup | str, **attributes: object) -> Markup:
    """An element; text children and attribute values are escaped, `_` in names becomes `-`."""
    written = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), short(value))
        for key, value in attributes.items()
        if value is not None
    )
    inside = Markup("").join(escape(child) for child in children)
    return Markup("<{0}{1}>{2}</{0}>").format(name, written, inside)


def short(value: object) -> object:
    """A coordinate to a tenth of a pixel; anything else as it is."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else value


def at(x: float, y: float) -> str:
    """A point of a path."""
    return f"{short(float(x))} {short(float(y))}"


@dataclass(frozen=True, slots=True)
class Scale:
    """Data -> pixels of the plot area; x from 0 to `largest`, y from 0 to 1."""

    largest: float

    def x(self, value: float) -> float:
        """Pixels from the left."""
        return LEFT + (WIDTH - LEFT - RIGHT) * value / self.largest

    @staticmethod
    def y(share: float) -> float:
        """Pixels from the top."""
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - share)


def axes(y_title: str, x_title: str, ticks: Mapping[float, str], scale: Scale) -> Markup:
    """Shares on the left, `ticks` (value -> text) below; the largest stay where texts touch."""
    right, floor = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = [tag("text", y_title, x=0, y=12, class_="axis")]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = scale.y(share)
        parts += [
            tag("path", d=f"M{LEFT} {short(y)}H{right}", class_="grid" if share else "base"),
            tag("text", f"{100 * share:.0f}", x=LEFT - 8, y=y + 4, class_="tick end"),
        ]
    for x, text in _thinned(ticks, scale):
        parts += [
            tag("path", d=f"M{short(x)} {floor}v5", class_="base"),
            tag("text", text, x=x, y=floor + 18, class_="tick mid"),
        ]
    parts.append(tag("text", x_title, x=right, y=HEIGHT - 4, class_="axis end"))
    return tag("g", *parts, aria_hidden="true")


def _thinned(ticks: Mapping[float, str], scale: Scale) -> list[tuple[float, str]]:
    kept: list[tuple[float, str]] = []
    for value in sorted(ticks, reverse=True):
        text = ticks[value] if len(ticks[value]) <= _LONGEST_TICK else f"{value:.3g}"
        x = scale.x(value)
        if all(abs(x - other) >= _TICK_GAP for other, _ in kept):
            kept.append((x, text))
    return kept


def look(kind: str, slot: int) -> str:
    """Classes of a curve: its hue, and a dash from the seventh attack on (36 looks)."""
    if kind == "worst-case":
        return "worst"
    if kind == "control":
        return "control"
    return f"h{(slot + slot // HUES) % HUES}" + (" dashed" if slot % (2 * HUES) >= HUES else "")


def marker(kind: str, slot: int, x: float, y: float) -> Markup:
    """The mark of a curve at a point: its shape tells the curves of one hue apart."""
    name = "worst" if kind == "worst-case" else MARKERS[slot % len(MARKERS)]
    return tag("path", d=_MARKS[name](x, y), class_=f"mark {look(kind, slot)}")


def swatch(kind: str, slot: int) -> Markup:
    """The line and mark of a curve, for a legend."""
    line = tag("path", d="M1 7H31", class_=f"line {look(kind, slot)}")
    mark = marker(kind, slot, 16, 7)
    return tag("svg", line, mark, viewBox="0 0 32 14", class_="swatch", aria_hidden="true")


def ring(x: float, y: float, r: float) -> str:
    """The path of a circle."""
    return f"M{at(x - r, y)}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0Z"


_MARKS: dict[str, Callable[[float, float], str]] = {
    "worst": lambda x, y: ring(x, y, 5.0),
    "circle": lambda x, y: ring(x, y, 3.5),
    "square": lambda x, y: f"M{at(x - 3, y - 3)}h6v6h-6Z",
    "triangle": lambda x, y: f"M{at(x, y - 4)}l4 7h-8Z",
    "diamond": lambda x, y: f"M{at(x, y - 4.5)}l4.5 4.5l-4.5 4.5l-4.5 -4.5Z",
    "down": lambda x, y: f"M{at(x, y + 4)}l-4 -7h8Z",
    "plus": lambda x, y: f"M{at(x - 1.2, y - 4)}h2.4v2.8h2.8v2.4h-2.8v2.8h-2.4v-2.8h-2.8v-2.4h2.8Z",
}


def limits(
    spread: tuple[float, float, float],
    bounds: Sequence[float],
    status: str,
    *,
    said: str,
    least: float = 0.0,
) -> Markup:
    """A gate's limits on a short axis around them, with the value and the floor or ceiling.

    `spread`: lower limit, value, upper limit, all from `least` to 1. `said`: the same in words.
    """
    low, value, high = spread
    width, left, right = 176.0, (28.0 if least >= 0 else 36.0), 146.0  # room for a sign
    pad = max(0.6 * (max(high, *bounds) - min(low, *bounds)), 0.01)
    start = max(least, math.floor(100 * (min(low, *bounds) - pad)) / 100)
    stop = min(1.0, math.ceil(100 * (max(high, *bounds) + pad)) / 100)

    def on(share: float) -> float:
        return left + (right - left) * (share - start) / (stop - start)

    marks = [tag("path", d=f"M{at(on(bound), 2)}v18", class_="bound") for bound in bounds]
    return tag(
        "svg",
        tag("title", said),
        tag("text", f"{100 * start:.0f}", x=left - 8, y=15, class_="tick end"),
        tag("text", f"{100 * stop:.0f}", x=right + 8, y=15, class_="tick"),
        tag("path", d=f"M{at(left, 11)}H{right}", class_="base"),
        tag("path", d=f"M{at(on(low), 11)}H{short(on(high))}", class_=f"span {status.lower()}"),
        *marks,
        tag("path", d=ring(on(value), 11, 3.5), class_=f"spot {status.lower()}"),
        viewBox=f"0 0 {width:.0f} 22",
        role="img",
        class_="limits",
    )


def meter(share: float) -> Markup:
    """A bar of one share, beside the number that says the same."""
    return tag(
        "svg",
        tag("path", d="M0 4H100", class_="rail"),
        tag("path", d=f"M0 4H{short(100 * min(max(share, 0.0), 1.0))}", class_="full"),
        viewBox="0 0 100 8",
        preserveAspectRatio="none",
        class_="meter",
        aria_hidden="true",
    )


def bars(values: Sequence[float], low: float, high: float, title: str) -> Markup:
    """A sample that is no image as small bars between `low` and `high`, from zero if inside."""
    step = 96 / max(len(values), 1)
    span = (high - low) or 1.0
    zero = min(max(0.0, low), high)

    def y(value: float) -> float:
        return 96 * (1 - (min(max(value, low), high) - low) / span)

    drawn = [
        tag(
            "rect",
            x=index * step + 0.1 * step,
            y=min(y(value), y(zero)),
            width=0.8 * step,
            height=max(abs(y(value) - y(zero)), 0.6),
        )
        for index, value in enumerate(values)
    ]
    named = tag("title", title)
    return tag("svg", named, *drawn, viewBox="0 0 96 96", class_="bars", role="img")


def shade(share: float) -> str:
    """The class of a table cell: s0 to s8, darker where more is broken."""
    return f"s{round(8 * min(max(share, 0.0), 1.0))}"
