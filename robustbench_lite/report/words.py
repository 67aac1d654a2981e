"""How numbers and names are said, the same in every report."""

from __future__ import annotations

import math
import unicodedata
from typing import Protocol

from ..metrics import DIFFERENCE, DISTANCE
from ..types import NO_NORM, Finding, GateResult, Rate, Row, Verdict

SIGNS = {
    "PASS": "✓",
    "COMPLETE": "✓",
    "FAIL": "✕",
    "INCONCLUSIVE": "?",
    "INVALID": "!",
    "NOT JUDGED": "·",
    "WORSE": "↓",
    "BETTER": "↑",
    "UNCLEAR": "≈",
    "SAME": "=",
    "NOT COMPARED": "·",
}
NOTHING = "–"  # noqa: RUF001  (a dash is what an empty number looks like)


def percent(value: float | None, digits: int = 1) -> str:
    """`88.5 %`, or a dash where there is no number; what is not 0 or 100 is never rounded to it."""
    if value is None or math.isnan(value):
        return NOTHING
    least = 10.0**-digits
    shown = 100 * value
    if 0 < shown < least:
        return f"< {least:.{digits}f} %"
    if 100 - least < shown < 100:
        return f"> {100 - least:.{digits}f} %"
    return f"{shown:.{digits}f} %"


def rate_text(rate: Rate | None) -> str:
    """`88.5 % [86.4, 90.3] of 1,000`: value, 95 % Wilson interval and denominator."""
    if rate is None or not rate.n:
        return NOTHING
    return f"{percent(rate.value)} [{interval(rate.low, rate.high)}] of {rate.n:,}"


def interval(low: float, high: float) -> str:
    """`86.4, 90.3`, in percent."""
    return f"{100 * low:.1f}, {100 * high:.1f}"


def number(value: float | None, digits: int = 3) -> str:
    """A plain number with at most `digits` significant digits, or a dash."""
    return NOTHING if value is None or math.isnan(value) else f"{value:,.{digits}g}"


def count(value: float | None) -> str:
    """A count or mean of counts: `1,568` or `2.5`, or a dash."""
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"


def seconds(value: float) -> str:
    """`0.4 s`, `12 s`, `3 min 5 s`, `2 h 4 min`."""
    if value < 10:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes_left} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def attack_name(row: Row) -> str:
    """The attack entry, with the source it was crafted on where that is another model."""
    return f"{row.attack} (from {row.source})" if row.source not in (row.model, "") else row.attack


def budget(row: Row) -> str:
    """`linf 8/255`, `strength 3` where there is no norm, or a dash for the clean pass."""
    if row.norm is None or row.eps is None:
        return NOTHING
    return f"{'strength' if row.norm == NO_NORM else row.norm} {row.eps.text}"


def told(finding: Finding) -> str:
    """A finding's message, and who answers for it."""
    return f"{finding.message} ({finding.waived})" if finding.waived else finding.message


def decided_by(result: GateResult) -> str:
    """What follows from a gate's result: its reason, and the samples that would decide."""
    if result.needed is None:
        return result.reason
    return f"{result.reason}; about {result.needed:,} samples would decide"


def bounds(result: Judged) -> list[tuple[str, float]]:
    """The floor and ceiling of a gate, (">=", 0.85) and the like, of a difference (">=", -0.05)."""
    found: list[tuple[str, float]] = []
    for part in result.threshold.removeprefix(f"{DIFFERENCE} ").split(", "):
        sign, _, text = part.partition(" ")
        try:
            found.append((sign, float(text)))
        except ValueError:
            return []
    return [each for each in found if each[0] in (">=", "<=")]


def slack(result: GateResult) -> float | None:
    """How far the deciding limits of a gate are from its nearest bound; None where it has none."""
    if result.low is None or result.high is None:
        return None
    gaps = [
        result.low - bound if sign == ">=" else bound - result.high
        for sign, bound in bounds(result)
    ]
    return min(gaps, default=None)


def points(value: float | None) -> str:
    """A difference of two shares in percentage points, with its sign: `-35.3`."""
    if value is None or math.isnan(value):
        return NOTHING
    return "0.0" if abs(value) < 5e-4 else f"{100 * value:+.1f}"


def difference(value: float | None, low: float | None, high: float | None) -> str:
    """`-1.2 [-2.0, -0.4]`, in points, or a dash where there is no interval."""
    if low is None or high is None:
        return NOTHING
    return f"{points(value)} [{points(low)}, {points(high)}]"


def p_value(value: float | None) -> str:
    """`0.031`, or `< 0.001`."""
    if value is None or math.isnan(value):
        return NOTHING
    return "< 0.001" if value < 1e-3 else f"{value:.3f}"


def overall(verdict: Verdict | None) -> str:
    """The one word over a report: a gate's status, COMPLETE without gates, or NOT JUDGED."""
    if verdict is None:
        return "NOT JUDGED"
    named = {0: "PASS" if verdict.gates else "COMPLETE", 1: "FAIL", 6: "INCONCLUSIVE"}
    return named.get(verdict.exit_code, "INVALID")


def cell(text: str) -> str:
    """A value of someone's table, a long fraction cut to four significant digits."""
    try:
        value = float(text)
    except ValueError:
        return text
    return f"{value:.4g}" if "." in text and math.isfinite(value) else text


def plain(text: str) -> str:
    """One line without control characters, direction changes or lone surrogates."""
    kept = (
        "" if unicodedata.category(c) in ("Cc", "Cf", "Cs") else c for c in text.replace("\n", " ")
    )
    return "".join(kept)


class Judged(Protocol):
    """What of a gate's result decides how its number is said."""

    @property
    def metric(self) -> str:
        """Its name."""
        ...

    @property
    def threshold(self) -> str:
        """What was wanted."""
        ...

    @property
    def value(self) -> float | None:
        """The measured number."""
        ...

    @property
    def low(self) -> float | None:
        """Its lower limit."""
        ...

    @property
    def high(self) -> float | None:
        """Its upper limit."""
        ...


def gate_value(result: Judged) -> str:
    """A gate's measured number in its own unit: a share, a difference in points, a distance."""
    if result.metric == DISTANCE:
        return number(result.value, 4)
    if result.value is not None and is_difference(result):
        return f"{points(result.value)} points"
    return percent(result.value)


def gate_limits(result: Judged) -> str:
    """Its limits as `[78.0, 96.2]`, in the unit of `gate_value`, or a dash."""
    if result.low is None or result.high is None:
        return NOTHING
    if result.metric == DISTANCE:
        return f"[{result.low:.4g}, {result.high:.4g}]"
    if is_difference(result):
        return f"[{points(result.low)}, {points(result.high)}]"
    return f"[{interval(result.low, result.high)}]"


def is_difference(result: Judged) -> bool:
    """Whether its number is a difference from a baseline."""
    return result.threshold.startswith(DIFFERENCE)
