"""One pixel by evolution: finds what the exhaustive search finds, and counts every candidate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from robustbench_lite import embedded
from robustbench_lite.builtin.attacks import single_pixel, sparse_rs
from robustbench_lite.builtin.attacks.one_pixel import SPEC, _children, _first, _three_others
from robustbench_lite.embedded import nets
from robustbench_lite.types import Box
from tests.oracles import (
    UNIT,
    Array,
    Problem,
    assert_contract,
    assert_legal,
    estimated,
    linear_problem,
    network_problem,
    run,
)
from tests.row_by_row import row_by_row

SHAPES = [(12,), (3, 5), (2, 3, 4), (3, 2, 7), (1, 6, 6), (2, 2, 1, 3)]
FOLDER = Path(embedded.__file__).parent
NARROW = 120  # of the sample's images, the ones with the smallest margins


def gains(problem: Problem, x: Tensor) -> Array:
    """The largest z_j - z_y per sample."""
    best: Array = problem.gains(x).max(axis=1)
    return best


def broken(problem: Problem, x: Tensor) -> Tensor:
    with torch.no_grad():
        wrong: Tensor = problem.net(x).argmax(dim=1) != problem.y
    return wrong


# ---------------------------------------------------------------- the quickstart models


class _Onnx(nn.Module):
    """An embedded ONNX file as onnxruntime runs it, on one thread."""

    def __init__(self, name: str) -> None:
        super().__init__()
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        path = str(FOLDER / name)
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def forward(self, x: Tensor) -> Tensor:
        (logits,) = self.session.run(None, {self.session.get_inputs()[0].name: x.numpy()})
        return torch.from_numpy(logits)


def _surrogate() -> nn.Module:
    net = nets.mlp()
    net.load_state_dict(load_file(FOLDER / "mnist_mlp.safetensors"))
    return net.eval()


@pytest.fixture(scope="module", params=["mnist_cnn.onnx", "mnist_cnn_robust.onnx", "mnist_mlp"])
def breakable(request: pytest.FixtureRequest) -> Problem:
    """The images near a boundary of a quickstart model that some single pixel can break."""
    net = _surrogate() if request.param == "mnist_mlp" else _Onnx(request.param)
    with np.load(FOLDER / "mnist_sample.npz", allow_pickle=False) as stored:
        x = torch.from_numpy(stored["x"]).float().div(255).unsqueeze(1)
        y = torch.from_numpy(stored["y"]).long()
    with torch.no_grad():
        logits = net(x)
    own = logits.gather(1, y[:, None]).squeeze(1)
    margin = own - logits.scatter(1, y[:, None], -torch.inf).amax(dim=1)
    near = margin.where(margin > 0, torch.inf).argsort()[:NARROW]
    problem = Problem(net=net, classes=10, box=UNIT, x=x[near], y=y[near])
    found = broken(problem, run(single_pixel.SPEC, problem, problem.budget("l0", 1)))
    assert int(found.sum()) >= 5
    return problem.rows(found.nonzero().flatten().tolist())


@pytest.mark.parametrize("seed", [0, 1])
def test_it_finds_nine_tenths_of_what_exhaustive_search_finds(
    breakable: Problem, seed: int
) -> None:
    budget = breakable.budget("l0", 1)
    x_adv = run(SPEC, breakable, budget, seed=seed)
    assert bool(((x_adv != breakable.x).flatten(1).sum(dim=1) == 1).all())
    assert int(broken(breakable, x_adv).sum()) >= 0.9 * len(breakable.x)


@pytest.mark.parametrize("seed", [0, 1])
def test_so_does_sparse_rs_with_one_pixel(breakable: Problem, seed: int) -> None:
    x_adv = run(sparse_rs.SPEC, breakable, breakable.budget("l0", 1), seed=seed)
    assert bool(((x_adv != breakable.x).flatten(1).sum(dim=1) == 1).all())
    assert int(broken(breakable, x_adv).sum()) >= 0.9 * len(breakable.x)


# ---------------------------------------------------------------- oracles


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
@pytest.mark.parametrize("classes", [2, 3, 1000])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_on_linear_models_it_agrees_with_exhaustive_search(
    shape: tuple[int, ...], classes: int, targeted: bool
) -> None:
    """On a linear model no colour inside the box does more than its best corner."""
    if classes == 1000 and shape != (3, 2, 7):
        return
    problem = linear_problem(0, classes=classes, shape=shape, edge=True, box=Box(-1.0, 2.0))
    budget = problem.budget("l0", 1)
    target = (problem.y + 1) % classes if targeted else None
    exact = run(single_pixel.SPEC, problem, budget, target=target)
    x_adv = run(SPEC, problem, budget, target=target, population=150, generations=20)
    assert_legal(problem, x_adv, budget)

    def reached(x: Tensor) -> Tensor:
        pred: Tensor = problem.net(x).argmax(dim=1)
        return ~pred.eq(problem.y) if target is None else pred.eq(target)

    possible, got = reached(exact), reached(x_adv)
    assert bool((got <= possible).all())
    assert int(got.sum()) >= 0.9 * int(possible.sum())


def test_the_oracle_cases_hold_both_broken_and_unbroken_samples() -> None:
    shares = []
    for shape in SHAPES:
        problem = linear_problem(0, classes=3, shape=shape, edge=True, box=Box(-1.0, 2.0))
        exact = run(single_pixel.SPEC, problem, problem.budget("l0", 1))
        shares.append(float(broken(problem, exact).float().mean()))
    assert min(shares) > 0
    assert min(shares) < 1


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
def test_the_answer_is_a_break_or_the_fittest_candidate_of_all(targeted: bool) -> None:
    """Every candidate counts: none that was tried and breaks is thrown away, none fitter."""
    ends = {"broken": 0, "kept": 0}
    for i in range(10):
        problem = network_problem(i, classes=4, shape=(1, 9, 8), edge=True).rows([i % 8])
        target = (problem.y + 1) % 4 if targeted else None
        tried: list[Tensor] = []
        hook = problem.net.register_forward_pre_hook(lambda _, x, to=tried: to.append(x[0].clone()))
        budget = problem.budget("l0", 1)
        answer = run(SPEC, problem, budget, target=target, population=10, generations=3)
        hook.remove()
        with torch.no_grad():
            logits = problem.net(torch.cat(tried[1:]))
            at_answer = problem.net(answer).softmax(dim=1)
        wanted = problem.y if target is None else target
        hit = (logits.argmax(dim=1) == wanted) == targeted
        if bool(hit.any()):
            assert not bool(hit[:-10].any())  # it leaves with the generation that broke it
            assert bool(((at_answer.argmax(dim=1) == wanted) == targeted).all())
            ends["broken"] += 1
        else:
            chance = logits.softmax(dim=1)[:, wanted]
            best = chance.max() if targeted else chance.min()
            torch.testing.assert_close(at_answer[0, wanted[0]], best)
            ends["kept"] += 1
    assert min(ends.values()) > 0


def test_a_saturated_model_is_still_climbed() -> None:
    """The probability of the true class is 1 in float32 for every candidate, and yet it falls."""
    problem = linear_problem(0, classes=2, shape=(1, 6, 6))
    with torch.no_grad():
        problem.net[1].weight.mul_(100)  # type: ignore[index]
        problem.net[1].bias.mul_(100)  # type: ignore[index]
        problem.net[1].bias[0] += 400  # type: ignore[index]
    problem = problem.with_labels(torch.zeros_like(problem.y))
    clean, exact = (
        gains(problem, x)
        for x in (problem.x, run(single_pixel.SPEC, problem, problem.budget("l0", 1)))
    )
    got = gains(
        problem, run(SPEC, problem, problem.budget("l0", 1), population=100, generations=20)
    )
    assert (exact < 0).all()
    assert (got - clean >= 0.9 * (exact - clean)).all()


# ---------------------------------------------------------------- what the batch and the seed may do


@pytest.mark.parametrize("chunk", [7, 4096])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_contract_to_the_last_bit(shape: tuple[int, ...], chunk: int) -> None:
    box = Box(-1.0, 2.0) if len(shape) == 3 else UNIT
    problem = row_by_row(network_problem(0, classes=3, shape=shape, box=box, edge=True))
    budget = problem.budget("l0", 1)
    assert_contract(SPEC, problem, budget, population=12, generations=3, chunk=chunk)


def test_neither_chunk_nor_leaving_samples_change_points_or_passes() -> None:
    problem = row_by_row(network_problem(0, classes=3, shape=(2, 3, 4), edge=True, n=20))
    budget = problem.budget("l0", 1)
    models = [problem.model() for _ in range(3)]
    one, two, three = (
        run(SPEC, problem, budget, model=model, chunk=chunk, population=12, generations=5)
        for model, chunk in zip(models, (1, 29, 4096), strict=True)
    )
    assert torch.equal(one, two)
    assert torch.equal(one, three)
    assert all(torch.equal(models[0].queries, model.queries) for model in models)
    assert len(set(models[0].queries.tolist())) > 2


def test_more_generations_never_find_less_and_another_seed_is_another_search() -> None:
    problem = row_by_row(network_problem(3, classes=3, shape=(2, 6, 6), n=20))
    budget = problem.budget("l0", 1)
    few, many = (
        gains(problem, run(SPEC, problem, budget, population=6, generations=generations))
        for generations in (0, 12)
    )
    assert (many[few > 0] > 0).all()
    assert (few > 0).sum() < (many > 0).sum()
    one, two = (run(SPEC, problem, budget, seed=s, population=4, generations=0) for s in (0, 1))
    assert bool((one != two).any())


# ---------------------------------------------------------------- cost


@pytest.mark.parametrize("generations", [0, 1, 4])
def test_it_costs_what_it_says_where_nothing_breaks(generations: int) -> None:
    problem = linear_problem(0, classes=2, shape=(1, 6, 4))
    with torch.no_grad():
        problem.net[1].bias[0] += 100  # type: ignore[index]
    problem = problem.with_labels(torch.zeros_like(problem.y))
    model = problem.model()
    own = {"population": 13, "generations": generations}
    run(SPEC, problem, problem.budget("l0", 1), model=model, **own)  # type: ignore[arg-type]
    cost = estimated(SPEC, problem, **own)
    assert cost == (1 + 13 * (generations + 1), 0)
    assert bool((model.queries == cost.queries).all())
    assert bool((model.gradients == 0).all())


def test_the_papers_parameters_are_the_defaults() -> None:
    problem = linear_problem(0, classes=2, shape=(4,))
    assert estimated(SPEC, problem) == (1 + 400 * 101, 0)


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
def test_samples_already_lost_cost_one_pass_and_come_back_as_they_came(targeted: bool) -> None:
    problem = network_problem(1, classes=3, shape=(2, 3, 4))
    lost = problem if targeted else problem.with_labels((problem.y + 1) % 3)
    model = lost.model()
    x_adv = run(SPEC, lost, lost.budget("l0", 1), model=model, target=lost.y if targeted else None)
    assert torch.equal(x_adv, lost.x)
    assert x_adv.data_ptr() != lost.x.data_ptr()
    assert bool((model.queries == 1).all())


def test_budgets_of_more_and_less_than_a_pixel() -> None:
    problem = network_problem(1, classes=3, shape=(2, 3, 4))
    one, five, none = (
        run(SPEC, problem, problem.budget("l0", eps), population=8, generations=2)
        for eps in (1, 5, 0.5)
    )
    assert torch.equal(one, five)
    assert torch.equal(none, problem.x)


def test_an_output_that_is_not_finite_is_neither_success_nor_fitness() -> None:
    problem = network_problem(0, classes=3, shape=(2, 3, 4))
    nowhere = replace(problem, net=_NanAway(problem.net, problem.x))
    x_adv = run(SPEC, nowhere, nowhere.budget("l0", 1), population=8, generations=2)
    assert torch.equal(x_adv, problem.x)


class _NanAway(nn.Module):
    """A model that only answers at the clean inputs."""

    def __init__(self, net: nn.Module, x: Tensor) -> None:
        super().__init__()
        self.net, self.x = net, x

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits if torch.equal(x, self.x) else torch.full_like(logits, torch.nan)


# ---------------------------------------------------------------- evolution


def test_three_others_are_three_and_others() -> None:
    problem = linear_problem(0, classes=2, shape=(4,), n=50)
    for population in (4, 5, 9):
        others = _three_others(problem.rng(), population)
        assert others.shape == (50, 3, population)
        parent = torch.arange(population).expand(50, 1, -1)
        four = torch.cat((parent, others), dim=1).sort(dim=1).values
        assert bool((four[:, 1:] > four[:, :-1]).all())
        assert int(others.min()) == 0
        assert int(others.max()) == population - 1
    others = _three_others(problem.rng(), 9)
    shares = torch.bincount(others.flatten(), minlength=9) / others.numel()
    torch.testing.assert_close(shares, torch.full((9,), 1 / 9), atol=0.02, rtol=0)


def test_the_first_generation_is_uniform_in_place_and_normal_in_colour() -> None:
    box = Box(-1.0, 2.0)
    genes = _first(linear_problem(0, classes=2, shape=(4,), n=20).rng(), (3, 5, 9), 2000, box)
    assert genes.shape == (20, 2000, 5)
    place, colour = genes[..., :2].flatten(0, 1), genes[..., 2:]
    for column, size in enumerate((5, 9)):
        shares = torch.bincount(place[:, column].long(), minlength=size) / len(place)
        assert len(shares) == size
        torch.testing.assert_close(shares, torch.full((size,), 1 / size), atol=0.01, rtol=0)
    inside = (colour > box.low) & (colour < box.high)
    ends = [float((colour == end).float().mean()) for end in (box.low, box.high)]
    # N(128, 127) beyond 0 and 255 of 255: 15.7 % and 15.9 %
    np.testing.assert_allclose(ends, [0.157, 0.159], atol=0.01)
    assert float(inside.float().mean()) == pytest.approx(1 - sum(ends))


def test_children_stay_in_image_and_box_and_are_a_plus_half_the_difference() -> None:
    box, rng = Box(-1.0, 2.0), linear_problem(0, classes=2, shape=(4,), n=6).rng()
    x = torch.zeros(6, 3, 5, 9)
    genes = _first(rng.fork("genes"), (3, 5, 9), 40, box)
    children = _children(genes, rng, 0.5, x, box)
    again = linear_problem(0, classes=2, shape=(4,), n=6).rng()
    others = _three_others(again, 40)
    a, b, c = (genes[torch.arange(6)[:, None], others[:, j]] for j in range(3))
    plain = a + 0.5 * (b - c)
    size = torch.tensor([5.0, 9.0])
    left = (plain[..., :2] < 0) | (plain[..., :2] >= size)
    assert 0 < int(left.sum()) < left.numel()
    assert torch.equal(children[..., :2][~left], plain[..., :2][~left])
    assert bool((children[..., :2] >= 0).all())
    assert bool((children[..., :2] < size).all())
    assert torch.equal(children[..., 2:], plain[..., 2:].clamp(-1, 2))
