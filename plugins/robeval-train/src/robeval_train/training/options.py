"""What the loader `trained` may be asked for; nothing here imports torch."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, FiniteFloat, model_validator

from robustbench_lite import DatasetRef, Params

from ..nets.options import NETS, Net, convolutional, independent

Radius = Annotated[FiniteFloat, Field(ge=0)]
BallNorm = Literal["linf", "l2"]


class Standard(Params):
    """The mean cost on the clean inputs."""

    name: Literal["standard"] = "standard"


class FgsmAdversarial(Params):
    """alpha J(x) + (1 - alpha) J(x + eps sign(grad_x J)) (Goodfellow et al. 2015, section 6).

    The example is made anew for every step, with the same dropout masks, and no gradient flows
    through it. `clip`: keep it in the data's box (the paper does not). `clean_epochs`: epochs on J
    alone before that. From very small weights the second term pulls the last layer to 0: a step of
    eps in every pixel moves a random feature by far more than two classes differ in it.
    """

    name: Literal["fgsm-adversarial"] = "fgsm-adversarial"
    alpha: FiniteFloat = Field(default=0.5, ge=0, le=1)
    eps: Radius = 0.25
    clip: bool = False
    clean_epochs: int = Field(default=0, ge=0)


class PgdAdversarial(Params):
    """J on the examples of PGD from a random start (Madry et al. 2018), crafted in eval mode.

    `step_size` None: 2.5 eps / steps.
    """

    name: Literal["pgd-adversarial"] = "pgd-adversarial"
    norm: BallNorm = "linf"
    eps: Radius = 0.3
    steps: int = Field(default=7, ge=1)
    step_size: FiniteFloat | None = Field(default=None, gt=0)


class Trades(Params):
    """J(x) + beta KL(p(x) || p(x')), x' from PGD on the KL term (Zhang et al. 2019)."""

    name: Literal["trades"] = "trades"
    norm: BallNorm = "linf"
    eps: Radius = 0.3
    beta: FiniteFloat = Field(default=6.0, ge=0)
    steps: int = Field(default=10, ge=1)
    step_size: FiniteFloat | None = Field(default=None, gt=0)


class Noise(Params):
    """J(x + noise), anew for every step: +-eps with equal chance, or uniform in [-eps, eps]."""

    name: Literal["noise"] = "noise"
    kind: Literal["sign", "uniform"] = "sign"
    eps: Radius = 0.25


class Rubbish(Params):
    """J(x) + weight J of as many samples of N(0, I), which belong to no class.

    Under a softmax they shall get equal probabilities, under sigmoids a no of every class.
    """

    name: Literal["rubbish"] = "rubbish"
    weight: FiniteFloat = Field(default=1.0, ge=0)


class WorstCaseLogistic(Params):
    """softplus(eps |w|_1 - y (w.x + b)): the exact worst case of logistic regression.

    The paper prints eps |w|_1 under the label; that is the worst case of one class only.
    """

    name: Literal["worst-case-logistic"] = "worst-case-logistic"
    eps: Radius = 0.25


Recipe = Standard | FgsmAdversarial | PgdAdversarial | Trades | Noise | Rubbish | WorstCaseLogistic
RECIPES: dict[str, type[Recipe]] = {
    "standard": Standard,
    "fgsm-adversarial": FgsmAdversarial,
    "pgd-adversarial": PgdAdversarial,
    "trades": Trades,
    "noise": Noise,
    "rubbish": Rubbish,
    "worst-case-logistic": WorstCaseLogistic,
}


class Sgd(Params):
    """SGD whose rate is divided by `decay` after every step, down to `least`.

    The momentum goes linearly from `momentum` to `final_momentum` over epochs 1 to `saturate`, and
    the rate to `final_lr` over epochs 1 to `lr_saturate`. `conv_scale`: times the rate of weights
    and biases of convolutions.
    """

    name: Literal["sgd"] = "sgd"
    lr: FiniteFloat = Field(default=0.1, gt=0)
    final_lr: FiniteFloat | None = Field(default=None, gt=0)
    lr_saturate: int = Field(default=500, ge=1)
    conv_scale: FiniteFloat = Field(default=1.0, gt=0)
    decay: FiniteFloat = Field(default=1.0, ge=1)
    least: FiniteFloat = Field(default=1e-6, ge=0)
    momentum: FiniteFloat = Field(default=0.0, ge=0, lt=1)
    final_momentum: FiniteFloat | None = Field(default=None, ge=0, lt=1)
    saturate: int = Field(default=250, ge=1)


class Adam(Params):
    """Adam (Kingma and Ba 2015)."""

    name: Literal["adam"] = "adam"
    lr: FiniteFloat = Field(default=1e-3, gt=0)


class RmsProp(Params):
    """RMSProp (Tieleman and Hinton 2012)."""

    name: Literal["rmsprop"] = "rmsprop"
    lr: FiniteFloat = Field(default=1e-3, gt=0)


class AdaBound(Params):
    """AdaBound (Luo et al. 2019): Adam whose rates are squeezed towards `final_lr`."""

    name: Literal["adabound"] = "adabound"
    lr: FiniteFloat = Field(default=1e-3, gt=0)
    final_lr: FiniteFloat = Field(default=0.1, gt=0)
    gamma: FiniteFloat = Field(default=1e-3, gt=0)


Optimiser = Sgd | Adam | RmsProp | AdaBound
OPTIMISERS: dict[str, type[Optimiser]] = {
    "sgd": Sgd,
    "adam": Adam,
    "rmsprop": RmsProp,
    "adabound": AdaBound,
}


class Augment(Params):
    """Training images anew in every step: flipped left to right half of the time, then shifted.

    `shift`: the most pixels, up or down and left or right; what comes in from outside is 0.
    """

    flip: bool = False
    shift: int = Field(default=0, ge=0)


class Stop(Params):
    """Early stopping on the held-out samples: the best epoch so far, until `patience` epochs pass.

    `on`: the error on clean inputs, or on FGSM examples of `eps` against the current network.
    """

    on: Literal["clean", "adversarial"] = "clean"
    patience: int = Field(default=100, ge=1)
    eps: Radius = 0.25


def _as_tuples(value: object) -> object:
    """Lists as tuples: behind a validator of ours, pydantic no longer knows that this was JSON."""
    if isinstance(value, dict):
        return {key: _as_tuples(inner) for key, inner in value.items()}
    return tuple(_as_tuples(inner) for inner in value) if isinstance(value, list) else value


def _named(kind: str, table: dict[str, type[Params]]) -> BeforeValidator:
    """A plain name stands for that entry with its defaults; an unknown one names the nearest."""

    def spelled(value: object) -> object:
        found = {"name": value} if isinstance(value, str) else value
        name = found.get("name") if isinstance(found, dict) else None
        if isinstance(found, dict) and name not in table:
            near = get_close_matches(str(name), table, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ValueError(f"{kind} '{name}' is not one of {', '.join(table)}{hint}")
        return _as_tuples(found)

    return BeforeValidator(spelled, json_schema_input_type=dict[str, object] | str)


class TrainedParams(Params):
    """`models.<name>: {load: trained, ...}`.

    `on`: the training data. `augment`: what is done to its images in every step. `hold_out`: its
    last samples, kept for validation. `stop`: early stopping, without it every epoch is run and the
    last weights count. `retrain`: after early stopping, nothing; anew on all data for the best
    number of epochs; or on from the best weights, on all data, until the held-out cost is down to
    the training cost of the best epoch. `l1`: times the sum of absolute first-layer weights, added
    to the mean cost. `decay`: times half the sum of squares of all weights.
    """

    on: DatasetRef
    arch: Annotated[Annotated[Net, Field(discriminator="name")], _named("architecture", dict(NETS))]
    recipe: Annotated[
        Annotated[Recipe, Field(discriminator="name")], _named("recipe", dict(RECIPES))
    ] = Standard()
    optimiser: Annotated[
        Annotated[Optimiser, Field(discriminator="name")], _named("optimiser", dict(OPTIMISERS))
    ] = Sgd()
    epochs: int = Field(ge=1, description="the most epochs to train")
    batch: int = Field(default=100, ge=1)
    augment: Augment = Augment()
    hold_out: int = Field(default=0, ge=0)
    stop: Stop | None = None
    retrain: Literal["no", "anew", "on"] = "no"
    l1: FiniteFloat = Field(default=0.0, ge=0)
    decay: FiniteFloat = Field(default=0.0, ge=0)
    seed: int = Field(
        default=0, ge=0, description="of initialisation, order, augmentation, masks, noise"
    )

    @model_validator(mode="after")
    def _possible(self) -> TrainedParams:
        if self.stop is not None and not self.hold_out:
            raise ValueError("stop needs held-out samples: add hold_out, such as 10000")
        if self.retrain != "no" and self.stop is None:
            raise ValueError("retrain needs the best epoch of an early stop: add stop")
        exact = isinstance(self.recipe, WorstCaseLogistic)
        if exact and self.arch.name != "logistic":
            raise ValueError("recipe worst-case-logistic is exact for arch logistic alone")
        if isinstance(self.recipe, Trades) and independent(self.arch):
            raise ValueError(
                f"recipe trades compares the outputs of a softmax; arch {self.arch.name} has a yes"
                " or no for each class"
            )
        slower = isinstance(self.optimiser, Sgd) and self.optimiser.conv_scale != 1
        if slower and not convolutional(self.arch):
            raise ValueError(f"conv_scale: arch {self.arch.name} has no convolution")
        return self
