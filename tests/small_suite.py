"""A small suite with the plug-ins that it needs, for the tests of the language of suites."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, FiniteFloat, model_validator

from robustbench_lite import (
    AnalysisSpec,
    AttackSpec,
    DatasetSpec,
    ModelSpec,
    Params,
    Places,
    ReporterSpec,
    SuitePath,
    hookimpl,
    suite,
)
from robustbench_lite.errors import SuiteError
from robustbench_lite.plugins import build
from robustbench_lite.types import Norm, Suite


class PgdParams(Params):
    """Parameters of many kinds."""

    steps: int = Field(default=40, ge=1, le=1000)
    step_size: FiniteFloat | None = Field(default=None, gt=0)
    loss: Literal["cross-entropy", "margin"] = "cross-entropy"
    random_start: bool = True

    @model_validator(mode="after")
    def _enough(self) -> PgdParams:
        if self.loss == "margin" and self.steps < 2:
            raise ValueError("the margin loss needs at least 2 steps")
        return self


class FileParams(Params):
    """A model file."""

    path: SuitePath
    labels: SuitePath | None = None
    mean: float | tuple[float, ...] = 0.0
    token: str | None = None
    shape: Annotated[tuple[int, ...], Field(min_length=1)] | None = None


def nothing() -> None:
    """The implementation of every spec here: parsing a suite never calls one."""


def spec(name: str, norms: tuple[Norm, ...], **own: Any) -> AttackSpec:
    """An attack that nobody will call."""
    fields = {"implementation": nothing, "summary": "", "access": "none", **own}
    return AttackSpec(name=name, norms=norms, **fields)


class Specs:
    """The plug-in of these tests."""

    @hookimpl
    def robeval_attacks(self) -> Iterable[AttackSpec]:
        return [
            spec("fgsm", ("linf", "l2")),
            spec("pgd", ("linf",), params=PgdParams, targeted=True),
            spec("pixel", ("l0",), default_eps="1"),
            spec("vague", ("linf",), default_eps="wide"),
        ]

    @hookimpl
    def robeval_models(self) -> Iterable[ModelSpec]:
        return [ModelSpec(name="onnx", implementation=nothing, summary="", params=FileParams)]

    @hookimpl
    def robeval_datasets(self) -> Iterable[DatasetSpec]:
        return [DatasetSpec(name="mnist", implementation=nothing, summary="")]

    @hookimpl
    def robeval_analyses(self) -> Iterable[AnalysisSpec]:
        return [AnalysisSpec(name="spectrum", implementation=nothing, summary="", params=PgdParams)]

    @hookimpl
    def robeval_reporters(self) -> Iterable[ReporterSpec]:
        names = ("html", "markdown", "csv", "parquet", "junit")
        return [ReporterSpec(name=n, implementation=nothing, summary="", files=()) for n in names]


REGISTRY = build([Specs()])
PLACES = Places(suite=Path("suites"), data=None, cache=Path("cache"))

BASE = """\
schema: 1
models:
  m: {load: onnx, path: models/m.onnx}
datasets:
  d: {load: mnist}
attacks:
  f: {attack: fgsm, eps: [0.1, 8/255]}
"""


def read(
    text: str, *, overrides: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> Suite:
    return suite.loads(
        text, REGISTRY, path=Path("suites/s.yaml"), overrides=overrides, env=env, places=PLACES
    )


def told(text: str, *, overrides: Sequence[str] = (), env: Mapping[str, str] | None = None) -> str:
    """Everything that the user of a wrong suite is told."""
    with pytest.raises(SuiteError) as caught:
        read(text, overrides=overrides, env=env)
    return str(caught.value)


def attack(body: str) -> str:
    """The base suite with one attack `a`."""
    return BASE.replace("f: {attack: fgsm, eps: [0.1, 8/255]}", f"a: {{{body}}}")


def with_dataset(keys: str) -> str:
    return BASE.replace("load: mnist", f"load: mnist, {keys}")


def gate(keys: str) -> str:
    return BASE + f"gates:\n  g: {{{keys}}}\n"


SOURCES = BASE.replace("path: models/m.onnx}", "path: m.onnx}\n  s: {load: onnx, path: s.onnx}")
