"""Training recipes for robeval, and what the paper that they were first written for measures."""

from __future__ import annotations

from collections.abc import Iterable

from robustbench_lite import (
    AnalysisSpec,
    AttackSpec,
    DatasetSpec,
    ModelSpec,
    ReporterSpec,
    hookimpl,
)

from . import analyses, ensemble, own_loss, relabelled, reporter, whitened
from .training import spec


@hookimpl
def robeval_models() -> Iterable[ModelSpec]:
    """`trained` and `ensemble`."""
    return [spec.SPEC, ensemble.SPEC]


@hookimpl
def robeval_datasets() -> Iterable[DatasetSpec]:
    """`classes-of` and `whitened`."""
    return [relabelled.SPEC, whitened.SPEC]


@hookimpl
def robeval_attacks() -> Iterable[AttackSpec]:
    """`fgsm-own-loss`."""
    return [own_loss.SPEC]


@hookimpl
def robeval_analyses() -> Iterable[AnalysisSpec]:
    """What Goodfellow et al. (2015) measure, and the reference table."""
    return analyses.specs()


@hookimpl
def robeval_reporters() -> Iterable[ReporterSpec]:
    """`reference`."""
    return [reporter.SPEC]
