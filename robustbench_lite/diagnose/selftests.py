"""What the attacks did with adversarial examples that were planted for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..craft import ZERO_GRADIENT
from ..group import ATTACKABLE, UNBROKEN
from ..selftest import AGAIN, BROKEN, FOUND_AGAIN, PASSED, PLANTED, TESTED, allowed, starved
from ..types import Cell, CellResult, Finding
from .budgets import Extent, radius
from .cells import ZERO_GRADIENT_ERROR
from .subject import subject

_NUMBERS = (TESTED, PLANTED, BROKEN, AGAIN, FOUND_AGAIN)
FEW = 8
"""Samples below which it may be chance that none of them has a plant."""
FELT = 1 / 255
"""Of the way across the box: there, 30 of 32 samples of an adversarially trained network have a
plant, and all of an undefended one; the scores of a far smaller ball may well stand still."""


def of_self_tests(
    cells: Sequence[Cell],
    results: Mapping[str, CellResult],
    *,
    on: bool,
    extents: Mapping[str, Extent],
) -> list[Finding]:
    """An error for each attack that misses them or has none, a note on the rest, model by model.

    `extents`: box and shape of each dataset.
    """
    if not on:
        return [_off(cells)] if any(cell.role == "attack" for cell in cells) else []
    found: list[Finding] = []
    for model in dict.fromkeys(cell.model for cell in cells):
        tested = _tested([cell for cell in cells if cell.model == model], results)
        failed = [group for group in tested if _misses(results[group[0].id].observed)]
        failed = [group for group in failed if _doubtful(group, results)]
        found += [
            _failure(_doubtful(group, results), results[group[0].id].observed) for group in failed
        ]
        still = [
            (group, doubtful)
            for group in tested
            if (doubtful := _doubtful(group, results)) and _stands(group, results, extents)
        ]
        found += [_unmoved(doubtful, results) for _, doubtful in still]
        failed += [group for group, _ in still]
        told = [group for group in tested if group not in failed]
        if told:
            found.append(_passed(model, told, results))
    return found


def _tested(cells: Sequence[Cell], results: Mapping[str, CellResult]) -> list[list[Cell]]:
    """The cells of one model that were tested, by dataset and entry."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        if cell.id in results and TESTED in results[cell.id].observed:
            groups.setdefault((cell.dataset, cell.entry), []).append(cell)
    return list(groups.values())


def _misses(observed: Mapping[str, float]) -> bool:
    planted = observed.get(PLANTED, 0)
    missed = planted - observed.get(BROKEN, 0)
    return missed > allowed(planted) and not starved(observed)


def _doubtful(group: Sequence[Cell], results: Mapping[str, CellResult]) -> list[Cell]:
    """Cells that leave samples unbroken: where an attack breaks all, it has missed nothing."""
    return [
        cell
        for cell in group
        if cell.id in results
        and results[cell.id].observed.get(UNBROKEN, 0)
        > (1 - PASSED) * results[cell.id].observed.get(ATTACKABLE, 0)
    ]


def _stands(
    group: Sequence[Cell], results: Mapping[str, CellResult], extents: Mapping[str, Extent]
) -> bool:
    """Whether the attack was given gradients that are not zero, and nothing it does is felt.

    Where they are zero, that is told already. Without gradients there is no contradiction: a
    forest's scores stand still in a small ball.
    """
    largest = max(group, key=lambda cell: cell.eps.value if cell.eps else 0)
    seen = results[largest.id].observed
    extent = extents.get(largest.dataset)
    if extent is None or largest.eps is None or largest.norm is None:
        return False
    low, high, shape = extent
    felt = float(largest.eps) >= FELT * radius(largest.norm, high - low, shape, 1.0)
    zero = seen.get(ZERO_GRADIENT, 0) >= ZERO_GRADIENT_ERROR * seen.get(ATTACKABLE, 0)
    nothing = seen.get(TESTED, 0) >= FEW and not seen.get(PLANTED, 0)
    return largest.access == "gradient" and felt and nothing and not zero


def _unmoved(group: Sequence[Cell], results: Mapping[str, CellResult]) -> Finding:
    seen = results[group[0].id].observed
    return Finding(
        id="scores-stand-still",
        severity="error",
        message=(
            f"{subject(group[-1])}: no score of {seen[TESTED]:.0f} samples moves there, neither"
            " with noise nor along the gradient, and the gradient is not zero"
        ),
        advice=(
            "such a gradient is not that of these scores: look for a step with a derivative of"
            " its own, for a memory of known inputs and for an offset that float32 cannot add to;"
            " judge the network without it"
        ),
        cells=tuple(cell.id for cell in group),
        numbers={key: seen[key] for key in (TESTED, PLANTED) if key in seen},
    )


def _failure(group: Sequence[Cell], observed: Mapping[str, float]) -> Finding:
    first = group[0]
    return Finding(
        id="self-test-failed",
        severity="error",
        message=(
            f"'{first.entry}' on '{first.model}' found {observed.get(BROKEN, 0):.0f} of"
            f" {observed[PLANTED]:.0f} adversarial examples that were planted in a copy of the"
            f" model; a sound attack finds {100 * PASSED:.0f} %"
        ),
        advice=(
            "give it more steps or queries; if gradients are rounded away, use `loss: margin`,"
            " `bpda:` or an attack without gradients"
        ),
        cells=tuple(cell.id for cell in group),
        numbers={key: observed[key] for key in _NUMBERS if key in observed},
    )


def _passed(
    model: str, groups: Sequence[Sequence[Cell]], results: Mapping[str, CellResult]
) -> Finding:
    parts = []
    for group in groups:
        seen = results[group[0].id].observed
        planted = seen.get(PLANTED, 0)
        told = f"{seen.get(BROKEN, 0):.0f} of {planted:.0f}" if planted else "nothing to plant"
        if starved(seen):
            told += (
                f" (and {seen[FOUND_AGAIN]:.0f} of {seen[AGAIN]:.0f} of the others with its default"
                " number of queries)"
            )
        parts.append(f"'{group[0].entry}' {told}")
    return Finding(
        id="self-test",
        severity="note",
        message=f"planted adversarial examples found on copies of '{model}': {', '.join(parts)}",
        advice="nothing to do; single-step attacks are not tested, they are not made to search",
        cells=tuple(cell.id for group in groups for cell in group),
    )


def _off(cells: Sequence[Cell]) -> Finding:
    return Finding(
        id="self-test",
        severity="note",
        message="the self-test is off: nothing shows that the attacks find what is there to find",
        advice="take `self_test: off` out of the suite",
        cells=tuple(cell.id for cell in cells if cell.role == "attack"),
    )
