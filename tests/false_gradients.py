"""Networks that lead attacks astray near digits, by an invented gradient or by what they hide."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustbench_lite.testing.zoo.inputs import Snap
from robustbench_lite.testing.zoo.nets import convolutional, digits, frozen

BALL = 9.0  # in l2: all of the ball linf 0.3
SHELL = 0.15  # in linf: nearer, the network answers itself


class Invented(torch.autograd.Function):
    """The scores it is given, and as their gradient a fixed random direction."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, scores: Tensor) -> Tensor:
        """x: [n, *shape], scores: [n, k] -> the scores."""
        ctx.save_for_backward(x)
        return scores.clone()

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor
    ) -> tuple[Tensor, None]:
        """[n, k] -> [n, *shape]."""
        (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
        direction = torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(1)).to(x)
        size = gradients[0].abs().sum(dim=1) + 1e-3
        return direction * size.reshape(-1, *[1] * (x.ndim - 1)), None


class Snapped(nn.Module):
    """Answers for the nearest known digit, with an invented gradient; alone, for itself."""

    def __init__(self, *, alone: bool) -> None:
        super().__init__()
        self.net = convolutional()
        self.snap = Snap(digits()[0].flatten(1), BALL)
        self.alone = alone

    def forward(self, x: Tensor) -> Tensor:
        """x: [n, 1, 28, 28] -> logits [n, 10]."""
        snapped = self.net(self.snap(x))
        logits: Tensor = self.net(x) if self.alone and len(x) == 1 else snapped
        return Invented.apply(x, logits)  # type: ignore[no-any-return, no-untyped-call]


class Shelled(nn.Module):
    """Answers for a known digit from 0.15 off it to the end of the ball: broken nearer by."""

    def __init__(self) -> None:
        super().__init__()
        self.net = convolutional()
        self.known = digits()[0].flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """x: [n, 1, 28, 28] -> logits [n, 10]."""
        distance, nearest = torch.cdist(x.detach().flatten(1), self.known, p=torch.inf).min(dim=1)
        far = ((distance > SHELL) & (distance < 2 * SHELL + 0.01))[:, None]
        known = self.net(self.known[nearest].reshape(x.shape))
        logits = torch.where(far, known, self.net(x))
        return Invented.apply(x, logits)  # type: ignore[no-any-return, no-untyped-call]


def snapped() -> nn.Module:
    """No score moves in the ball."""
    return frozen(Snapped(alone=False))


def snapped_in_company() -> nn.Module:
    """No score moves in the ball, in a batch; undefended for whoever asks one by one."""
    return frozen(Snapped(alone=True))


def shelled() -> nn.Module:
    """No score moves where strong attacks look; undefended nearer by."""
    return frozen(Shelled())


class Thin(nn.Module):
    """Adversarially trained, and wrong between 0.05 and 0.1 off a digit, where no strong one ends."""

    def __init__(self) -> None:
        super().__init__()
        self.net = convolutional("mnist_cnn_robust")
        self.known = digits()[0].flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """x: [n, 1, 28, 28] -> logits [n, 10]."""
        distance = torch.cdist(x.detach().flatten(1), self.known, p=torch.inf).amin(dim=1)
        thin = ((distance > 0.05) & (distance < 0.1))[:, None]
        logits = self.net(x)
        return torch.where(thin, logits.roll(1, dims=1), logits)


def thin() -> nn.Module:
    """Broken at linf 0.1, and no longer at 0.3."""
    return frozen(Thin())
