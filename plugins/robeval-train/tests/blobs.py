"""Small data with classes that can be told apart, and jobs on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from robeval_train import nets
from robeval_train.nets.options import independent
from robeval_train.training import costs, loop
from robeval_train.training.costs import Cost
from robeval_train.training.kept import Folder
from robeval_train.training.options import TrainedParams
from robustbench_lite import Box

SHAPE = (1, 4, 4)
CLASSES = 3


def blobs(
    n: int = 120, classes: int = CLASSES, seed: int = 0, shape: tuple[int, ...] = SHAPE
) -> loop.Labelled:
    """n noisy copies of `classes` random images in [0, 1]."""
    rng = torch.Generator().manual_seed(seed)
    centres = torch.rand(classes, *shape, generator=rng)
    y = torch.arange(n) % classes
    x = (centres[y] + 0.15 * torch.randn(n, *shape, generator=rng)).clamp(0, 1)
    return loop.Labelled(x, y)


def params(**given: object) -> TrainedParams:
    """Parameters of a training, from what a suite would say."""
    return TrainedParams.model_validate({"on": "d", "arch": "softmax", "epochs": 3, **given})


def job(
    folder: Path,
    given: Mapping[str, object],
    *,
    data: loop.Labelled | None = None,
    cost: Cost | None = None,
) -> loop.Job:
    """A training on blobs, kept in `folder`."""
    options = params(batch=20, **given)
    data = data or blobs()
    own = independent(options.arch)
    classes = int(data.y.max()) + 1
    return loop.Job(
        name="blobs",
        options=options,
        build=lambda: nets.build(options.arch, tuple(data.x.shape[1:]), classes),
        data=data,
        box=Box(),
        cost=cost or (costs.per_class if own else costs.cross_entropy),
        independent=own,
        folder=Folder(folder),
    )


class Interrupting:
    """A cost that is stopped by the user after some batches."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, scores: Tensor, y: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return costs.cross_entropy(scores, y)


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Whether two sets of weights are equal bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


Build = Callable[[], torch.nn.Module]
