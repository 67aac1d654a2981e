"""Every member with what is wrong with it, what must be found, and what brings out the truth."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from robustbench_lite import ModelError

from . import gradients, healthy, inputs, memory, outputs, randomness, state

PACKAGE = __name__.rpartition(".")[0]
DIGITS = tuple(range(10))
IMAGE = (1, 28, 28)

Keys = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One model of the zoo.

    `factory`: builds it, without arguments, in eval mode (as far as it obeys). `flaw`: what is
    wrong with it, or what a healthy one is. `finding`: ids of the findings that must be raised on
    an image suite that declares nothing; empty where there is only a truth to be found.
    `declaration`: keys of the model entry that say what it really is. `remedy`: keys of an attack
    entry that, with the declaration, bring its measured robust accuracy to `truth`, the true one on
    the embedded digits at linf 0.3 (None: not known exactly). `classes`: digits that the data
    set must select. `shape`: of one sample. `no_onnx`: why it has no ONNX form, "" if it has.
    """

    factory: Callable[[], nn.Module]
    flaw: str
    kind: Literal["broken", "healthy"] = "broken"
    finding: tuple[str, ...] = ()
    declaration: Keys = field(default_factory=dict)
    remedy: Keys = field(default_factory=dict)
    truth: float | None = 0.0
    classes: tuple[int, ...] = DIGITS
    shape: tuple[int, ...] = IMAGE
    no_onnx: str = ""

    @property
    def name(self) -> str:
        """The factory's name with hyphens: "nan-gradient"."""
        return self.factory.__name__.replace("_", "-")

    @property
    def reference(self) -> str:
        """What `factory:` of a suite names: "robustbench_lite.testing.zoo:nan_gradient"."""
        return f"{PACKAGE}:{self.factory.__name__}"


PLAIN: Keys = {"attack": "apgd"}
MARGIN: Keys = {"attack": "apgd", "loss": "margin"}
AVERAGED: Keys = {**MARGIN, "eot": 20}
BLACK_BOX: Keys = {"attack": "square", "queries": 1000}
UNNOTICED: Keys = {"attack": "pgd", "random_start": False, "step_size": 0.01, "steps": 40}
"""Small steps from the image itself, which break it before it is bright enough to be refused."""

PROBABILITIES: Keys = {"output": "probabilities"}


def _past(step: str) -> Keys:
    return {**MARGIN, "bpda": {step: "identity"}}


_GRADIENTS = (
    Member(
        factory=gradients.nan_gradient,
        flaw="Logits are finite and every component of the gradient is NaN.",
        finding=("broken-gradient",),
        remedy=_past("guard"),
    ),
    Member(
        factory=gradients.quantised_input,
        flaw="The input is rounded to five grey levels, so the gradient is exactly zero.",
        finding=("zero-gradient",),
        remedy=_past("quantise"),
    ),
    Member(
        factory=gradients.sign_activations,
        flaw="The hidden units are signs, so the gradient is exactly zero.",
        finding=("zero-gradient",),
        remedy=_past("signs"),
    ),
    Member(
        factory=gradients.jpeg_input,
        flaw="The input passes the rounding of JPEG, so the gradient is exactly zero.",
        finding=("zero-gradient",),
        remedy=_past("jpeg"),
    ),
    Member(
        factory=gradients.k_winners,
        flaw="Only the 32 largest hidden units count, so logits jump wherever these change.",
        remedy=PLAIN,
    ),
)
_OUTPUTS = (
    Member(
        factory=outputs.scaled_30,
        flaw="Logits are multiplied by 30: for most digits cross-entropy and its gradient are 0.",
        finding=("saturated-cross-entropy",),
        remedy=MARGIN,
    ),
    Member(
        factory=outputs.scaled_100,
        flaw="Logits are multiplied by 100: for nearly all, cross-entropy and its gradient are 0.",
        finding=("saturated-cross-entropy",),
        remedy=MARGIN,
    ),
    Member(
        factory=outputs.scaled_1000,
        flaw="Logits are multiplied by 1,000: cross-entropy and its gradient are 0.",
        finding=("saturated-cross-entropy",),
        remedy=MARGIN,
    ),
    Member(
        factory=outputs.distilled,
        flaw="Distilled at temperature 100 and used at 1: cross-entropy and its gradient are 0.",
        finding=("saturated-cross-entropy",),
        remedy=MARGIN,
    ),
    Member(
        factory=outputs.softmax_output,
        flaw="Probabilities are taken for logits, and softmax is applied twice.",
        finding=("output-kind",),
        declaration=PROBABILITIES,
        remedy=MARGIN,
    ),
    Member(
        factory=outputs.softmax_rounded,
        flaw="Probabilities of two decimals are taken for logits; the gradient is exactly zero.",
        finding=("output-kind", "zero-gradient"),
        declaration=PROBABILITIES,
        remedy=BLACK_BOX,
    ),
    Member(
        factory=outputs.log_softmax_output,
        flaw="Logarithms of probabilities are taken for logits; no attack is the worse for it.",
        finding=("output-kind",),
        declaration={"output": "log-probabilities"},
        remedy=PLAIN,
    ),
    Member(
        factory=outputs.votes_head,
        flaw="Classes are ranked by duels, so the gradient is exactly zero.",
        finding=("zero-gradient",),
        remedy=_past("votes"),
    ),
    Member(
        factory=outputs.hard_label,
        flaw="The output is one-hot, so there is no gradient at all.",
        finding=("zero-gradient", "output-kind"),
        declaration=PROBABILITIES,
        remedy=_past("label"),
    ),
    Member(
        factory=outputs.constant_logits,
        flaw="Every input gets the same logits, in favour of the digit 1.",
        finding=("constant-output",),
        truth=0.126,
    ),
)
_RANDOMNESS = (
    Member(
        factory=randomness.dropout_on,
        flaw="A fifth of the hidden units is dropped at random, in evaluation mode too.",
        finding=("randomised-output",),
        remedy=AVERAGED,
        no_onnx="onnxruntime leaves dropout out, so the file would be the undefended network",
    ),
    Member(
        factory=randomness.gaussian_noise,
        flaw="Normal noise of standard deviation 0.1 is added to every input.",
        finding=("randomised-output",),
        remedy=AVERAGED,
    ),
    Member(
        factory=randomness.random_resizing,
        flaw="Images are shrunk and moved at random.",
        finding=("randomised-output",),
        remedy=AVERAGED,
    ),
)
_STATE = (
    Member(
        factory=state.batch_norm_training,
        flaw="Batch normalisation stays in training mode and takes the batch's own statistics.",
        finding=("train-mode", "batch-dependent"),
        remedy=MARGIN,
    ),
    Member(
        factory=state.batch_brightness,
        flaw="Brightness is normalised by the batch, so neighbours change a sample's logits.",
        finding=("batch-dependent",),
        remedy=MARGIN,
    ),
)
_INPUTS = (
    Member(
        factory=inputs.memoriser,
        flaw="What is near a known test image is replaced by it: no gradient there.",
        finding=("zero-gradient",),
        remedy=_past("snap"),
    ),
    Member(
        factory=inputs.mean_detector,
        flaw="Images that are too bright get equal scores for all classes, without a gradient.",
        remedy=UNNOTICED,
    ),
    Member(
        factory=inputs.bytes_input,
        flaw="Values from 0 to 255 are expected and the data lie in [0, 1]: it sees black.",
        finding=("input-scaling",),
        declaration={"scale": 255},
        remedy=PLAIN,
    ),
    Member(
        factory=inputs.two_classes,
        flaw="Sound but undefended; of two classes there is no third logit.",
        remedy=PLAIN,
        classes=(0, 1),
    ),
    Member(
        factory=inputs.three_classes,
        flaw="Sound but undefended; of three classes there is no fourth logit.",
        remedy=PLAIN,
        classes=(0, 1, 2),
    ),
    Member(
        factory=inputs.tabular,
        flaw="Sound but undefended; its input is a row of numbers, no image.",
        remedy=PLAIN,
        shape=(784,),
    ),
)
_NO_MEMORY = "an ONNX file keeps no state from one call to the next"
_MEMORY = (
    Member(
        factory=memory.cached_answers,
        flaw="What lies near an earlier input gets its answer, and clean inputs are asked first.",
        finding=("answers-change",),
        no_onnx=_NO_MEMORY,
    ),
    Member(
        factory=memory.cached_places,
        flaw="After 40 calls a row gets what the first batch of that size had in its place.",
        finding=("answers-change",),
        no_onnx=_NO_MEMORY,
    ),
    Member(
        factory=memory.counted_calls,
        flaw="After 40 calls what is near a known test image is replaced by it.",
        finding=("answers-change",),
        no_onnx=_NO_MEMORY,
    ),
    Member(
        factory=memory.two_faced,
        flaw="What is near a known test image is replaced by it, unless gradients are asked for.",
        finding=("break-taken-back",),
        truth=None,
        no_onnx="an ONNX file cannot know whether gradients are asked for",
    ),
)
_HEALTHY = (
    Member(
        factory=healthy.standard,
        kind="healthy",
        flaw="The quickstart's undefended convolutional network.",
    ),
    Member(
        factory=healthy.robust,
        kind="healthy",
        flaw="The quickstart's network, adversarially trained for linf 0.3.",
        truth=None,
    ),
    Member(
        factory=healthy.surrogate,
        kind="healthy",
        flaw="The quickstart's undefended surrogate.",
    ),
    Member(factory=healthy.linear, kind="healthy", flaw="Ridge regression on pixels."),
    Member(
        factory=healthy.lipschitz,
        kind="healthy",
        flaw="A 1-Lipschitz network in l2, with small margins.",
    ),
    Member(factory=healthy.vit, kind="healthy", flaw="A small vision transformer."),
)

MEMBERS: tuple[Member, ...] = (
    *_GRADIENTS,
    *_OUTPUTS,
    *_RANDOMNESS,
    *_STATE,
    *_INPUTS,
    *_MEMORY,
    *_HEALTHY,
)


def member(name: str) -> Member:
    """The member of that name. Raises ModelError that names the nearest one."""
    for each in MEMBERS:
        if each.name == name:
            return each
    near = difflib.get_close_matches(name, [each.name for each in MEMBERS], n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    raise ModelError(f"the zoo has no member '{name}'{hint}")
