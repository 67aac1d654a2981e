"""Other ways to scale the inputs that the network may have been trained with, each tried once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..access import score
from ..errors import FOREIGN
from ..group import out_of_memory
from ..losses import cross_entropy
from ..types import Box, LoadedModel
from . import keys

UNIT = Box(0.0, 1.0)
RGB = 3
HEALTHY = 0.9
"""Share of right answers from which no other scaling is tried: there is nothing to explain."""
FEWEST = 16
"""Samples on which a comparison is worth its passes."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """One way to feed x in [0, 1]: (scale * x - mean) / std, colours reversed first if `bgr`.

    `advice`: what to write into the suite, or to do, if this is what the network wants.
    `in_box`: the result is brought back to the data's own range.
    """

    name: str
    advice: str
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    bgr: bool = False
    in_box: bool = False

    def of(self, x: Tensor, box: Box) -> Tensor:
        """What is fed for x [n, *shape] in `box`."""
        unit = (x - box.low) / box.width
        unit = unit.flip(1) if self.bgr else unit
        fed = (self.scale * unit - _like(self.mean, x)) / _like(self.std, x)
        return box.low + box.width * fed if self.in_box else fed


def _like(values: tuple[float, ...], x: Tensor) -> Tensor:
    if len(values) == 1:
        return x.new_tensor(values[0])
    return x.new_tensor(values).reshape(1, -1, *(1,) * (x.ndim - 2))


def _declared(mean: tuple[float, ...], std: tuple[float, ...]) -> str:
    texts = [str(v[0]) if len(v) == 1 else f"[{', '.join(map(str, v))}]" for v in (mean, std)]
    return f"declare `mean: {texts[0]}` and `std: {texts[1]}` for the model"


_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CIFAR = ((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616))
_MNIST = ((0.1307,), (0.3081,))
_SIGNED = ((0.5,), (0.5,))
_CAFFE = (103.939, 116.779, 123.68)
_TWICE = tuple(-mean / std for mean, std in zip(*_IMAGENET, strict=True))

ALWAYS = (
    Scaling("0 to 255", "declare `scale: 255` for the model", scale=255.0),
    Scaling(
        "0 to 1/255",
        "take out a `scale: 255`, or a division by 255 that is done twice",
        scale=1 / 255,
    ),
    Scaling("-1 to 1", _declared(*_SIGNED), mean=_SIGNED[0], std=_SIGNED[1]),
    Scaling(
        "inverted",
        "the network knows dark and light the other way round: invert its input inside the model",
        scale=-1.0,
        mean=(-1.0,),
        in_box=True,
    ),
)
GREY = (Scaling("MNIST mean and std", _declared(*_MNIST), mean=_MNIST[0], std=_MNIST[1]),)
COLOURED = (
    Scaling("ImageNet mean and std", _declared(*_IMAGENET), mean=_IMAGENET[0], std=_IMAGENET[1]),
    Scaling("CIFAR-10 mean and std", _declared(*_CIFAR), mean=_CIFAR[0], std=_CIFAR[1]),
    Scaling(
        "ImageNet mean and std taken back",
        "take out `mean` and `std`: the network normalises its input itself",
        mean=_TWICE,
        std=tuple(1 / std for std in _IMAGENET[1]),
    ),
    Scaling("BGR", "declare `channels: bgr` for the model", bgr=True, in_box=True),
    Scaling(
        "BGR, 0 to 255 less the ImageNet mean",
        f"declare `scale: 255`, `channels: bgr` and `mean: {list(_CAFFE)}` for the model",
        scale=255.0,
        mean=_CAFFE,
        bgr=True,
    ),
)
SHIFTED = (Scaling("0 to 1", "declare the scale that brings the data to [0, 1] for the model"),)
ADVICE = {each.name: each.advice for each in (*ALWAYS, *GREY, *COLOURED, *SHIFTED)}


def candidates(shape: tuple[int, ...], box: Box) -> tuple[Scaling, ...]:
    """What may be tried on samples of that shape and range."""
    coloured = len(shape) == RGB and shape[0] == RGB
    own = () if box == UNIT else SHIFTED
    return (*ALWAYS, *own, *(COLOURED if coloured else GREY))


def tried(
    model: LoadedModel, x: Tensor, y: Tensor, box: Box, right: Tensor, count: Callable[[int], None]
) -> dict[str, float]:
    """What every other scaling would gain and lose, on the same samples.

    x: [n, *shape] in `box`, y: int64 [n], `right`: bool [n], correct as declared. `count` is told
    of every pass. Empty for a model that is right often enough, and for few samples.
    """
    n = len(x)
    if n < FEWEST or int(right.sum()) >= HEALTHY * n:
        return {}
    observed: dict[str, float] = {}
    for scaling in candidates(tuple(x.shape[1:]), box):
        logits = _scores(model, scaling.of(x, box))
        count(n)
        if logits is None:
            continue
        found = logits.argmax(dim=1) == y
        name = f"{keys.SCALING}{scaling.name}"
        observed |= {
            f"{name}{keys.GAINED}": int((found & ~right).sum()),
            f"{name}{keys.LOST}": int((right & ~found).sum()),
            f"{name}{keys.LOSS}": float(cross_entropy(logits.double(), y).mean()),
        }
    return observed


def _scores(model: LoadedModel, x: Tensor) -> Tensor | None:
    """Finite scores, or None for a model that refuses inputs beyond its box."""
    try:
        logits = score(model, x)
    except FOREIGN as problem:
        if out_of_memory(problem):
            raise
        return None
    return logits if bool(logits.isfinite().all()) else torch.nan_to_num(logits)
