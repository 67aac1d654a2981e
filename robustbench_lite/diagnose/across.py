"""What attacks on the same samples at the same norm and eps say of one another.

A weaker kind of attack that breaks what a stronger kind leaves proves that the stronger one failed:
the broken points are judged, so they are no accident of the weaker one. The question is only how
much a sound attack may miss. Measured on healthy models (five seeds; the figures stand in
tests/test_across.py), sound iterative white box attacks miss nothing that noise, one step or a
transfer finds, but gradient-free search finds up to 4 % of n beside them on an adversarially
trained network, where the cross-entropy is flat. Hence, with b = samples that only the weaker kind
broke, of n ("surely" = the exact lower limit at 95 % is above):

* noise: error if b is more than 1 % of n (for a gradient-free search also broken by noise in all:
  it is no white box, and may leave what luck finds)
* one step, transfer: note if b is more than 1 % of n, error if it surely is
* gradient-free search: note if b is more than 1 % of n; error if it surely is more than 5 %, or
  surely more than 1 % of n and surely more than half of all that is known to break, which is then
  hidden from the gradient

Noise and one step are set against each attack. Transfer and search are set against the union of the
white box attacks, and then they speak of the model: every one of them is touched. One attack
alone that they surpass by far, while another white box attack holds, is an error of that attack;
by little, a note. A stronger white box attack never adds an error.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from ..types import Cell, CellResult, Finding, Samples, Severity
from .budgets import Extent, unbounded, weaker_at_larger_eps
from .duel import ITS_NATURE, WEAK_ATTACK, Duel, finding
from .grid import (
    SHARE,
    Broken,
    Clean,
    Grid,
    asks_only,
    checks_gradients,
    follows_gradients,
    is_single_step,
    is_transfer,
    notable,
    read,
    searches,
    surely,
    union,
)

TOLERANCE = 0.05  # of n: how far a number may be off before it is wrong
FAR_OFF = 0.1  # of n: the same for one attack among white box attacks that hold

_BROKEN_GRADIENTS = (
    "the gradient does not lead to what can be broken: look for rounding, clipping, saturation or"
    " randomness in the model; use `attack: standard`, `loss: margin`, `bpda:` for a step without"
    " a derivative, `eot:` for a random one"
)
_LOST_SEARCH = (
    "a search that finds less than blind noise is broken or starved: give it more queries"
)


def of_grid(
    cells: Sequence[Cell],
    results: Mapping[str, CellResult],
    samples: Callable[[str], Samples | None],
    *,
    invalid: Collection[str] = (),
    boxes: Mapping[str, Extent] | None = None,
) -> list[Finding]:
    """What finished attacks say of one another, in plan order.

    `samples(cell_id)` is called once per cell that is "ok", one table is held at a time. `invalid`:
    cells that an error finding touches already; they are evidence for nothing. Without `boxes`
    nothing is said about budgets that cover the box.
    """
    return of_bits(read(cells, results, samples, invalid), boxes=boxes)


def of_bits(grid: Grid, *, boxes: Mapping[str, Extent] | None = None) -> list[Finding]:
    """The same for tables that are read already."""
    found: list[Finding] = []
    for spot, here in grid.spots.items():
        clean = grid.clean[spot.model, spot.dataset]
        found += _by_noise(here)
        found += _by_one_step(here)
        found += _by_black_box(here, clean)
        if boxes is not None and spot.dataset in boxes:
            found += unbounded(here, spot, clean, boxes[spot.dataset])
    return [*found, *weaker_at_larger_eps(grid)]


# ---------------------------------------------------------------- noise and one step


def _by_noise(here: Sequence[Broken]) -> list[Finding]:
    """Every untargeted attack against the controls beside it."""
    controls = [each for each in here if each.cell.role == "control"]
    found: list[Finding] = []
    for each in here:
        if not controls or each.cell.role == "control" or each.cell.target is not None:
            continue
        duel = Duel.of(each.bits, union(controls, each.bits))
        if notable(duel.missed, duel.n):
            severity, advice = _below_noise(each.cell, duel)
            found.append(finding("weaker-than-control", severity, [each], controls, duel, advice))
    return found


def _below_noise(cell: Cell, duel: Duel) -> tuple[Severity, str]:
    if follows_gradients(cell):
        return "error", _BROKEN_GRADIENTS
    if checks_gradients(cell) and searches(cell) and duel.own < duel.rival:
        return "error", _LOST_SEARCH
    return "note", ITS_NATURE


def _by_one_step(here: Sequence[Broken]) -> list[Finding]:
    single = [each for each in here if is_single_step(each.cell)]
    found: list[Finding] = []
    for each in here:
        if not single or not follows_gradients(each.cell):
            continue
        duel = Duel.of(each.bits, union(single, each.bits))
        if notable(duel.missed, duel.n):
            found.append(
                finding(
                    "single-step-beats-iterative",
                    _if_sure(duel),
                    [each],
                    single,
                    duel,
                    WEAK_ATTACK,
                )
            )
    return found


# ---------------------------------------------------------------- black box


def _by_black_box(here: Sequence[Broken], clean: Clean) -> list[Finding]:
    """The white box attacks together, then each alone, against transfer and search."""
    white = [each for each in here if follows_gradients(each.cell)]
    transfers = [each for each in here if is_transfer(each.cell)]
    blind = [each for each in here if asks_only(each.cell)]
    if not white or not (transfers or blind):
        return []
    known = union(white, clean.correct)
    found: list[Finding] = []
    for rivals, grave in ((transfers, _if_sure), (blind, _if_hidden)):
        duel = Duel.of(known, union(rivals, known))
        if notable(duel.missed, duel.n):
            severity = grave(duel)
            advice = _BROKEN_GRADIENTS if severity == "error" else WEAK_ATTACK
            name = "black-box-beats-white-box"
            found.append(finding(name, severity, white, rivals, duel, advice))
    if any(each.severity == "error" for each in found):
        return found
    alone = _alone(white, [*transfers, *blind])
    return [*found, *(each for each in alone if each.severity == "error" or not found)]


def _if_sure(duel: Duel) -> Severity:
    return "error" if surely(duel.missed, duel.n, SHARE) else "note"


def _if_hidden(duel: Duel) -> Severity:
    hidden = surely(duel.missed, duel.n, SHARE) and _most_is_missed(duel)
    return "error" if hidden or surely(duel.missed, duel.n, TOLERANCE) else "note"


def _most_is_missed(duel: Duel) -> bool:
    """Whether it surely broke less than half of what is known to break."""
    return surely(duel.missed, duel.missed + duel.own, 0.5)


def _alone(white: Sequence[Broken], rivals: Sequence[Broken]) -> list[Finding]:
    found: list[Finding] = []
    for each in white:
        duel = Duel.of(each.bits, union(rivals, each.bits))
        if notable(duel.missed, duel.n):
            wrong = surely(duel.missed, duel.n, FAR_OFF) and _most_is_missed(duel)
            severity: Severity = "error" if wrong else "note"
            name = "weaker-than-black-box"
            found.append(finding(name, severity, [each], rivals, duel, WEAK_ATTACK))
    return found
