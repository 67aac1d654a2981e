"""Whether the attacks at one eps carry a worst case, and the line of a suite that would help."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence

from ..types import Cell, CellResult, Eps, Norm
from .grid import Spot, checks_gradients, has_spot, searches, spot_of, valid

STANDARD = "standard"  # the family that picks the right attacks
GRADIENT_ATTACK: Mapping[Norm, str] = {
    "linf": "apgd",
    "l2": "apgd",
    "l1": "apgd",
    "l0": "sigma-zero",
}
GRADIENT_FREE_ATTACK: Mapping[Norm, str] = {"linf": "square", "l2": "square", "l0": "sparse-rs"}
NONE_BUILT_IN = "no built-in attack in {norm} does without gradients: add one of a plug-in"


def evidence(
    cells: Sequence[Cell],
    results: Mapping[str, CellResult],
    invalid: Collection[str],
    *,
    model: str,
    dataset: str,
    norm: Norm,
    eps: Eps,
) -> str:
    """Why attacks at that eps do not carry a worst case, with the line to add; "" if they do.

    They do with a valid iterative (or exhaustive, or minimal-norm) attack and a valid gradient-free
    one on the model itself; one that searches on scores or decisions is both. Transfer and noise
    count for neither.
    """
    spot = Spot(model, dataset, norm, eps.value)
    here = [cell for cell in cells if has_spot(cell) and spot_of(cell) == spot]
    finished = [cell for cell in here if valid(cell, results, invalid)]
    thorough = any(searches(cell) for cell in finished)
    checked = any(checks_gradients(cell) for cell in finished)
    if thorough and checked:
        return ""
    missing = [] if thorough else ["iterative or minimal-norm"]
    missing += [] if checked else ["gradient-free"]
    lacking = f"no valid {' and no '.join(missing)} attack"
    where = f"at {norm} {eps.text} on '{model}' with '{dataset}'{_spoilt(here, finished)}"
    return f"{lacking} {where}: {_lines(cells, spot, eps, missing)}"


def _spoilt(here: Sequence[Cell], finished: Sequence[Cell]) -> str:
    names = [f"'{cell.entry}'" for cell in here if cell.role == "attack" and cell not in finished]
    return f" ({', '.join(dict.fromkeys(names))} did not give a valid result)" if names else ""


def _lines(cells: Sequence[Cell], spot: Spot, eps: Eps, missing: Sequence[str]) -> str:
    if len(missing) == 2 and spot.norm in GRADIENT_FREE_ATTACK:
        return to_add(cells, spot, [eps], STANDARD)
    wanted = GRADIENT_ATTACK if "gradient-free" not in missing else GRADIENT_FREE_ATTACK
    if spot.norm not in wanted:
        return f"{NONE_BUILT_IN.format(norm=spot.norm)}, or gate on one attack instead"
    return to_add(cells, spot, [eps], wanted[spot.norm])


def to_add(cells: Sequence[Cell], spot: Spot, radii: Sequence[Eps], attack: str) -> str:
    """The line of a suite that runs `attack` at `radii`, or the entry whose grid should have them.

    `spot` gives model, dataset and norm.
    """
    known = [
        (cell.family or cell.entry, spot_of(cell).eps)
        for cell in cells
        if has_spot(cell)
        and (cell.model, cell.dataset, cell.norm) == (spot.model, spot.dataset, spot.norm)
        and cell.source == cell.model
        and not cell.implicit
        and (cell.union if attack == STANDARD else cell.attack == attack and cell.family is None)
    ]
    texts = ", ".join(each.text for each in radii)
    there = {name for name, radius in known if radius in {each.value for each in radii}}
    if there:
        return f"'{min(there)}' is there and gave no valid result: mend it by its own finding"
    if known:
        return f"add {texts} to the `eps:` of attack '{known[0][0]}'"
    taken = {cell.entry for cell in cells} | {cell.family for cell in cells}
    names = itertools.chain([attack], (f"{attack}-{number}" for number in itertools.count(2)))
    name = next(name for name in names if name not in taken)
    grid = texts if len(radii) == 1 else f"[{texts}]"
    return f"add `{name}: {{attack: {attack}, norm: {spot.norm}, eps: {grid}}}` to `attacks:`"
