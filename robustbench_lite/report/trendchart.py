"""One gate over time as inline SVG: a point per run with its limits, and the floor or ceiling."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ..metrics import DISTANCE
from ..types import Past
from .svg import tag
from .words import is_difference

WIDTH, HEIGHT = 460, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 16, 24, 40
_LABELS = 6  # dates under the axis
_PAD = 0.3  # of a step, above and below
_TICKS = 6
Shown = Callable[[Past], tuple[str, str]]


@dataclass(frozen=True, slots=True)
class _Scale:
    """Run number -> x, value -> y; `low` and `high` are its ends."""

    runs: int
    low: float
    high: float
    ticks: tuple[float, ...]

    def x(self, at: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (at + 0.5) / self.runs

    def y(self, value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (self.high - value) / (self.high - self.low)


def chart(rows: Sequence[Past], bounds: Sequence[float], shown: Shown) -> Markup:
    """The values of one gate, oldest run on the left; the newest run's bounds as dashed lines."""
    share = rows[0].metric != DISTANCE
    scale = _scale(rows, bounds, share=share)
    said = "; ".join(f"{row.started[:10]} {_said(row, shown)}" for row in rows)
    return tag(
        "svg",
        tag("title", f"{rows[0].gate} over {len(rows)} runs"),
        tag("desc", said),
        *_axes(rows, scale, share=share),
        *(_bound(bound, scale) for bound in bounds),
        _line(rows, scale),
        *(_point(at, row, scale, shown) for at, row in enumerate(rows)),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        class_="chart",
    )


def _said(row: Past, shown: Shown) -> str:
    value, limits = shown(row)
    return f"{row.status}, {value} {limits}, n {row.n:,}"


def _scale(rows: Sequence[Past], bounds: Sequence[float], *, share: bool) -> _Scale:
    numbers = [
        number
        for row in rows
        for number in (row.value, row.low, row.high)
        if number is not None and math.isfinite(number)
    ]
    numbers += bounds
    low, high = min(numbers, default=0.0), max(numbers, default=1.0)
    step = _step((high - low) or 0.1 * (abs(high) or 1.0))
    low, high = step * math.floor(low / step - _PAD), step * math.ceil(high / step + _PAD)
    if share:  # a share ends at 100 %, and at 0 unless it is a difference
        high = min(high, 1.0)
        low = max(low, 0.0) if min(numbers, default=0.0) >= 0 else low
    ticks = [low + at * step for at in range(round((high - low) / step) + 1)]
    return _Scale(max(len(rows), 1), low, high, tuple(ticks))


def _step(span: float) -> float:
    """1, 2 or 5 times a power of ten, so that three to seven of them make the span."""
    power: float = 10.0 ** math.floor(math.log10(span))
    return power * next((m for m in (0.2, 0.5, 1.0) if span / (m * power) <= _TICKS), 2.0)


def _axes(rows: Sequence[Past], scale: _Scale, *, share: bool) -> list[Markup]:
    right, floor = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts: list[Markup] = []
    for at, value in enumerate(scale.ticks):
        text = f"{100 * value:.4g}" if share else f"{value:.4g}"
        y = scale.y(value)
        parts.append(tag("path", d=f"M{LEFT} {y:.1f}H{right}", class_="grid" if at else "base"))
        parts.append(tag("text", text, x=LEFT - 6, y=y + 4, class_="tick end"))
    if share:
        unit = "points" if is_difference(rows[-1]) else "%"
        parts.append(tag("text", unit, x=LEFT - 6, y=9, class_="axis end"))
    shown = range(0, len(rows), max(1, -(-len(rows) // _LABELS)))
    days = {rows[at].started[:10] for at in shown}
    for at in shown:
        started = rows[at].started
        label = started[:10] if len(days) == len(shown) else started[5:16].replace("T", " ")
        parts.append(tag("text", label, x=scale.x(at), y=floor + 18, class_="tick mid"))
    return [tag("g", *parts, aria_hidden="true")]


def _bound(bound: float, scale: _Scale) -> Markup:
    return tag("path", d=f"M{LEFT} {scale.y(bound):.1f}H{WIDTH - RIGHT}", class_="threshold")


def _line(rows: Sequence[Past], scale: _Scale) -> Markup:
    """Neighbouring values are joined; a run without a value leaves a gap."""
    path, pen = "", "M"
    for at, row in enumerate(rows):
        if row.value is None:
            pen = "M"
            continue
        path += f"{pen}{scale.x(at):.1f} {scale.y(row.value):.1f}"
        pen = "L"
    return tag("path", d=path, class_="line h0") if path else Markup("")


def _point(at: int, row: Past, scale: _Scale, shown: Shown) -> Markup:
    """A mark whose shape tells the status as well as its colour; INVALID stands on the axis."""
    x = scale.x(at)
    y = scale.y(row.value) if row.value is not None else float(HEIGHT - BOTTOM)
    title = tag("title", f"{row.started}, {row.run}: {_said(row, shown)}. {row.reason}")
    parts = [title]
    if row.low is not None and row.high is not None:
        low, high = scale.y(row.low), scale.y(row.high)
        parts.append(tag("path", d=f"M{x:.1f} {low:.1f}V{high:.1f}", class_="whisker h0"))
    mark = _MARKS.get(row.status, _MARKS["INVALID"])(x, y)
    parts.append(tag("path", d=mark, class_=f"at {row.status.lower()}"))
    return tag("g", *parts)


_MARKS: dict[str, Callable[[float, float], str]] = {
    "PASS": lambda x, y: f"M{x - 4:.1f} {y:.1f}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0Z",
    "FAIL": lambda x, y: f"M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8",
    "INCONCLUSIVE": lambda x, y: f"M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5Z",
    "INVALID": lambda x, y: f"M{x - 4:.1f} {y - 4:.1f}h8v8h-8Z",
}
