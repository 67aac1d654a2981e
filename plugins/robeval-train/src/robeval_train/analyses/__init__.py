"""Analyses of the paper that the recipes were first written for, each a table of one run."""

from __future__ import annotations

from collections.abc import Iterable

from robustbench_lite import AnalysisSpec

from . import (
    agreement,
    confidence,
    growth,
    paired,
    paths,
    reference,
    rotation,
    rubbish,
    transfer,
    weights,
)


def specs() -> Iterable[AnalysisSpec]:
    """Every analysis of this folder."""
    return [
        agreement.SPEC,
        confidence.SPEC,
        growth.SPEC,
        paired.SPEC,
        paths.SPEC,
        reference.SPEC,
        rotation.SPEC,
        rubbish.SPEC,
        transfer.SPEC,
        weights.SPEC,
    ]
