"""What is planted is there, and an attack gets it through the ordinary view of a model."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from robustbench_lite import (
    AccessDenied,
    Box,
    Budget,
    Classifier,
    LoadedModel,
    Norm,
    SampleRng,
    norms,
)
from robustbench_lite.access import BatchMemory, Granted, Tally, score
from robustbench_lite.judge import judge
from robustbench_lite.planted import (
    Plant,
    PlantedClassifier,
    planted_copy,
    typical_margin,
)
from robustbench_lite.planted.model import ANY
from robustbench_lite.seen import Seen
from robustbench_lite.selftest import (
    BROKEN,
    GRADIENTS,
    PLANTED,
    TESTED,
)
from robustbench_lite.types import NO_NORM, NORMS, Access, Batch
from tests.planted_world import EPS, N, budget, digits, planted_for, share, tried, world
from tests.small_world import UNIT, attack_spec, loaded

# ---------------------------------------------------------------- what is planted


@pytest.mark.parametrize("access", ["gradient", "score", "decision"])
@pytest.mark.parametrize(
    ("norm", "shape", "classes"),
    [("linf", (12,), 2), ("l2", (1, 6, 5), 10), ("l1", (3, 4, 4), 4), ("l0", (12,), 3)],
)
def test_a_witness_is_legal_and_breaks_a_copy_that_the_clean_input_does_not(
    norm: Norm, shape: tuple[int, ...], classes: int, access: Access
) -> None:
    model, b = world(shape, classes)
    made = planted_for(model, b, budget(norm), access)
    assert made.usable.sum() >= N - 1
    copy = planted_copy(model, made.readout)
    outcome = judge(copy, b, made.witness, budget(norm))
    assert outcome.legal.all()
    assert outcome.success[made.usable.numpy()].all()
    logits = score(copy, b.x)
    assert logits.shape == (N, classes)
    assert torch.equal(logits.argmax(dim=1), b.y)
    own = logits.gather(1, b.y[:, None])[:, 0]
    rest = logits.scatter(1, b.y[:, None], -math.inf).amax(dim=1)
    margin = typical_margin(score(model, b.x), b.y)
    assert torch.allclose(own - rest, torch.full_like(own, margin), rtol=1e-4)


def test_a_point_is_adversarial_exactly_where_its_gain_exceeds_the_threshold() -> None:
    model, b = world((30,), 5, n=40)
    made = planted_for(model, b, budget("linf"))
    readout = made.readout
    threshold = readout.margin / readout.slope
    generator = torch.Generator().manual_seed(1)
    hits = 0
    for _ in range(20):
        x = torch.rand(b.x.shape, generator=generator)
        before, after = score(model, b.x), score(model, x)
        row = torch.arange(40)
        gain = after[row, readout.rival] - after[row, b.y]
        gain -= before[row, readout.rival] - before[row, b.y]
        pred = readout(after).argmax(dim=1)
        clear = (gain / threshold - 1).abs() > 1e-4
        assert torch.equal((pred == readout.rival)[clear], (gain > threshold)[clear])
        assert ((pred == b.y) | (pred == readout.rival)).all()
        hits += int((pred != b.y).sum())
    assert 40 < hits < 20 * 40 - 40


def test_what_the_model_misclassifies_breaks_the_copy_for_attacks_on_decisions() -> None:
    model, b = world((30,), 5, n=40)
    made = planted_for(model, b, budget("l2", 2.0), "decision")
    assert (made.readout.rival == ANY).all()
    copy = planted_copy(model, made.readout)
    for seed in range(1, 6):
        x = torch.rand(b.x.shape, generator=torch.Generator().manual_seed(seed))
        wrong = score(model, x).argmax(dim=1) != b.y
        assert wrong.any()
        assert (score(copy, x).argmax(dim=1) != b.y)[wrong].all()


def test_a_linear_model_asks_for_just_over_half_of_the_radius() -> None:
    """Of a linear model gain grows with the radius: 0.95 of that at 0.55 eps is asked for."""
    weight = torch.randn((3, 400), generator=torch.Generator().manual_seed(3))
    net = nn.Linear(400, 3, bias=False).requires_grad_(False)
    net.weight.data = weight
    model, b = world((400,), 3, net=net)
    b = dataclasses.replace(b, x=0.25 + b.x / 2, y=model.predict(0.25 + b.x / 2).argmax(dim=1))
    made = planted_for(model, b, budget("linf"))
    assert made.usable.all()
    copy = planted_copy(model, made.readout)
    toward = weight[made.readout.rival] - weight[b.y]
    for reach, broken in ((0.50, 0), (0.515, 0), (0.53, N), (0.6, N)):
        x = b.x + reach * EPS["linf"] * toward.sign()
        assert judge(copy, b, x, budget("linf")).success.sum() == broken


def test_random_points_do_not_break_what_is_planted_in_many_dimensions() -> None:
    given = digits("surrogate", 16)
    assert share(tried(attack_spec(_random_corners), given, budget("linf", 0.3))) < 0.2


def _random_corners(
    model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng
) -> Tensor:
    for _ in range(50):
        direction = rng.uniform(tuple(x.shape[1:]), -1.0, 1.0)
        x_adv = norms.clip(x + norms.linear_maximum(direction, x, budget), x, budget)
        model.logits(x_adv)  # a break that is seen counts
    return x


@pytest.mark.parametrize("access", ["gradient", "score"])
def test_a_plant_depends_on_its_own_sample_alone(access: Access) -> None:
    model, b = world((3, 4, 4), 4)
    whole = planted_for(model, b, budget("linf"), access, margin=1.0)
    again = planted_for(model, b, budget("linf"), access, margin=1.0)
    assert torch.equal(whole.witness, again.witness)
    order = torch.tensor([7, 2, 11, 0, 5])
    for rows in (order, order[:1]):
        part = dataclasses.replace(b, keys=b.keys[rows], x=b.x[rows], y=b.y[rows])
        alone = planted_for(model, part, budget("linf"), access, margin=1.0)
        assert torch.allclose(alone.witness, whole.witness[rows], atol=1e-6)
        assert torch.allclose(alone.readout.slope, whole.readout.slope[rows], rtol=1e-4)
        assert torch.equal(alone.readout.rival, whole.readout.rival[rows])


def test_the_budget_is_measured_in_the_declared_box() -> None:
    box = Box(-1.0, 3.0)
    model, b = world((12,), 3, box=box)
    for norm in NORMS:
        ball = budget(norm, box=box)
        made = planted_for(model, b, ball)
        assert judge(planted_copy(model, made.readout), b, made.witness, ball).success.all()


# ---------------------------------------------------------------- what has no plant


def test_nothing_is_planted_where_nothing_can_be_found() -> None:
    model, b = world()
    wrong = dataclasses.replace(b, y=(b.y + 1) % 3)
    assert not planted_for(model, wrong, budget("linf")).usable.any()
    assert not planted_for(model, b, budget("linf", 0.0)).usable.any()
    assert not planted_for(model, b, budget("l0", 0.0)).usable.any()
    assert not planted_for(model, b, budget("linf"), goal=b.y).usable.any()
    constant = loaded(_Constant(), 3)
    zero = dataclasses.replace(b, y=torch.zeros_like(b.y))
    assert not planted_for(constant, zero, budget("linf")).usable.any()
    nan = loaded(_Nan(), 3)
    assert not planted_for(nan, zero, budget("linf")).usable.any()


class _Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tensor([2.0, 1.0, 0.0]).expand(x.shape[0], 3) + 0 * x.sum()


class _Nan(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :3] * float("nan")


def test_a_gain_within_rounding_of_large_logits_is_no_plant() -> None:
    model, b = world()
    hardly = loaded(_Shifted(model.differentiable, 1e-4), 3)
    b = dataclasses.replace(b, y=hardly.predict(b.x).argmax(dim=1))
    assert not planted_for(hardly, b, budget("linf")).usable.any()
    assert planted_for(model, b, budget("linf")).usable.any()


class _Shifted(nn.Module):
    def __init__(self, net: nn.Module | None, scale: float) -> None:
        super().__init__()
        assert net is not None
        self.net, self.scale = net, scale

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x) * self.scale
        return logits + 1.0


@pytest.mark.parametrize("norm", [NO_NORM, "linf"])
def test_the_counts_of_an_empty_test_are_zero(norm: Norm) -> None:
    model, b = world()
    none = dataclasses.replace(b, y=(b.y + 1) % 3)
    empty = dataclasses.replace(b, keys=b.keys[:0], x=b.x[:0], y=b.y[:0])
    for each in (none, empty, b) if norm == NO_NORM else (none, empty):
        counts = tried(attack_spec(_fails), (model, each), Budget(norm=norm, eps=0.1, box=UNIT))
        assert counts[PLANTED] == counts[BROKEN] == counts[GRADIENTS] == 0
        assert counts[TESTED] == (N if each is b else 0)


def _fails(*inputs: object, **own: object) -> None:
    raise ZeroDivisionError


def test_what_the_attack_raises_passes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        tried(attack_spec(_fails), world(), budget("linf"))


# ---------------------------------------------------------------- the copy as an attack sees it


def seen_by(
    access: Access = "gradient", classes: int = 4
) -> tuple[PlantedClassifier, Tally, Batch, Plant, LoadedModel]:
    model, b = world((10,), classes)
    made = planted_for(model, b, budget("linf"), access)
    tally = Tally(N, b.x.device)
    granted: Access = "score" if access == "decision" else access
    inner = Granted(BatchMemory(model, b.x, b.y), UNIT, granted, tally)
    seen = Seen(b.x, b.y, None, budget("linf"))
    return PlantedClassifier(inner, made.readout, access, seen), tally, b, made, model


def test_rows_follow_their_samples_and_are_counted_on_them() -> None:
    model, tally, b, made, original = seen_by()
    whole = score(planted_copy(original, made.readout), b.x + 0.05)
    assert torch.allclose(model.logits(b.x + 0.05), whole, atol=1e-5)
    index = torch.tensor([5, 5, 0, 9])
    part = model.rows(index)
    assert torch.allclose(part.logits(b.x[index] + 0.05), whole[index], atol=1e-5)
    again = part.rows(torch.tensor([3, 0]))
    assert torch.allclose(again.decide(b.x[[9, 5]] + 0.05), whole.argmax(dim=1)[[9, 5]])
    expected = torch.ones(N, dtype=torch.float64)
    expected[[0, 5, 9]] += torch.tensor([1, 3, 2], dtype=torch.float64)
    assert torch.equal(tally.queries, expected)


def test_gradients_are_those_of_the_copy() -> None:
    model, tally, b, made, original = seen_by()
    copy = planted_copy(original, made.readout).differentiable
    assert copy is not None
    for loss in ("cross-entropy", "margin", "dlr", lambda z, y: -z.gather(1, y[:, None])[:, 0]):
        result = model.value_and_gradient(b.x, b.y, loss)
        leaf = b.x.clone().requires_grad_(True)
        logits = copy(leaf)
        assert torch.allclose(result.logits, logits, atol=1e-5)
        function = loss if callable(loss) else _named(loss)
        (expected,) = torch.autograd.grad(function(logits, b.y).sum(), leaf)
        assert expected.abs().sum() > 0
        assert torch.allclose(result.gradient, expected, atol=1e-6)
        assert torch.allclose(model.gradient(b.x, b.y, loss), expected, atol=1e-6)
    assert tally.gradients.tolist() == [8] * N


def _named(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    from robustbench_lite import losses

    return losses.LOSSES[name]


def test_a_module_knows_its_rows_by_their_number_or_by_the_nearest_clean_input() -> None:
    model, _, b, made, original = seen_by()
    module = model.module()
    expected = score(planted_copy(original, made.readout), b.x + 0.03)
    assert torch.allclose(module(b.x + 0.03), expected, atol=1e-5)
    order = torch.tensor([8, 1, 6, 1, 11])
    assert torch.allclose(module(b.x[order] + 0.03), expected[order], atol=1e-5)
    assert torch.allclose(model.logits(b.x[order] + 0.03), expected[order], atol=1e-5)


def test_a_mean_over_passes_counts_each_of_them() -> None:
    model, tally, b, _, _ = seen_by()
    once = model.logits(b.x + 0.01)
    assert torch.allclose(model.averaged(3).logits(b.x + 0.01), once, atol=1e-5)
    assert tally.queries.tolist() == [4] * N


def test_access_is_no_more_than_declared() -> None:
    model, _, b, _, _ = seen_by("decision")
    assert torch.equal(model.decide(b.x), b.y)
    for ask in (lambda: model.logits(b.x), lambda: model.gradient(b.x, b.y), model.module):
        with pytest.raises(AccessDenied):
            ask()


def test_shape_box_and_classes_are_the_models() -> None:
    model, *_ = seen_by(classes=7)
    assert (model.num_classes, model.shape, model.box) == (7, (10,), UNIT)
    assert model.device == torch.device("cpu")
