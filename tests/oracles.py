"""Random models with exact answers, a counting Classifier, and the contract every attack keeps."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from robustbench_lite import losses, norms
from robustbench_lite.hookspecs import AttackSpec
from robustbench_lite.rng import SampleRng, sample_keys
from robustbench_lite.types import Box, Budget, Cost, Evaluated, Loss, Norm

UNIT = Box(0.0, 1.0)
WIDE = Box(-1.5, 2.0)
CPU = torch.device("cpu")

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class CountingClassifier:
    """The `Classifier` protocol over a module; counts passes for each of the n samples.

    It insists on being told which rows it sees: as many inputs as rows, always.
    """

    net: nn.Module
    num_classes: int
    box: Box
    shape: tuple[int, ...]
    index: Tensor
    queries: Tensor
    gradients: Tensor
    draws: int = 1

    @property
    def device(self) -> torch.device:
        return self.index.device

    def logits(self, x: Tensor) -> Tensor:
        self._count(self.queries, x)
        with torch.no_grad():
            return torch.stack([self.net(x) for _ in range(self.draws)]).mean(dim=0)

    def decide(self, x: Tensor) -> Tensor:
        return self.logits(x).argmax(dim=1)

    def gradient(self, x: Tensor, y: Tensor, loss: Loss = "cross-entropy") -> Tensor:
        return self.value_and_gradient(x, y, loss).gradient

    def value_and_gradient(self, x: Tensor, y: Tensor, loss: Loss = "cross-entropy") -> Evaluated:
        self._count(self.queries, x)
        self._count(self.gradients, x)
        with torch.enable_grad():
            leaf = x.detach().clone().requires_grad_(True)
            logits = torch.stack([self.net(leaf) for _ in range(self.draws)]).mean(dim=0)
            value = losses.resolve(loss)(logits, y)
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
        return Evaluated(value.detach(), gradient, logits.detach())

    def averaged(self, draws: int) -> CountingClassifier:
        return replace(self, draws=self.draws * draws)

    def rows(self, index: Tensor) -> CountingClassifier:
        return replace(self, index=self.index[index])

    def module(self) -> nn.Module:
        return self.net

    def _count(self, counter: Tensor, x: Tensor) -> None:
        assert x.shape == (len(self.index), *self.shape)
        assert x.dtype == torch.float32
        counter.index_add_(0, self.index, torch.full_like(self.index, self.draws))


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A module, its box, and a batch x [n, *shape] with labels y [n]; `names` identify samples."""

    net: nn.Module
    classes: int
    box: Box
    x: Tensor
    y: Tensor
    names: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if not self.names:
            names = tuple(f"sample-{i}" for i in range(len(self.x)))
            object.__setattr__(self, "names", names)

    def rows(self, index: list[int]) -> Problem:
        return Problem(
            net=self.net,
            classes=self.classes,
            box=self.box,
            x=self.x[index],
            y=self.y[index],
            names=tuple(self.names[i] for i in index) or ("nobody",),
        )

    def with_labels(self, y: Tensor) -> Problem:
        return Problem(
            net=self.net, classes=self.classes, box=self.box, x=self.x, y=y, names=self.names
        )

    def model(self) -> CountingClassifier:
        n, *shape = self.x.shape
        index = torch.arange(n, device=self.x.device)
        return CountingClassifier(
            net=self.net,
            num_classes=self.classes,
            box=self.box,
            shape=tuple(shape),
            index=index,
            queries=torch.zeros_like(index),
            gradients=torch.zeros_like(index),
        )

    def rng(self, seed: int = 0) -> SampleRng:
        keys = sample_keys(self.names, self.x.device)
        return SampleRng(seed, "test", keys[: len(self.x)])

    def budget(self, norm: Norm, eps: float) -> Budget:
        return Budget(norm=norm, eps=eps, box=self.box)

    def gains(self, x: Tensor) -> Array:
        """z_j - z_y at x for every class j, float64 [n, k]; -inf for y itself."""
        with torch.no_grad():
            z = copy.deepcopy(self.net).double()(x.double()).cpu().numpy()
        own = np.take_along_axis(z, self.y.cpu().numpy()[:, None], axis=1)
        gains = z - own
        np.put_along_axis(gains, self.y.cpu().numpy()[:, None], -np.inf, axis=1)
        return cast("Array", gains)


def run(
    spec: AttackSpec,
    problem: Problem,
    budget: Budget,
    *,
    seed: int = 0,
    model: CountingClassifier | None = None,
    **own: object,
) -> Tensor:
    """What the attack returns for the problem's batch."""
    attack = cast("Callable[..., Tensor]", spec.implementation)
    classifier = problem.model() if model is None else model
    return attack(classifier, problem.x, problem.y, budget=budget, rng=problem.rng(seed), **own)


# ---------------------------------------------------------------- random problems


def inputs(
    generator: torch.Generator, n: int, shape: tuple[int, ...], box: Box, *, edge: bool
) -> Tensor:
    """Inputs well inside the box, or (edge) two thirds of their components on its faces."""
    unit = torch.rand((n, *shape), generator=generator)
    if edge:
        face = torch.randint(0, 3, (n, *shape), generator=generator)
        return torch.where(
            face == 2, box.low + box.width * unit, torch.tensor([box.low, box.high])[face % 2]
        )
    return box.low + box.width * (0.4 + 0.2 * unit)


def linear_problem(
    seed: int,
    *,
    classes: int,
    shape: tuple[int, ...],
    n: int = 12,
    box: Box = UNIT,
    edge: bool = False,
    device: torch.device = CPU,
) -> Problem:
    """A random linear model z = W x + b and a batch that it classifies correctly."""
    generator = torch.Generator().manual_seed(seed)
    size = int(np.prod(shape))
    layer = nn.Linear(size, classes)
    x = inputs(generator, n, shape, box, edge=edge)
    with torch.no_grad():
        layer.weight.copy_(torch.randn((classes, size), generator=generator))
        layer.bias.copy_(-_middle(layer, box))
    net = nn.Sequential(nn.Flatten(), layer).to(device)
    x = x.to(device)
    with torch.no_grad():
        y = net(x).argmax(dim=1)
    return Problem(net=net, classes=classes, box=box, x=x, y=y)


def network_problem(
    seed: int,
    *,
    classes: int,
    shape: tuple[int, ...],
    n: int = 8,
    box: Box = UNIT,
    edge: bool = False,
    device: torch.device = CPU,
) -> Problem:
    """A small random ReLU network and a batch that it classifies correctly."""
    generator = torch.Generator().manual_seed(seed)
    size = int(np.prod(shape))
    first, second = nn.Linear(size, 32), nn.Linear(32, classes)
    net = nn.Sequential(nn.Flatten(), first, nn.ReLU(), second)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        first.bias.mul_(0.1).sub_(_middle(first, box))
        second.bias.mul_(0.1)
    x = inputs(generator, n, shape, box, edge=edge).to(device)
    net = net.to(device)
    with torch.no_grad():
        y = net(x).argmax(dim=1)
    return Problem(net=net, classes=classes, box=box, x=x, y=y)


def _middle(layer: nn.Linear, box: Box) -> Tensor:
    """What the layer's weights make of the middle of the box: classes differ around it."""
    return layer.weight @ torch.full((layer.in_features,), box.low + box.width / 2)


# ---------------------------------------------------------------- exact answers


def highest_gains(problem: Problem, budget: Budget) -> Array:
    """The exact maximum of z_j - z_y over ball and box, for every class j: float64 [n, k].

    Only for linear problems. Written in numpy, apart from `robustbench_lite.norms`.
    """
    return _highest(problem, budget.norm, np.full(len(problem.x), budget.eps))


def undecided_eps(problem: Problem, norm: Norm) -> float:
    """An eps that breaks about half of a linear problem's samples and is a tie for none.

    Midway between the exact distances of two neighbouring samples.
    """
    low = np.zeros(len(problem.x))
    high = np.full(len(problem.x), 1e3)
    for _ in range(30):
        middle = (low + high) / 2
        broken = _highest(problem, norm, middle).max(axis=1) > 0
        low, high = np.where(broken, low, middle), np.where(broken, middle, high)
    distances = np.sort(high[high < 1e3])
    assert len(distances) > 3
    half = len(distances) // 2
    return float(distances[half - 1] + distances[half]) / 2


def _highest(problem: Problem, norm: Norm, eps: Array) -> Array:
    layer = cast("nn.Linear", cast("nn.Sequential", problem.net)[1])
    weight = layer.weight.detach().cpu().double().numpy()
    flat = problem.x.flatten(1).cpu().double().numpy()[:, None]
    slope = weight[None] - weight[problem.y.cpu().numpy()][:, None]
    room = np.where(slope > 0, problem.box.high - flat, flat - problem.box.low)
    most: Array = problem.gains(problem.x) + _most(np.abs(slope), room, norm, eps[:, None, None])
    return most


def _most(slope: Array, room: Array, norm: Norm, eps: Array) -> Array:
    """max <slope, a> with 0 <= a <= room and ||a||_norm <= eps, along the last axis; slope >= 0."""
    if norm == "linf":
        amount = np.minimum(room, eps)
    elif norm == "l1":
        order = np.argsort(-slope, axis=-1)
        limits = np.take_along_axis(room, order, axis=-1)
        before = np.cumsum(limits, axis=-1) - limits
        amount = np.zeros_like(room)
        np.put_along_axis(amount, order, np.clip(eps - before, 0, limits), axis=-1)
    else:
        low, high = np.zeros_like(slope[..., :1]), np.full_like(slope[..., :1], 1e6)
        for _ in range(80):
            middle = (low + high) / 2
            length = np.linalg.norm(np.minimum(middle * slope, room), axis=-1, keepdims=True)
            low, high = np.where(length > eps, low, middle), np.where(length > eps, middle, high)
        amount = np.minimum(low * slope, room)
    total: Array = (slope * amount).sum(axis=-1)
    return total


# ---------------------------------------------------------------- the contract


def assert_legal(problem: Problem, x_adv: Tensor, budget: Budget) -> None:
    """Same shape and dtype, finite, in the box, in the ball (float32 rounding apart)."""
    assert x_adv.shape == problem.x.shape
    assert x_adv.dtype == torch.float32
    assert x_adv.device == problem.x.device
    assert bool(x_adv.isfinite().all())
    assert bool((x_adv >= budget.box.low).all())
    assert bool((x_adv <= budget.box.high).all())
    distance = norms.distance(x_adv.double() - problem.x.double(), budget.norm)
    assert bool((distance <= budget.eps * (1 + 1e-5) + 1e-6).all())


def assert_contract(
    spec: AttackSpec, problem: Problem, budget: Budget, *, exact: bool = True, **own: object
) -> None:
    """What every attack keeps, whatever it does: legality, purity, and no say of the batch.

    `exact`: the batch may not change a bit; else (a matrix product depends on its batch in the
    last place) not more than 1e-5.
    """
    tolerance = 0.0 if exact else 1e-5

    def same(a: Tensor, b: Tensor) -> None:
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)

    def answer(part: Problem, within: Budget = budget) -> Tensor:
        return run(spec, part, within, seed=0, model=None, **own)

    kept, state = problem.x.clone(), torch.get_rng_state()
    whole = answer(problem)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(problem.x, kept)
    assert whole.data_ptr() != problem.x.data_ptr()
    assert not whole.requires_grad
    assert_legal(problem, whole, budget)
    same(answer(problem), whole)

    same(torch.cat([answer(problem.rows([i])) for i in range(len(whole))]), whole)
    turned = list(range(len(whole)))[::-1]
    same(answer(problem.rows(turned)), whole[turned])
    assert answer(problem.rows([])).shape == (0, *whole.shape[1:])
    assert torch.equal(answer(problem, problem.budget(budget.norm, 0.0)), problem.x)


def estimated(spec: AttackSpec, problem: Problem, **own: object) -> Cost:
    """The spec's own estimate for these parameters."""
    assert spec.cost is not None
    cost = spec.cost(spec.params(**own), tuple(problem.x.shape[1:]), problem.classes)
    assert cost is not None
    return cost
