"""Plan to results: batches, memory, failures. None of it changes a number or leaves its cell."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustbench_lite import (
    AttackSpec,
    Budget,
    Classifier,
    DataError,
    DataSource,
    LoadedModel,
    ModelError,
    PluginError,
    SampleRng,
    execute,
    stock,
)
from robustbench_lite.builtin.attacks import fgsm, pgd, single_pixel, uniform_noise
from robustbench_lite.choose import choose
from robustbench_lite.craft import BROKEN_GRADIENT, CHANGED_MODEL, ZERO_GRADIENT
from robustbench_lite.records import COLUMNS
from robustbench_lite.types import CLEAN, Cell, CellResult, Samples
from tests.small_world import (
    Given,
    Linear,
    N,
    Parts,
    World,
    attack_spec,
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

Results = Mapping[str, CellResult]
MIXED = (
    (fgsm.SPEC, entry("fgsm", fgsm.SPEC, "0.1", "0.3")),
    (pgd.SPEC, entry("pgd", pgd.SPEC, "0.1", "0.3", steps=3, restarts=2)),
    (uniform_noise.SPEC, entry("noise", uniform_noise.SPEC, "0.3", repeats=2)),
    (single_pixel.SPEC, entry("pixel", single_pixel.SPEC, "1", norm="l0")),
)
EXACT = ("sample_id", "label", "adv_pred", "success", "legal", "clean_correct", "status", "queries")


def alike(one: Results, two: Results, *, exact: bool = True) -> None:
    """The same cells with the same tables (decisions, and numbers up to rounding if not exact)."""
    assert one.keys() == two.keys()
    for cell_id in one:
        left, right = table(one[cell_id]), table(two[cell_id])
        for name in COLUMNS if exact else EXACT:
            assert np.array_equal(getattr(left, name), getattr(right, name)), (cell_id, name)
        for name in ("linf", "l2", "l1"):
            np.testing.assert_allclose(getattr(left, name), getattr(right, name), atol=1e-5)


def mixed(n: int = 23) -> World:
    return simple(*MIXED, n=n).world()


# ---------------------------------------------------------------- batches and memory


def test_a_batch_of_one_and_a_batch_of_all_give_the_same() -> None:
    world = mixed()
    whole = world.run(batch_size=1000)
    assert all(table(result).success.any() for result in whole.values() if result.cell.eps)
    for size in (1, 7):
        alike(world.run(batch_size=size), whole, exact=False)
    assert {result.batch_size for result in world.run(batch_size=7).values()} == {7}


def test_a_batch_size_is_chosen_where_none_is_given() -> None:
    world = simple().world()
    (result,) = world.run(batch_size=None).values()
    assert result.batch_size == execute.BATCH["cpu"]


def test_parts_of_any_size_give_the_same() -> None:
    world = mixed()
    alike(world.run(batch_size=5, shard=10), world.run(batch_size=5))


class Hungry:
    """Raises OutOfMemoryError for more than `limit` rows; knows what it was asked for."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.refused: list[int] = []

    def eat(self, x: Tensor) -> None:
        if len(x) > self.limit:
            self.refused.append(len(x))
            raise torch.OutOfMemoryError("too much")


def hungry_model(hunger: Hungry) -> Callable[[], LoadedModel]:
    net = random_linear(0)

    def predict(x: Tensor) -> Tensor:
        hunger.eat(x)
        return net(x)  # type: ignore[no-any-return]

    return lambda: loaded(net, 3, predict=predict)


@pytest.mark.parametrize("limit", [1, 3, 6])
def test_a_model_out_of_memory_halves_the_batch_and_changes_no_number(
    limit: int, caplog: pytest.LogCaptureFixture
) -> None:
    attacks = (MIXED[0], MIXED[2])
    hunger = Hungry(limit)
    given = changed(simple(*attacks, n=23), models=[model_spec("m", hungry_model(hunger))])
    results = given.world().run(batch_size=16)
    plain = changed(given, models=[model_spec("m", lambda: loaded(random_linear(0), 3))])
    alike(results, plain.world().run(batch_size=16), exact=False)
    sizes = {1: [16, 8, 4, 2], 3: [16, 8, 4], 6: [16, 8]}[limit]
    assert hunger.refused[-len(sizes) :] == sizes  # before them the look before the run
    assert {result.batch_size for result in results.values()} == {sizes[-1] // 2}
    assert "out of memory at batch size 16: going on with 8" in caplog.text


def test_an_attack_out_of_memory_halves_the_batch_and_is_not_counted_twice() -> None:
    hunger = Hungry(5)

    def attack(
        model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng
    ) -> Tensor:
        model.logits(x)
        if budget.eps > 0.2:
            hunger.eat(x)
        return (x + budget.eps * model.gradient(x, y).sign()).clamp(0, 1)

    spec = attack_spec(attack)
    given = changed(simple((spec, entry("a", spec, "0.1", "0.3")), n=23), self_test=False)
    world = given.world()
    results = world.run(batch_size=16)
    assert hunger.refused == [16, 8]
    hunger.limit = 1000
    alike(results, world.run(batch_size=16), exact=False)
    assert table(results[world.cell("a", "0.1").id]).queries.tolist() == [2.0] * 23


def test_an_attack_that_never_fits_fails_its_own_cells() -> None:
    def attack(
        model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng
    ) -> Tensor:
        raise torch.OutOfMemoryError("never enough")

    spec = attack_spec(attack)
    world = simple(MIXED[0], (spec, entry("zz", spec, "0.1")), MIXED[2]).world()
    results = world.run()
    assert results[world.cell("zz").id].status == "failed"
    assert "memory" in results[world.cell("zz").id].reason.lower()
    assert len(results) == len(world.plan.cells)
    table(results[world.cell("noise").id])


def test_a_model_that_does_not_fit_fails_its_own_cells() -> None:
    def build() -> LoadedModel:
        raise torch.OutOfMemoryError("never enough")

    given = changed(simple(MIXED[0]), models=[net_spec("m", 0), model_spec("big", build)])
    world = given.world()
    results = world.run()
    assert {r.status for r in results.values() if r.cell.model == "big"} == {"failed"}
    assert {r.status for r in results.values() if r.cell.model == "m"} == {"ok"}


class Sparing(nn.Module):
    """Counts the samples whose gradient is taken."""

    def __init__(self) -> None:
        super().__init__()
        self.net = random_linear(0)
        self.backwards = 0

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        if logits.requires_grad:
            self.backwards += len(x)
        return logits


@pytest.mark.parametrize(("limit", "passes"), [(2**30, 1), (0, 2)])
def test_an_eps_grid_in_every_norm_costs_one_backward_pass_where_it_can_be_kept(
    limit: int, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stock, "CACHE_BYTES", limit)
    net = Sparing()
    given = simple(
        (fgsm.SPEC, entry("inf", fgsm.SPEC, "0.1", "0.2", "0.3")),
        (fgsm.SPEC, entry("two", fgsm.SPEC, "0.1", "0.2", norm="l2")),
    )
    given = changed(given, models=[model_spec("m", lambda: loaded(net, 3))])
    results = given.world().run()
    assert net.backwards == passes * N + 2 * N  # two losses before the run
    for result in results.values():
        if result.cell.eps:
            assert table(result).gradients.tolist() == [1.0] * N  # what an attack spends


def test_what_is_kept_and_what_is_read_again_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    world = mixed()
    kept = world.run()
    monkeypatch.setattr(stock, "CACHE_BYTES", 0)
    alike(world.run(), kept)
    alike(world.run(shard=8), kept)


def test_data_is_read_once_where_it_can_be_kept_and_in_batches_where_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reads: list[int] = []

    def build() -> DataSource:
        whole = labelled(0)

        def read(positions: object) -> Tensor:
            reads.append(len(positions))  # type: ignore[arg-type]
            return whole.read(positions)  # type: ignore[arg-type]

        return dataclasses.replace(whole, read=read)

    datasets = [dataset_spec("d", build)]
    given = changed(simple(MIXED[0], MIXED[2]), datasets=datasets, self_test=False)
    given.world().run(batch_size=4)
    # 1: whether the model takes the shape; 10: the looks before the run and after a group
    assert sorted(reads) == [1, 2, 4, 4, 10, 10]
    reads.clear()
    monkeypatch.setattr(stock, "CACHE_BYTES", 0)
    given.world().run(batch_size=4)
    assert sorted(reads)[-3] == 4
    assert sum(reads) == 1 + 2 * N + 3 * N  # two looks, the clean pass and two groups


def test_a_dataset_that_gives_something_else_at_another_reading_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def build() -> DataSource:
        whole, reads = labelled(0), itertools.count()

        def read(positions: Sequence[int]) -> Tensor:
            return whole.read(positions) + 0.001 * next(reads)  # a random crop, for instance

        return dataclasses.replace(whole, read=read)

    datasets = [dataset_spec("d", build)]
    given = changed(simple(MIXED[0]), datasets=datasets, self_test=False)
    monkeypatch.setattr(stock, "CACHE_BYTES", 0)
    for result in given.world().run().values():
        if result.cell.attack != CLEAN:
            assert (result.status, result.environment) == ("failed", True)
            assert "dataset 'd': sample 'sample-0' has another input or label" in result.reason


# ---------------------------------------------------------------- failures stay in their cells


def failing(problem: Exception) -> Callable[[], LoadedModel]:
    def build() -> LoadedModel:
        raise problem

    return build


BROKEN_MODELS: dict[str, tuple[Callable[[], object], str]] = {
    "raises": (failing(KeyError("layer3")), "model 'bad' could not be loaded: KeyError: 'layer3'"),
    "says why": (failing(ModelError("bad.onnx is HTML")), "model 'bad': bad.onnx is HTML"),
    "nonsense": (lambda: random_linear(0), "model 'bad': its loader returned Linear, expected"),
    "nothing": (lambda: None, "model 'bad': its loader returned NoneType, expected LoadedModel"),
    "other shape": (
        lambda: loaded(random_linear(0, size=9), 3),
        "model 'bad' refuses inputs of shape [6] from dataset 'd': RuntimeError",
    ),
    "refuses in words": (
        lambda: loaded(random_linear(0), 3, predict=refuse),
        "the network refuses inputs of shape [1, 6]",
    ),
    "output of one dimension": (
        lambda: loaded(random_linear(0), 3, predict=lambda x: x[:, 0]),
        "the model returned shape [1] for 1 inputs; expected [1, 3]",
    ),
    "no tensor": (
        lambda: loaded(random_linear(0), 3, predict=lambda x: None),  # type: ignore[arg-type,return-value]
        "the model returned NoneType; expected a tensor",
    ),
    "too few classes": (
        lambda: loaded(random_linear(0, classes=2), 2),
        "dataset 'd' has label 2 and model 'bad' knows classes 0 to 1",
    ),
}


def refuse(x: Tensor) -> Tensor:
    raise ModelError(f"the network refuses inputs of shape {list(x.shape)}")


@pytest.mark.parametrize("name", BROKEN_MODELS)
def test_a_broken_model_fails_its_cells_and_no_other(name: str) -> None:
    build, reason = BROKEN_MODELS[name]
    good = simple(MIXED[0], MIXED[2])
    world = changed(good, models=[net_spec("m", 0), model_spec("bad", build)]).world()
    results = world.run()
    bad = {r.cell.entry: r for r in results.values() if r.cell.model == "bad"}
    assert {"clean", "fgsm", "noise"} <= bad.keys()
    for result in bad.values():
        assert (result.status, result.samples) == ("failed", None)
        assert reason in result.reason
        assert result.environment
    alike({i: r for i, r in results.items() if r.cell.model == "m"}, good.world().run())


def test_a_broken_source_fails_what_is_crafted_on_it_and_no_other() -> None:
    transfer = entry("t", fgsm.SPEC, "0.3", source="bad")
    given = simple(MIXED[0], (fgsm.SPEC, transfer))
    models = [net_spec("m", 0), model_spec("bad", failing(ModelError("gone")))]
    world = changed(given, models=models).world()
    results = world.run()
    assert results[world.cell("t").id].reason == "model 'bad': gone"
    assert {r.status for r in results.values() if r.cell.entry != "t"} == {"ok"}


def test_a_model_that_fails_on_a_later_sample_fails_its_cells_and_no_other() -> None:
    def predict(x: Tensor) -> Tensor:
        if bool((x == last).all(dim=1).any()):
            raise RuntimeError("this one not")
        return random_linear(0)(x)  # type: ignore[no-any-return]

    last = labelled(0).read([N - 2])
    good = simple(MIXED[0])
    bad = model_spec("bad", lambda: loaded(random_linear(0), 3, predict=predict))
    world = changed(good, models=[bad, net_spec("m", 0)]).world()
    results = world.run()
    for result in results.values():
        assert result.status == ("failed" if result.cell.model == "bad" else "ok"), result.reason
    assert "this one not" in results[world.cell("clean", model="bad").id].reason


def reading(change: Callable[[Tensor], object]) -> Callable[[], DataSource]:
    """The good data, but for what `read` gives of the sixth sample and those after it."""

    def build() -> DataSource:
        whole = labelled(0)

        def read(positions: object) -> object:
            x = whole.read(positions)  # type: ignore[arg-type]
            return change(x) if max(positions) > 5 else x  # type: ignore[call-overload]

        return dataclasses.replace(whole, read=read)  # type: ignore[arg-type]

    return build


def unreadable(x: Tensor) -> Tensor:
    raise OSError("disk gone")


def with_nan(x: Tensor) -> Tensor:
    x[-1, 0] = float("nan")
    return x


def raising(problem: Exception) -> Callable[[], DataSource]:
    def build() -> DataSource:
        raise problem

    return build


BROKEN_DATA: dict[str, tuple[Callable[[], object], str]] = {
    "raises": (raising(ZeroDivisionError("no")), "dataset 'bad' could not be loaded: ZeroDivision"),
    "says why": (raising(DataError("no such folder")), "dataset 'bad': no such folder"),
    "nonsense": (lambda: [1, 2, 3], "the loader gave a list; expected a DataSource"),
    "labels": (
        lambda: source(points(3), torch.tensor([0, 1, 3])),
        "sample 'sample-2': label 3; expected 0 to 2",
    ),
    "nan in a later batch": (reading(with_nan), "is not a finite number"),
    "shape of a later batch": (reading(lambda x: x[:, :2]), "read gave shape"),
    "unreadable later": (reading(unreadable), "disk gone"),
}


@pytest.mark.parametrize("name", BROKEN_DATA)
def test_a_broken_dataset_fails_its_cells_and_no_other(name: str) -> None:
    build, reason = BROKEN_DATA[name]
    good = simple(MIXED[0])
    datasets = [dataset_spec("bad", build), *good.datasets]
    world = changed(good, datasets=datasets).world()
    results = world.run()
    assert len(results) == len(world.plan.cells)
    for result in results.values():
        if result.cell.dataset == "bad":
            assert result.status == "failed"
            assert result.environment
        else:
            table(result)
    clean = next(r for r in results.values() if (r.cell.dataset, r.cell.entry) == ("bad", "clean"))
    assert reason in clean.reason


def test_an_attack_that_cannot_be_imported_ends_the_run_before_anything_runs() -> None:
    spec = attack_spec("tests.small_world:no_such_attack", "gone")
    world = simple(MIXED[0], (spec, entry("gone", spec, "0.1"))).world()
    with pytest.raises(PluginError, match="no_such_attack"):
        world.run()


def test_a_crash_in_a_later_batch_fails_the_cell_and_keeps_no_half_table() -> None:
    calls: list[int] = []

    def attack(
        model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng
    ) -> Tensor:
        calls.append(len(x))
        if len(calls) == 4:  # two calls see whether it repeats itself
            raise ZeroDivisionError("second batch")
        return x

    spec = attack_spec(attack)
    world = simple((spec, entry("a", spec, "0.1"))).world()
    parts = Parts()
    result = world.run(parts=parts)[world.cell("a").id]
    assert (result.status, result.samples, result.environment) == ("failed", None, False)
    assert len(calls) == 4  # it is not tried on the third batch
    assert parts.parts(world.cell("a").id) == []


def test_a_cell_that_cannot_run_is_skipped_with_its_reason() -> None:
    score = model_spec(
        "m", lambda: loaded(random_linear(0), 3, differentiable=False), access="score"
    )
    world = changed(simple(*MIXED), models=[score]).world()
    results = world.run()
    assert len(results) == len(world.plan.cells)
    for result in results.values():
        skipped = result.cell.attack in {"fgsm", "pgd"}
        assert result.status == ("skipped" if skipped else "ok")
        assert ("needs gradient access" in result.reason) == skipped


def test_a_model_without_the_gradients_that_its_loader_promised_skips_the_attack() -> None:
    spec = model_spec("m", lambda: loaded(random_linear(0), 3, differentiable=False))
    world = changed(simple(MIXED[0], MIXED[2]), models=[spec]).world()
    results = world.run()
    result = results[world.cell("fgsm", "0.1").id]
    assert (result.status, result.samples) == ("skipped", None)
    assert result.reason == "model 'm': the model gives no gradients"
    table(results[world.cell("noise").id])


def test_a_declared_attack_is_not_skipped_for_being_somebodys_fallback() -> None:
    def search(
        model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng
    ) -> Tensor:
        return (x + budget.eps * rng.sign((6,))).clamp(0, 1)

    square = attack_spec(search, "square", access="score")
    given = simple(MIXED[0], (square, entry("square", square, "0.3")))
    stand_in = dataclasses.replace(net_spec("m", 0), stand_in=True)
    world = changed(given, models=[stand_in]).world()
    assert any(cell.fallback_for for cell in world.plan.cells)
    table(world.run()[world.cell("square").id])


# ---------------------------------------------------------------- what runs, and how often


def test_clean_cells_come_first_and_every_cell_once() -> None:
    given = changed(simple(*MIXED), models=[net_spec("m", 0), net_spec("o", 1)])
    world = given.world()
    order = [result.cell for result in world.stream()]
    assert [cell.attack == "clean" for cell in order[:2]] == [True, True]
    assert {cell.id for cell in order} == {cell.id for cell in world.plan.cells}
    assert len(order) == len(world.plan.cells)


def counted(calls: list[str], name: str) -> AttackSpec:
    def attack(
        model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng
    ) -> Tensor:
        calls.append(name)
        return (x + budget.eps * rng.sign((6,))).clamp(0, 1)

    return attack_spec(attack, name)


def test_cells_of_equal_content_are_computed_once() -> None:
    calls: list[str] = []
    spec = counted(calls, "mine")
    world = simple((spec, entry("x", spec, "0.1")), (spec, entry("y", spec, "1/10"))).world()
    assert world.cell("x").id == world.cell("y").id
    results = world.run(batch_size=N)
    assert calls == ["mine"] * 4  # twice to see whether it repeats itself, once for the self-test
    assert set(results) == {cell.id for cell in world.plan.cells}


def test_models_and_data_are_loaded_once() -> None:
    loads: list[str] = []

    def model() -> LoadedModel:
        loads.append("m")
        return loaded(random_linear(0), 3)

    def data() -> DataSource:
        loads.append("d")
        return labelled(0)

    given = changed(
        simple(*MIXED), models=[model_spec("m", model)], datasets=[dataset_spec("d", data)]
    )
    given.world().run()
    assert sorted(loads) == ["d", "m", "m"]  # once for the work, once to look back


def test_only_what_is_to_do_is_computed_on_the_clean_pass_of_before() -> None:
    world = mixed()
    whole = world.run()
    cell = world.cell("noise")
    again = world.run(todo={cell.id}, earlier=whole)
    assert set(again) == {cell.id}
    alike(again, {cell.id: whole[cell.id]})
    assert world.run(todo=set(), earlier=whole) == {}


def test_without_the_clean_pass_of_before_an_attack_has_no_number() -> None:
    world = mixed()
    result = world.run(todo={world.cell("noise").id})[world.cell("noise").id]
    assert result.status == "failed"
    assert result.reason == "there is no clean pass of model 'm' on 'd'"


@pytest.mark.parametrize("shard", [None, 8])
def test_a_carried_cell_alone_is_what_it_is_in_its_grid(shard: int | None) -> None:
    spec = attack_spec(lambda model, x, y, *, budget, rng: (x + (0.15 < budget.eps < 0.25) * budget.eps * rng.sign((6,))).clamp(0, 1), carries=True)  # fmt: skip
    world = simple((spec, entry("a", spec, "0.1", "0.2", "0.3")), n=23).world()
    whole = world.run(shard=shard)
    cell = world.cell("a", "0.3")
    assert table(whole[cell.id]).success.sum() > 1  # what 0.2 has broken
    again = world.run(todo={cell.id}, earlier=whole, shard=shard)
    assert set(again) == {cell.id}
    alike(again, {cell.id: whole[cell.id]})


def test_a_carried_cell_chosen_by_name_is_what_it_is_in_its_grid() -> None:
    spec = attack_spec(lambda model, x, y, *, budget, rng: (x + (0.15 < budget.eps < 0.25) * budget.eps * rng.sign((6,))).clamp(0, 1), carries=True)  # fmt: skip
    world = simple((spec, entry("a", spec, "0.1", "0.2", "0.3")), n=23).world()
    cell = world.cell("a", "0.3")
    whole = world.run()
    chosen = dataclasses.replace(world, plan=choose(world.plan, "0.3"))
    assert cell.id in {each.id for each in chosen.plan.cells}
    alike({cell.id: chosen.run()[cell.id]}, {cell.id: whole[cell.id]})


@pytest.mark.parametrize("gone", ["model", "dataset"])
def test_a_failure_touches_no_cell_that_was_not_to_be_computed(gone: str) -> None:
    spec = attack_spec(lambda model, x, y, *, budget, rng: x, carries=True)
    given = simple((spec, entry("a", spec, "0.1", "0.2")))
    whole = given.world().run()
    if gone == "model":
        given = changed(given, models=[model_spec("m", failing(ModelError("gone")))])
    else:
        given = changed(given, datasets=[dataset_spec("d", raising(DataError("gone")))])
    world = given.world()
    cell = world.cell("a", "0.2")
    again = world.run(todo={cell.id}, earlier=whole)
    assert set(again) == {cell.id}


def test_parts_of_an_earlier_try_are_not_computed_again() -> None:
    calls: list[str] = []
    spec = counted(calls, "mine")
    world = simple((spec, entry("a", spec, "0.1")), n=23).world()
    parts = Parts()
    whole = world.run(parts=parts, shard=8)
    first = len(calls)
    kept = Parts()
    for cell_id, found in parts.kept.items():
        for part in found[:-1]:
            kept.save_part(cell_id, part)
    alike(world.run(parts=kept, shard=8), whole)
    assert len(calls) == first + 2  # the last part: 7 samples in batches of 4


def test_parts_of_another_size_do_not_count_twice() -> None:
    world = simple(MIXED[2], n=23).world()
    parts = Parts()
    whole = world.run(parts=parts, shard=8)
    alike(world.run(parts=parts, shard=1000), whole, exact=False)


# ---------------------------------------------------------------- what must not be believed


def changing(model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng) -> Tensor:
    """Reaches for the artefact."""
    artefact: nn.Module = model._memory.model.differentiable  # type: ignore[attr-defined]
    for parameter in artefact.parameters():
        parameter.data.zero_()
    return (x + budget.eps).clamp(0, 1)


def test_a_changed_model_is_named_and_loaded_again_for_the_next_cell() -> None:
    spec = attack_spec(changing)
    honest = (fgsm.SPEC, entry("zz", fgsm.SPEC, "0.3"))
    world = simple((spec, entry("a", spec, "0.1")), honest).world()
    results = world.run()
    assert results[world.cell("a").id].observed[CHANGED_MODEL] == 1
    assert CHANGED_MODEL not in results[world.cell("zz").id].observed
    alone = simple(honest).world()
    alike(
        {world.cell("zz").id: results[world.cell("zz").id]},
        {alone.cell("zz").id: alone.run()[alone.cell("zz").id]},
    )


class Wild(nn.Module):
    """A linear net whose gradient is multiplied by `factor`."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.net = random_linear(0)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        x = x + 0
        if x.requires_grad:
            x.register_hook(lambda g: g * self.factor)  # type: ignore[no-untyped-call]
        logits: Tensor = self.net(x)
        return logits


@pytest.mark.parametrize(("factor", "key"), [(0.0, ZERO_GRADIENT), (float("nan"), BROKEN_GRADIENT)])
@pytest.mark.parametrize("spec", [fgsm.SPEC, pgd.SPEC], ids=lambda spec: spec.name)
def test_a_model_whose_gradients_are_broken_is_observed(
    spec: AttackSpec, factor: float, key: str
) -> None:
    given = simple((spec, entry("a", spec, "0.1")))
    world = changed(given, models=[model_spec("m", lambda: loaded(Wild(factor), 3))]).world()
    observed = world.run()[world.cell("a").id].observed
    assert observed[key] >= N // 2
    by_loss = {name: count for name, count in observed.items() if name.startswith(f"{key}: ")}
    if spec is fgsm.SPEC:
        assert by_loss == {f"{key}: cross-entropy": N - 1}  # one sample is misclassified
    assert sum(by_loss.values()) >= N // 2


@pytest.mark.parametrize(("factor", "key"), [(0.0, ZERO_GRADIENT), (float("nan"), BROKEN_GRADIENT)])
def test_a_model_whose_gradients_are_broken_is_observed_through_an_adapter(
    factor: float, key: str
) -> None:
    def adapter(
        model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng
    ) -> Tensor:
        leaf = x.clone().requires_grad_()
        loss = nn.functional.cross_entropy(model.module()(leaf), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, leaf)
        step = gradient.nan_to_num().sign() + 1e-3  # never quite the clean input
        return (x + budget.eps * step).clamp(x - budget.eps, x + budget.eps).clamp(0, 1)

    spec = attack_spec(adapter)
    given = simple((spec, entry("a", spec, "0.1")))
    world = changed(given, models=[model_spec("m", lambda: loaded(Wild(factor), 3))]).world()
    observed = world.run()[world.cell("a").id].observed
    assert observed.get(key, 0) >= N - 2


class Affine(nn.Module):
    """A linear net behind 0.8 x + 0.1, computed in place or apart."""

    def __init__(self, *, in_place: bool) -> None:
        super().__init__()
        self.net = random_linear(0)
        self.in_place = in_place

    def forward(self, x: Tensor) -> Tensor:
        inside = self.in_place and not x.requires_grad
        x = x.mul_(0.8).add_(0.1) if inside else x * 0.8 + 0.1
        logits: Tensor = self.net(x)
        return logits


IN_PLACE = model_spec("m", lambda: loaded(Affine(in_place=True), 3))
APART = model_spec("m", lambda: loaded(Affine(in_place=False), 3))


def test_a_network_that_works_in_place_has_the_numbers_of_its_twin_that_does_not() -> None:
    given = simple(*MIXED, n=40)
    runs = [changed(given, models=[spec]).world().run() for spec in (IN_PLACE, APART)]
    alike(*runs, exact=False)


def test_a_network_that_works_in_place_changes_no_number_of_another_model() -> None:
    given = simple(MIXED[0], n=40)
    alone = given.world().run()
    first = dataclasses.replace(IN_PLACE, name="first")
    both = changed(given, models=[first, *given.models]).world().run()
    alike({i: r for i, r in both.items() if r.cell.model == "m"}, alone, exact=False)


class Loud:
    """An observer that always raises."""

    def advanced(self, cell: Cell, done: int, total: int, robust: int) -> None:
        raise RuntimeError("no terminal")

    def finished(self, result: CellResult) -> None:
        raise RuntimeError("no terminal")


def test_an_observer_that_raises_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    world = mixed()
    alike(world.run(observer=Loud()), world.run())
    assert "progress display failed" in caplog.text


class Notes:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, int, int]] = []

    def advanced(self, cell: Cell, done: int, total: int, robust: int) -> None:
        self.seen.append((cell.id, done, total, robust))

    def finished(self, result: CellResult) -> None: ...


def test_progress_counts_up_to_the_samples_and_the_robust_ones_among_them() -> None:
    world = mixed()
    notes = Notes()
    results = world.run(observer=notes, shard=8)
    for cell in world.plan.cells:
        told = [
            (done, total, robust)
            for cell_id, done, total, robust in notes.seen
            if cell_id == cell.id
        ]
        assert [done for done, _, _ in told] == [4, 8, 12, 16, 20, 23]
        samples = table(results[cell.id])
        assert told[-1] == (23, 23, int((samples.clean_correct & ~samples.success).sum()))


def test_progress_never_counts_more_samples_than_there_are() -> None:
    spec = pgd.SPEC
    world = simple((spec, entry("a", spec, "0.1", "0.3", steps=2)), n=23).world()
    parts = Parts()
    whole = world.run(parts=parts)
    kept = Parts()
    for part in parts.parts(world.cell("a", "0.1").id):
        kept.save_part(world.cell("a", "0.1").id, part)
    notes = Notes()
    todo = {cell.id for cell in world.plan.cells if cell.entry == "a"}
    alike(
        world.run(todo=todo, earlier=whole, parts=kept, observer=notes), {i: whole[i] for i in todo}
    )
    assert max(done for _, done, _, _ in notes.seen) == 23


def unbroken(samples: Samples) -> int:
    return int((samples.clean_correct & ~samples.success).sum())


def test_a_larger_eps_never_helps_the_defender() -> None:
    grid = ("0", "0.05", "0.1", "0.2", "0.4", "1")
    world = simple((fgsm.SPEC, entry("a", fgsm.SPEC, *grid)), n=40).world()
    two_classes = Given(
        models=[model_spec("m", lambda: loaded(Linear(random_linear(0, 2).weight), 2))],
        datasets=[dataset_spec("d", lambda: labelled(0, 40, classes=2))],
        specs=[fgsm.SPEC],
        attacks=world.suite.attacks,
    ).world()
    for each in (two_classes,):
        results = each.run()
        counts = [unbroken(table(results[each.cell("a", radius).id])) for radius in grid]
        assert counts == sorted(counts, reverse=True)
        assert counts[-1] == 0
