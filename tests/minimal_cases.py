"""What the tests of minimal-norm attacks share: exact distances, odd models, the embedded MNIST."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from robustbench_lite import Norm, losses, norms
from robustbench_lite.embedded import nets
from robustbench_lite.hookspecs import AttackSpec
from tests.oracles import (
    UNIT,
    WIDE,
    Array,
    Problem,
    _highest,
    assert_contract,
    estimated,
    inputs,
    run,
)

UNLIMITED = 1e3
SHAPES = [(7,), (3, 5), (2, 3, 4)]
BATCHES = [1, 3, 8]


def exact_distances(problem: Problem, norm: Norm) -> Array:
    """Least distance inside the box at which a linear problem's samples break, by bisection."""
    low, high = np.zeros(len(problem.x)), np.full(len(problem.x), UNLIMITED)
    for _ in range(60):
        middle = (low + high) / 2
        broken = _highest(problem, norm, middle).max(axis=1) > 0
        low, high = np.where(broken, low, middle), np.where(broken, middle, high)
    return high


def fewest_pixels(problem: Problem) -> Array:
    """Least number of pixels with which a linear problem's samples break inside the box."""
    fewest = np.full(len(problem.x), np.inf)
    for j in range(problem.classes):
        slope, room = slopes_and_rooms(problem, j)
        gains = np.abs(slope) * room
        if problem.x.ndim == 4:
            gains = gains.reshape(len(gains), problem.x.shape[1], -1).sum(axis=1)
        sums = np.cumsum(-np.sort(-gains, axis=1), axis=1)
        enough = sums > -problem.gains(problem.x)[:, [j]]
        count = np.where(enough.any(axis=1), enough.argmax(axis=1) + 1, np.inf)
        fewest = np.where(problem.y.numpy() == j, fewest, np.minimum(fewest, count))
    return cast("Array", fewest)


def slopes_and_rooms(problem: Problem, rival: int) -> tuple[Array, Array]:
    """How z_rival - z_y grows with each component, and how far the box lets that one go."""
    layer = cast("nn.Linear", cast("nn.Sequential", problem.net)[1])
    weight = layer.weight.detach().double().numpy()
    flat = problem.x.flatten(1).double().numpy()
    slope = weight[rival] - weight[problem.y.numpy()]
    return slope, np.where(slope > 0, problem.box.high - flat, flat - problem.box.low)


def distances(problem: Problem, x_adv: Tensor, norm: Norm) -> Array:
    """Distance of each answer, float64."""
    return cast("Array", norms.distance(x_adv.double() - problem.x.double(), norm).cpu().numpy())


def broken(problem: Problem, x_adv: Tensor) -> NDArray[np.bool_]:
    """Whether each answer is misclassified."""
    with torch.no_grad():
        wrong = problem.net(x_adv).argmax(dim=1) != problem.y
    return cast("NDArray[np.bool_]", wrong.cpu().numpy())


def attacked(spec: AttackSpec, problem: Problem, norm: Norm, **own: object) -> Tensor:
    """The answers of a run without a limit, checked to lie in the box."""
    x_adv = run(spec, problem, problem.budget(norm, UNLIMITED), seed=0, model=None, **own)
    assert x_adv.shape == problem.x.shape
    assert bool((x_adv >= problem.box.low).all())
    assert bool((x_adv <= problem.box.high).all())
    return x_adv


def assert_near_exact(
    spec: AttackSpec, problem: Problem, norm: Norm, *, excess: float, **own: object
) -> None:
    """Every sample breaks, at most `excess` (a share) farther than the nearest broken point."""
    exact = exact_distances(problem, norm)
    assert (exact < UNLIMITED).all()
    x_adv = attacked(spec, problem, norm, **own)
    got = distances(problem, x_adv, norm)
    assert broken(problem, x_adv).all()
    assert (got >= exact * (1 - 1e-4)).all()
    assert (got <= exact * (1 + excess)).all(), got / exact


def assert_union_near_exact(
    spec: AttackSpec, problem: Problem, norm: Norm, *, excess: float, **own: object
) -> None:
    """The nearest of one targeted run per class is near the exact distance.

    Reaching one class is a concave problem for which a local search is enough; leaving one has a
    local minimum for each other class.
    """
    exact = exact_distances(problem, norm)
    nearest = np.full(len(problem.x), np.inf)
    for j in range(problem.classes):
        target = torch.full_like(problem.y, j)
        x_adv = attacked(spec, problem, norm, target=target, **own)
        got = distances(problem, x_adv, norm)
        hit = broken(problem, x_adv)
        assert (got >= exact * (1 - 1e-4))[hit].all()
        nearest = np.minimum(nearest, np.where(hit, got, np.inf))
    assert (nearest <= exact * (1 + excess)).all(), nearest / exact


class Rowwise(nn.Module):
    """A small network that treats each row for itself, so that a batch cannot change a bit."""

    def __init__(self, seed: int, size: int, classes: int, middle: float) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.first = torch.randn((16, size), generator=generator).double()
        self.second = torch.randn((classes, 16), generator=generator).double()
        self.middle = middle

    def forward(self, x: Tensor) -> Tensor:
        centred = x.double().flatten(1) - self.middle
        hidden = (centred[:, None] * self.first).sum(dim=2).relu()
        return (hidden[:, None] * self.second).sum(dim=2).float()


def rowwise_problem(seed: int, *, classes: int, shape: tuple[int, ...], n: int = 5) -> Problem:
    """Random inputs, two thirds of their components on the faces of a wide box."""
    generator = torch.Generator().manual_seed(seed)
    net = Rowwise(seed, int(np.prod(shape)), classes, (WIDE.low + WIDE.high) / 2)
    x = inputs(generator, n, shape, WIDE, edge=True)
    return Problem(net=net, classes=classes, box=WIDE, x=x, y=net(x).argmax(dim=1))


def assert_minimal_contract(
    spec: AttackSpec, norm: Norm, shape: tuple[int, ...], classes: int = 3, **own: object
) -> None:
    """`assert_contract` bit for bit, and once more with targets."""
    problem = rowwise_problem(0, classes=classes, shape=shape)
    budget = problem.budget(norm, UNLIMITED)
    assert_contract(spec, problem, budget, exact=True, **own)
    assert broken(problem, run(spec, problem, budget, seed=0, model=None, **own)).any()
    if spec.targeted:
        target = (problem.y + 1) % classes
        whole = run(spec, problem, budget, seed=0, model=None, target=target, **own)
        alone = run(spec, problem.rows([2]), budget, seed=0, model=None, target=target[2:3], **own)
        assert torch.equal(alone[0], whole[2])


class Fortress(nn.Module):
    """The first of `classes` classes always leads; gradients point to where it leads least."""

    def __init__(self, classes: int, size: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.randn((classes - 1, size), generator=generator) / size

    def forward(self, x: Tensor) -> Tensor:
        others = (x.flatten(1) @ self.weight.T).tanh()
        return torch.cat((torch.full_like(others[:, :1], 5.0), others), dim=1)


def fortress(*, classes: int = 3, shape: tuple[int, ...] = (2, 3, 4), n: int = 4) -> Problem:
    """A problem in which nothing can be broken."""
    x = inputs(torch.Generator().manual_seed(1), n, shape, UNIT, edge=False)
    net = Fortress(classes, int(np.prod(shape)))
    return Problem(net=net, classes=classes, box=UNIT, x=x, y=torch.zeros(n, dtype=torch.int64))


def visited(spec: AttackSpec, problem: Problem, norm: Norm, **own: object) -> tuple[Tensor, Tensor]:
    """Every point but x that the attack looks at for one sample, and its answer."""
    points: list[Tensor] = []
    hook = problem.net.register_forward_pre_hook(lambda _, x: points.append(x[0].detach().clone()))
    x_adv = run(spec, problem, problem.budget(norm, UNLIMITED), seed=0, model=None, **own)
    hook.remove()
    seen = torch.cat(points)
    return seen[(seen != problem.x).flatten(1).any(dim=1)], x_adv


def assert_best_of_failures(spec: AttackSpec, norm: Norm, **own: object) -> None:
    """Where nothing breaks: of all points visited the one of highest margin, never x."""
    for i in range(3):
        problem = fortress().rows([i])
        points, answer = visited(spec, problem, norm, **own)
        margins = losses.margin(problem.net(points), problem.y.expand(len(points)))
        assert torch.equal(answer[0], points[int(margins.argmax())])


def assert_nearest_of_visited(
    spec: AttackSpec, problem: Problem, norm: Norm, **own: object
) -> None:
    """Of the points visited that are clearly broken the nearest is returned."""
    for i in range(len(problem.x)):
        one = problem.rows([i])
        points, answer = visited(spec, one, norm, **own)
        logits = one.net(points)
        margins = losses.margin(logits, one.y.expand(len(points)))
        hit = points[margins > 1e-5 * logits.abs().amax(dim=1)]
        assert len(hit) > 0
        size = norms.distance(hit.double() - one.x.double(), norm)
        assert torch.equal(answer[0], hit[int(size.argmin())])


def assert_cost(spec: AttackSpec, norm: Norm, problem: Problem, **own: object) -> None:
    """Each sample of a problem that does not end early costs the estimate exactly."""
    model = problem.model()
    run(spec, problem, problem.budget(norm, UNLIMITED), seed=0, model=model, **own)
    cost = estimated(spec, problem, **own)
    assert bool((model.queries == cost.queries).all())
    assert bool((model.gradients == cost.gradients).all())


def assert_lost_samples_rest(spec: AttackSpec, norm: Norm, **own: object) -> None:
    """A misclassified sample costs one pass and comes back as it came; the others are attacked."""
    problem = rowwise_problem(1, classes=3, shape=(2, 3, 4))
    y = problem.y.clone()
    y[1::2] = (y[1::2] + 1) % 3
    mixed = problem.with_labels(y)
    model = mixed.model()
    x_adv = run(spec, mixed, mixed.budget(norm, UNLIMITED), seed=0, model=model, **own)
    assert torch.equal(x_adv[1::2], mixed.x[1::2])
    assert bool((model.queries[1::2] == 1).all())
    assert bool((model.gradients[1::2] == 0).all())
    assert bool((x_adv[::2] != mixed.x[::2]).flatten(1).any(dim=1).all())
    assert bool((model.gradients[::2] > 0).all())
    if spec.targeted:
        there = run(
            spec, problem, problem.budget(norm, UNLIMITED), seed=0, model=None, target=problem.y
        )
        assert torch.equal(there, problem.x)


class Flat(nn.Module):
    """Logits that depend on the input through a step: every gradient is zero."""

    def forward(self, x: Tensor) -> Tensor:
        step = (x.flatten(1)[:, :1] > 2).float() + 0 * x.flatten(1)[:, :1]
        return torch.cat((1 - step, step), dim=1)


def assert_moves_without_gradient(spec: AttackSpec, norm: Norm, **own: object) -> None:
    """A gradient of zero everywhere does not end in the clean input."""
    x = inputs(torch.Generator().manual_seed(0), 3, (2, 3, 4), UNIT, edge=True)
    y = torch.zeros(3, dtype=torch.int64)
    problem = Problem(net=Flat(), classes=2, box=UNIT, x=x, y=y)
    x_adv = attacked(spec, problem, norm, **own)
    assert bool((x_adv != x).flatten(1).any(dim=1).all())
    assert bool(x_adv.isfinite().all())


class Rescaled(nn.Module):
    """A net of the unit box, for inputs in another box, with its logits multiplied."""

    def __init__(self, net: nn.Module, low: float, width: float, factor: float) -> None:
        super().__init__()
        self.net, self.low, self.width, self.factor = net, low, width, factor

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.net((x - self.low) / self.width)) * self.factor


def in_a_box_four_times_as_wide(problem: Problem) -> Problem:
    """The same problem (of the unit box) in [-2, 2]: exact in float32 but for rounding."""
    return Problem(
        net=Rescaled(problem.net, -2.0, 4.0, 1.0),
        classes=problem.classes,
        box=type(problem.box)(-2.0, 2.0),
        x=problem.x * 4 - 2,
        y=problem.y,
    )


def with_logits_times(problem: Problem, factor: float) -> Problem:
    """The same problem with every logit multiplied."""
    return Problem(
        net=Rescaled(problem.net, 0.0, 1.0, factor),
        classes=problem.classes,
        box=problem.box,
        x=problem.x,
        y=problem.y,
    )


def mnist(count: int = 20) -> Problem:
    """Correctly classified digits of the embedded sample and the embedded standard network."""
    root = Path(str(resources.files("robustbench_lite.embedded")))
    net = nets.mlp()
    net.load_state_dict(load_file(root / "mnist_mlp.safetensors"))
    net.requires_grad_(False)
    with np.load(root / "mnist_sample.npz") as sample:
        x = torch.from_numpy(sample["x"][: 2 * count]).float().reshape(-1, 1, 28, 28) / 255
        y = torch.from_numpy(sample["y"][: 2 * count]).long()
    right = (net(x).argmax(dim=1) == y).nonzero().squeeze(1)[:count]
    assert len(right) == count
    return Problem(net=net, classes=10, box=UNIT, x=x[right], y=y[right])
