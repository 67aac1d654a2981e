"""The self-test: attacks that search find what is planted, broken ones do not."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from robustbench_lite import (
    AttackSpec,
    Budget,
    Classifier,
    Norm,
    Params,
    SampleRng,
    norms,
)
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
from robustbench_lite.selftest import (
    AGAIN,
    BROKEN,
    FOUND_AGAIN,
    GRADIENTS,
    LONGER_SAMPLES,
    PASSED,
    PLANTED,
    QUERIES,
    SAMPLES,
    STARVED,
    TESTED,
    allowed,
    starved,
)
from robustbench_lite.testing import zoo
from robustbench_lite.types import Access
from tests.planted_world import N, Net, budget, digits, planted_for, share, tried, world
from tests.small_world import attack_spec

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
    "pgd of small fixed steps": (pgd.SPEC, "linf", {"step_size": 0.02}),
    "pgd l2": (pgd.SPEC, "l2", {"steps": 10}),
    "apgd towards classes": (apgd.SPEC, "linf", {"loss": "dlr-targeted", "steps": 30}),
    "apgd l1": (apgd.SPEC, "l1", {"steps": 30}),
    "ddn": (ddn.SPEC, "l2", {"steps": 30}),
    "fmn l0": (fmn.SPEC, "l0", {"steps": 60}),
    "square": (square.SPEC, "linf", {"queries": 500}),
    "sparse-rs": (sparse_rs.SPEC, "l0", {"queries": 500}),
}
SLOW: Mapping[str, tuple[AttackSpec, Norm, Mapping[str, object]]] = {
    "pgd": (pgd.SPEC, "linf", {}),
    "apgd dlr": (apgd.SPEC, "l2", {"loss": "dlr"}),
    "autoattack": (autoattack.SPEC, "linf", {}),
    "fmn": (fmn.SPEC, "linf", {"steps": 50}),
    "deepfool": (deepfool.SPEC, "l2", {}),
    "cw": (cw.SPEC, "l2", {"steps": 60, "searches": 4, "learning_rate": 0.05}),
    "sigma-zero": (sigma_zero.SPEC, "l0", {"steps": 150}),
    "square l2": (square.SPEC, "l2", {"queries": 1000}),
    "hopskipjump": (hopskipjump.SPEC, "l2", {"queries": 1000}),
}
RADIUS: Mapping[Norm, float] = {"linf": 0.3, "l2": 2.0, "l1": 10.0, "l0": 10.0}
FEW = 16


@pytest.mark.parametrize("name", [*SOUND, *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW)])
def test_a_sound_attack_breaks_the_copies_of_a_healthy_network(name: str) -> None:
    spec, norm, params = {**SOUND, **SLOW}[name]
    counts = tried(spec, digits("surrogate", FEW), budget(norm, RADIUS[norm]), params=params)
    assert counts[PLANTED] == counts[TESTED] >= FEW - 1
    assert share(counts) >= PASSED


@pytest.mark.parametrize("classes", [2, 3])
def test_and_with_tables_of_few_columns(classes: int) -> None:
    for spec, steps in ((pgd.SPEC, {}), (apgd.SPEC, {"steps": 20}), (square.SPEC, {})):
        counts = tried(spec, world((8,), classes, n=32), budget("linf"), params=steps)
        assert counts[PLANTED] >= 30
        assert share(counts) >= PASSED, spec.name


@pytest.mark.parametrize("name", ["zoo-tiny-steps", "zoo-ignores-labels", "zoo-minimises"])
def test_a_broken_attack_breaks_few_of_them(name: str) -> None:
    spec = next(each for each in zoo.ATTACKS if each.name == name)
    counts = tried(spec, digits("surrogate", FEW), budget("linf", RADIUS["linf"]))
    assert share(counts) < 0.5


def test_an_attack_that_returns_its_input_breaks_none() -> None:
    assert share(tried(attack_spec(_returns_input), world(), budget("linf"))) == 0


def test_an_attack_of_forty_steps_of_a_hundredth_of_eps_fails() -> None:
    spec = attack_spec(_forty_tiny_steps)
    counts = tried(spec, digits("surrogate", FEW), budget("linf", RADIUS["linf"]))
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
    "name",
    [
        "quantised-input",
        "scaled-1000",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("nan-gradient", "sign-activations", "softmax-rounded")
        ),
    ],
)
def test_broken_gradients_stay_broken_on_the_copy(name: str) -> None:
    given, ball = digits(name, FEW), budget("linf", RADIUS["linf"])
    counts = tried(pgd.SPEC, given, ball)
    assert counts[PLANTED] >= counts[TESTED] / 3
    assert share(counts) < 0.5
    without = tried(square.SPEC, given, ball, params={"queries": 1000})
    assert share(without) >= 0.9


# ---------------------------------------------------------------- searches of few queries


def test_a_search_without_gradients_that_lacks_queries_alone_is_told_apart() -> None:
    given, ball = digits("robust", 60), budget("linf")
    counts = tried(square.SPEC, given, ball, params={"queries": 300})
    missed = counts[PLANTED] - counts[BROKEN]
    assert allowed(counts[PLANTED]) < missed <= (1 - STARVED) * counts[PLANTED]
    assert counts[AGAIN] == min(missed, LONGER_SAMPLES)
    assert counts[FOUND_AGAIN] == counts[AGAIN]
    assert starved(counts)
    once = tried(square.SPEC, given, ball, params={"queries": 5000})
    assert share(once) == 1
    assert AGAIN not in once
    assert not starved(once)


@pytest.mark.parametrize("found", [0.5, 0.85])
@pytest.mark.parametrize("access", ["score", "gradient"])
def test_more_queries_excuse_no_attack_that_gains_nothing_by_them(
    found: float, access: Access
) -> None:
    calls: list[int] = []

    def blind(
        model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng, queries: int
    ) -> Tensor:
        calls.append(queries)
        if queries > 10 or len(calls) > 1:
            return x
        few = torch.arange(int(found * len(x)))
        broken = square.square(
            model.rows(few), x[few], y[few], budget=budget, rng=rng.rows(few), queries=2000
        )
        return torch.cat([broken, x[len(few) :]])

    spec = attack_spec(blind, access=access, params=_Queries)
    counts = tried(spec, world((24,), 3, n=40), budget("linf"), params={"queries": 10})
    assert not starved(counts)
    asked_again = access == "score" and found >= STARVED
    assert calls == [10, 500] if asked_again else [10]


class _Queries(Params):
    queries: int = 500


def test_a_remedy_that_works_on_the_model_works_on_the_copy() -> None:
    ball = budget("linf", 0.3)
    assert share(tried(apgd.SPEC, digits("scaled-1000", FEW), ball)) >= PASSED
    margin = tried(pgd.SPEC, digits("quantised-input", FEW), ball, bpda=("quantise",))
    assert share(margin) >= PASSED


def test_a_break_that_was_passed_over_counts_as_it_does_in_a_cell() -> None:
    spec = next(each for each in zoo.ATTACKS if each.name == "zoo-overshoots")
    assert share(tried(spec, digits("surrogate", FEW), budget("linf", 0.3))) >= PASSED


# ---------------------------------------------------------------- targets


def test_a_targeted_attack_has_to_reach_its_class() -> None:
    given, ball = digits("surrogate", FEW), budget("linf", 0.3)
    assert share(tried(pgd.SPEC, given, ball, target="next")) >= PASSED
    spec = attack_spec(_away_from_the_target, targeted=True)
    assert share(tried(spec, given, ball, target="next")) < 0.5


def _away_from_the_target(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    budget: Budget,
    rng: SampleRng,
    target: Tensor | None,
) -> Tensor:
    assert target is not None
    return pgd.pgd(model, x, target, budget=budget, rng=rng)


def test_samples_of_the_target_class_are_left_out() -> None:
    model, b = digits("surrogate", 24)
    counts = tried(pgd.SPEC, (model, b), budget("linf", 0.3), target="1")
    assert counts[PLANTED] <= counts[TESTED] - int((b.y == 1).sum())
    assert share(counts) >= PASSED


# ---------------------------------------------------------------- adapters


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

    counts = tried(attack_spec(attack), digits("surrogate", FEW), budget("linf", 0.3))
    assert share(counts) >= PASSED
