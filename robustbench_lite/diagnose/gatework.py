"""What each gate rests on, and whether that is enough to say what it says: warnings.

A gate rests, at one model, dataset, norm and eps, on the attacks whose rate it reads: on one entry,
on all of them (a worst case, `attack: all`), or on the members of a family that counts as one. A
gate on less is not accused where another gate of the suite asks for more: for an attack that
searches on the model itself, at the same norm and an eps that is not smaller. A gate on noise
beside a gate on the worst case is a gate on noise, not a claim of robustness.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..types import Cell, CellResult, Component, Eps, Finding, Gate, Samples
from .enough import GRADIENT_ATTACK, GRADIENT_FREE_ATTACK, NONE_BUILT_IN, STANDARD, to_add
from .grid import (
    Bits,
    Broken,
    Grid,
    Spot,
    checks_gradients,
    follows_gradients,
    has_spot,
    is_single_step,
    is_transfer,
    reaches,
    read,
    searches,
    spot_of,
    surely,
    union,
)

FAR_BELOW = 0.05  # of n: the worst case below the gated rate, before the gate says too little
ALL = "all"
WORST = "worst_case_robust_accuracy"
STAYS = frozenset({"robust_accuracy", WORST})
BREAKS = frozenset({"attack_success_rate", "adversarial_error"})


@dataclass(frozen=True, slots=True)
class _Rest:
    """One gate at one spot, with the attacks that it reads there, finished or not.

    `broken`: those of them that are valid.
    """

    gate: Gate
    spot: Spot
    eps: Eps
    cells: tuple[Cell, ...]
    broken: tuple[Broken, ...]


def of_gates(
    gates: Sequence[Gate],
    cells: Sequence[Cell],
    results: Mapping[str, CellResult],
    samples: Callable[[str], Samples | None],
    models: Mapping[str, Component],
    *,
    invalid: Collection[str] = (),
) -> list[Finding]:
    """Gates that rest on a weak attack, or miss a kind of attack, in the order of the gates.

    `models`: of the plan, for what each offers. `samples` and `invalid` as in `across.of_grid`.
    """
    return of_bits(gates, cells, read(cells, results, samples, invalid), models)


def of_bits(
    gates: Sequence[Gate], cells: Sequence[Cell], grid: Grid, models: Mapping[str, Component]
) -> list[Finding]:
    """The same for tables that are read already."""
    rests = [rest for gate in gates for rest in _rests(gate, cells, grid)]
    found: list[Finding] = []
    for group in _grouped(rests, lambda rest: (rest.gate.name, *_subject(rest))):
        found += _on_weak_kind([r for r in group if _is_weak(r, rests)], cells)
        found += _far_above_worst([r for r in group if _is_far_above(r, rests, grid)], grid)
        found += _without_budget([r for r in group if _is_empty(r, rests)])
    for group in _grouped(rests, _subject):
        found += _unchecked([r for r in group if _lacks_check(r, grid)], cells)
        found += _without_gradients([r for r in group if _lacks_gradients(r, cells)], cells, models)
    return found


def _grouped(
    rests: Sequence[_Rest], key: Callable[[_Rest], tuple[str, ...]]
) -> Iterable[list[_Rest]]:
    groups: dict[tuple[str, ...], list[_Rest]] = {}
    for rest in rests:
        groups.setdefault(key(rest), []).append(rest)
    return groups.values()


def _subject(rest: _Rest) -> tuple[str, ...]:
    return rest.spot.model, rest.spot.dataset, rest.spot.norm


def _rests(gate: Gate, cells: Sequence[Cell], grid: Grid) -> list[_Rest]:
    """The spots of a gate; a worst case is there where an attack spends that very eps."""
    if not _claims_robustness(gate):
        return []
    finished = {each.cell.id: each for each in grid.broken()}
    at: dict[Spot, list[Cell]] = {}
    for cell in cells:
        if has_spot(cell) and _selects(gate, cell):
            at.setdefault(spot_of(cell), []).append(cell)
    return [
        _Rest(gate, spot, _eps(here), tuple(here), _finished(here, finished))
        for spot, here in at.items()
    ]


def _claims_robustness(gate: Gate) -> bool:
    """A floor on what stays, or a ceiling on what breaks; any other bound fails safe."""
    if gate.metric in STAYS:
        return gate.minimum is not None
    return gate.metric in BREAKS and gate.maximum is not None


def _eps(here: Sequence[Cell]) -> Eps:
    assert here[0].eps is not None
    return here[0].eps


def _finished(here: Sequence[Cell], finished: Mapping[str, Broken]) -> tuple[Broken, ...]:
    return tuple(finished[cell.id] for cell in here if cell.id in finished)


def _selects(gate: Gate, cell: Cell) -> bool:
    return (
        _kind_matches(gate, cell)
        and gate.model in {None, cell.model}
        and gate.dataset in {None, cell.dataset}
        and gate.norm in {None, cell.norm}
        and (gate.eps is None or (cell.eps is not None and cell.eps.value == gate.eps.value))
    )


def _kind_matches(gate: Gate, cell: Cell) -> bool:
    if gate.metric == WORST or gate.attack in {None, ALL}:
        return cell.role == "attack"
    return gate.attack in {cell.entry, cell.family}


# ---------------------------------------------------------------- what a gate rests on


def _strong(rest: _Rest) -> bool:
    """Whether a valid attack among them searches on the model itself."""
    return any(searches(each.cell) for each in rest.broken)


def _asked_for_more(rest: _Rest, rests: Sequence[_Rest]) -> list[_Rest]:
    """Other rests of any gate on a searching attack, at no smaller budget."""
    return [
        other
        for other in rests
        if other is not rest and reaches(rest.spot, other.spot) and _strong(other)
    ]


def _is_weak(rest: _Rest, rests: Sequence[_Rest]) -> bool:
    return bool(rest.broken) and not _strong(rest) and not _asked_for_more(rest, rests)


def _on_weak_kind(rests: Sequence[_Rest], cells: Sequence[Cell]) -> list[Finding]:
    if not rests:
        return []
    kinds = dict.fromkeys(_kind(each.cell) for rest in rests for each in rest.broken)
    gate, radii = rests[0].gate, _radii(rests)
    floor = gate.minimum if gate.minimum is not None else 1 - (gate.maximum or 0)
    eps = f", eps: {radii[0].text}" if len(radii) == 1 else ""
    rule = f"{{metric: {WORST}, norm: {rests[0].spot.norm}{eps}, min: {floor:.6g}}}"
    return [
        _warning(
            "gate-on-single-step",
            f"gate '{gate.name}' rests on {' and '.join(kinds)} alone {_where(rests)}: a"
            " stronger attack may leave much less",
            f"{_to_add(cells, rests, STANDARD)}, and `worst-case: {rule}` to `gates:`",
            rests,
        )
    ]


def _kind(cell: Cell) -> str:
    if cell.role == "control":
        return f"noise ('{cell.entry}')"
    if is_transfer(cell):
        return f"a transfer ('{cell.entry}' from '{cell.source}')"
    what = "a single step" if is_single_step(cell) else "an attack that does not search"
    return f"{what} ('{cell.entry}')"


def _is_far_above(rest: _Rest, rests: Sequence[_Rest], grid: Grid) -> bool:
    if not rest.broken or rest.gate.metric == WORST or not _too_good(rest, grid):
        return False
    return all(_too_good(other, grid) for other in _asked_for_more(rest, rests))


def _far_above_worst(rests: Sequence[_Rest], grid: Grid) -> list[Finding]:
    """The gated rate against all that is known to break at that eps and below; the widest gap."""
    if not rests:
        return []
    rest = max(rests, key=lambda each: _missed(each, grid))
    correct, missed = grid.clean[rest.spot.model, rest.spot.dataset].correct, _missed(rest, grid)
    n, left = len(correct), int((correct & ~_own(rest)).sum())
    return [
        _warning(
            "weak-gated-attack",
            f"gate '{rest.gate.name}' reads a robust accuracy of {100 * left / n:.1f} %"
            f" {_where([rest])};"
            f" other attacks break {missed} more of the {n} samples, which leaves"
            f" {100 * (left - missed) / n:.1f} %",
            f"gate on the worst case too: `metric: {WORST}, norm: {rest.spot.norm},"
            f" eps: {rest.eps.text}`",
            rests,
            {"samples": n, "gated robust": left, "known robust": left - missed},
        )
    ]


def _own(rest: _Rest) -> Bits:
    return union(rest.broken, rest.broken[0].bits)


def _missed(rest: _Rest, grid: Grid) -> int:
    own = _own(rest)
    return int((union(grid.within(rest.spot), own) & ~own).sum())


def _too_good(rest: _Rest, grid: Grid) -> bool:
    return surely(_missed(rest, grid), len(rest.broken[0].bits), FAR_BELOW)


def _is_empty(rest: _Rest, rests: Sequence[_Rest]) -> bool:
    """Whether it is at eps 0, and no gate asks for any robustness of that model in that norm."""
    same = [other for other in rests if _subject(other) == _subject(rest)]
    return all(other.spot.eps == 0 for other in same)


def _without_budget(rests: Sequence[_Rest]) -> list[Finding]:
    if not rests:
        return []
    return [
        _warning(
            "gate-without-budget",
            f"gate '{rests[0].gate.name}' asks for nothing {_where(rests)}: at eps 0 no input is"
            " changed, and its robust accuracy is the clean accuracy",
            "gate at the eps of your threat model, such as 8/255",
            rests,
        )
    ]


# ---------------------------------------------------------------- kinds of attack that are missing


def _lacks_check(rest: _Rest, grid: Grid) -> bool:
    """Whether it rests on gradients where nothing without gradients looked."""
    white = any(follows_gradients(each.cell) for each in rest.broken)
    return white and not any(checks_gradients(each.cell) for each in grid.at(rest.spot))


def _unchecked(rests: Sequence[_Rest], cells: Sequence[Cell]) -> list[Finding]:
    if not rests:
        return []
    norm = rests[0].spot.norm
    attack = GRADIENT_FREE_ATTACK.get(norm)
    return [
        _warning(
            "no-gradient-free-check",
            "no gradient-free attack ran beside the gradient attacks that are gated"
            f" {_where(rests)}",
            _to_add(cells, rests, attack) if attack else NONE_BUILT_IN.format(norm=norm),
            rests,
        )
    ]


def _lacks_gradients(rest: _Rest, cells: Sequence[Cell]) -> bool:
    """Whether no gradient attack was planned, where search is not exhaustive either."""
    here = [cell for cell in cells if has_spot(cell) and spot_of(cell) == rest.spot]
    planned = [cell for cell in here if cell.role == "attack" and cell.skip is None]
    return not any(
        cell.access == "gradient" or (cell.effort == "exhaustive" and searches(cell))
        for cell in planned
    )


def _without_gradients(
    rests: Sequence[_Rest], cells: Sequence[Cell], models: Mapping[str, Component]
) -> list[Finding]:
    having = [name for name, model in models.items() if model.access == "gradient"]
    if not rests or not having:
        return []
    line = _to_add(cells, rests, GRADIENT_ATTACK[rests[0].spot.norm])
    own = rests[0].spot.model in having
    possible = "the model offers gradients" if own else f"'{having[0]}' offers gradients to use"
    return [
        _warning(
            "no-gradient-attack",
            f"no gradient attack runs {_where(rests)}, which is gated, and {possible}",
            line if own else f"{line}, and craft it there with `source: {having[0]}`",
            rests,
        )
    ]


def _to_add(cells: Sequence[Cell], rests: Sequence[_Rest], attack: str) -> str:
    return to_add(cells, rests[0].spot, _radii(rests), attack)


def _radii(rests: Sequence[_Rest]) -> list[Eps]:
    return list({rest.spot.eps: rest.eps for rest in rests}.values())


def _where(rests: Sequence[_Rest]) -> str:
    spot = rests[0].spot
    radii = ", ".join(eps.text for eps in _radii(rests))
    return f"at {spot.norm} {radii} on '{spot.model}' with '{spot.dataset}'"


def _warning(
    name: str,
    message: str,
    advice: str,
    rests: Sequence[_Rest],
    numbers: Mapping[str, float] | None = None,
) -> Finding:
    touched = dict.fromkeys(cell.id for rest in rests for cell in rest.cells)
    return Finding(
        id=name,
        severity="warning",
        message=message,
        advice=advice,
        cells=tuple(touched),
        numbers=numbers or {},
    )
