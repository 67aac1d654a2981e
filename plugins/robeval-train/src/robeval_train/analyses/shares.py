"""Shares of counts with their two-sided 95 % Wilson limits, as columns of a table."""

from __future__ import annotations

import math

from robustbench_lite import Column


def share(name: str, count: int, n: int) -> dict[str, float]:
    """`name`, `name_lo`, `name_hi`; NaN where n is 0."""
    if n == 0:
        return dict.fromkeys((name, f"{name}_lo", f"{name}_hi"), math.nan)
    from scipy.stats import binomtest

    limits = binomtest(count, n).proportion_ci(0.95, method="wilson")
    return {name: count / n, f"{name}_lo": float(limits.low), f"{name}_hi": float(limits.high)}


def column(name: str, title: str) -> Column:
    """How the report shows such a share: in percent, its limits below it."""
    return Column(name=name, title=title, shown="percent", low=f"{name}_lo", high=f"{name}_hi")
