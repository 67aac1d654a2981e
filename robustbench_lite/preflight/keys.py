"""What the pre-flight checks write down: the name of every number, and what counts as noise.

All begin with `preflight: `, so that they can stand beside a cell's own observations. What must be
text is part of a name, such as `preflight: input scaling: 0 to 255: gained`. A number that is not
there is 0.
"""

from __future__ import annotations

from collections.abc import Mapping

HEAD = "preflight: "

SAMPLES = f"{HEAD}samples"
PASSES = f"{HEAD}forward passes"
GRADIENT_PASSES = f"{HEAD}backward passes"

OUTPUTS = f"{HEAD}model classes"
CLASSES = f"{HEAD}dataset classes"
LABELS = f"{HEAD}different labels"
DIFFERENT = f"{HEAD}different inputs"
MAJORITY = f"{HEAD}samples of the most frequent label"
UNKNOWN_LABELS = f"{HEAD}labels that the model does not know"
OUT_OF_BOX = f"{HEAD}samples outside the box"
SPAN = f"{HEAD}share of the box that the samples span"
ON_CPU = f"{HEAD}on the CPU although cuda was asked for"

CORRECT = f"{HEAD}correct"
CLEAN_SAMPLES = f"{HEAD}clean pass: samples"
CLEAN_CORRECT = f"{HEAD}clean pass: correct"

NOT_FINITE = f"{HEAD}outputs not finite"
DECLARED = f"{HEAD}declared output: "
LOOKS_LIKE = f"{HEAD}output looks like: "
DECIMALS = f"{HEAD}decimals of the output: "
OUTSIDE_UNIT = f"{HEAD}outputs outside [0, 1]"
WRONG_SUMS = f"{HEAD}outputs that do not sum to 1"
ALIKE = f"{HEAD}outputs like the first"
DISTINCT = f"{HEAD}different outputs"
DECISIONS = f"{HEAD}different decisions"

TRAINING = f"{HEAD}train mode: "

REPEATS = f"{HEAD}repeats"
REPEATED = f"{HEAD}repeated samples"
VARYING = f"{HEAD}samples that vary"
VARYING_MUCH = f"{HEAD}samples that vary much"
VARYING_DECISIONS = f"{HEAD}decisions that vary"
VARIATION = f"{HEAD}largest variation"

COMPARED = f"{HEAD}samples with other neighbours"
MOVED = f"{HEAD}samples that neighbours change"
MOVED_MUCH = f"{HEAD}samples that neighbours change much"
MOVED_DECISIONS = f"{HEAD}decisions that neighbours change"
MOVEMENT = f"{HEAD}largest change by neighbours"
RESIZED = f"{HEAD}samples in other batches"
RESIZED_MUCH = f"{HEAD}samples that the batch changes much"
RESIZED_DECISIONS = f"{HEAD}decisions that the batch changes"
RESIZE = f"{HEAD}largest change by the batch"
REFUSED_ALONE = f"{HEAD}refused alone"

GRADIENT_SAMPLES = f"{HEAD}gradient samples"
BROKEN = f"{HEAD}gradient not finite: "
ZERO = f"{HEAD}gradient zero: "
NO_GRADIENT = f"{HEAD}gradient cannot be computed"
SURE = f"{HEAD}correct samples of the cross-entropy"
LOSS_ZERO = f"{HEAD}cross-entropy exactly zero"
LOSS_FLAT = f"{HEAD}cross-entropy without a gradient"

SCALING = f"{HEAD}input scaling: "
GAINED, LOST, LOSS = ": gained", ": lost", ": loss"

SMALL_SHARE = 0.1
"""Of the samples: what shows in fewer may be one flipped rounding."""


def randomised(observed: Mapping[str, float]) -> bool:
    """Whether the same inputs give other outputs, beyond what floating point explains."""
    rows = observed.get(REPEATED, 0)
    return observed.get(VARYING_MUCH, 0) > 0 or observed.get(VARYING, 0) > SMALL_SHARE * rows


def mixing(observed: Mapping[str, float]) -> bool:
    """Whether a sample's output depends on the samples beside it or on how many they are."""
    return depends(observed) or (
        observed.get(MOVED_MUCH, 0) > 0
        or observed.get(MOVED, 0) > SMALL_SHARE * observed.get(COMPARED, 0)
    )


def depends(observed: Mapping[str, float]) -> bool:
    """Whether it depends on them so much that decisions are at stake."""
    resized, compared = observed.get(RESIZED, 0), observed.get(COMPARED, 0)
    return (
        observed.get(REFUSED_ALONE, 0) > 0
        or observed.get(MOVED_DECISIONS, 0) > 0
        or observed.get(RESIZED_DECISIONS, 0) > 0
        or observed.get(MOVED_MUCH, 0) > SMALL_SHARE * compared
        or observed.get(RESIZED_MUCH, 0) > SMALL_SHARE * resized
    )
