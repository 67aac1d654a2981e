"""Per-sample losses that an attack maximises: larger means more wrong.

Each takes logits [n, k] and labels y int64 [n] and returns [n].
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import Tensor
from torch.nn import functional

from .errors import PluginError
from .types import Loss

LossFunction = Callable[[Tensor, Tensor], Tensor]

DLR_GUARD = 1e-12  # all logits equal: 0 / 0 (the value of the authors' own code)


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """-log softmax(logits)[y], [n]."""
    return functional.cross_entropy(logits, y, reduction="none")


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Best other logit minus the logit of y, [n]: positive where misclassified.

    The loss of Carlini and Wagner (2017) without its confidence term; any number of classes from 2.
    """
    own = logits.gather(1, y[:, None])
    others = logits.scatter(1, y[:, None], float("-inf"))
    return others.amax(dim=1) - own[:, 0]


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Difference of logits ratio (Croce and Hein 2020, eq. 6), [n]: positive where misclassified.

    The margin over the distance of the largest to the third largest logit: neither a shift nor a
    scale of the logits changes it. With fewer than 3 classes there is no third: the margin.
    """
    if logits.shape[1] < 3:
        return margin(logits, y)
    top = logits.topk(3, dim=1).values
    return margin(logits, y) / (top[:, 0] - top[:, 2] + DLR_GUARD)


LOSSES: Mapping[str, LossFunction] = MappingProxyType(
    {"cross-entropy": cross_entropy, "margin": margin, "dlr": dlr}
)


def resolve(loss: Loss) -> LossFunction:
    """The loss of that name, or the function itself. Raises PluginError for an unknown name."""
    if callable(loss):
        return loss
    if loss not in LOSSES:
        near = difflib.get_close_matches(loss, LOSSES, n=1)
        raise PluginError(
            f"loss '{loss}' is not one of {', '.join(LOSSES)}"
            + (f"; did you mean '{near[0]}'?" if near else "")
            + "\n  help: give one of these names or a function (logits, y) -> loss per sample"
        )
    return LOSSES[loss]


def targeted(loss: Loss) -> LossFunction:
    """The loss of a targeted attack: called with the targets as y, it grows towards the target.

    "cross-entropy" becomes log softmax(logits)[target], "margin" the target's logit minus the best
    other one.
    """
    function = resolve(loss)

    def towards(logits: Tensor, target: Tensor) -> Tensor:
        return -function(logits, target)

    return towards
