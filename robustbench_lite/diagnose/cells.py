"""What one cell's own record says of its measurement."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..craft import (
    BROKEN_GRADIENT,
    BROKEN_WITH,
    CHANGED_INPUT,
    CHANGED_MODEL,
    TOUCHED_RNG,
    ZERO_GRADIENT,
    ZERO_WITH,
)
from ..group import (
    ASKED_AGAIN,
    ATTACKABLE,
    ILLEGAL,
    NO_PREFLIGHT,
    NOT_REPEATED,
    OTHERWISE,
    REPEATED,
    RISING,
    SILENT,
    TAKEN_BACK,
    UNBROKEN,
    UNCHANGED,
    UNSPENT,
)
from ..types import Cell, CellResult, Finding, Severity
from .subject import subject

ZERO_GRADIENT_ERROR = 0.05  # share of the attacked samples from which the attack had no direction

MANY = 0.01  # of the attacked samples
WRONG = 0.05  # of the attacked samples: the number is wrong; less may be rounding at the boundary
MOST = 0.5  # of the unbroken samples


@dataclass(frozen=True, slots=True)
class _Rule:
    """One finding that a single cell can raise.

    `by_loss`: how the keys begin that tell the same for each loss which the attack tried.
    """

    id: str
    severity: Severity
    applies: Callable[[Mapping[str, float]], bool]
    message: str
    advice: str
    keys: tuple[str, ...]
    by_loss: str = ""


def _at(key: str) -> Callable[[Mapping[str, float]], bool]:
    return lambda observed: observed.get(key, 0) > 0


def _share(observed: Mapping[str, float], part: str, whole: str) -> float:
    return observed.get(part, 0) / max(observed.get(whole, 0), 1)


def _zero_share(observed: Mapping[str, float]) -> float:
    return _share(observed, ZERO_GRADIENT, ATTACKABLE)


_RULES = (
    _Rule(
        "broken-gradient",
        "error",
        _at(BROKEN_GRADIENT),
        "the gradient was NaN or infinite for {broken gradient:.0f} samples",
        "look for a division by zero, sqrt or log at 0 in the model; judge it with a"
        " gradient-free attack or a transfer `source:` as well",
        (BROKEN_GRADIENT,),
        BROKEN_WITH,
    ),
    _Rule(
        "zero-gradient",
        "error",
        lambda observed: _zero_share(observed) >= ZERO_GRADIENT_ERROR,
        "the gradient was exactly zero for {zero gradient:.0f} of {attackable:.0f} attacked"
        " samples that stayed unbroken: the attack had no direction there",
        "use `loss: margin`, a transfer `source:`, or an attack that needs no gradient",
        (ZERO_GRADIENT, ATTACKABLE),
        ZERO_WITH,
    ),
    _Rule(
        "some-zero-gradient",
        "warning",
        lambda observed: 0 < _zero_share(observed) < ZERO_GRADIENT_ERROR,
        "the gradient was exactly zero for {zero gradient:.0f} of {attackable:.0f} attacked"
        " samples that stayed unbroken",
        "try `loss: margin`; a share of 5 % and more makes the cell invalid",
        (ZERO_GRADIENT, ATTACKABLE),
        ZERO_WITH,
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
        "answers-change",
        "error",
        _at(OTHERWISE),
        "after it the model answered {answered otherwise:.0f} of {asked again:.0f} inputs otherwise"
        " than a fresh copy of it: it remembers what it was asked, or is built by chance",
        "an answer must depend on the input alone: take out caches, counters and detectors with a"
        " memory, and give weights instead of random numbers",
        (OTHERWISE, ASKED_AGAIN),
    ),
    _Rule(
        "break-taken-back",
        "error",
        lambda observed: _share(observed, TAKEN_BACK, ATTACKABLE) > WRONG,
        "{taken back by the judge:.0f} of {attackable:.0f} attacked samples were broken when the"
        " attack asked the model and not when the same points were judged",
        "the model must answer alike with and without gradients, in any batch and at any time",
        (TAKEN_BACK, ATTACKABLE),
    ),
    _Rule(
        "no-preflight",
        "warning",
        _at(NO_PREFLIGHT),
        "the checks before the first attack could not be made",
        "run `robeval doctor` on the model, or see the log (-v) for what it or the data raised",
        (),
    ),
    _Rule(
        "silent-success",
        "warning",
        lambda observed: _share(observed, SILENT, ATTACKABLE) > MANY,
        "the attack passed over {silent success:.0f} better points than those it returned; they"
        " count here",
        "an attack returns the worst point that it has seen; report it to its author",
        (SILENT, ATTACKABLE),
    ),
    _Rule(
        "incomplete-optimisation",
        "warning",
        lambda observed: _share(observed, RISING, UNBROKEN) > MOST,
        "the loss was still rising at the end for {loss still rising:.0f} of {unbroken:.0f}"
        " unbroken samples",
        "give it more `steps`, or a larger `step_size`",
        (RISING, UNBROKEN),
    ),
    _Rule(
        "budget-not-used",
        "warning",
        lambda observed: _share(observed, UNSPENT, UNBROKEN) > MOST,
        "the attack used less than half of its budget on {half the budget unspent:.0f} of"
        " {unbroken:.0f} unbroken samples",
        "give it a larger `step_size` or more `steps`",
        (UNSPENT, UNBROKEN),
    ),
    _Rule(
        "not-reproducible",
        "warning",
        _at(NOT_REPEATED),
        "run twice with the same seed on {run twice:.0f} samples, the attack returned different"
        " points for {not repeated:.0f}",
        "the attack must draw from the `rng` it is given and keep no state; report it to its"
        " author",
        (NOT_REPEATED, REPEATED),
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


def of_cells(cells: Sequence[Cell], results: Mapping[str, CellResult]) -> list[Finding]:
    """What each finished cell recorded about itself, in plan order."""
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
    return found


def _finding(rule: _Rule, cell: Cell, observed: Mapping[str, float]) -> Finding:
    message = rule.message.format_map(defaultdict(float, observed))
    losses = _by_loss(rule.by_loss, observed)
    whole = observed.get(ATTACKABLE, 0)
    told = ", ".join(f"{name} {_told(count, whole)}" for name, count in losses.items())
    keys = (*rule.keys, *(rule.by_loss + name for name in losses))
    return Finding(
        id=rule.id,
        severity=rule.severity,
        message=f"{subject(cell)}: {message}" + (f" (by loss: {told})" if told else ""),
        advice=rule.advice,
        cells=(cell.id,),
        numbers={key: observed[key] for key in keys if key in observed},
    )


def _told(count: float, whole: float) -> str:
    return f"{100 * count / whole:.0f} %" if whole else f"{count:.0f}"


def _by_loss(prefix: str, observed: Mapping[str, float]) -> dict[str, float]:
    found = {key: count for key, count in observed.items() if prefix and key.startswith(prefix)}
    return {key.removeprefix(prefix): count for key, count in found.items()}


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
                message=f"{subject(cell)}: {count:.0f} {what}",
                advice=_mended(problem, of_model=of_model),
                cells=(cell.id,),
                numbers={"samples": count},
            )
        )
    return found


def _mended(problem: str, *, of_model: bool) -> str:
    if of_model:
        return (
            "a model that ships must give finite scores inside the box; find the operation that"
            " overflows"
        )
    if problem.startswith("returned "):
        return (
            "an attack must return x_adv, a float32 tensor of the shape of x; mend it, or report it"
            " to its author"
        )
    return (
        "an attack must stay in its ball and box, in float32: clip its result (`norms.clip`), or"
        " report it to its author"
    )
