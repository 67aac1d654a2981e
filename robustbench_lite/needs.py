"""Which cells the gates of a suite need: to be run first, and perhaps to be stopped early."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .errors import SuiteError
from .sequential import COUNTED
from .types import CLEAN, WORST_CASE, Cell, Gate
from .words import Problem, render

ALL = "all"
WORST = "worst_case_robust_accuracy"
CLEAN_ACCURACY = "clean_accuracy"


def needed(gates: Iterable[Gate], cells: Sequence[Cell]) -> set[str]:
    """Ids of the cells that the gates read, and of the clean passes under them."""
    read = [cell for gate in gates for cell in cells if _reads(gate, cell)]
    beneath = {(cell.model, cell.dataset) for cell in read}
    clean = [c for c in cells if c.attack == CLEAN and (c.model, c.dataset) in beneath]
    return {cell.id for cell in (*read, *clean)}


def stops(gates: Sequence[Gate], cells: Sequence[Cell]) -> dict[str, tuple[Gate, ...]]:
    """Cell id -> the sequential gates that may end it; a cell that another gate reads runs whole.

    Raises SuiteError for a sequential gate on what several cells decide together.
    """
    problems = [problem for gate in gates for problem in _problems(gate, cells)]
    if problems:
        raise SuiteError([render(problem) for problem in problems])
    readers: dict[str, list[Gate]] = {}
    for cell in cells:  # the same measurement may stand under two names
        known = readers.setdefault(cell.id, [])
        known += [gate for gate in gates if _reads(gate, cell) and gate not in known]
    return {
        cell_id: tuple(reading)
        for cell_id, reading in readers.items()
        if reading and all(gate.sequential for gate in reading)
    }


def _problems(gate: Gate, cells: Sequence[Cell]) -> Iterable[Problem]:
    if not gate.sequential:
        return
    if gate.metric not in COUNTED:
        together = gate.metric == WORST
        yield _problem(
            gate,
            f"{gate.metric} cannot be judged sequentially",
            "a worst case is decided by several attacks together: gate on one of them with"
            " robust_accuracy, or leave sequential away"
            if together
            else f"leave sequential away; it takes one of {', '.join(COUNTED)}",
        )
    elif any(cell.union and cell.family == gate.attack for cell in cells):
        yield _problem(
            gate,
            f"'{gate.attack}' stands for several attacks that are judged together, which cannot"
            " be done sequentially",
            "name one attack, or leave sequential away",
        )


def _problem(gate: Gate, message: str, advice: str) -> Problem:
    path = f"gates.{gate.name}.sequential"
    return Problem(where=gate.where, path=path, message=message, helps=(advice,))


def _reads(gate: Gate, cell: Cell) -> bool:
    """Whether the gate's answer takes this cell; of a worst case every smaller eps too.

    A gate on an analysis takes them all: nobody knows what the analysis reads.
    """
    if gate.analysis is not None:
        return True
    if gate.model not in {None, cell.model} or gate.dataset not in {None, cell.dataset}:
        return False
    of_clean = gate.metric == CLEAN_ACCURACY or gate.attack == CLEAN
    if cell.attack == CLEAN or of_clean:
        return cell.attack == CLEAN and of_clean
    if gate.norm not in {None, cell.norm}:
        return False
    worst = gate.metric == WORST or gate.attack == WORST_CASE
    named = gate.attack in {cell.entry, cell.family}
    any_attack = gate.attack in {None, ALL} and cell.role == "attack"
    return _in_reach(gate, cell, worst=worst) and (worst or named or any_attack)


def _in_reach(gate: Gate, cell: Cell, *, worst: bool) -> bool:
    if gate.eps is None:
        return True
    if cell.eps is None:
        return False
    return cell.eps.value <= gate.eps.value if worst else cell.eps.value == gate.eps.value
