"""The self-test: what is planted is there, and only attacks that search find it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from robustbench_lite import (
    AccessDenied,
    AttackSpec,
    Box,
    Budget,
    Classifier,
    LoadedModel,
    NoParams,
    Norm,
    Params,
    SampleRng,
    norms,
)
from robustbench_lite.access import BatchMemory, Granted, Tally, score
from robustbench_lite.builtin.attacks import (
    apgd,
    autoattack,
    cw,
    ddn,
    deepfool,
    fmn,
    hopskipjump,
    pgd,
    sigma_zero,
    sparse_rs,
    square,
)
from robustbench_lite.craft import fingerprint
from robustbench_lite.judge import judge
from robustbench_lite.planted import (
    Plant,
    PlantedClassifier,
    plant,
    planted_copy,
    typical_margin,
)
from robustbench_lite.planted.model import ANY
from robustbench_lite.seen import Seen
from robustbench_lite.selftest import (
    BROKEN,
    GRADIENTS,
    PASSED,
    PLANTED,
    QUERIES,
    SAMPLES,
    TESTED,
    self_test,
)
from robustbench_lite.testing import zoo
from robustbench_lite.types import NO_NORM, NORMS, Access, Batch
from tests.small_world import UNIT, attack_spec, batch, loaded

N = 12
Attack = Callable[..., object]
EPS: Mapping[Norm, float] = {"linf": 0.1, "l2": 0.5, "l1": 1.0, "l0": 3.0}


# ---------------------------------------------------------------- worlds


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


# ---------------------------------------------------------------- what is planted


@pytest.mark.parametrize("access", ["gradient", "score", "decision"])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    ("shape", "classes"), [((12,), 2), ((12,), 3), ((1, 6, 5), 10), ((3, 4, 4), 4)]
)
def test_a_witness_is_legal_and_breaks_a_copy_that_the_clean_input_does_not(
    shape: tuple[int, ...], classes: int, norm: Norm, access: Access
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
    given = digits("surrogate", 24)
    random = attack_spec(_random_corners)
    for norm, eps in (("linf", 0.3), ("l2", 2.0)):
        assert share(tried(random, given, budget(norm, eps))) < 0.2  # type: ignore[arg-type]


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


# ---------------------------------------------------------------- nothing is touched, all is counted


def test_model_data_and_global_state_stay_as_they_were() -> None:
    model, b = world((3, 4, 4), 4)
    x, y, mark = b.x.clone(), b.y.clone(), fingerprint(model.differentiable)
    state = torch.get_rng_state()
    counts = tried(pgd.SPEC, (model, b), budget("linf"))
    assert share(counts) == 1
    assert torch.equal(b.x, x)
    assert torch.equal(b.y, y)
    assert torch.equal(torch.get_rng_state(), state)
    assert fingerprint(model.differentiable) == mark
    assert torch.equal(model.predict(x).argmax(dim=1), y)


class _Counting(nn.Module):
    """A network that counts the samples of its forward passes."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.samples = net, 0

    def forward(self, x: Tensor) -> Tensor:
        self.samples += x.shape[0]
        logits: Tensor = self.net(x)
        return logits


@pytest.mark.parametrize("access", ["gradient", "score", "decision"])
def test_every_pass_of_the_construction_is_counted(access: Access) -> None:
    net = _Counting(Net((12,), 3, 0))
    model, b = world(net=net)
    net.samples = 0
    made = planted_for(model, b, budget("linf"), access)
    assert net.samples == made.cost.queries * N
    assert made.cost.gradients == (10 if access == "gradient" else 0)  # 2 rivals, 5 steps
    assert made.cost.queries < 150


def test_costs_of_construction_and_attack_are_added() -> None:
    model, b = world(n=N)
    made = planted_for(model, b, budget("linf"))
    idle = tried(attack_spec(_returns_input), (model, b), budget("linf"))
    assert idle[QUERIES] == N + made.cost.queries * N
    looks = tried(attack_spec(_looks_once), (model, b), budget("linf"))
    assert looks[QUERIES] == idle[QUERIES] + idle[PLANTED]
    assert looks[GRADIENTS] == idle[GRADIENTS] + idle[PLANTED]


def _returns_input(model: Classifier, x: Tensor, y: Tensor, **own: object) -> Tensor:
    return x


def _looks_once(model: Classifier, x: Tensor, y: Tensor, **own: object) -> Tensor:
    model.gradient(x, y)
    return x


def test_the_first_correct_samples_are_taken() -> None:
    model, b = world(n=3 * SAMPLES)
    b.y[:100] = (b.y[:100] + 1) % 3
    got: dict[str, Tensor] = {}

    def attack(model: Classifier, x: Tensor, y: Tensor, **own: object) -> Tensor:
        got.update(x=x.clone())
        return x

    counts = tried(attack_spec(attack), (model, b), budget("linf"))
    assert counts[TESTED] == SAMPLES
    assert torch.equal(got["x"], b.x[100 : 100 + SAMPLES])


# ---------------------------------------------------------------- who passes, who fails


SOUND: Mapping[str, tuple[AttackSpec, Norm, Mapping[str, object]]] = {
    "pgd linf": (pgd.SPEC, "linf", {}),
    "pgd of ten steps": (pgd.SPEC, "linf", {"steps": 10}),
    "pgd of small fixed steps": (pgd.SPEC, "linf", {"step_size": 0.01}),
    "pgd l2": (pgd.SPEC, "l2", {}),
    "apgd": (apgd.SPEC, "linf", {}),
    "apgd dlr": (apgd.SPEC, "l2", {"loss": "dlr"}),
    "apgd towards classes": (apgd.SPEC, "linf", {"loss": "dlr-targeted"}),
    "apgd l1": (apgd.SPEC, "l1", {"steps": 50}),
    "autoattack": (autoattack.SPEC, "linf", {}),
    "ddn": (ddn.SPEC, "l2", {"steps": 50}),
    "fmn": (fmn.SPEC, "linf", {"steps": 50}),
    "fmn l0": (fmn.SPEC, "l0", {"steps": 100}),
    "deepfool": (deepfool.SPEC, "l2", {}),
    "cw": (cw.SPEC, "l2", {"steps": 60, "searches": 4, "learning_rate": 0.05}),
    "sigma-zero": (sigma_zero.SPEC, "l0", {"steps": 150}),
    "square": (square.SPEC, "linf", {"queries": 1000}),
    "square l2": (square.SPEC, "l2", {"queries": 1000}),
    "sparse-rs": (sparse_rs.SPEC, "l0", {"queries": 1000}),
    "hopskipjump": (hopskipjump.SPEC, "l2", {"queries": 1000}),
}
RADIUS: Mapping[Norm, float] = {"linf": 0.3, "l2": 2.0, "l1": 10.0, "l0": 10.0}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_attack_breaks_the_copies_of_a_healthy_network(name: str) -> None:
    spec, norm, params = SOUND[name]
    counts = tried(spec, digits("surrogate", 24), budget(norm, RADIUS[norm]), params=params)
    assert counts[PLANTED] == counts[TESTED] >= 23
    assert share(counts) >= PASSED


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ["linear", "surrogate"])
def test_so_it_does_with_every_seed(name: str, seed: int) -> None:
    counts = tried(pgd.SPEC, digits(name, 40), budget("linf", 0.3), seed=seed)
    assert share(counts) >= PASSED


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_and_with_tables_of_few_columns(classes: int, norm: Norm) -> None:
    for spec in (pgd.SPEC, apgd.SPEC, square.SPEC):
        counts = tried(spec, world((8,), classes, n=32), budget(norm))
        assert counts[PLANTED] >= 30
        assert share(counts) >= PASSED, spec.name


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", ["zoo-tiny-steps", "zoo-ignores-labels", "zoo-minimises"])
def test_a_broken_attack_breaks_few_of_them(name: str, norm: Norm) -> None:
    spec = next(each for each in zoo.ATTACKS if each.name == name)
    counts = tried(spec, digits("surrogate", 40), budget(norm, RADIUS[norm]))
    assert share(counts) < 0.5


def test_an_attack_that_returns_its_input_breaks_none() -> None:
    assert share(tried(attack_spec(_returns_input), world(), budget("linf"))) == 0


def test_an_attack_of_forty_steps_of_a_hundredth_of_eps_fails() -> None:
    spec = attack_spec(_forty_tiny_steps)
    for norm in ("linf", "l2"):
        counts = tried(spec, digits("surrogate", 40), budget(norm, RADIUS[norm]))
        assert share(counts) < 0.5


def _forty_tiny_steps(
    model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng
) -> Tensor:
    point = x
    for _ in range(40):
        step = norms.steepest(model.gradient(point, y), budget.norm)
        point = norms.clip(point + 0.01 * budget.eps * step, x, budget)
    return point


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        ("nan-gradient", "linf"),
        ("quantised-input", "linf"),
        ("sign-activations", "l2"),
        ("scaled-1000", "linf"),
        ("softmax-rounded", "linf"),
    ],
)
def test_broken_gradients_stay_broken_on_the_copy(name: str, norm: Norm) -> None:
    given = digits(name, 32)
    counts = tried(pgd.SPEC, given, budget(norm, RADIUS[norm]))
    assert counts[PLANTED] >= counts[TESTED] / 3
    assert share(counts) < 0.5
    without = tried(square.SPEC, given, budget(norm, RADIUS[norm]), params={"queries": 1000})
    assert share(without) >= 0.9


def test_a_remedy_that_works_on_the_model_works_on_the_copy() -> None:
    ball = budget("linf", 0.3)
    assert share(tried(apgd.SPEC, digits("scaled-1000", 24), ball)) >= PASSED
    margin = tried(pgd.SPEC, digits("quantised-input", 24), ball, bpda=("quantise",))
    assert share(margin) >= PASSED


def test_a_break_that_was_passed_over_counts_as_it_does_in_a_cell() -> None:
    spec = next(each for each in zoo.ATTACKS if each.name == "zoo-overshoots")
    assert share(tried(spec, digits("surrogate", 24), budget("linf", 0.3))) >= PASSED


# ---------------------------------------------------------------- targets


def test_a_targeted_attack_has_to_reach_its_class() -> None:
    given = digits("surrogate", 24)
    ball = budget("linf", 0.3)
    assert share(tried(pgd.SPEC, given, ball, target="next")) >= PASSED
    assert share(tried(_astray(), given, ball, target="next")) < PASSED


def _astray() -> AttackSpec:
    """PGD that leads to the class after the target."""

    def attack(
        model: Classifier,
        x: Tensor,
        y: Tensor,
        *,
        budget: Budget,
        rng: SampleRng,
        target: Tensor | None,
    ) -> Tensor:
        assert target is not None
        return pgd.pgd(model, x, y, budget=budget, rng=rng, target=(target + 1) % 10)

    return attack_spec(attack, targeted=True, params=NoParams)


def test_samples_of_the_target_class_are_left_out() -> None:
    model, b = digits("surrogate", 40)
    counts = tried(pgd.SPEC, (model, b), budget("linf", 0.3), target="1")
    assert counts[PLANTED] <= counts[TESTED] - int((b.y == 1).sum())
    assert share(counts) >= PASSED


# ---------------------------------------------------------------- adapters


class _Through(Params):
    """Which road an adapter takes to the network."""


def test_an_adapter_that_moves_rows_about_in_the_module_passes() -> None:
    def attack(
        model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng
    ) -> Tensor:
        module = model.module()
        x_adv = x.clone()
        for rows in torch.arange(x.shape[0]).flip(0).split(7):  # type: ignore[no-untyped-call]
            point = x[rows]
            for _ in range(10):
                leaf = point.clone().requires_grad_(True)
                loss = nn.functional.cross_entropy(module(leaf), y[rows], reduction="sum")
                (grad,) = torch.autograd.grad(loss, leaf)
                point = norms.clip(point + 0.2 * budget.eps * grad.sign(), x[rows], budget)
            x_adv[rows] = point.detach()
        return x_adv

    counts = tried(attack_spec(attack), digits("surrogate", 24), budget("linf", 0.3))
    assert share(counts) >= PASSED
