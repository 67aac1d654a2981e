"""Charts drawn as SVG: accuracy against eps with interval bands, and distances as staircases."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from markupsafe import Markup

from .charts import Chart, Distances, Point, Series, Staircase
from .svg import HEIGHT, LEFT, RIGHT, WIDTH, Scale, at, axes, look, marker, short, tag
from .words import interval, number, percent

_RUNG = 30.0  # pixels from one attack to the next
_NAMES = 150  # pixels for their names
_LONGEST_NAME = 22
_QUARTILES = ("a quarter", "half", "three quarters")

Key = Callable[[str], str]  # an attack's entry -> its short id, which the toggles of the page know


def accuracy(chart: Chart, uid: str, key: Key = str) -> Markup:
    """Robust accuracy against eps, the worst case as headline. `uid`: prefix of its ids."""
    largest = max((p.eps for s in chart.series for p in s.points), default=0.0) or 1.0
    scale = Scale(largest)
    texts = {p.eps: p.text for series in chart.series for p in series.points} | {0.0: "0"}
    ordered = sorted(chart.series, key=lambda series: series.kind == "worst-case")
    return tag(
        "svg",
        tag("title", f"{chart.model} on {chart.dataset}: robust accuracy against {chart.norm} eps"),
        tag("desc", describe(chart), id=f"{uid}-d"),
        axes("robust accuracy, %", f"eps ({chart.norm})", texts, scale),
        *(_band(series, _with_clean(series, chart.clean), scale, key) for series in ordered),
        *(_drawn(series, _with_clean(series, chart.clean), scale, key) for series in ordered),
        *_headline(chart, scale),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        class_="chart",
        aria_describedby=f"{uid}-d",
    )


def ladder(chart: Chart, uid: str, key: Key = str) -> Markup:
    """One measured eps is no curve: a line per attack, its interval and its value."""
    title = f"{chart.model} on {chart.dataset}: robust accuracy at {chart.norm} eps {chart.single}"
    rungs = list(chart.series)
    if chart.clean is not None:
        rungs = [Series("clean", "control", 0, (chart.clean,)), *rungs]
    floor = _RUNG * len(rungs) + 8
    return tag(
        "svg",
        tag("title", title),
        tag("desc", describe(chart), id=f"{uid}-d"),
        _shares(floor),
        *(_rung(series, _RUNG * index + _RUNG / 2, key) for index, series in enumerate(rungs)),
        viewBox=f"0 0 {WIDTH} {floor + 36}",
        role="img",
        class_="chart",
        aria_describedby=f"{uid}-d",
    )


def _along(share: float) -> float:
    return _NAMES + (WIDTH - RIGHT - _NAMES) * share


def _shares(floor: float) -> Markup:
    parts = [tag("text", "robust accuracy, %", x=WIDTH - RIGHT, y=floor + 34, class_="axis end")]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = _along(share)
        parts += [
            tag("path", d=f"M{short(x)} 2V{floor}", class_="grid"),
            tag("text", f"{100 * share:.0f}", x=x, y=floor + 16, class_="tick mid"),
        ]
    return tag("g", *parts, aria_hidden="true")


def _rung(series: Series, y: float, key: Key) -> Markup:
    (point,) = series.points
    rate, style = point.rate, look(series.kind, series.slot)
    noted = series.kind == "control" and series.attack and "control" not in series.name
    name = f"{series.name} (control)" if noted else series.name
    name = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"
    said = f"{series.name}: {percent(rate.value)} [{interval(rate.low, rate.high)}], n {rate.n:,}"
    worst = series.kind == "worst-case"
    span = f"M{at(_along(rate.low), y)}H{short(_along(rate.high))}"
    return tag(
        "g",
        tag("title", said),
        tag("text", name, x=0, y=y + 4, class_="name strong" if worst else "name"),
        tag("path", d=span, class_=f"thick {style}"),
        marker(series.kind, series.slot, _along(rate.value), y),
        tag("text", percent(rate.value), x=WIDTH, y=y + 5, class_="end value"),
        class_="pt",
        data_a=_keyed(series.attack, key),
    )


def describe(chart: Chart) -> str:
    """The chart in words, for who cannot see it."""
    parts = [f"Clean {percent(chart.clean.rate.value)}."] if chart.clean else []
    for series in chart.series:
        values = ", ".join(f"{percent(p.rate.value)} at {p.text}" for p in series.points)
        parts.append(f"{series.name} ({series.kind}): {values}.")
    return " ".join(parts)


def _with_clean(series: Series, clean: Point | None) -> tuple[Point, ...]:
    """A curve starts at the clean accuracy: at eps 0 nothing can be changed."""
    starts_late = bool(series.points) and series.points[0].eps > 0
    return (clean, *series.points) if clean is not None and starts_late else series.points


def _keyed(attack: str, key: Key) -> str | None:
    return key(attack) if attack else None


def _band(series: Series, points: Sequence[Point], scale: Scale, key: Key) -> Markup:
    if len(points) < 2:
        return Markup("")
    upper = [at(scale.x(p.eps), scale.y(p.rate.high)) for p in points]
    lower = [at(scale.x(p.eps), scale.y(p.rate.low)) for p in reversed(points)]
    path = f"M{'L'.join([*upper, *lower])}Z"
    style = f"band {look(series.kind, series.slot)}"
    return tag("path", d=path, class_=style, data_a=_keyed(series.attack, key))


def _drawn(series: Series, points: Sequence[Point], scale: Scale, key: Key) -> Markup:
    path = "L".join(at(scale.x(p.eps), scale.y(p.rate.value)) for p in points)
    line = tag("path", d=f"M{path}", class_=f"line {look(series.kind, series.slot)}")
    dots = [_dot(series, point, scale) for point in series.points]
    curve = [line] if len(points) > 1 else []
    return tag("g", *curve, *dots, data_a=_keyed(series.attack, key))


def _dot(series: Series, point: Point, scale: Scale) -> Markup:
    rate = point.rate
    said = (
        f"{series.name}, eps {point.text}: {percent(rate.value)}"
        f" [{interval(rate.low, rate.high)}], n {rate.n:,}"
    )
    x, y = scale.x(point.eps), scale.y(rate.value)
    span = f"M{short(x)} {short(scale.y(rate.low))}V{short(scale.y(rate.high))}"
    whisker = tag("path", d=span, class_=f"whisker {look(series.kind, series.slot)}")
    mark = marker(series.kind, series.slot, x, y)
    return tag("g", tag("title", said), whisker, mark, class_="pt")


def _headline(chart: Chart, scale: Scale) -> list[Markup]:
    """The worst case's last value, written beside its point."""
    worst = [series for series in chart.series if series.kind == "worst-case"]
    if not worst or not worst[0].points:
        return []
    last = worst[0].points[-1]
    place = {"x": scale.x(last.eps) + 10, "y": scale.y(last.rate.value) + 5}
    return [tag("text", percent(last.rate.value), class_="headline", aria_hidden="true", **place)]


# ---------------------------------------------------------------- distances


def staircases(chart: Distances, uid: str, key: Key = str) -> Markup:
    """The share of samples still right against the distance that their attack needed."""
    scale = Scale(chart.reach or 1.0)
    ticks = {chart.reach * part / 4: f"{chart.reach * part / 4:.3g}" for part in range(5)}
    ticks[chart.reach] = chart.reach_text
    said = " ".join(_told(stair, chart) for stair in chart.stairs)
    title = f"{chart.model} on {chart.dataset}: share still right against {chart.norm} distance"
    return tag(
        "svg",
        tag("title", title),
        tag("desc", said, id=f"{uid}-d"),
        axes("still right, %", f"distance ({chart.norm})", ticks, scale),
        *(_stairs(stair, chart, scale, key) for stair in chart.stairs),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        class_="chart",
        aria_describedby=f"{uid}-d",
    )


def _told(stair: Staircase, chart: Distances) -> str:
    if not stair.quartiles:
        return f"{stair.name} broke none of {stair.n:,} within {chart.reach_text}."
    return (
        f"{stair.name} broke {stair.broken:,} of {stair.n:,} within {chart.reach_text},"
        f" half of them within {number(stair.quartiles[1])}."
    )


def _stairs(stair: Staircase, chart: Distances, scale: Scale, key: Key) -> Markup:
    reach = scale.x(chart.reach)
    path = f"M{at(scale.x(0.0), scale.y(stair.steps[0][1]))}"
    for distance, share in stair.steps[1:]:
        path += f"H{short(min(scale.x(distance), reach))}V{short(scale.y(share))}"
    line = tag("path", d=f"{path}H{short(reach)}", class_=f"line {look('attack', stair.slot)}")
    marks = [
        _quartile(stair, name, distance, scale)
        for name, distance in zip(_QUARTILES, stair.quartiles, strict=False)
    ]
    return tag("g", line, *marks, data_a=_keyed(stair.attack, key))


def _quartile(stair: Staircase, name: str, distance: float, scale: Scale) -> Markup:
    share = next((s for d, s in reversed(stair.steps) if d <= distance), stair.steps[0][1])
    said = f"{stair.name}: {name} of the {stair.broken:,} broken lie within {number(distance)}"
    x = min(scale.x(distance), float(WIDTH - RIGHT))
    mark = marker("attack", stair.slot, max(x, float(LEFT)), scale.y(share))
    return tag("g", tag("title", said), mark, class_="pt")
