"""Agreement as it depends on how the models were trained: one row for each case."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, FiniteFloat

from robustbench_lite import AnalysisSpec, Column, ModelError, Params

from .agreement import Named, named
from .shares import column, share

if TYPE_CHECKING:
    import pandas as pd

    from robustbench_lite import StoredRun

SHARES = ("error", "second_wrong", "third_wrong", "A1", "A2", "A3", "A4", "A5")
Share = Annotated[FiniteFloat, Field(ge=0, le=1)]


class Case(Params):
    """`what`: of the row. `attack`, `first`, `second`, `third`: as for `agreement`."""

    what: str
    attack: str
    first: str
    second: str
    third: str


class TransferParams(Params):
    """`paper`: its shares, such as `{A1: 0.16}`, as the first row. `cases`: the other rows."""

    paper: dict[str, Share] = Field(default_factory=dict)
    cases: tuple[Case, ...] = Field(min_length=1)


def transfer(run: StoredRun, *, paper: dict[str, float], cases: tuple[Case, ...]) -> pd.DataFrame:
    """A1 to A5 of `agreement`, and what they depend on, in one row per case.

    clean_error, error, confidence: of the first model, confidence on its mistakes. n: those
    mistakes. second_wrong, third_wrong: the share of them that the second and the third model get
    wrong too; A2 / A3 and A1 / A4 are the same numbers, which is how the row `the paper` has them.
    Raises ModelError for a model or an attack that the run has no samples of.
    """
    import pandas as pd

    rows = [_row(run, case) for case in cases]
    return pd.DataFrame([_told(paper), *rows] if paper else rows, columns=list(rows[0]))


def _row(run: StoredRun, case: Case) -> dict[str, object]:
    import numpy as np

    m, s, r = (_samples(run, case, model) for model in (case.first, case.second, case.third))
    wrong = m.adv != m.label
    both, third = wrong & (s.adv != m.label), wrong & (r.adv != m.label)
    neither = (s.adv != m.label) & (r.adv != m.label)
    agree = {
        "error": (wrong, np.ones_like(wrong)),
        "second_wrong": (both, wrong),
        "third_wrong": (third, wrong),
        "A1": (r.adv == m.adv, wrong),
        "A2": (s.adv == m.adv, wrong),
        "A3": (s.adv == m.adv, both),
        "A4": (r.adv == m.adv, third),
        "A5": (r.adv == s.adv, neither),
    }
    row: dict[str, object] = {"case": case.what, "n": int(wrong.sum())}
    row["clean_error"] = float((m.clean != m.label).mean())
    row["confidence"] = float(m.confidence[wrong].mean()) if wrong.any() else None
    for name in SHARES:
        true, given = agree[name]
        row |= share(name, int((true & given).sum()), int(given.sum()))
    return row


def _samples(run: StoredRun, case: Case, model: str) -> Named:
    found = named(run, case.attack, model)
    if found is None:
        raise ModelError(
            f"transfer, case '{case.what}': the run has no samples of '{case.attack}' on '{model}';"
            " add that attack to the model's line of evaluate"
        )
    return found


def _told(paper: dict[str, float]) -> dict[str, object]:
    row: dict[str, object] = {"case": "the paper", **paper}
    for name, part, whole in (("second_wrong", "A2", "A3"), ("third_wrong", "A1", "A4")):
        if part in paper and paper.get(whole):
            row[name] = paper[part] / paper[whole]
    return row


SPEC = AnalysisSpec(
    name="transfer",
    implementation=transfer,
    summary="agreement of three models for several trainings of them, one row each",
    params=TransferParams,
    paper="https://arxiv.org/abs/1412.6572",
    columns=(
        Column(name="case", title="Case"),
        Column(name="n", title="Mistakes", shown="number"),
        Column(name="clean_error", title="Clean error", shown="percent"),
        Column(name="confidence", title="Confidence", shown="percent"),
        column("error", "Error"),
        column("second_wrong", "Second wrong"),
        column("third_wrong", "Third wrong"),
        column("A1", "A1"),
        column("A2", "A2"),
        column("A3", "A3"),
        column("A4", "A4"),
        column("A5", "A5"),
    ),
)
