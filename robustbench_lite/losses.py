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

CLEAN_GAP = 8.0
DLR_GUARD = 1e-12  # all logits equal: 0 / 0 (the value of the authors' own code)


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """-log softmax(logits)[y], [n]."""
    return functional.cross_entropy(logits, y, reduction="none")


def log_odds(logits: Tensor, y: Tensor) -> Tensor:
    """log((1 - p_y) / p_y) of p = softmax(logits), [n]: cross-entropy that float32 cannot saturate.

    It rises with cross-entropy and has the same steepest direction, but its gradient does not fade
    where p_y is near 1, so that large logits do not look robust.
    """
    others = logits.scatter(1, y[:, None], float("-inf"))
    return others.logsumexp(dim=1) - logits.gather(1, y[:, None])[:, 0]


def rescaled_cross_entropy(clean: Tensor) -> LossFunction:
    """`log_odds` of logits in a unit of their row that no scale of the model changes.

    clean: logits [n, k] of the unperturbed rows. The unit makes 8 of the gap between their largest
    and third largest (or second, of two): about what an ordinary model has, where this is plain
    cross-entropy to an attack. A model whose logits are multiplied by 1,000 is attacked as before.

    After Yu and Xu, "Efficient loss function by minimizing the detrimental effect of
    floating-point errors on gradient-based attacks", CVPR 2023, who rescale every point anew.
    """
    top = clean.detach().topk(min(3, clean.shape[1]), dim=1).values
    unit = (top[:, :1] - top[:, -1:]) / CLEAN_GAP + DLR_GUARD

    def rescaled(logits: Tensor, y: Tensor) -> Tensor:
        return log_odds(logits / unit, y)

    return rescaled


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


def targeted_dlr(logits: Tensor, target: Tensor) -> Tensor:
    """Targeted difference of logits ratio (Croce, Hein 2020, eq. 7), [n]: positive at the target.

    The target's logit minus the best other one (the true label's, as long as nothing is reached)
    over the largest minus the mean of the third and fourth. With fewer than 4 classes there is no
    fourth, and for three the ratio would be flat: the target's margin.
    """
    ahead = -margin(logits, target)
    if logits.shape[1] < 4:
        return ahead
    top = logits.topk(4, dim=1).values
    return ahead / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + DLR_GUARD)


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
    other one, "dlr" `targeted_dlr`.
    """
    function = resolve(loss)
    if function is dlr:
        return targeted_dlr

    def towards(logits: Tensor, target: Tensor) -> Tensor:
        return -function(logits, target)

    return towards
