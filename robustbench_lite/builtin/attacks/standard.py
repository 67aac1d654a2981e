"""The attacks a credible evaluation needs, picked by what a model offers and by the norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NoReturn

from pydantic import Field

from robustbench_lite import Access, AttackSpec, Member, Norm, Params

_CHECK = "needs no gradient and sees every sample: a gradient that misleads cannot mislead it"
_SCORES = "the model gives scores and no gradients"


class StandardParams(Params):
    """How much is spent."""

    version: Literal["standard", "plus", "rand"] = Field(
        default="standard", description="of the AutoAttack cascade; rand: for a randomised model"
    )
    queries: int = Field(
        default=1000, ge=1, description="of the gradient-free check beside gradient attacks"
    )


def standard(*_: object, **__: object) -> NoReturn:
    """Never called: the plan has its members."""
    raise AssertionError("an entry `attack: standard` is planned as the attacks it stands for")


def _members(params: Params, norm: Norm, access: Access) -> Sequence[Member]:
    assert isinstance(params, StandardParams)
    if access == "gradient":
        return _with_gradients(params, norm)
    if access == "score":
        return _with_scores(norm)
    if access == "decision" and norm in {"linf", "l2"}:
        why = "the model gives decisions alone"
        return (Member(label="hopskipjump", attack="hopskipjump", why=why),)
    return ()


def _with_gradients(params: StandardParams, norm: Norm) -> Sequence[Member]:
    check = {"queries": params.queries}
    if norm in {"linf", "l2"}:
        cascade = "the model gives gradients: four attacks in cascade, on those that are left"
        return (
            Member(
                label="autoattack",
                attack="autoattack",
                why=cascade,
                params={"version": params.version},
            ),
            Member(label="square", attack="square", why=_CHECK, params=check),
        )
    if norm == "l1":
        ascent = "the model gives gradients: ascent in the l1 ball, towards each likely class"
        return (
            Member(label="apgd", attack="apgd", why="the model gives gradients"),
            Member(label="apgd-t", attack="apgd", why=ascent, params={"loss": "dlr-targeted"}),
            Member(label="fab", attack="fab", why="nearest points, another road to the boundary"),
        )
    return (
        Member(label="sigma-zero", attack="sigma-zero", why="the model gives gradients"),
        Member(label="sparse-rs", attack="sparse-rs", why=_CHECK, params=check),
    )


def _with_scores(norm: Norm) -> Sequence[Member]:
    if norm == "l0":
        return (Member(label="sparse-rs", attack="sparse-rs", why=_SCORES),)
    if norm in {"linf", "l2"}:
        return (Member(label="square", attack="square", why=_SCORES),)
    return ()


SPEC = AttackSpec(
    name="standard",
    implementation=standard,
    summary="the right set for the model and norm, with controls: AutoAttack and a gradient-free"
    " check, or Square, Sparse-RS, HopSkipJump",
    norms=("linf", "l2", "l1", "l0"),
    access="decision",
    params=StandardParams,
    paper="https://arxiv.org/abs/2003.01690",
    effort="iterative",
    carries=True,
    members=_members,
    union=True,
)
