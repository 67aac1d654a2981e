"""Attacks that break the contract, each in one way; loaded by tests as a plug-in of its own."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from robustbench_lite import (
    AnalysisSpec,
    AttackSpec,
    Budget,
    Classifier,
    ExecutorSpec,
    ReporterSpec,
    SampleRng,
    hookimpl,
)


def out_of_ball(
    model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng
) -> Tensor:
    return (x + 1.01 * budget.eps * (0.5 - x).sign()).clamp(0, 1)


def out_of_box(
    model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng
) -> Tensor:
    return x - budget.eps


def nan(model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng) -> Tensor:
    return x * float("nan")


def wrong_shape(
    model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng
) -> Tensor:
    return x.flatten(1)


def claims_success(
    model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng
) -> tuple[Tensor, Tensor]:
    return x, torch.ones_like(y, dtype=torch.bool)


def integers(model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng) -> Tensor:
    return x.round().long()


def clean(model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng) -> Tensor:
    return x


def raises(model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng) -> Tensor:
    raise ZeroDivisionError("the attack gave up")


def leaves(model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng) -> Tensor:
    sys.exit(0)


def global_rng(
    model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng
) -> Tensor:
    noise = torch.rand_like(x) + random.random() + float(np.random.rand())  # noqa: NPY002
    return (x + budget.eps * (noise - 1.5).clamp(-1, 1)).clamp(0, 1)


def changes_weights(
    model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng
) -> Tensor:
    artefact = model._memory.model.differentiable  # type: ignore[attr-defined]
    for parameter in artefact.parameters():
        parameter.data.zero_()
    return (x + budget.eps * (0.5 - x).sign()).clamp(0, 1)


def changes_copy(
    model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng
) -> Tensor:
    for parameter in model.module().parameters():
        parameter.data.zero_()
    return (x + budget.eps * (0.5 - x).sign()).clamp(0, 1)


def changes_input(
    model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng
) -> Tensor:
    return x.add_(budget.eps * (0.5 - x).sign()).clamp_(0, 1)


def greedy(model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng) -> Tensor:
    return x + model.gradient(x, y)


LIES = {
    "out-of-ball": out_of_ball,
    "out-of-box": out_of_box,
    "nan": nan,
    "wrong-shape": wrong_shape,
    "claims-success": claims_success,
    "integers": integers,
    "returns-clean": clean,
    "raises": raises,
    "leaves": leaves,
    "global-rng": global_rng,
    "changes-weights": changes_weights,
    "changes-copy": changes_copy,
    "changes-input": changes_input,
}


@hookimpl
def robeval_attacks() -> Iterable[AttackSpec]:
    for name, implementation in LIES.items():
        yield AttackSpec(
            name=f"lie-{name}",
            implementation=implementation,
            summary="breaks the contract",
            norms=("linf",),
            access="gradient",
        )
    yield AttackSpec(
        name="lie-greedy",
        implementation=greedy,
        summary="asks for gradients and declares scores",
        norms=("linf",),
        access="score",
    )


def breaks(*_: object, **__: object) -> None:
    raise KeyError("no such column")


def exits(*_: object, **__: object) -> None:
    sys.exit(0)


def no_table(*_: object, **__: object) -> None:
    return None


@hookimpl
def robeval_analyses() -> Iterable[AnalysisSpec]:
    for name, function in (("breaks", breaks), ("exits", exits), ("no-table", no_table)):
        yield AnalysisSpec(name=f"lie-{name}", implementation=function, summary="has no table")


@hookimpl
def robeval_reporters() -> Iterable[ReporterSpec]:
    for name, function in (("breaks", breaks), ("exits", exits)):
        yield ReporterSpec(
            name=f"lie-{name}", implementation=function, summary="writes nothing", files=()
        )


@hookimpl
def robeval_executors() -> Iterable[ExecutorSpec]:
    yield ExecutorSpec(name="lie-exits", implementation=exits, summary="computes nothing")
