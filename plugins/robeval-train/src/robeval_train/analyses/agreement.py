"""Do different models make the same mistakes on one set of adversarial inputs?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustbench_lite import AnalysisSpec, Column, ModelRef, Params

from .shares import column, share

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from robustbench_lite import StoredRun

    Classes = NDArray[np.int64]
    Rows = NDArray[np.bool_]


COLUMNS = ("id", "what", "n", "agreement", "agreement_lo", "agreement_hi", "chance")


@dataclass(frozen=True, slots=True)
class Named:
    """Of each sample: its class, those that a model names before and after, and how surely then."""

    label: Classes
    clean: Classes
    adv: Classes
    confidence: NDArray[np.float32]


class AgreementParams(Params):
    """`attack`: the entry whose inputs all three judge, crafted on one of them (its `source`).

    `first`, `second`, `third`: the paper's maxout network, softmax regression and RBF network.
    """

    attack: str
    first: ModelRef
    second: ModelRef
    third: ModelRef


def agreement(
    run: StoredRun,
    *,
    bench: object,  # noqa: ARG001  (given to whoever refers to models; the run has all it needs)
    attack: str,
    first: str,
    second: str,
    third: str,
) -> pd.DataFrame:
    """A1 to A5 with m, s, r the classes that the three models name on the same inputs.

    A1: r = m among m's mistakes. A2: s = m among m's mistakes. A3: s = m where both are wrong.
    A4: r = m where both are wrong. A5: r = s where both are wrong. chance: the same if the two
    wrong classes were drawn independently from the models' own wrong classes there. Empty where a
    cell of the three has no samples.
    """
    import pandas as pd

    three = [named(run, attack, model) for model in (first, second, third)]
    found = [each for each in three if each is not None]
    if len(found) < len(three):
        return pd.DataFrame([], columns=list(COLUMNS))
    y = found[0].label
    m, s, r = (each.adv for each in found)
    wrong = {"m": m != y, "s": s != y, "r": r != y}
    rows = [
        _row("A1", f"{third} = {first} | {first} wrong", r, m, wrong["m"]),
        _row("A2", f"{second} = {first} | {first} wrong", s, m, wrong["m"]),
        _row("A3", f"{second} = {first} | both wrong", s, m, wrong["m"] & wrong["s"]),
        _row("A4", f"{third} = {first} | both wrong", r, m, wrong["m"] & wrong["r"]),
        _row("A5", f"{third} = {second} | both wrong", r, s, wrong["r"] & wrong["s"]),
    ]
    return pd.DataFrame(rows)


def _row(name: str, what: str, a: Classes, b: Classes, given: Rows) -> dict[str, object]:
    same = int((a[given] == b[given]).sum())
    n = int(given.sum())
    return {
        "id": name,
        "what": what,
        "n": n,
        **share("agreement", same, n),
        "chance": _chance(a[given], b[given]),
    }


def _chance(a: Classes, b: Classes) -> float:
    """Agreement of two independent draws from the marginals of a and b."""
    import numpy as np

    if not len(a):
        return float("nan")
    k = int(max(a.max(), b.max())) + 2
    shares = [np.bincount(each + 1, minlength=k) / len(each) for each in (a, b)]
    return float((shares[0] * shares[1]).sum())


def named(run: StoredRun, attack: str, model: str) -> Named | None:
    """What a model says of the inputs of an attack entry, None without samples of it."""
    for cell in run.plan.cells:
        if (cell.entry, cell.model) == (attack, model):
            table = run.samples(cell.id)
            if table is None:
                return None
            return Named(table.label, table.clean_pred, table.adv_pred, table.adv_confidence)
    return None


SPEC = AnalysisSpec(
    name="agreement",
    implementation=agreement,
    summary="whether three models name the same wrong classes on the same adversarial inputs",
    params=AgreementParams,
    paper="https://arxiv.org/abs/1412.6572",
    columns=(
        Column(name="id", title="Row"),
        Column(name="what", title="Among these, the same class"),
        Column(name="n", title="Samples", shown="number"),
        column("agreement", "Agreement"),
        Column(name="chance", title="By chance", shown="percent"),
    ),
)
