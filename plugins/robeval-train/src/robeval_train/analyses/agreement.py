"""Do different models make the same mistakes on one set of adversarial inputs?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from robustbench_lite import AnalysisSpec, ModelRef, Params, RobevalError

from .shares import share

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from robustbench_lite import StoredRun

    Classes = NDArray[np.int64]
    Rows = NDArray[np.bool_]


class AgreementParams(Params):
    """`attack`: the entry whose inputs all three judge, crafted on `first`; all white box or not.

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
    wrong classes were drawn independently from the models' own wrong classes there.
    """
    import pandas as pd

    m, y = _named(run, attack, first)
    s, _ = _named(run, attack, second)
    r, _ = _named(run, attack, third)
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


def _named(run: StoredRun, attack: str, model: str) -> tuple[Classes, Classes]:
    """The classes that a model names on the adversarial inputs, and the true ones."""
    cells = [c for c in run.plan.cells if (c.entry, c.model) == (attack, model)]
    tables = [table for cell in cells if (table := run.samples(cell.id)) is not None]
    if len(tables) != 1:
        raise RobevalError(
            f"agreement: expected one finished cell of attack '{attack}' on model '{model}', found"
            f" {len(tables)}"
        )
    return tables[0].adv_pred, tables[0].label


SPEC = AnalysisSpec(
    name="agreement",
    implementation=agreement,
    summary="whether three models name the same wrong classes on the same adversarial inputs",
    params=AgreementParams,
    paper="https://arxiv.org/abs/1412.6572",
)
