"""What the pre-flight numbers of a model on a dataset mean; computed from the record alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from ..group import ILLEGAL
from ..preflight import keys
from ..types import CLEAN, Cell, CellResult, Finding, Severity
from . import fit
from .record import Observed, finding, named

SEVERAL = " + "  # stands between the models of a source that averages several
FEW = 8
"""Samples below which likeness may be chance."""
SATURATED = 0.9
"""Share of losses that are exactly 0: a third of them for a sound MNIST network, all of them for a
sound one of two classes, so that it is worth a note alone."""
FLAT = 0.05
"""Share of samples from which there is no direction at all, as for a cell (`diagnose.cells`)."""


def of_models(cells: Sequence[Cell], results: Mapping[str, CellResult]) -> list[Finding]:
    """The findings of every clean pass that carries a pre-flight record, in plan order.

    Each touches all cells of that dataset on which the model is judged or crafted on.
    """
    found: list[Finding] = []
    for cell in cells:
        result = results.get(cell.id)
        if cell.attack != CLEAN or result is None or result.status != "ok":
            continue
        touched = tuple(dict.fromkeys(other.id for other in cells if _uses(other, cell)))
        found += [
            dataclasses.replace(
                each,
                message=f"'{cell.model}' on '{cell.dataset}': {each.message}",
                cells=touched,
            )
            for each in judged(result.observed)
            if not _known_to_the_cell(each, result)
        ]
    return found


def _uses(cell: Cell, clean: Cell) -> bool:
    sources = (cell.source, *cell.source.split(SEVERAL))
    return cell.dataset == clean.dataset and clean.model in (cell.model, *sources)


def _known_to_the_cell(finding: Finding, result: CellResult) -> bool:
    """The clean pass counts outputs that are not finite over all of its samples."""
    counted = any(key.startswith(ILLEGAL) for key in result.observed)
    return finding.id == "output-not-finite" and counted


def judged(observed: Observed) -> list[Finding]:
    """The findings of one record, without a subject; none where there is no record."""
    if not observed.get(keys.SAMPLES):
        return []
    return [found for rule in _RULES if (found := rule(observed)) is not None]


# ---------------------------------------------------------------- what comes out


def _not_finite(observed: Observed) -> Finding | None:
    rows = observed.get(keys.NOT_FINITE, 0)
    if not rows:
        return None
    message = f"{rows:.0f} of {observed[keys.SAMPLES]:.0f} outputs hold NaN or infinity"
    advice = "look for overflow (float16?), a logarithm of 0, or damaged weights"
    return finding("output-not-finite", "error", message, advice, observed, keys.NOT_FINITE)


def _constant(observed: Observed) -> Finding | None:
    n = observed[keys.SAMPLES]
    several = observed.get(keys.LABELS, 0) > 1
    if n < FEW or not several or observed.get(keys.ALIKE, 0) < n:
        return None
    message = f"all {n:.0f} samples of {observed[keys.LABELS]:.0f} classes get the same scores"
    advice = "the output does not depend on the input: check the export and the weights"
    return finding("constant-output", "error", message, advice, observed, keys.ALIKE, keys.LABELS)


def _hard_labels(observed: Observed) -> Finding | None:
    n, distinct = observed[keys.SAMPLES], observed.get(keys.DISTINCT, 0)
    if n < FEW + distinct or not 1 < distinct <= observed.get(keys.DECISIONS, 0):
        return None
    message = f"{n:.0f} samples get {distinct:.0f} different outputs, one for each class decided"
    advice = (
        "the scores tell only the class, so gradients and score attacks see nothing: give the"
        " logits, or judge it with an attack that needs decisions alone, such as hopskipjump"
    )
    return finding("hard-labels", "warning", message, advice, observed, keys.DISTINCT)


def _output_kind(observed: Observed) -> Finding | None:
    declared = next(iter(named(observed, keys.DECLARED)), "logits")
    looks = next(iter(named(observed, keys.LOOKS_LIKE)), declared)
    if declared == "probabilities":
        return _not_probabilities(observed)
    if looks == "probabilities":
        decimals = next(iter(named(observed, keys.DECIMALS)), "")
        rounded = f" rounded to {decimals} decimals" if decimals else ""
        message = f"the outputs look like probabilities{rounded} and count as {declared}"
        advice = (
            "declare `output: probabilities` for the model (onnx: `output_kind:`), or better give"
            " the logits: a second softmax flattens every loss and every confidence"
        )
        return finding("output-kind", "error", message, advice, observed)
    if (declared, looks) == ("logits", "log-probabilities"):
        message = "the logits are log-probabilities: a log-softmax stands behind them"
        return finding("output-kind", "note", message, "nothing to do", observed)
    return None


def _not_probabilities(observed: Observed) -> Finding | None:
    n, outside = observed[keys.SAMPLES], observed.get(keys.OUTSIDE_UNIT, 0)
    if outside:
        message = f"probabilities are declared and {outside:.0f} of {n:.0f} outputs leave [0, 1]"
        advice = "declare `output: logits` for the model (onnx: `output_kind:`)"
        return finding("output-kind", "error", message, advice, observed, keys.OUTSIDE_UNIT)
    sums = observed.get(keys.WRONG_SUMS, 0)
    if 2 * sums <= n:
        return None
    message = f"probabilities are declared and {sums:.0f} of {n:.0f} outputs do not sum to 1"
    advice = "declare the output as logits, or export one softmax over all classes"
    return finding("not-probabilities", "warning", message, advice, observed, keys.WRONG_SUMS)


# ---------------------------------------------------------------- how steadily it comes


def _train_mode(observed: Observed) -> Finding | None:
    found = named(observed, keys.TRAINING)
    if not found:
        return None
    parts = ", ".join(f"{count:.0f} {name}" for name, count in found.items())
    message = f"the model is not in evaluation mode: {parts}"
    advice = "a forward pass must not call train(); export or load the model after eval()"
    shown = [f"{keys.TRAINING}{name}" for name in found]
    return finding("train-mode", "error", message, advice, observed, *shown)


def _randomised(observed: Observed) -> Finding | None:
    if not keys.randomised(observed):
        return None
    rows, other = observed[keys.REPEATED], observed.get(keys.VARYING_DECISIONS, 0)
    message = (
        f"the same inputs give other outputs in {observed[keys.REPEATS]:.0f} repeats: scores vary"
        f" by up to {observed[keys.VARIATION]:.2g} of their range, {other:.0f} of {rows:.0f}"
        " decisions change"
    )
    advice = (
        "give its attacks `eot: 20`, so that each step averages 20 draws; or take the random part"
        " (dropout, noise) out of the file if it was not meant to ship"
    )
    shown = (keys.REPEATED, keys.VARYING, keys.VARYING_DECISIONS, keys.VARIATION)
    return finding("randomised-output", "error", message, advice, observed, *shown)


def _batch_dependent(observed: Observed) -> Finding | None:
    if not keys.mixing(observed):
        return None
    advice = (
        "export in eval mode: batch normalisation must use its stored statistics, and"
        " quantisation its stored ranges"
    )
    if observed.get(keys.REFUSED_ALONE):
        message = "it refuses a single sample that it takes in a batch"
        return finding("batch-dependent", "error", message, advice, observed)
    flips = observed.get(keys.MOVED_DECISIONS, 0) + observed.get(keys.RESIZED_DECISIONS, 0)
    message = (
        f"a sample's scores change by up to {observed.get(keys.MOVEMENT, 0):.2g} of their range"
        f" with the samples beside it, and by {observed.get(keys.RESIZE, 0):.2g} with the size and"
        f" order of the batch; {flips:.0f} decisions change"
    )
    moved = (keys.COMPARED, keys.MOVED, keys.MOVED_DECISIONS, keys.MOVEMENT)
    resized = (keys.RESIZED, keys.RESIZED_MUCH, keys.RESIZED_DECISIONS, keys.RESIZE)
    severity: Severity = "error" if keys.depends(observed) else "warning"
    return finding("batch-dependent", severity, message, advice, observed, *moved, *resized)


# ---------------------------------------------------------------- what a gradient attack would see


def _saturated(observed: Observed) -> Finding | None:
    sure, zero = observed.get(keys.SURE, 0), observed.get(keys.LOSS_ZERO, 0)
    lost = observed.get(f"{keys.ZERO}cross-entropy", 0) - observed.get(f"{keys.ZERO}margin", 0)
    flat = max(observed.get(keys.LOSS_FLAT, 0), lost)
    if sure < FEW or (zero < SATURATED * sure and flat < FLAT * sure):
        return None
    message = (
        f"cross-entropy is exactly 0 in float32 for {zero:.0f} of {sure:.0f} correct samples, and"
        f" without any gradient for {flat:.0f}: the logits are too large for it"
    )
    advice = (
        "use attacks that rescale it or another loss: apgd, autoattack, or `loss: margin`;"
        " their numbers are not touched by this"
    )
    shown = (keys.SURE, keys.LOSS_ZERO, keys.LOSS_FLAT)
    severity: Severity = "warning" if flat >= FLAT * sure else "note"
    return finding("saturated-cross-entropy", severity, message, advice, observed, *shown)


def _broken_gradient(observed: Observed) -> Finding | None:
    shown = [key for key in observed if key.startswith(keys.BROKEN)]
    if not shown:
        return None
    rows = max(observed[key] for key in shown)
    message = (
        f"the gradient at the clean input is NaN or infinite for {rows:.0f} of"
        f" {observed[keys.GRADIENT_SAMPLES]:.0f} samples"
    )
    advice = (
        "look for a division by zero, sqrt or log at 0 in the model; judge it with a gradient-free"
        " attack as well"
    )
    return finding("broken-gradient", "warning", message, advice, observed, *shown)


def _zero_gradient(observed: Observed) -> Finding | None:
    rows, of = observed.get(f"{keys.ZERO}margin", 0), observed.get(keys.GRADIENT_SAMPLES, 0)
    if not rows or rows < FLAT * of:
        return None
    message = (
        f"the gradient of the margin at the clean input is exactly zero for {rows:.0f} of"
        f" {of:.0f} samples"
    )
    advice = "run an attack that needs no gradient, such as square, beside gradient attacks"
    return finding("zero-gradient", "warning", message, advice, observed, f"{keys.ZERO}margin")


def _no_gradient(observed: Observed) -> Finding | None:
    if not observed.get(keys.NO_GRADIENT):
        return None
    message = "its gradient cannot be computed: the backward pass fails"
    advice = "gradient attacks will fail; use attacks that need scores, such as square"
    return finding("no-gradient", "warning", message, advice, observed)


_RULES: tuple[Callable[[Observed], Finding | None], ...] = (
    _train_mode,
    _randomised,
    _batch_dependent,
    _not_finite,
    _output_kind,
    _constant,
    _hard_labels,
    fit.repeated_samples,
    fit.single_label,
    fit.unknown_labels,
    fit.class_count,
    fit.out_of_box,
    fit.provider,
    fit.input_scaling,
    fit.one_decision,
    fit.chance,
    _saturated,
    _broken_gradient,
    _zero_gradient,
    _no_gradient,
)
