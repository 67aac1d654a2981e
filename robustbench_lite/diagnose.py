"""Findings about the measurement, computed from what the run recorded.

Severity, decided once: `error` means that the number would be wrong (the cell becomes invalid and
every gate that needs it fails closed); `warning` that it is right but says less than it seems.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .craft import BROKEN_GRADIENT, CHANGED_INPUT, CHANGED_MODEL, TOUCHED_RNG, ZERO_GRADIENT
from .group import (
    ATTACKABLE,
    FOUND_ON_TWIN,
    ILLEGAL,
    NOT_CONFIRMED,
    PARITY_DIFFERENCE,
    PARITY_TOLERANCE,
    UNCHANGED,
)
from .types import Cell, CellResult, Finding, Severity

ZERO_GRADIENT_ERROR = 0.05  # share of the attacked samples from which the attack had no direction
TRANSFER_FAILURE = 0.01  # share of the points found on a twin that its file does not confirm


@dataclass(frozen=True, slots=True)
class _Rule:
    """One finding that a single cell can raise."""

    id: str
    severity: Severity
    applies: Callable[[Mapping[str, float]], bool]
    message: str
    advice: str
    keys: tuple[str, ...]


def _at(key: str) -> Callable[[Mapping[str, float]], bool]:
    return lambda observed: observed.get(key, 0) > 0


def _zero_share(observed: Mapping[str, float]) -> float:
    return observed.get(ZERO_GRADIENT, 0) / max(observed.get(ATTACKABLE, 0), 1)


_RULES = (
    _Rule(
        "broken-gradient",
        "error",
        _at(BROKEN_GRADIENT),
        "the gradient was NaN or infinite for {broken gradient:.0f} samples",
        "look for a division by zero, sqrt or log at 0 in the model; judge it with a"
        " gradient-free attack or a transfer `source:` as well",
        (BROKEN_GRADIENT,),
    ),
    _Rule(
        "zero-gradient",
        "error",
        lambda observed: _zero_share(observed) >= ZERO_GRADIENT_ERROR,
        "the gradient was exactly zero for {zero gradient:.0f} of {attackable:.0f} attacked"
        " samples that stayed unbroken: the attack had no direction there",
        "use `loss: margin`, a transfer `source:`, or an attack that needs no gradient",
        (ZERO_GRADIENT, ATTACKABLE),
    ),
    _Rule(
        "some-zero-gradient",
        "warning",
        lambda observed: 0 < _zero_share(observed) < ZERO_GRADIENT_ERROR,
        "the gradient was exactly zero for {zero gradient:.0f} of {attackable:.0f} attacked"
        " samples that stayed unbroken",
        "try `loss: margin`; a share of 5 % and more makes the cell invalid",
        (ZERO_GRADIENT, ATTACKABLE),
    ),
    _Rule(
        "attack-did-nothing",
        "error",
        lambda observed: 0 < observed.get(ATTACKABLE, 0) == observed.get(UNCHANGED, 0),
        "the attack returned all {attackable:.0f} correctly classified inputs unchanged",
        "an attack returns the worst point it found, never the clean input; check its gradients",
        (ATTACKABLE, UNCHANGED),
    ),
    _Rule(
        "changed-model",
        "error",
        _at(CHANGED_MODEL),
        "the attack changed the model's weights or its training mode",
        "the attack must work on `model.module()`, a private copy; report it to its author",
        (CHANGED_MODEL,),
    ),
    _Rule(
        "touched-global-rng",
        "warning",
        _at(TOUCHED_RNG),
        "the attack used the global random state in {touched rng:.0f} calls; it was put back, and"
        " the result is not reproducible for other batch sizes",
        "the attack must draw from the `rng` it is given; report it to its author",
        (TOUCHED_RNG,),
    ),
    _Rule(
        "changed-input",
        "warning",
        _at(CHANGED_INPUT),
        "the attack changed its input in place in {changed input:.0f} calls; it had a private copy",
        "the attack must leave `x` as found; report it to its author",
        (CHANGED_INPUT,),
    ),
)


def findings(cells: Sequence[Cell], results: Mapping[str, CellResult]) -> tuple[Finding, ...]:
    """Every finding of a finished run, in plan order."""
    found: list[Finding] = []
    for cell in cells:
        result = results.get(cell.id)
        if result is None or result.status != "ok":
            continue
        found += _illegal(cell, result.observed)
        found += [
            _finding(rule, cell, result.observed)
            for rule in _RULES
            if rule.applies(result.observed)
        ]
    found += _without_gradients(cells, results)
    found += _twins(cells, results)
    return tuple(found)


def _without_gradients(cells: Sequence[Cell], results: Mapping[str, CellResult]) -> list[Finding]:
    """Gradient attacks that a gradient-free one stands in for."""
    replaced = {(cell.fallback_for, cell.model, cell.dataset): cell for cell in cells}
    found: dict[tuple[str, str], Finding] = {}
    for cell in cells:
        result = results.get(cell.id)
        instead = replaced.get((cell.entry, cell.model, cell.dataset))
        if result is None or result.status != "skipped" or instead is None:
            continue
        found[cell.entry, cell.model] = Finding(
            id="no-gradients",
            severity="warning",
            message=(
                f"'{cell.entry}' on '{cell.model}' was skipped and '{instead.attack}' ran instead:"
                f" {result.reason}"
            ),
            advice=(
                "a worst case without a gradient attack says less than it seems; add a transfer"
                " attack from a `source:` that has gradients"
            ),
            cells=(cell.id, instead.id),
        )
    return list(found.values())


def _twins(cells: Sequence[Cell], results: Mapping[str, CellResult]) -> list[Finding]:
    """How well each twin stands for its file: parity, and points that only the twin believes."""
    found: list[Finding] = []
    for model in dict.fromkeys(cell.model for cell in cells):
        mine = [c for c in cells if c.model == model and c.id in results]
        checked = [c for c in mine if PARITY_DIFFERENCE in results[c.id].observed]
        if not checked:
            continue
        observed = results[checked[0].id].observed
        found.append(
            Finding(
                id="twin-parity",
                severity="note",
                message=(
                    f"gradients for '{model}' come from its twin, which agrees with the file to"
                    f" {observed[PARITY_DIFFERENCE]:.2g} (allowed"
                    f" {observed[PARITY_TOLERANCE]:.2g}); the file itself judged every point"
                ),
                advice="nothing to do",
                cells=tuple(cell.id for cell in checked),
                numbers={key: observed[key] for key in (PARITY_DIFFERENCE, PARITY_TOLERANCE)},
            )
        )
        found += [
            _unconfirmed(cell, results[cell.id].observed)
            for cell in checked
            if results[cell.id].observed.get(NOT_CONFIRMED)
        ]
    return found


def _unconfirmed(cell: Cell, observed: Mapping[str, float]) -> Finding:
    share = observed[NOT_CONFIRMED] / observed[FOUND_ON_TWIN]
    return Finding(
        id="transfer-failure",
        severity="warning" if share > TRANSFER_FAILURE else "note",
        message=(
            f"{_subject(cell)}: {observed[NOT_CONFIRMED]:.0f} of {observed[FOUND_ON_TWIN]:.0f}"
            f" points that break the twin do not break the file ({share:.1%})"
        ),
        advice="run a gradient-free attack such as square too: it searches on the file itself",
        cells=(cell.id,),
        numbers={key: observed[key] for key in (FOUND_ON_TWIN, NOT_CONFIRMED)},
    )


def _finding(rule: _Rule, cell: Cell, observed: Mapping[str, float]) -> Finding:
    return Finding(
        id=rule.id,
        severity=rule.severity,
        message=f"{_subject(cell)}: {rule.message.format_map(defaultdict(float, observed))}",
        advice=rule.advice,
        cells=(cell.id,),
        numbers={key: observed[key] for key in rule.keys if key in observed},
    )


def _illegal(cell: Cell, observed: Mapping[str, float]) -> list[Finding]:
    found = []
    for key, count in observed.items():
        if not key.startswith(ILLEGAL):
            continue
        problem = key.removeprefix(ILLEGAL)
        of_model = problem == "model output not finite"
        what = "outputs are not finite" if of_model else f"returned points are illegal: {problem}"
        found.append(
            Finding(
                id="output-not-finite" if of_model else "illegal-candidate",
                severity="error",
                message=f"{_subject(cell)}: {count:.0f} {what}",
                advice=(
                    "a model that ships must give finite scores inside the box; find the operation"
                    " that overflows"
                    if of_model
                    else "an attack must stay in its ball and box: clip its result, and report it"
                    " to its author"
                ),
                cells=(cell.id,),
                numbers={"samples": count},
            )
        )
    return found


def _subject(cell: Cell) -> str:
    eps = "" if cell.eps is None else f" at {cell.norm} {cell.eps.text}"
    source = "" if cell.source == cell.model else f" from '{cell.source}'"
    return f"'{cell.entry}'{eps}{source} on '{cell.model}'"
