"""Cells that sequential gates end early: the same for any batches and stops, and judged rightly."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest

from robustbench_lite import gate, needs, sequential, summary
from robustbench_lite.assess import assess
from robustbench_lite.builtin.attacks import fgsm, pgd
from robustbench_lite.errors import RobevalError, SuiteError
from robustbench_lite.group import rows
from robustbench_lite.records import COLUMNS
from robustbench_lite.stats import anytime_limits
from robustbench_lite.store import StoredRun, load_run
from robustbench_lite.types import Cell, CellResult, Gate, Part, Plan, Samples, Summary, Terms
from tests.finished_run import FakeRun, cell, result, rule, table
from tests.small_world import Parts, World, changed, entry, simple
from tests.small_world import table as finished

if TYPE_CHECKING:
    from tests.conftest import Robeval

N = 300
FLOOR = rule(minimum=0.5, attack="f", sequential=True)


def world(n: int = N) -> World:
    """A linear model under fgsm at an eps that breaks next to nothing, and one that breaks more."""
    spec = fgsm.SPEC
    return changed(simple((spec, entry("f", spec, "0.001", "0.3")), n=n), self_test=False).world()


def terms(where: World, *gates: Gate) -> Terms:
    return Terms(stops=needs.stops(gates, where.plan.cells))


def same(one: Samples, other: Samples) -> None:
    for name in COLUMNS:
        mine, yours = getattr(one, name), getattr(other, name)
        if mine.dtype.kind == "f":
            np.testing.assert_allclose(mine, yours, rtol=1e-4, atol=1e-6)
        else:
            assert mine.tolist() == yours.tolist(), name


@pytest.fixture(scope="module")
def whole() -> dict[str, CellResult]:
    return world().run(batch_size=100)


def test_a_clear_cell_ends_at_a_look_on_the_first_samples_of_the_order(
    whole: dict[str, CellResult],
) -> None:
    here = world()
    small = dataclasses.replace(FLOOR, eps=here.cell("f", "0.001").eps)
    results = here.run(batch_size=64, terms=terms(here, small))
    early, full = (results[here.cell("f", radius).id] for radius in ("0.001", "0.3"))
    n = len(finished(early).label)
    assert n in set(sequential.looks(N))
    assert early.stopped == f"stopped early: gate 'floor' decided after {n} of {N} samples"
    ids = finished(whole[here.cell("f", "0.3").id]).sample_id
    first = np.sort(sequential.order(list(ids), here.plan.seed)[:n])
    same(finished(early), rows(finished(whole[early.cell.id]), first))
    assert sequential.decided(small, finished(early))
    # what no gate reads runs on, in the dataset's own order
    assert full.stopped == ""
    same(finished(full), finished(whole[full.cell.id]))
    before = max(at for at in (0, *sequential.looks(N)) if at < n)
    seen = np.sort(sequential.order(list(ids), here.plan.seed)[:before])
    assert not sequential.decided(small, rows(finished(whole[early.cell.id]), seen))


class Stop(Exception):
    """The run is killed."""


class Killed(Parts):
    """Parts that stop the run after so many were saved."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def save_part(self, cell_id: str, part: Part) -> None:
        super().save_part(cell_id, part)
        self.after -= 1
        if self.after == 0:
            raise Stop


@pytest.mark.parametrize(("batch", "shard", "after"), [(7, None, 2), (300, 50, 6), (64, 33, 9)])
def test_neither_batches_nor_a_kill_move_where_it_ends(batch: int, shard: int, after: int) -> None:
    here = world()
    rules = terms(here, FLOOR)
    plain = here.run(batch_size=100, terms=rules)
    parts = Killed(after)
    with pytest.raises(Stop):
        here.run(batch_size=batch, shard=shard, parts=parts, terms=rules)
    kept = Parts()
    kept.kept = parts.kept
    again = here.run(batch_size=13, parts=kept, terms=rules)
    assert any(each.stopped for each in plain.values())
    for cell_id, each in plain.items():
        assert again[cell_id].stopped == each.stopped
        same(finished(again[cell_id]), finished(each))
        assert again[cell_id].observed == each.observed


def test_a_larger_eps_that_runs_on_still_carries_from_one_that_stopped() -> None:
    spec = pgd.SPEC
    assert spec.carries
    attack = entry("f", spec, "0.001", "0.1", steps=3)
    here = changed(simple((spec, attack), n=N), self_test=False).world()
    small = dataclasses.replace(FLOOR, eps=here.cell("f", "0.001").eps)
    large = here.cell("f", "0.1")
    plain = here.run(batch_size=64)
    results = here.run(batch_size=64, terms=terms(here, small))
    assert large.carried
    assert results[here.cell("f", "0.001").id].stopped
    same(finished(results[large.id]), finished(plain[large.id]))


def test_parts_in_another_order_are_not_taken(whole: dict[str, CellResult]) -> None:
    here = world()
    parts = Killed(3)
    with pytest.raises(Stop):
        here.run(batch_size=100, shard=100, parts=parts)
    kept = Parts()
    kept.kept = parts.kept
    results = here.run(batch_size=100, parts=kept, terms=terms(here, FLOOR))
    for each in results.values():
        ids = finished(each).sample_id
        same(finished(each), rows(finished(whole[each.cell.id]), _index(whole, each, ids)))


def _index(
    whole: dict[str, CellResult],
    each: CellResult,
    ids: np.ndarray[tuple[int], np.dtype[np.object_]],
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    place = {name: at for at, name in enumerate(finished(whole[each.cell.id]).sample_id)}
    return np.array([place[name] for name in ids], dtype=np.int64)


# ---------------------------------------------------------------- which cells may end


GRID = [cell("clean"), cell("pgd", "0.1"), cell("pgd", "0.2"), cell("square", "0.1")]


def test_a_cell_that_any_other_gate_reads_runs_whole() -> None:
    seq = rule("s", attack="pgd", minimum=0.5, sequential=True)
    assert set(needs.stops([seq], GRID)) == {GRID[1].id, GRID[2].id}
    plain = rule("p", attack="pgd", eps=GRID[1].eps, minimum=0.5)
    assert set(needs.stops([seq, plain], GRID)) == {GRID[2].id}
    worst = rule("w", "worst_case_robust_accuracy", norm="linf", minimum=0.5)
    assert needs.stops([seq, worst], GRID) == {}
    assert needs.stops([plain], GRID) == {}
    twin = dataclasses.replace(GRID[1], entry="pgd-again")  # one cell under two names
    again = rule("a", attack="pgd-again", minimum=0.5)
    assert set(needs.stops([seq, again], [*GRID, twin])) == {GRID[2].id}
    two = rule("t", "attack_success_rate", minimum=0.1, sequential=True)
    assert needs.stops([seq, two], GRID)[GRID[1].id] == (seq, two)


@pytest.mark.parametrize(
    ("metric", "says"),
    [
        ("worst_case_robust_accuracy", "several attacks together"),
        ("clean_accuracy", "leave sequential away"),
    ],
)
def test_what_cannot_end_early_is_refused_where_it_stands(metric: str, says: str) -> None:
    wrong = rule("g", metric, minimum=0.5, sequential=True)
    with pytest.raises(
        SuiteError, match=f"^suite.yaml:12:3: error: gates.g.sequential: {metric}"
    ) as e:
        needs.stops([wrong], GRID)
    assert says in str(e.value)


def test_a_family_that_counts_as_one_is_refused() -> None:
    member = dataclasses.replace(cell("standard: apgd", "0.1"), family="standard", union=True)
    with pytest.raises(SuiteError, match="'standard' stands for several attacks"):
        needs.stops([rule(attack="standard", minimum=0.5, sequential=True)], [member])


def test_the_cells_that_gates_need() -> None:
    ids = {each.id for each in GRID}
    assert needs.needed([], GRID) == set()
    assert needs.needed([rule(metric="clean_accuracy", minimum=0.9)], GRID) == {GRID[0].id}
    one = rule(attack="pgd", eps=GRID[2].eps, minimum=0.9)
    assert needs.needed([one], GRID) == {GRID[0].id, GRID[2].id}
    worst = rule("w", "worst_case_robust_accuracy", eps=GRID[1].eps, minimum=0.5)
    assert needs.needed([worst], GRID) == ids - {GRID[2].id}
    assert needs.needed([rule(attack="pgd", model="other", minimum=0.5)], GRID) == set()


# ---------------------------------------------------------------- rows, worst cases, gates


def early(which: Cell, samples: Samples, index: list[int]) -> tuple[CellResult, Samples]:
    return result(which, stopped="stopped early: told"), rows(samples, np.array(index))


def made(*cells: tuple[CellResult, Samples]) -> Summary:
    tables = {each.cell.id: samples for each, samples in cells}
    results = {each.cell.id: each for each, _ in cells}
    return summary.make([each.cell for each, _ in cells], results, tables.get, [])


def test_a_worst_case_counts_the_samples_that_all_its_cells_have() -> None:
    rng = np.random.default_rng(0)
    correct = rng.random(200) < 0.9
    broken = [rng.random(200) < share for share in (0.2, 0.3, 0.1)]
    tables = [table(correct, bits) for bits in broken]
    clean = table(correct, np.zeros(200, dtype=bool))
    first = sorted(rng.permutation(200)[:80].tolist())
    fewer = sorted(rng.permutation(first)[:50].tolist())
    cells = [cell("a", "0.1"), cell("b", "0.1"), cell("c", "0.1")]
    found = made(
        (result(cell("clean")), clean),
        early(cells[0], tables[0], first),
        (result(cells[1]), tables[1]),
        early(cells[2], tables[2], fewer),
    )
    row = found.rows[-1]
    assert row.attack == "worst-case"
    assert (row.status, row.n, row.stopped) == ("ok", 50, "stopped early: told")
    left = correct[fewer] & ~(broken[0] | broken[1] | broken[2])[fewer]
    assert row.robust_accuracy is not None
    assert (row.robust_accuracy.count, row.robust_accuracy.n) == (left.sum(), 50)
    interval = (row.robust_accuracy.low, row.robust_accuracy.high)
    assert interval == anytime_limits(int(left.sum()), 50, 0.975)
    assert found.rows[1].n == 80
    assert found.rows[1].reason == "stopped early: told"


def test_fewer_samples_without_a_gate_that_stopped_it_are_a_bug() -> None:
    clean = table(np.ones(20, dtype=bool), np.zeros(20, dtype=bool))
    fewer = rows(clean, np.arange(5))
    with pytest.raises(RobevalError, match="other samples, or another order"):
        made((result(cell("clean")), clean), (result(cell("a", "0.1")), fewer))


def test_any_gate_on_a_stopped_row_uses_limits_that_allow_for_it() -> None:
    """A gate that came later may not read the row as if its n had been chosen before."""
    correct, broken = np.ones(60, dtype=bool), np.arange(60) < 2
    clean = table(np.ones(60, dtype=bool), np.zeros(60, dtype=bool))
    stopped = made(
        (result(cell("clean")), clean),
        early(cell("a", "0.1"), table(correct, broken), list(range(60))),
    )
    plain = rule(attack="a", minimum=0.88)
    (judged,) = gate.check([plain], stopped)
    assert (judged.low, judged.high) == anytime_limits(58, 60)
    assert judged.status == "INCONCLUSIVE"
    assert judged.reason.endswith("(stopped early: told)")
    whole = made((result(cell("clean")), clean), (result(cell("a", "0.1")), table(correct, broken)))
    (fixed,) = gate.check([plain], whole)
    assert fixed.status == "PASS"
    (anytime,) = gate.check([dataclasses.replace(plain, sequential=True)], whole)
    assert (anytime.low, anytime.high) == (judged.low, judged.high)
    assert anytime.needed is not None
    assert anytime.needed > 60


@dataclass(frozen=True, kw_only=True)
class Finished(FakeRun):
    """A run of every cell."""

    partial: bool = False


def test_a_stopped_cell_is_set_against_noise_on_the_samples_that_both_have() -> None:
    """Broken gradients do not pass by stopping early."""
    n = 400
    correct, noise = np.ones(n, dtype=bool), np.arange(n) % 5 == 0
    clean, control = cell("clean"), cell("noise", "0.1", role="control")
    blind = dataclasses.replace(cell("pgd", "0.1"), access="gradient")
    sound = dataclasses.replace(cell("apgd", "0.1"), access="gradient")
    none = np.zeros(n, dtype=bool)
    tables = {
        clean.id: table(correct, none),
        control.id: table(correct, noise),
        blind.id: rows(table(correct, none), np.arange(0, n, 4)),
        sound.id: table(correct, noise),
    }
    cells = (clean, control, blind, sound)
    results = {each.id: result(each) for each in cells}
    results[blind.id] = result(blind, stopped="stopped early: told")
    plan = Plan(suite="s", seed=0, models={}, datasets={}, cells=cells)
    run = Finished(
        path=Path(), manifest={}, plan=plan, suite_text="", results=results, tables=tables
    )
    found = assess(cast("StoredRun", run), [])
    (error,) = [each for each in found.findings if each.id == "weaker-than-control"]
    assert error.cells == (blind.id,)
    assert error.numbers["samples"] == 100
    status = {row.attack: row.status for row in found.summary.rows}
    assert (status["pgd"], status["apgd"], status["worst-case"]) == ("invalid", "ok", "invalid")


# ---------------------------------------------------------------- the command line

SUITE = """\
controls: auto
self_test: "off"
reports: [csv]
attacks:
  fgsm: {{attack: fgsm, norm: linf, eps: 0.02}}
gates:
  floor: {{metric: robust_accuracy, attack: fgsm, min: {floor}, sequential: true}}
"""


def test_a_sequential_gate_from_suite_to_verdict(
    robeval: Robeval, write_suite: Callable[..., Path], tmp_path: Path
) -> None:
    path = str(write_suite(SUITE.format(floor=0.2), take=500))
    ended = robeval("run", path, "-o", "out")
    assert ended.code in {0, 8}, ended.err
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    ((cell_id, told),) = manifest["stopped"].items()
    assert told.startswith("stopped early: gate 'floor' decided after ")
    assert told in (tmp_path / "out" / "tables" / "cells.csv").read_text()
    first = (tmp_path / "out" / "gates.json").read_text()
    assert robeval("gate", "out").code == ended.code
    assert (tmp_path / "out" / "gates.json").read_text() == first
    # another batch size, elsewhere: the same answer, sample for sample
    other = robeval("run", path, "-o", "elsewhere/out", "--batch-size", "17")
    assert json.loads((tmp_path / "elsewhere" / "out" / "gates.json").read_text()) == json.loads(
        first
    )
    assert other.code == ended.code
    # a cell that was ended early is of its own run; with other gates it is run again
    n = len(load_run(tmp_path / "out").samples(cell_id).label)  # type: ignore[union-attr]
    assert n < 500
    whole = SUITE.format(floor=0.2).replace(", sequential: true", "")
    robeval("run", str(write_suite(whole, take=500)), "-o", "next")
    robeval("run", str(write_suite(whole, take=500)), "-o", "out")
    for name in ("next", "out"):
        stored = load_run(tmp_path / name)
        samples = stored.samples(cell_id)
        assert samples is not None
        assert len(samples.label) == 500
        assert stored.results[cell_id].stopped == ""


def test_a_gate_that_cannot_be_sequential_is_told_before_anything_runs(
    robeval: Robeval, write_suite: Callable[..., Path]
) -> None:
    wrong = SUITE.format(floor=0.5).replace("robust_accuracy, attack: fgsm", "clean_accuracy")
    path = write_suite(wrong)
    told = "error: gates.floor.sequential: clean_accuracy cannot be judged sequentially"
    for command in ("validate", "run"):
        ended = robeval(command, str(path))
        assert ended.code == 2
        assert told in ended.err
    assert not Path("reports").exists()
