"""Models and points for the tests of what is planted and of the self-test."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache

import torch
from torch import Tensor, nn

from robustbench_lite import (
    AttackSpec,
    Box,
    Budget,
    LoadedModel,
    Norm,
    SampleRng,
)
from robustbench_lite.planted import (
    Plant,
    plant,
)
from robustbench_lite.selftest import (
    BROKEN,
    PLANTED,
    self_test,
)
from robustbench_lite.testing import zoo
from robustbench_lite.types import Access, Batch
from tests.small_world import UNIT, batch, loaded

N = 12
Attack = Callable[..., object]
EPS: Mapping[Norm, float] = {"linf": 0.1, "l2": 0.5, "l1": 1.0, "l0": 3.0}


class Net(nn.Module):
    """A random network of one hidden layer, for inputs of any shape."""

    def __init__(self, shape: tuple[int, ...], classes: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        size = math.prod(shape)
        first = torch.randn((24, size), generator=generator) / math.sqrt(size)
        self.first = nn.Parameter(4 * first, requires_grad=False)
        self.last = nn.Parameter(torch.randn((classes, 24), generator=generator), False)

    def forward(self, x: Tensor) -> Tensor:
        return ((x.flatten(1) - 0.5) @ self.first.T).tanh() @ self.last.T


def world(
    shape: tuple[int, ...] = (12,),
    classes: int = 3,
    *,
    n: int = N,
    seed: int = 0,
    box: Box = UNIT,
    net: nn.Module | None = None,
) -> tuple[LoadedModel, Batch]:
    """A model and points of its box, all of which it classifies correctly."""
    model = loaded(net or Net(shape, classes, seed), classes)
    unit = torch.rand((n, *shape), generator=torch.Generator().manual_seed(seed))
    x = box.low + box.width * unit
    return model, batch(x, model.predict(x).argmax(dim=1), box=box)


def budget(norm: Norm, eps: float | None = None, box: Box = UNIT) -> Budget:
    return Budget(norm=norm, eps=EPS[norm] if eps is None else eps, box=box)


def planted_for(
    model: LoadedModel, b: Batch, ball: Budget, access: Access = "gradient", **own: object
) -> Plant:
    rng = SampleRng(0, "mine", b.keys)
    return plant(model, b.x, b.y, ball, rng, access=access, **own)  # type: ignore[arg-type]


@cache
def digits(name: str, n: int) -> tuple[LoadedModel, Batch]:
    """A member of the zoo and the first digits."""
    x, y = zoo.digits()
    return loaded(zoo.member(name).factory(), 10), batch(x[:n], y[:n])


def tried(
    spec: AttackSpec,
    given: tuple[LoadedModel, Batch],
    ball: Budget,
    *,
    seed: int = 0,
    target: str | None = None,
    bpda: tuple[str, ...] = (),
    params: Mapping[str, object] | None = None,
) -> Mapping[str, float]:
    model, b = given
    assert callable(spec.implementation)
    values = spec.params(**params or {})
    return self_test(
        spec,
        spec.implementation,
        {name: getattr(values, name) for name in type(values).model_fields},
        model,
        b,
        ball,
        SampleRng(seed, spec.name, b.keys),
        target=target,
        bpda=bpda,
    )


def share(counts: Mapping[str, float]) -> float:
    assert counts[PLANTED] > 0
    return counts[BROKEN] / counts[PLANTED]
