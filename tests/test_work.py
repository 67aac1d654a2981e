"""One attack over eps, draws and targets: the number of a cell depends on that cell alone."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustbench_lite import AttackSpec, Box, Budget, Classifier, Norm, Params, SampleRng, norms
from robustbench_lite.builtin.attacks import (
    fgsm,
    gaussian_noise,
    pgd,
    salt_and_pepper,
    uniform_noise,
)
from robustbench_lite.group import (
    ASKED_AGAIN,
    ATTACKABLE,
    GALLERY,
    ILLEGAL,
    UNCHANGED,
    Failure,
    clean_chunk,
    out_of_memory,
    split,
    take,
)
from robustbench_lite.judge import judge
from robustbench_lite.ledger import Tables
from robustbench_lite.records import COLUMNS
from robustbench_lite.types import Outcome, Samples
from tests.small_world import (
    Given,
    Linear,
    N,
    Parts,
    World,
    attack_spec,
    batch,
    changed,
    dataset_spec,
    entry,
    labelled,
    loaded,
    model_spec,
    net_spec,
    points,
    random_linear,
    simple,
    source,
    table,
)

Bits = NDArray[np.bool_]
COST = ("queries", "gradients")


def same(one: Samples, two: Samples, *, apart: Sequence[str] = ()) -> None:
    """Every column bit for bit."""
    for name in COLUMNS:
        if name not in apart:
            left, right = getattr(one, name), getattr(two, name)
            assert np.array_equal(left, right, equal_nan=left.dtype.kind == "f"), name


def steps_towards(x: Tensor, y: Tensor, size: float) -> Tensor:
    """Against the weights of the own class: breaks a linear model at some size."""
    weight = random_linear(0).weight
    return (x - size * weight[y].sign()).clamp(0, 1)


# ---------------------------------------------------------------- eps grids

GRID = ("0.05", "0.1", "0.2", "0.4")


@pytest.mark.parametrize(
    ("spec", "norm"),
    [
        (fgsm.SPEC, "linf"),
        (fgsm.SPEC, "l2"),
        (uniform_noise.SPEC, "linf"),
        (uniform_noise.SPEC, "l1"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_a_grid_that_is_not_carried_equals_its_cells_run_alone(
    spec: AttackSpec, norm: Norm
) -> None:
    grid = simple((spec, entry("a", spec, *GRID, norm=norm))).world()
    results = grid.run()
    broken = 0
    for radius in GRID:
        alone = simple((spec, entry("a", spec, radius, norm=norm))).world()
        mine = table(results[grid.cell("a", radius).id])
        assert alone.cell("a").id == grid.cell("a", radius).id
        same(mine, alone.samples("a"))
        broken += int(mine.success.sum())
    assert broken > len(GRID) or spec is not fgsm.SPEC


def fickle(model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng) -> Tensor:
    """Tries at random: half of the samples stay, the others move as far as the budget allows."""
    model.logits(x)
    coin = rng.fork(f"{budget.eps:.6f}").uniform(()) < 0.5
    return torch.where(coin[:, None], steps_towards(x, y, budget.eps), x)


def test_a_carried_grid_keeps_what_a_smaller_eps_has_broken() -> None:
    spec = attack_spec(fickle, carries=True)
    grid = simple((spec, entry("a", spec, *GRID)), n=40).world()
    results = grid.run()
    kept: Samples | None = None
    for radius in GRID:
        loose = attack_spec(fickle)  # the same attack, one eps at a time
        alone = simple((loose, entry("a", loose, radius)), n=40).world().samples("a")
        mine = table(results[grid.cell("a", radius).id])
        before = np.zeros(40, dtype=bool) if kept is None else kept.success
        assert mine.success.tolist() == (before | alone.success).tolist()
        for name in ("linf", "l2", "adv_pred", "adv_confidence"):
            old = getattr(alone if kept is None else kept, name)
            expected = np.where(before, old, getattr(alone, name))
            assert getattr(mine, name).tolist() == expected.tolist(), name
        assert mine.queries.tolist() == (~before).tolist()  # broken samples leave the work
        kept = mine
    assert kept is not None
    assert 10 < kept.success.sum() < 40


def test_a_sample_broken_at_a_smaller_eps_is_not_attacked_again() -> None:
    seen: list[tuple[float, int]] = []

    def attack(
        model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng
    ) -> Tensor:
        seen.append((round(budget.eps, 3), len(x)))
        return steps_towards(x, y, budget.eps)

    spec = attack_spec(attack, carries=True)
    given = simple((spec, entry("a", spec, "0.4", "0.1", "0.2")))
    world = dataclasses.replace(given, self_test=False).world()
    results = world.run(batch_size=N)
    unbroken = N
    called = seen[2:]  # the first two see whether it repeats itself
    for (radius, rows), text in zip(called, ("0.1", "0.2", "0.4"), strict=False):
        assert (radius, rows) == (float(text), unbroken)
        unbroken = int((~table(results[world.cell("a", text).id]).success).sum())
    assert 0 < len(called) <= 3


def test_a_cell_that_carries_from_a_failed_one_has_no_number() -> None:
    def attack(
        model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng
    ) -> Tensor:
        if budget.eps < 0.15:
            raise ZeroDivisionError("not today")
        return fickle(model, x, y, budget=budget, rng=rng)

    spec = attack_spec(attack, carries=True)
    world = simple((spec, entry("a", spec, "0.1", "0.2"))).world()
    results = world.run()
    assert results[world.cell("a", "0.1").id].status == "failed"
    assert results[world.cell("a", "0.2").id].status == "failed"


def test_without_carrying_a_crash_at_one_eps_leaves_the_others_alone() -> None:
    def attack(
        model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng
    ) -> Tensor:
        if budget.eps < 0.15:
            raise ZeroDivisionError("not today")
        return steps_towards(x, y, budget.eps)

    spec = attack_spec(attack)
    world = simple((spec, entry("a", spec, "0.1", "0.2"))).world()
    results = world.run()
    failed = results[world.cell("a", "0.1").id]
    assert failed.status == "failed"
    said = r"attack 'mine' raised: ZeroDivisionError: not today \(test_work\.py:\d+\)"
    assert re.fullmatch(said, failed.reason)
    assert "ZeroDivisionError" in failed.traceback
    assert not failed.environment
    assert table(results[world.cell("a", "0.2").id]).success.any()


@pytest.mark.parametrize(
    "spec", [fgsm.SPEC, pgd.SPEC, uniform_noise.SPEC], ids=lambda spec: spec.name
)
def test_zero_eps_breaks_nothing_and_is_not_called_idle(spec: AttackSpec) -> None:
    world = simple((spec, entry("a", spec, "0"))).world()
    result = world.run()[world.cell("a").id]
    samples = table(result)
    assert samples.legal.all()
    assert not samples.linf.any()
    assert samples.success.tolist() == (~samples.clean_correct).tolist()
    assert samples.adv_pred.tolist() == samples.clean_pred.tolist()
    assert UNCHANGED not in result.observed
    assert ATTACKABLE not in result.observed


def test_l0_budgets_and_an_attack_that_leaves_the_box() -> None:
    given = simple(
        (salt_and_pepper.SPEC, entry("pepper", salt_and_pepper.SPEC, "1", "3", norm="l0")),
        (fgsm.SPEC, entry("free", fgsm.SPEC, "0.5", clip=False)),
        (fgsm.SPEC, entry("boxed", fgsm.SPEC, "0.5")),
    )
    world = given.world()
    results = world.run()
    for radius in ("1", "3"):
        pixels = table(results[world.cell("pepper", radius).id])
        assert pixels.legal.all()
        assert (pixels.l0 <= int(radius)).all()
    free, boxed = (table(results[world.cell(name).id]) for name in ("free", "boxed"))
    assert free.legal.all()
    np.testing.assert_allclose(free.l1, 0.5 * 6, rtol=1e-5)  # no component was cut by the box
    assert boxed.l1.min() < 0.5 * 6 - 0.1
    examples = results[world.cell("free").id].examples
    assert examples is not None
    assert examples.x_adv.min() < 0


# ---------------------------------------------------------------- repeats


def single_draws(given: Given, spec: AttackSpec, radius: float, repeats: int) -> list[Outcome]:
    """The same attack called by hand and judged, once per draw."""
    data = labelled(0, N)
    x, y = data.read(range(N)), data.labels
    whole = batch(x, y)
    budget = Budget(norm="linf", eps=radius, box=Box())
    model = loaded(random_linear(0), 3)
    found: list[Outcome] = []
    for repeat in range(repeats):
        rng = SampleRng(given.seed, spec.name, whole.keys)
        rng = rng.fork(f"repeat {repeat}") if repeat else rng
        function: Callable[..., object] = spec.implementation  # type: ignore[assignment]
        found.append(judge(model, whole, function(None, x, y, budget=budget, rng=rng), budget))
    return found


def test_repeats_keep_the_first_draw_that_breaks() -> None:
    spec = uniform_noise.SPEC
    given = simple((spec, entry("a", spec, "0.4", repeats=6)))
    mine = given.world().samples("a")
    draws = single_draws(given, spec, 0.4, 6)
    successes = np.stack([draw.success for draw in draws])
    first = np.where(successes.any(axis=0), successes.argmax(axis=0), 5)
    assert mine.success.tolist() == successes.any(axis=0).tolist()
    assert mine.linf.tolist() == [draws[k].linf[i] for i, k in enumerate(first)]
    assert mine.adv_pred.tolist() == [draws[k].adv_pred[i] for i, k in enumerate(first)]
    assert len(set(first.tolist())) > 2


def test_more_repeats_never_break_less_and_each_is_another_draw() -> None:
    spec = uniform_noise.SPEC
    broken = []
    for repeats in (1, 2, 4, 8):
        given = simple((spec, entry("a", spec, "0.3", repeats=repeats)), n=40)
        broken.append(given.world().samples("a").success)
    for fewer, more in itertools.pairwise(broken):
        assert not (fewer & ~more).any()
    assert broken[-1].sum() > broken[0].sum()


# ---------------------------------------------------------------- source and targets


def two_targets(
    *attacks: tuple[AttackSpec, str], repeats: int = 1, grid: Sequence[str] = ("0.3",)
) -> Given:
    """Entries crafted on `s` and judged on `a` and `b`."""
    return Given(
        models=[net_spec("s", 0), net_spec("a", 1), net_spec("b", 2)],
        datasets=[dataset_spec("d", lambda: labelled(0))],
        specs=[spec for spec, _ in attacks],
        attacks=[entry(name, spec, *grid, source="s", repeats=repeats) for spec, name in attacks],
    )


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("carries", [False, True])
def test_one_candidate_judged_on_two_targets_equals_two_separate_runs(
    carries: bool, repeats: int
) -> None:
    spec = attack_spec(fickle, carries=carries)
    given = two_targets((spec, "t"), repeats=repeats, grid=("0.1", "0.3"))
    both = given.world()
    results = both.run()
    for name in ("a", "b"):
        alone = changed(given, evaluate=[(name, "d", ["t"])]).world().run()
        for radius in ("0.1", "0.3"):
            cell = both.cell("t", radius, model=name)
            same(table(results[cell.id]), table(alone[cell.id]))
    tables = [table(results[both.cell("t", "0.3", model=name).id]) for name in ("a", "b")]
    assert tables[0].adv_pred.tolist() != tables[1].adv_pred.tolist()


def test_broken_samples_leave_white_box_work_and_stay_in_a_transfer() -> None:
    seen: dict[str, list[int]] = {"own": [], "t": []}

    def counting(name: str) -> AttackSpec:
        def attack(
            model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng
        ) -> Tensor:
            seen[name].append(len(x))
            return steps_towards(x, y, 0.6)

        return attack_spec(attack, name)

    own, transfer = counting("own"), counting("t")
    given = Given(
        models=[net_spec("s", 5), net_spec("a", 0)],
        datasets=[dataset_spec("d", lambda: labelled(0))],
        specs=[own, transfer],
        attacks=[
            entry("own", own, "0.6", repeats=3),
            entry("t", transfer, "0.6", repeats=3, source="s"),
        ],
        evaluate=[("a", "d", ["own", "t"])],
        self_test=False,
    )
    world = given.world()
    results = world.run(batch_size=N)
    broken = int(table(results[world.cell("own").id]).success.sum())
    assert 0 < broken <= N
    calls = {name: sizes[2:] for name, sizes in seen.items()}  # two see whether it repeats itself
    assert calls["own"] == ([N] if broken == N else [N, N - broken, N - broken])
    assert calls["t"] == [N, N, N]  # broken on one target says nothing of another


def test_a_transfer_from_itself_is_white_box() -> None:
    spec = fgsm.SPEC
    white = simple((spec, entry("x", spec, *GRID)))
    transfer = simple((spec, entry("x", spec, *GRID, source="m")))
    transfer = changed(transfer, evaluate=[("m", "d", ["x"])])
    mine, theirs = white.world().run(), transfer.world().run()
    assert mine.keys() == theirs.keys()
    for cell_id, result in mine.items():
        same(table(result), table(theirs[cell_id]))


class Scaled(Params):
    """Parameters of an attack whose default differs when it is transferred."""

    scale: float = 1.0


def scaled(
    model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng, scale: float
) -> Tensor:
    return steps_towards(x, y, scale * budget.eps)


def test_defaults_for_transfer_do_not_reach_the_white_box_cell_beside_it() -> None:
    spec = attack_spec(scaled, params=Scaled, when_transferred={"scale": 0.5})
    attack = entry("t", spec, "0.4", source="s")
    models = [net_spec("s", 0), net_spec("a", 1)]
    datasets = [dataset_spec("d", lambda: labelled(0))]
    lines = [("s", "d", ["t"]), ("a", "d", ["t"])]
    given = Given(models=models, datasets=datasets, specs=[spec], attacks=[attack], evaluate=lines)
    both = given.world()
    results = both.run()
    reach = {name: table(results[both.cell("t", model=name).id]).linf.max() for name in ("s", "a")}
    assert reach["s"] == pytest.approx(0.4, abs=1e-6)
    assert reach["a"] == pytest.approx(0.2, abs=1e-6)


def test_the_cost_of_a_white_box_cell_does_not_depend_on_a_transfer_beside_it() -> None:
    spec = attack_spec(fickle)
    attack = entry("t", spec, "0.4", source="s", repeats=4)
    given = Given(
        models=[net_spec("s", 0), net_spec("a", 1)],
        datasets=[dataset_spec("d", lambda: labelled(0))],
        specs=[spec],
        attacks=[attack],
        evaluate=[("s", "d", ["t"])],
    )
    alone = given.world()
    both = changed(given, evaluate=[("s", "d", ["t"]), ("a", "d", ["t"])]).world()
    cell = alone.cell("t")
    assert both.cell("t", model="s").id == cell.id
    same(table(both.run()[cell.id]), table(alone.run()[cell.id]))


def test_controls_of_two_norms_at_one_radius_are_two_measurements() -> None:
    attacks = [entry("a", fgsm.SPEC, "0.5"), entry("b", fgsm.SPEC, "0.5", norm="l1")]
    specs = [fgsm.SPEC, uniform_noise.SPEC]
    given = changed(simple(), attacks=attacks, specs=specs, controls="auto")
    world = given.world()
    results = world.run()
    controls = {c.norm: table(results[c.id]) for c in world.plan.cells if c.implicit}
    assert set(controls) == {"linf", "l1"}
    assert controls["linf"].linf.max() <= 0.5 + 1e-6
    assert controls["linf"].l1.max() > 0.6
    assert controls["l1"].l1.max() <= 0.5 + 1e-5


def test_a_target_that_refuses_candidates_fails_alone_and_is_named() -> None:
    net = random_linear(1)
    clean = labelled(0).read(range(N))

    def predict(x: Tensor) -> Tensor:
        if not all(bool((row == clean).all(dim=1).any()) for row in x):
            raise RuntimeError("clean inputs only")
        return net(x)  # type: ignore[no-any-return]

    spec = attack_spec(fickle)
    given = two_targets((spec, "t"))
    broken = model_spec("b", lambda: loaded(net, 3, predict=predict))
    world = changed(given, models=[*given.models[:2], broken]).world()
    results = world.run()
    refused = results[world.cell("t", model="b").id]
    assert refused.status == "failed"
    assert "clean inputs only" in refused.reason
    table(results[world.cell("t", model="a").id])
    assert "'b'" in refused.reason
    assert "attack" not in refused.reason.partition(":")[0]


# ---------------------------------------------------------------- targeted attacks


def towards(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    budget: Budget,
    rng: SampleRng,
    target: Tensor | None,
) -> Tensor:
    assert target is not None
    weight = random_linear(0).weight
    return (x + budget.eps * (weight[target] - weight[y]).sign()).clamp(0, 1)


@pytest.mark.parametrize("kind", ["next", "random", "least-likely", "2"])
def test_targeted_success_is_reaching_the_target(kind: str) -> None:
    spec = attack_spec(towards, targeted=True)
    samples = simple((spec, entry("a", spec, "0.5", target=kind)), n=40).world().samples("a")
    x = labelled(0, 40).read(range(40))
    goals = {
        "next": (samples.label + 1) % 3,
        "least-likely": random_linear(0)(x).argmin(dim=1).numpy(),
        "2": np.full(40, 2),
    }
    if kind in goals:
        reached = (samples.adv_pred == goals[kind]) & (samples.adv_pred != samples.label)
        assert samples.success.tolist() == reached.tolist()
    assert samples.success.any()
    assert not (samples.success & samples.adv_correct).any()


def test_a_target_that_the_model_does_not_know_is_refused() -> None:
    def attack(
        model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng, target: Tensor
    ) -> Tensor:
        return steps_towards(x, y, budget.eps)

    spec = attack_spec(attack, targeted=True)
    world = simple((spec, entry("a", spec, "0.5", target="7"))).world()
    result = world.run()[world.cell("a").id]
    assert result.status == "failed"
    assert "7" in result.reason


# ---------------------------------------------------------------- minimal norm


def nearest_class(norm: Norm, weight: Tensor, bias: Tensor) -> AttackSpec:
    """The exact nearest misclassified point of a linear model, up to 0.1 % beyond the boundary."""

    def attack(
        model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng
    ) -> Tensor:
        x = x.double()
        slopes = weight.double()[None] - weight.double()[y][:, None]  # [n, k, d]
        logits = x @ weight.double().T + bias.double()
        gaps = logits.gather(1, y[:, None]) - logits
        order = {"linf": 1, "l2": 2}[norm]
        sizes = torch.linalg.vector_norm(slopes, ord=order, dim=2)
        distance = (gaps / sizes).masked_fill(sizes == 0, torch.inf)
        least, best = distance.min(dim=1)
        slope = slopes[torch.arange(len(x)), best]
        unit = norms.steepest(slope, norm)
        nearest: Tensor = x + 1.001 * least.clamp_min(0)[:, None] * unit
        return nearest.float()

    return attack_spec(attack, kind="minimal-norm", norms=(norm,))


def linear_world(norm: Norm, grid: Sequence[str]) -> tuple[World, Linear, Tensor, Tensor]:
    net = random_linear(3, size=6)
    net.weight.mul_(3)
    net.bias.copy_(-net.weight.sum(dim=1) / 2)
    x = points(40)
    y = net(x).argmax(dim=1)
    y[-2:] = (y[-2:] + 1) % 3
    spec = nearest_class(norm, net.weight, net.bias)
    given = Given(
        models=[model_spec("m", lambda: loaded(net, 3))],
        datasets=[dataset_spec("d", lambda: source(x, y))],
        specs=[spec],
        attacks=[entry("a", spec, *grid, norm=norm)],
    )
    return given.world(), net, x, y


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_minimal_norm_attack_is_judged_at_every_eps_by_its_distances(norm: Norm) -> None:
    grid = ("0", "0.05", "0.1", "0.15", "0.2", "2")
    world, net, x, y = linear_world(norm, grid)
    results = world.run(batch_size=16)
    function: Callable[..., Tensor] = world.registry.attacks["mine"].spec.implementation  # type: ignore[assignment]
    budget = Budget(norm=norm, eps=2.0, box=Box())
    candidates = function(None, x, y, budget=budget, rng=None)
    model = loaded(net, 3)
    counts = []
    for radius in grid:
        mine = table(results[world.cell("a", radius).id])
        fixed = judge(
            model, batch(x, y), candidates, dataclasses.replace(budget, eps=float(radius))
        )
        assert mine.success.tolist() == fixed.success.tolist(), radius
        assert mine.survives_uint8.tolist() == fixed.survives_uint8.tolist()
        distance = getattr(mine, norm)
        assert mine.success.tolist() == (distance <= float(radius) + 1e-6).tolist()
        far = ~mine.success
        assert mine.adv_pred[far].tolist() == mine.clean_pred[far].tolist()
        assert mine.adv_correct[far].tolist() == mine.clean_correct[far].tolist()
        assert mine.legal.all()
        counts.append(int(mine.success.sum()))
    assert counts == sorted(counts)
    assert counts[0] == 2  # wrong from the start: at distance 0
    assert counts[0] < counts[1] < counts[-1] == 40


def test_a_minimal_norm_attack_is_called_once_per_batch_with_the_largest_eps() -> None:
    calls: list[tuple[int, float]] = []

    def attack(
        model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng
    ) -> Tensor:
        calls.append((len(x), budget.eps))
        return x

    spec = attack_spec(attack, kind="minimal-norm")
    given = simple((spec, entry("a", spec, "0.2", "0.5", "0.1")))
    dataclasses.replace(given, self_test=False).world().run(batch_size=4)
    assert calls[2:] == [(4, 0.5), (4, 0.5), (2, 0.5)]  # two see whether it repeats itself


def test_a_minimal_norm_attack_that_raises_fails_every_eps() -> None:
    def attack(
        model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng
    ) -> Tensor:
        raise ZeroDivisionError("not today")

    spec = attack_spec(attack, kind="minimal-norm")
    world = simple((spec, entry("a", spec, "0.2", "0.5"))).world()
    results = world.run()
    for radius in ("0.2", "0.5"):
        assert results[world.cell("a", radius).id].status == "failed"


def overshooting(
    model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng
) -> Tensor:
    """A search whose draws end at different distances, all of them successful or nearly so."""
    return steps_towards(x, y, 1.0) * (size := 0.2 + 0.8 * rng.uniform((1,))) + x * (1 - size)


def test_repeats_of_a_minimal_norm_attack_break_what_any_draw_breaks_at_that_eps() -> None:
    spec = attack_spec(overshooting, kind="minimal-norm")
    grid = ("0.3", "0.5", "1")
    given = simple((spec, entry("a", spec, *grid, repeats=6)))
    world = given.world()
    results = world.run()
    draws = single_draws(given, spec, 1.0, 6)
    for radius in grid:
        near = [draw.success & (draw.linf <= float(radius) + 1e-6) for draw in draws]
        expected = np.stack(near).any(axis=0)
        assert table(results[world.cell("a", radius).id]).success.tolist() == expected.tolist(), (
            radius
        )


@pytest.mark.parametrize("left", ["0.2", "0.4"])
def test_a_minimal_norm_cell_does_not_depend_on_which_cells_are_left_to_compute(left: str) -> None:
    def attack(
        model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng
    ) -> Tensor:
        return steps_towards(x, y, 0.45 * budget.eps)

    spec = attack_spec(attack, kind="minimal-norm")
    world = simple((spec, entry("a", spec, "0.2", "0.4", "0.8"))).world()
    whole = world.run()
    cell = world.cell("a", left)
    again = world.run(todo={cell.id}, earlier=whole)
    same(table(again[cell.id]), table(whole[cell.id]))


# ---------------------------------------------------------------- what an attack may return


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (lambda x: x[:, :3], "returned shape"),
        (lambda x: x.long(), "returned dtype"),
        (lambda x: None, "returned NoneType"),
        (lambda x: x * float("nan"), "not finite"),
        (lambda x: x + 0.2, "outside the linf ball"),
        (lambda x: x - 1.5, "outside the box"),
        (lambda x: x[:1], "returned shape"),
        (lambda x: torch.cat([x, x]), "returned shape"),
    ],
)
def test_what_is_not_legal_is_counted_and_has_no_prediction(
    answer: Callable[[Tensor], object], problem: str
) -> None:
    def attack(
        model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng
    ) -> object:
        return answer(x)

    spec = attack_spec(attack)
    world = simple((spec, entry("a", spec, "0.1"))).world()
    result = world.run()[world.cell("a").id]
    samples = table(result)
    assert (samples.status == "illegal").all()
    assert not (samples.success | samples.adv_correct | samples.legal).any()
    counted = {key: n for key, n in result.observed.items() if key.startswith(ILLEGAL)}
    assert sum(counted.values()) == N
    assert all(key.startswith(ILLEGAL + problem) for key in counted)


def test_idle_and_broken_gradients_are_observed_with_their_numbers() -> None:
    def idle(model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng) -> Tensor:
        return x

    spec = attack_spec(idle)
    world = simple((spec, entry("a", spec, "0.1"))).world()
    observed = world.run()[world.cell("a").id].observed
    assert (observed[ATTACKABLE], observed[UNCHANGED]) == (N - 1, N - 1)
    control = attack_spec(idle, role="control")
    world = simple((control, entry("a", control, "0.1"))).world()
    assert dict(world.run()[world.cell("a").id].observed) == {ASKED_AGAIN: N}


def test_the_gallery_holds_the_first_broken_samples_as_they_were_judged() -> None:
    spec = fgsm.SPEC
    world = simple((spec, entry("a", spec, "0.5")), n=40).world()
    result = world.run(batch_size=7)[world.cell("a").id]
    samples, examples = table(result), result.examples
    assert examples is not None
    broken = np.flatnonzero(samples.success & samples.clean_correct)
    assert examples.positions.tolist() == broken[:GALLERY].tolist()
    assert len(broken) > GALLERY
    x = labelled(0, 40).read(range(40)).numpy()
    assert np.array_equal(examples.x, x[examples.positions])
    logits = random_linear(0)(torch.from_numpy(examples.x_adv))
    assert logits.argmax(dim=1).tolist() == samples.adv_pred[examples.positions].tolist()
    assert np.abs(examples.x_adv - examples.x).max(axis=1).tolist() == pytest.approx(
        samples.linf[examples.positions].tolist(), rel=1e-6
    )


def test_the_gallery_shows_the_judged_point_where_rounding_left_the_box() -> None:
    def attack(
        model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng
    ) -> Tensor:
        return steps_towards(x, y, 1.0) * (1 + 5e-7)

    spec = attack_spec(attack)
    world = simple((spec, entry("a", spec, "1"))).world()
    result = world.run()[world.cell("a").id]
    assert table(result).legal.all()
    assert result.examples is not None
    assert len(result.examples.x_adv)
    assert result.examples.x_adv.max() <= 1.0


# ---------------------------------------------------------------- groups and their tables


def test_cells_are_grouped_by_entry_attack_and_source() -> None:
    spec = attack_spec(fickle)
    given = two_targets((spec, "t"), (spec, "u"), grid=("0.1", "0.2"))
    given = changed(given, attacks=[*given.attacks, entry("w", spec, "0.1")])
    groups = split(given.world().plan.cells)
    shapes = [(g.source, g.cells[0].entry, len(g.cells)) for g in groups]
    assert sorted(shapes) == [
        ("a", "clean", 1), ("a", "w", 1), ("b", "clean", 1), ("b", "w", 1),
        ("s", "t", 4), ("s", "u", 4),
    ]  # fmt: skip


def test_rows_of_a_table_and_the_clean_pass() -> None:
    data = labelled(0)
    whole = batch(data.read(range(N)), data.labels, start=20)
    model = loaded(random_linear(0), 3)
    samples = clean_chunk(model, whole).samples
    assert samples.clean_correct.tolist() == [True] * (N - 1) + [False]
    assert samples.sample_id[0] == "sample-20"
    assert samples.queries.tolist() == [1.0] * N
    part = take(samples, 3, 5)
    assert part.sample_id.tolist() == ["sample-23", "sample-24"]
    assert all(len(getattr(part, name)) == 2 for name in COLUMNS)


def test_a_clean_output_that_is_not_finite_is_counted() -> None:
    net = Linear(torch.eye(3))
    model = loaded(net, 3, predict=lambda x: torch.log(x - 0.4))
    x = torch.tensor([[0.5, 0.6, 0.7], [0.3, 0.6, 0.7]])
    chunk = clean_chunk(model, batch(x, torch.tensor([2, 2])))
    assert chunk.observed == {f"{ILLEGAL}model output not finite": 1}
    assert chunk.samples.status.tolist() == ["ok", "no-decision"]
    assert chunk.samples.clean_correct.tolist() == [True, False]


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("Failed to allocate memory for requested buffer"), True),
        (RuntimeError("shapes differ"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_a_smaller_batch_may_help(problem: Exception, expected: bool) -> None:
    assert out_of_memory(problem) is expected


def test_a_failure_tells_what_and_keeps_the_traceback() -> None:
    try:
        raise ValueError("no weights")
    except ValueError as problem:
        failure = Failure.of("model 'm' could not be loaded", problem, environment=True)
    said = r"model 'm' could not be loaded: ValueError: no weights \(test_work\.py:\d+\)"
    assert re.fullmatch(said, failure.reason)
    assert "raise ValueError" in failure.traceback
    assert failure.environment


def test_a_failed_cell_drops_its_rows_and_the_others_go_on() -> None:
    spec = attack_spec(fickle)
    world = simple((spec, entry("a", spec, "0.1", "0.2"))).world()
    one, two = world.cell("a", "0.1"), world.cell("a", "0.2")
    store = Parts()
    tables = Tables([one, two], store, {one.id, two.id}, [f"sample-{i}" for i in range(2 * N)])
    assert tables.missing(0, N) == [one, two]
    data = labelled(0)
    chunk = clean_chunk(loaded(random_linear(0), 3), batch(data.read(range(N)), data.labels))
    tables.add(one, chunk)
    tables.add(two, chunk)
    tables.add(one, Failure("no"))
    assert tables.progress(two) == (N, N - 1)
    tables.close(0, N, 4, {"seen": 1})
    assert list(store.kept) == [two.id]
    assert store.kept[two.id][0].observed == {"seen": 1}
    assert tables.missing(0, N) == []
    assert tables.missing(N, 2 * N) == [two]
    assert len(store.kept[two.id][0].samples.label) == N


def test_gaussian_noise_is_the_same_whoever_else_is_attacked() -> None:
    spec = gaussian_noise.SPEC
    whole = simple((spec, entry("a", spec, "1", norm="l2", repeats=2))).world().samples("a")
    fewer = changed(simple((spec, entry("a", spec, "1", norm="l2", repeats=2))), take=3)
    part = fewer.world().samples("a")
    np.testing.assert_allclose(part.l2, whole.l2[:3], atol=1e-6)
    assert part.adv_pred.tolist() == whole.adv_pred[:3].tolist()
