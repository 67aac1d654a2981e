"""The pre-flight record as rules read it: numbers by name, and a finding that shows them."""

from __future__ import annotations

from collections.abc import Mapping

from ..preflight import keys
from ..types import Finding, Severity

Observed = Mapping[str, float]


def finding(
    name: str,
    severity: Severity,
    message: str,
    advice: str,
    observed: Observed,
    *shown: str,
) -> Finding:
    """A finding of a record, of no cell as yet; `shown`: the numbers behind it."""
    numbers = {key.removeprefix(keys.HEAD): observed.get(key, 0.0) for key in shown}
    return Finding(
        id=name, severity=severity, message=message, advice=advice, cells=(), numbers=numbers
    )


def named(observed: Observed, head: str) -> dict[str, float]:
    """The numbers whose names begin with `head`, by what follows it."""
    return {key.removeprefix(head): v for key, v in observed.items() if key.startswith(head)}
