"""Whether data and model fit: labels, classes, box, device, input scaling, better than guessing."""

from __future__ import annotations

from .. import stats
from ..group import DIMENSION
from ..preflight import keys
from ..preflight.scalings import ADVICE
from ..types import Finding, Severity
from .record import Observed, finding, named

FEW = 8
"""Samples below which likeness may be chance."""
FEW_OTHERS = 5
"""Samples of other labels, of which a network that knows them as well as not finds one: 31 of 32
times."""
FEW_FOR_CHANCE = 30
NEAR_CHANCE = 0.2
"""Of the way from guessing to perfect; accuracy must be surely below it to be called chance."""
GAIN = 0.1
"""Accuracy that another input scaling must add, and add to the most frequent label's share."""
MENDED = 0.5
"""Share of the wrong answers that it must mend to be taken for what the network wants."""
SPANNED = 0.9
"""Share of the box that ordinary samples span; a faded dataset gains from any stretching."""
CERTAINTY = 0.01
"""Largest p-value of that gain, corrected for the number of scalings tried."""


def unknown_labels(observed: Observed) -> Finding | None:
    """Labels that the model has no score for."""
    unknown = observed.get(keys.UNKNOWN_LABELS, 0)
    if not unknown:
        return None
    message = (
        f"{unknown:.0f} of {observed[keys.SAMPLES]:.0f} labels are beyond the"
        f" {observed[keys.OUTPUTS]:.0f} classes of the model"
    )
    advice = "use the labels that the model was trained with, or select `classes:` it knows"
    return finding("unknown-labels", "error", message, advice, observed, keys.UNKNOWN_LABELS)


def class_count(observed: Observed) -> Finding | None:
    """The model and the dataset name different numbers of classes."""
    known, named = observed.get(keys.OUTPUTS, 0), observed.get(keys.CLASSES, 0)
    if known == named:
        return None
    message = f"the model has {known:.0f} classes and the dataset {named:.0f}"
    advice = "nothing to do if the labels that are used mean the same to both"
    return finding("class-count", "note", message, advice, observed, keys.OUTPUTS, keys.CLASSES)


def out_of_box(observed: Observed) -> Finding | None:
    """Samples outside the range in which budgets are measured."""
    outside = observed.get(keys.OUT_OF_BOX, 0)
    if not outside:
        return None
    message = f"{outside:.0f} of {observed[keys.SAMPLES]:.0f} samples lie outside the declared box"
    advice = "declare the dataset's true range: budgets and clipping depend on it"
    return finding("out-of-box", "error", message, advice, observed, keys.OUT_OF_BOX)


def repeated_samples(observed: Observed) -> Finding | None:
    """At least every second sample is another one again, so that evidence is counted twice."""
    n, different = observed[keys.SAMPLES], observed.get(keys.DIFFERENT, 0)
    if n < FEW or not different or 2 * different > n:
        return None
    message = f"{n:.0f} samples were looked at, and only {different:.0f} are different inputs"
    advice = (
        "take every input once: repeated ones count as evidence each time, and every interval is"
        " too narrow"
    )
    is_row = sum(key.startswith(DIMENSION) for key in observed) == 1
    severity: Severity = "warning" if is_row else "error"  # rows of a table may well be alike
    return finding("repeated-samples", severity, message, advice, observed, keys.DIFFERENT)


def single_label(observed: Observed) -> Finding | None:
    """All samples have one label: whoever always gives it is called accurate and robust."""
    n = observed[keys.SAMPLES]
    if n < FEW or observed.get(keys.LABELS, 0) != 1:
        return None
    message = "all samples have the same label: a model that always gives it would look robust"
    advice = "judge all classes together, and ask for each of them by `per_class: true`"
    return finding("single-label", "warning", message, advice, observed, keys.LABELS)


def provider(observed: Observed) -> Finding | None:
    """The CPU runs what was asked of a GPU."""
    if not observed.get(keys.ON_CPU):
        return None
    message = "cuda was asked for and the model runs on the CPU"
    advice = "install the CUDA build of its runtime, or ask for `--device cpu`"
    return finding("provider-fallback", "warning", message, advice, observed)


def input_scaling(observed: Observed) -> Finding | None:
    """The same samples are classified much better at another scale, which is then named.

    The gain must be certain (exact McNemar test, Bonferroni over the scalings tried), be at least
    a tenth, and be more than one frequent label explains. It is an error if half of the wrong
    answers are mended; on faded or very noisy data some stretching may help a sound network too.
    """
    n, right = observed[keys.SAMPLES], observed.get(keys.CORRECT, 0)
    tried = named(observed, keys.SCALING)
    names = {name.removesuffix(keys.LOSS) for name in tried if name.endswith(keys.LOSS)}
    if not names or _unreadable(observed):
        return None

    def change(name: str) -> tuple[int, int]:
        return int(tried.get(name + keys.GAINED, 0)), int(tried.get(name + keys.LOST, 0))

    def value(name: str) -> tuple[float, float]:
        gained, lost = change(name)
        return gained - lost, -tried[name + keys.LOSS]

    best = max(sorted(names), key=value)
    gained, lost = change(best)
    better = right + gained - lost
    enough = min(better - right, better - observed.get(keys.MAJORITY, 0)) >= GAIN * n
    if not enough or stats.mcnemar(gained, lost) * len(names) > CERTAINTY:
        return None
    mended = better - right >= MENDED * (n - right)
    ordinary = observed.get(keys.SPAN, 1.0) >= SPANNED
    message = (
        f"it is right on {right:.0f} of {n:.0f} samples, and on {better:.0f} of them if it is fed"
        f" '{best}'"
    )
    shown = [f"{keys.SCALING}{best}{end}" for end in (keys.GAINED, keys.LOST)]
    return finding(
        "input-scaling",
        "error" if mended and ordinary else "warning",
        message,
        ADVICE.get(best, "declare that scaling for the model"),
        observed,
        keys.SAMPLES,
        keys.CORRECT,
        keys.SPAN,
        *shown,
    )


def one_decision(observed: Observed) -> Finding | None:
    """Every sample gets the same class, and not all of them have that label."""
    n, labels = observed[keys.SAMPLES], observed.get(keys.LABELS, 0)
    others = n - observed.get(keys.MAJORITY, 0)
    if observed.get(keys.DECISIONS, 0) != 1 or labels < 2 or others < FEW_OTHERS:
        return None
    if observed.get(keys.ALIKE, 0) >= n or chance(observed) is not None:
        return None  # told already
    message = (
        f"all {n:.0f} samples of {labels:.0f} classes get the same class: it is right on"
        f" {observed.get(keys.CORRECT, 0):.0f} of them without looking"
    )
    advice = (
        "what is never answered otherwise cannot be broken, and is not robust: check its weights"
        " and its output, or judge it on as many samples of every class"
    )
    shown = (keys.LABELS, keys.MAJORITY, keys.CORRECT)
    return finding("chance-accuracy", "error", message, advice, observed, *shown)


def chance(observed: Observed) -> Finding | None:
    """Accuracy that is surely near guessing and not surely above it (Clopper-Pearson, 95 %).

    Of the whole clean pass where its counts are in the record, else of the pre-flight samples.
    """
    whole = keys.CLEAN_SAMPLES in observed
    of, count = (keys.CLEAN_SAMPLES, keys.CLEAN_CORRECT) if whole else (keys.SAMPLES, keys.CORRECT)
    n, right = int(observed[of]), int(observed.get(count, 0))
    classes = observed.get(keys.OUTPUTS, 0)
    if n < FEW_FOR_CHANCE or classes < 2 or observed.get(keys.LABELS, 0) < 2:
        return None
    if _unreadable(observed):
        return None
    guess = 1 / classes
    surely_bad = stats.upper_limit(right, n) < guess + NEAR_CHANCE * (1 - guess)
    if not surely_bad or stats.lower_limit(right, n) > guess:
        return None
    message = (
        f"clean accuracy is {100 * right / n:.1f} % on {n} samples: no better than guessing one of"
        f" {classes:.0f} classes ({100 * guess:.1f} %)"
    )
    advice = (
        "check the order of the labels, the input scaling and that these are its trained weights;"
        " there is no robustness to measure without accuracy"
    )
    return finding("chance-accuracy", "error", message, advice, observed, of, count, keys.OUTPUTS)


def _unreadable(observed: Observed) -> bool:
    """Whether most outputs hold NaN or infinity, which is told: no answer can be right then."""
    return 2 * observed.get(keys.NOT_FINITE, 0) > observed[keys.SAMPLES]
