"""MI-FGSM: the papers' updates by hand, what each option sees, and no early stop in a transfer."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from scipy import ndimage, stats
from torch import Tensor
from torch.nn import functional

from robustbench_lite import Box, Norm, PluginError, losses, norms
from robustbench_lite.builtin.attacks.mi_fgsm import SPEC, MiFgsmParams
from robustbench_lite.builtin.attacks.mi_views import shrinking, smoothed
from robustbench_lite.embedded import nets
from tests.apgd_world import FOLDER, Rowwise, broken, mnist, with_net
from tests.oracles import (
    WIDE,
    Problem,
    assert_contract,
    assert_legal,
    estimated,
    highest_gains,
    linear_problem,
    network_problem,
    run,
    undecided_eps,
)

NORMS: tuple[Norm, ...] = ("linf", "l2")
SHAPES = [(7,), (3, 5), (2, 3, 4)]
GOES_ON = {"stop_when_broken": False}

# ---------------------------------------------------------------- the updates


def gradient(problem: Problem, point: Tensor, *, scale: float = 1.0) -> Tensor:
    """Of the cross-entropy at `scale` of the way from the low end of the box to the point."""
    leaf = point.clone().requires_grad_(True)
    low = problem.box.low
    value = losses.cross_entropy(problem.net(low + scale * (leaf - low)), problem.y)
    (grad,) = torch.autograd.grad(value.sum(), leaf)
    return grad


def by_hand(problem: Problem, norm: Norm, eps: float, *, decay: float, ni: bool, si: int) -> Tensor:
    """Three steps of eps / 3, written out as in the papers."""
    point, running = problem.x, torch.zeros_like(problem.x)
    shape = (-1, *[1] * (problem.x.ndim - 1))
    components = problem.x[0].numel()
    for _ in range(3):
        there = point
        if ni:
            size = 1 if norm == "linf" else components**0.5
            there = (point + eps / 3 * decay * running / size).clamp(
                problem.box.low, problem.box.high
            )
        grad = sum(gradient(problem, there, scale=0.5**i) for i in range(si)) / si
        grad = torch.as_tensor(grad)
        running = decay * running + grad / grad.flatten(1).abs().mean(dim=1).view(shape)
        if norm == "linf":
            step = running.sign()
        else:
            step = running / running.flatten(1).norm(dim=1).view(shape)
        point = norms.clip(point + eps / 3 * step, problem.x, problem.budget(norm, eps))
    return point


@pytest.mark.parametrize("si", [1, 3])
@pytest.mark.parametrize("ni", [False, True], ids=["", "ni"])
@pytest.mark.parametrize("decay", [0.0, 1.0])
@pytest.mark.parametrize("norm", NORMS)
def test_three_steps_are_the_papers(norm: Norm, decay: float, ni: bool, si: int) -> None:
    problem = network_problem(3, classes=4, shape=(2, 3, 4), box=WIDE)
    own = {"steps": 3, "decay": decay, "ni": ni, "si": si, **GOES_ON}
    found = run(SPEC, problem, problem.budget(norm, 0.5), seed=0, model=None, **own)
    expected = by_hand(problem, norm, 0.5, decay=decay, ni=ni, si=si)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_each_option_changes_the_answer() -> None:
    problem = network_problem(3, classes=4, shape=(2, 8, 8), box=WIDE)
    options: list[dict[str, object]] = [
        {},
        {"decay": 0.0},
        {"ni": True},
        {"si": 3},
        {"di": 1.0},
        {"ti": 3},
    ]
    answers = [
        run(SPEC, problem, problem.budget("l2", 0.5), seed=0, model=None, **GOES_ON, **own)
        for own in options
    ]
    for one, other in itertools.combinations(answers, 2):
        assert not torch.equal(one, other)


@pytest.mark.parametrize("norm", NORMS)
def test_one_step_is_fgsm(norm: Norm) -> None:
    problem = linear_problem(0, classes=2, shape=(7,))
    x_adv = run(SPEC, problem, problem.budget(norm, 0.01), steps=1)
    grad = problem.model().gradient(problem.x, problem.y)
    torch.testing.assert_close(x_adv, problem.x + 0.01 * norms.steepest(grad, norm))


@pytest.mark.parametrize("stops", [True, False], ids=["stops", "goes on"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("norm", NORMS)
def test_on_two_linear_classes_it_is_exact(norm: Norm, shape: tuple[int, ...], stops: bool) -> None:
    for seed, n in enumerate((1, 3, 8)):
        whole = linear_problem(seed, classes=2, shape=shape, edge=norm == "linf")
        budget = whole.budget(norm, undecided_eps(whole, norm))
        problem = whole.rows(list(range(n)))
        x_adv = run(SPEC, problem, budget, stop_when_broken=stops)
        assert_legal(problem, x_adv, budget)
        assert np.array_equal(
            broken(problem, x_adv), highest_gains(problem, budget).max(axis=1) > 0
        )


@pytest.mark.parametrize("classes", [2, 3, 1000])
def test_any_number_of_classes_and_a_target(classes: int) -> None:
    problem = network_problem(2, classes=classes, shape=(2, 3, 4))
    assert broken(problem, run(SPEC, problem, problem.budget("linf", 0.3))).all()
    target = (problem.y + 1) % classes
    x_adv = run(SPEC, problem, problem.budget("linf", 0.3), target=target, steps=30)
    assert int((problem.net(x_adv).argmax(dim=1) == target).sum()) >= 4


# ---------------------------------------------------------------- di and ti


def test_a_shrunk_image_is_the_image_resized_and_put_somewhere() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((40, 3, 20, 31), generator=generator) - 1.0
    box = Box(-1.0, 0.5)
    chance = torch.rand((40, 4), generator=generator)
    chance[:5, 0] = 0.9  # these stay
    chance[5:, 0] *= 0.5
    moved = shrinking(chance, 0.5, x)
    seen = moved.seen(x, box)
    assert torch.equal(seen[:5], x[:5])
    sizes = set()
    for i in range(5, 40):
        covered = (moved.rows[i].sum(dim=1) > 0).nonzero().flatten()
        across = (moved.columns[i].sum(dim=1) > 0).nonzero().flatten()
        top, height, left, width = covered[0], len(covered), across[0], len(across)
        small = functional.interpolate(x[i : i + 1], size=(height, width), mode="bilinear")[0]
        expected = torch.full_like(x[i], box.low)
        expected[:, top : top + height, left : left + width] = small
        torch.testing.assert_close(seen[i], expected, rtol=0, atol=1e-5)
        sizes.add((height, width))
    assert {height for height, _ in sizes} == {18, 19, 20}
    assert {width for _, width in sizes} == {28, 29, 30, 31}


@pytest.mark.parametrize("shape", [(8, 9), (1, 8, 8), (3, 7, 12)], ids=str)
def test_the_gradient_is_pulled_back_as_it_went(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.rand((6, *shape), generator=generator), torch.rand((6, *shape))
    moved = shrinking(torch.rand((6, 4), generator=generator), 0.7, x)
    leaf = x.clone().requires_grad_(True)
    (expected,) = torch.autograd.grad((weight * moved.seen(leaf, Box())).sum(), leaf)
    torch.testing.assert_close(moved.pulled_back(weight), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(9, 8), (2, 9, 8)], ids=str)
@pytest.mark.parametrize("side", [3, 7, 15])
def test_the_smoothed_gradient_is_a_gaussian_mean(side: int, shape: tuple[int, ...]) -> None:
    grad = torch.randn((3, *shape), generator=torch.Generator().manual_seed(0))
    bell = stats.norm.pdf(np.linspace(-3, 3, side))
    bell /= bell.sum()
    expected = grad.double().numpy()
    for axis in (-1, -2):
        expected = ndimage.convolve1d(expected, bell, axis=axis, mode="constant")
    np.testing.assert_allclose(smoothed(grad, side).numpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("option", "value"), [("di", 0.5), ("ti", 3)])
def test_options_that_see_images_say_so(option: str, value: float) -> None:
    problem = network_problem(0, classes=3, shape=(7,))
    with pytest.raises(PluginError, match=rf"{option} sees samples as images.*found \[7\]"):
        run(SPEC, problem, problem.budget("linf", 0.1), seed=0, model=None, **{option: value})


def test_a_kernel_has_an_odd_side() -> None:
    with pytest.raises(ValidationError, match="a kernel has an odd side, 4 is even; try 5"):
        MiFgsmParams(ti=4)


# ---------------------------------------------------------------- who leaves, and the cost


def test_in_a_transfer_every_sample_makes_every_step() -> None:
    defaults = SPEC.params(**SPEC.when_transferred)
    assert isinstance(defaults, MiFgsmParams)
    assert not defaults.stop_when_broken
    problem = network_problem(1, classes=5, shape=(2, 3, 4), n=30)
    y = torch.where(torch.arange(30) < 10, (problem.y + 1) % 5, problem.y)
    mixed = problem.with_labels(y)
    model = mixed.model()
    x_adv = run(
        SPEC, mixed, mixed.budget("linf", 0.05), seed=0, model=model, **SPEC.when_transferred
    )
    assert bool((model.gradients == 10).all())
    moved = (x_adv - mixed.x).abs().flatten(1).amax(dim=1)
    torch.testing.assert_close(moved, torch.full((30,), 0.05))


def test_otherwise_a_broken_sample_leaves_at_once_and_a_lost_one_as_it_came() -> None:
    problem = network_problem(1, classes=5, shape=(2, 3, 4), n=30)
    y = torch.where(torch.arange(30) < 10, (problem.y + 1) % 5, problem.y)
    mixed = problem.with_labels(y)
    for own in ({}, {"ni": True}):
        model = mixed.model()
        x_adv = run(SPEC, mixed, mixed.budget("linf", 0.01), seed=0, model=model, **own)
        assert torch.equal(x_adv[:10], mixed.x[:10])
        assert bool((model.gradients[:10] == 1).all())
        robust = ~torch.as_tensor(broken(mixed, x_adv))
        assert 0 < int(robust.sum()) < 20
        assert bool((model.gradients[robust] == 10).all())
        assert int(model.gradients[10:][~robust[10:]].min()) < 10


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({}, (10, 10)),
        ({"steps": 4, "si": 3}, (12, 12)),
        ({"steps": 4, "ni": True, "si": 2}, (12, 8)),
        ({"steps": 4, "di": 0.5}, (8, 4)),
        ({"steps": 4, "di": 0.5, "ni": True, "si": 2, **GOES_ON}, (8, 8)),
    ],
    ids=str,
)
def test_it_costs_what_it_says(own: dict[str, object], expected: tuple[int, int]) -> None:
    problem = network_problem(0, classes=3, shape=(2, 3, 4))
    model = problem.model()
    run(SPEC, problem, problem.budget("linf", 1e-6), seed=0, model=model, **own)
    assert estimated(SPEC, problem, **own) == expected
    assert bool((model.queries == expected[0]).all())
    assert bool((model.gradients == expected[1]).all())


# ---------------------------------------------------------------- metamorphic


@pytest.mark.parametrize(
    "own",
    [{}, {"ni": True, "si": 2}, {"di": 0.5}, {"ti": 3}, {**GOES_ON}],
    ids=str,
)
@pytest.mark.parametrize("norm", NORMS)
def test_contract_bit_for_bit(norm: Norm, own: dict[str, bool]) -> None:
    x = torch.rand((5, 2, 6, 7), generator=torch.Generator().manual_seed(1)) * 3.5 - 1.5
    net = Rowwise(84, 5)
    problem = Problem(net=net, classes=5, box=WIDE, x=x, y=net(x).argmax(dim=1))
    budget = problem.budget(norm, {"linf": 0.05, "l2": 0.2}[norm])
    assert_contract(SPEC, problem, budget, steps=6, **own)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("norm", NORMS)
def test_contract_on_networks(norm: Norm, shape: tuple[int, ...]) -> None:
    problem = network_problem(0, classes=3, shape=shape, box=WIDE, edge=True)
    assert_contract(SPEC, problem, problem.budget(norm, 0.1), exact=False, steps=5)


def test_another_seed_is_another_view() -> None:
    problem = network_problem(0, classes=3, shape=(1, 12, 12))
    one, two = (
        run(SPEC, problem, problem.budget("l2", 0.5), seed=seed, di=1.0, stop_when_broken=False)
        for seed in (0, 1)
    )
    assert bool((one != two).flatten(1).any(dim=1).all())


# ---------------------------------------------------------------- transfer


def test_a_broken_source_is_no_reason_to_stop() -> None:
    source = mnist("mnist_cnn.onnx", 200)
    surrogate = nets.mlp().eval()
    surrogate.load_state_dict(load_file(FOLDER / "mnist_mlp.safetensors"))
    target = with_net(source, surrogate)
    budget = source.budget("linf", 0.2)
    transferred = {
        stops: broken(target, run(SPEC, source, budget, stop_when_broken=stops)).mean()
        for stops in (True, False)
    }
    assert transferred[False] > transferred[True] + 0.2
