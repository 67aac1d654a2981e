"""What a gradient attack would see at the clean inputs: one backward pass for each loss."""

from __future__ import annotations

import torch
from torch import Tensor

from ..access import differentiate
from ..errors import FOREIGN
from ..group import out_of_memory
from ..judge import to_logits
from ..losses import cross_entropy
from ..types import LoadedModel
from . import keys

ROWS = 32
LOSSES = ("cross-entropy", "margin")


def gradients(model: LoadedModel, x: Tensor, y: Tensor, output: Tensor) -> dict[str, float]:
    """Faults of the input gradient and of the float32 cross-entropy.

    x: [n, *shape], y: int64 [n], every label known to the model. `output`: the artefact's own
    [n, k], which tells of the cross-entropy where there is no gradient.
    """
    x, y = x[:ROWS], y[:ROWS]
    observed: dict[str, float] = {keys.GRADIENT_SAMPLES: 0, keys.GRADIENT_PASSES: 0}
    logits = to_logits(output[:ROWS], model.output)
    if model.differentiable is not None:
        try:
            for loss in LOSSES:
                evaluated = differentiate(model, x, y, loss)
                observed[keys.GRADIENT_PASSES] += len(x)
                observed |= _faults(evaluated.gradient, loss)
                logits = evaluated.logits
        except FOREIGN as problem:
            if out_of_memory(problem):
                raise
            return observed | {keys.NO_GRADIENT: 1}
        observed[keys.GRADIENT_SAMPLES] = len(x)
    return observed | _saturation(logits, y)


def _faults(gradient: Tensor, loss: str) -> dict[str, float]:
    rows = gradient.flatten(1)
    broken = ~rows.isfinite().all(dim=1)
    return {
        f"{keys.BROKEN}{loss}": int(broken.sum()),
        f"{keys.ZERO}{loss}": int((rows == 0).all(dim=1).sum()),
    }


def _saturation(logits: Tensor, y: Tensor) -> dict[str, float]:
    """How often the loss is exactly 0, and how often all of its gradient is.

    At 0 the gradient has lost the half that lowers the true class (1 - p_y rounds to 0); it is
    nothing at all once the other probabilities are too small for float32.
    """
    logits = logits.detach().float()
    sure = (logits.argmax(dim=1) == y) & logits.isfinite().all(dim=1)
    logits, y = logits[sure], y[sure]
    others = logits.softmax(dim=1).scatter(1, y[:, None], 0.0)
    flat = torch.eq(others.sum(dim=1), 0) & (logits.shape[1] > 1)
    return {
        keys.SURE: int(sure.sum()),
        keys.LOSS_ZERO: int((cross_entropy(logits, y) == 0).sum()),
        keys.LOSS_FLAT: int(flat.sum()),
    }
