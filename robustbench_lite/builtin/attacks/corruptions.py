"""Corruptions: the 15 common corruptions of ImageNet-C, each as an attack of its own."""

# ruff: noqa: ARG001  (the contract of an attack; a family is never called)

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from robustbench_lite import (
    Access,
    AttackSpec,
    Budget,
    Classifier,
    Member,
    Norm,
    Params,
    PluginError,
)

from .corrupt_constants import KINDS, Kind
from .corruption import SPEC as ONE
from .cost import no_passes

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lite import SampleRng


class CorruptionsParams(Params):
    """Parameters of `corruptions`."""

    kinds: tuple[Kind, ...] = Field(
        default=KINDS, min_length=1, description="which of the 15 common corruptions"
    )

    @model_validator(mode="after")
    def _once_each(self) -> Self:
        twice = sorted({kind for kind in self.kinds if self.kinds.count(kind) > 1})
        if twice:
            raise ValueError(f"kinds: '{twice[0]}' stands twice")
        return self


def corruptions(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    budget: Budget,
    rng: SampleRng,
    kinds: tuple[Kind, ...] = KINDS,
) -> Tensor:
    """Never called: an entry of this family stands for one `corruption` per kind.

    The mean over kinds and severities is the analysis `corruption-table`.

    Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions and
    perturbations", ICLR 2019.
    """
    raise PluginError(f"corruptions is a family of attacks: run `{ONE.name}` with one `kind`")


def _members(params: Params, norm: Norm, access: Access) -> Sequence[Member]:
    assert isinstance(params, CorruptionsParams)
    return [
        Member(
            label=kind,
            attack=ONE.name,
            params={"kind": kind},
            why="one of the 15 common corruptions",
        )
        for kind in params.kinds
    ]


SPEC = AttackSpec(
    name="corruptions",
    implementation=corruptions,
    summary="the 15 common corruptions of images at five severities; no worst case",
    norms=("none",),
    access="none",
    params=CorruptionsParams,
    paper=ONE.paper,
    effort="random",
    default_eps=ONE.default_eps,
    cost=no_passes,
    members=_members,
)
