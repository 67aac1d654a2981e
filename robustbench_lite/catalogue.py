"""Every finding about a measurement, with its severity, decided once.

`error`: the number would be wrong; the cell becomes invalid and every gate that needs it fails
closed. `warning`: the number is right but says less than it seems. `note`: worth knowing. Where a
finding has two severities, its rule says at which figure the one becomes the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from .types import Severity


class Entry(NamedTuple):
    """The gravest severity that a finding can have, and what it says."""

    severity: Severity
    meaning: str


FINDINGS: Mapping[str, Entry] = MappingProxyType(
    {
        # the model, before any attack
        "train-mode": Entry("error", "layers that behave otherwise in training are in that mode"),
        "randomised-output": Entry("error", "the same input gives different outputs"),
        "batch-dependent": Entry("error", "an output depends on the samples beside it"),
        "output-kind": Entry("error", "outputs are not what the suite declares them to be"),
        "saturated-cross-entropy": Entry("warning", "float32 rounds the cross-entropy away"),
        "answers-change": Entry("error", "a model answers otherwise than a fresh copy of it"),
        "break-taken-back": Entry(
            "error", "what breaks the model for the attack does not when judged"
        ),
        "constant-output": Entry("error", "every input gives the same output"),
        "chance-accuracy": Entry("error", "clean accuracy is not above chance"),
        "input-scaling": Entry("error", "another scaling of the inputs is much more accurate"),
        "out-of-box": Entry("error", "samples lie outside the box that the dataset declares"),
        "repeated-samples": Entry("error", "the same inputs are counted again and again"),
        "single-label": Entry("warning", "all samples have the same label"),
        "unknown-labels": Entry("error", "the dataset has labels that the model does not know"),
        "hard-labels": Entry("warning", "outputs are decisions: scores say nothing more"),
        "not-probabilities": Entry("warning", "declared probabilities do not sum to one"),
        "no-gradient": Entry("warning", "gradients cannot be had at clean inputs"),
        "no-preflight": Entry("warning", "the checks before the first attack could not be made"),
        "class-count": Entry("note", "the model and the dataset know different numbers of classes"),
        "provider-fallback": Entry("warning", "another provider than the one asked for ran"),
        "twin-parity": Entry("note", "how well the stand-in for gradients agrees with the file"),
        "artefact-changed": Entry("note", "a model's file is not the one of the baseline"),
        # one cell
        "broken-gradient": Entry("error", "gradients were NaN or infinite"),
        "zero-gradient": Entry("error", "gradients were exactly zero: no direction to go"),
        "some-zero-gradient": Entry("warning", "a few gradients were exactly zero"),
        "no-gradients": Entry("warning", "a gradient attack was replaced by one without"),
        "output-not-finite": Entry("error", "the model gave NaN or infinity"),
        "illegal-candidate": Entry("error", "an attack returned points outside its budget"),
        "attack-did-nothing": Entry("error", "an attack returned its inputs unchanged"),
        "silent-success": Entry("warning", "an attack passed over better points than it returned"),
        "incomplete-optimisation": Entry("warning", "the loss was still rising at the end"),
        "budget-not-used": Entry("warning", "an attack stayed far inside its ball"),
        "changed-model": Entry("error", "an attack changed the model"),
        "touched-global-rng": Entry("warning", "an attack drew from the global random state"),
        "changed-input": Entry("warning", "an attack changed its inputs in place"),
        "not-reproducible": Entry("warning", "the same seed gave another result"),
        "self-test-failed": Entry("error", "the attack misses adversarial examples planted for it"),
        "scores-stand-still": Entry("error", "the gradient promises what no score does"),
        "self-test": Entry("note", "what the self-test of an attack found, or why there is none"),
        "transfer-failure": Entry("warning", "points that break the twin do not break the file"),
        # several cells
        "black-box-beats-white-box": Entry("error", "the gradient misleads: attacks without win"),
        "weaker-than-control": Entry("error", "random noise breaks what the attack does not"),
        "single-step-beats-iterative": Entry("error", "one step breaks what many do not"),
        "weaker-than-black-box": Entry("error", "an attack without gradients breaks many more"),
        "larger-eps-weaker": Entry("warning", "a larger budget breaks fewer samples"),
        "unbounded-not-zero": Entry("error", "a budget of the whole box leaves samples unbroken"),
        # analyses and gates
        "analysis-failed": Entry("error", "an analysis failed; no cell is touched (exit 4)"),
        "weak-gated-attack": Entry("warning", "a gate rests on an attack far above the worst case"),
        "gate-on-single-step": Entry("warning", "a gate rests on single-step or transfer attacks"),
        "no-gradient-free-check": Entry("warning", "no gradient-free attack at a gated budget"),
        "gate-without-budget": Entry("warning", "a gate at eps 0 asks for nothing"),
        "no-gradient-attack": Entry("warning", "no gradient attack where one is possible"),
        "expired-waiver": Entry("error", "a waiver's last day has passed"),
    }
)
