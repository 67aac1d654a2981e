"""A run that is out of time ends cleanly, says what is missing, and goes on where it was."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from torch import Tensor

from robustbench_lite import Budget, Classifier, SampleRng, gate, summary
from robustbench_lite.advance import Advance
from robustbench_lite.builtin.attacks import fgsm, pgd, uniform_noise
from robustbench_lite.store import RunDirectory
from robustbench_lite.turns import turns
from robustbench_lite.types import Cost, Part, Selection, Terms
from robustbench_lite.unmet import unmet
from robustbench_lite.words import duration
from tests.finished_run import cell, result, rule, summarised, table
from tests.small_world import (
    Given,
    Parts,
    World,
    attack_spec,
    changed,
    dataset_spec,
    entry,
    labelled,
    net_spec,
    simple,
)
from tests.small_world import table as finished
from tests.test_sequential_run import same

if TYPE_CHECKING:
    from tests.conftest import Robeval


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("20", 20),
        ("90s", 90),
        ("20m", 1200),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1h 30m 5s", 5405),
        ("1.5h", 5400),
        (" 10m ", 600),
    ],
)
def test_times_as_people_write_them(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "0", "0s", "-5m", "20 min", "30m1h", "1h-3m", "x"])
def test_what_is_no_time(text: str) -> None:
    assert duration(text) is None


# ---------------------------------------------------------------- the deadline


def two_attacks() -> World:
    """Three cells of 30 samples, of which two carry."""
    weak, strong = fgsm.SPEC, pgd.SPEC
    attacks = (
        (weak, entry("f", weak, "0.05")),
        (strong, entry("p", strong, "0.05", "0.1", steps=2)),
    )
    return changed(simple(*attacks, n=30), self_test=False).world()


def clock(ticks: int) -> Callable[[Advance], float]:
    """Time that runs out after so many looks at the clock."""
    left = iter(range(ticks, 0, -1))
    return lambda _: float(next(left, 0))


@pytest.mark.parametrize("ticks", [0, 1, 3, 6, 8, 9, 12, 15, 17, 19, 21])
def test_a_run_out_of_time_keeps_its_samples_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, ticks: int
) -> None:
    here = two_attacks()
    whole = here.run(batch_size=7, shard=10)
    parts = Parts()
    with monkeypatch.context() as patch:
        patch.setattr(Advance, "left", clock(ticks))
        first = here.run(batch_size=7, shard=10, parts=parts)
    assert len(first) < len(whole)
    kept = {key: sum(part.stop - part.start for part in ps) for key, ps in parts.kept.items()}
    assert all(kept[key] == 30 for key in first)
    assert not [each for each in first.values() if each.status != "ok"]
    todo = {each.id for each in here.plan.cells} - first.keys()
    before = {key: len(ps) for key, ps in parts.kept.items()}
    second = here.run(batch_size=4, parts=parts, todo=todo, earlier=first)
    assert first.keys() | second.keys() == whole.keys()
    for key, each in {**first, **second}.items():
        same(finished(each), finished(whole[key]))
    for key, n in before.items():  # what was stored is not computed again
        assert sum(part.stop - part.start for part in parts.kept[key]) == 30
        assert len(parts.kept[key]) >= n


def endless(model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng) -> Tensor:
    """An attack that never returns."""
    while True:
        model.logits(x)


def test_an_attack_that_does_not_end_is_ended() -> None:
    spec = attack_spec(endless, "endless")
    here = changed(simple((spec, entry("e", spec, "0.1"))), self_test=False).world()
    attacked = here.cell("e").id
    clean = here.run(todo={each.id for each in here.plan.cells} - {attacked})
    begin = time.monotonic()
    left = here.run(todo={attacked}, earlier=clean, terms=Terms(deadline=begin + 1))
    assert left == {}
    assert time.monotonic() - begin < 30


# ---------------------------------------------------------------- what comes first


def test_cells_that_gates_need_come_first_over_all_datasets() -> None:
    noise, weak = uniform_noise.SPEC, fgsm.SPEC
    here = Given(
        models=[net_spec("m", 0)],
        datasets=[dataset_spec(name, lambda: labelled(0)) for name in ("d", "e")],
        specs=[noise, weak],
        attacks=[entry("n", noise, "0.1"), entry("f", weak, "0.1", "0.2")],
    ).world()
    cells = here.plan.cells
    first = {c.id for c in cells if c.dataset == "e" and (c.entry == "clean" or c.eps == EPS)}
    sizes = {"d": Selection(), "e": Selection(take=5)}
    found = turns(here.plan, cells, sizes, first)
    named = [(name, [group.cells[0].entry for group in groups]) for name, groups in found]
    assert named == [("e", ["clean", "f", "n"]), ("d", ["clean", "n", "f"])]
    assert all(len(g.cells) == 2 for _, gs in found for g in gs if g.cells[0].entry == "f")
    told = [each.cell for each in here.stream(terms=Terms(first=first))]
    assert [(c.dataset, c.entry) for c in told][:3] == [("e", "clean"), ("e", "f"), ("e", "f")]
    plain = turns(here.plan, cells, sizes, ())
    assert [name for name, _ in plain] == ["d", "e"]
    costs = [sum(c.cost or Cost(0, 0)) for _, gs in plain[:1] for g in gs for c in g.cells]
    assert costs[1:] == sorted(costs[1:])  # the clean pass before all others


EPS = entry("f", fgsm.SPEC, "0.2").eps[0]


# ---------------------------------------------------------------- the verdict


def test_the_sentence_names_the_gates_and_the_cells_that_they_lack() -> None:
    cells = [cell("clean"), *(cell(name, "0.1") for name in ("fgsm", "pgd", "apgd"))]
    done = {each.id: result(each) for each in cells[:2]}
    tables = {key: table([True] * 50, [False] * 50) for key in done}
    made = summary.make(cells, done, tables.get, [], unfinished="no time was left")
    gates = [
        rule("floor", attack="pgd", minimum=0.1),
        rule("fine", attack="fgsm", minimum=0.1),
        rule("worst", "worst_case_robust_accuracy", minimum=0.1),
    ]
    results = gate.check(gates, made)
    verdict = gate.verdict(results, made)
    assert verdict.exit_code == 4
    assert (
        "2 of 4 cells did not finish. Gate 'floor' lacks pgd linf 0.1 on 'candidate'; gate 'worst'"
        " lacks pgd linf 0.1 on 'candidate', apgd linf 0.1 on 'candidate'."
    ) in verdict.sentence
    assert "no time was left" in verdict.sentence
    assert unmet(results, made, []) == ""
    whole = summarised((cells[0], tables[cells[0].id]))
    assert unmet(gate.check(gates, whole), whole, []) == ""


SUITE = """\
controls: off
self_test: "off"
reports: [csv]
attacks:
  fgsm: {attack: fgsm, norm: linf, eps: 0.02}
  pgd: {attack: pgd, norm: linf, eps: 0.02, steps: 3}
gates:
  floor: {metric: robust_accuracy, attack: pgd, min: 0.01}
"""


def test_out_of_time_on_the_command_line(
    robeval: Robeval,
    write_suite: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = str(write_suite(SUITE, take=60))
    with monkeypatch.context() as patch:
        patch.setattr(Advance, "left", clock(8))
        ended = robeval("run", path, "-o", "out", "--time-budget", "1h30m", "--batch-size", "20")
    assert ended.code == 4, ended.err
    assert "Gate 'floor' lacks pgd linf 0.02 on 'linear'." in ended.out
    assert "the time budget of 5400 s ended before it was finished" in ended.out
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["status"] == "out of time"
    rows = (tmp_path / "out" / "tables" / "cells.csv").read_text()
    assert rows.count(",timeout,the time budget of 5400 s") >= 2
    # what the gate needs came first: fgsm, which is cheaper, was not begun
    assert "fgsm" not in ended.err
    assert robeval("gate", "out").code == 4
    again = robeval("run", path, "-o", "out", "--resume")
    assert again.code == 0, again.err
    whole = robeval("run", path, "-o", "elsewhere/out")
    assert whole.code == 0
    assert _tables(tmp_path / "out") == _tables(tmp_path / "elsewhere" / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert (manifest["status"], manifest["unfinished"]) == ("finished", "")


def _tables(out: Path) -> dict[str, bytes]:
    return {file.parent.name: file.read_bytes() for file in out.glob("cells/*/samples.parquet")}


def test_an_hour_is_enough_and_changes_nothing(
    robeval: Robeval, write_suite: Callable[..., Path], tmp_path: Path
) -> None:
    path = str(write_suite(SUITE, take=40))
    assert robeval("run", path, "-o", "a/out", "--time-budget", "1h").code == 0
    assert robeval("run", path, "-o", "b/out").code == 0
    assert _tables(tmp_path / "a" / "out") == _tables(tmp_path / "b" / "out")


def test_a_time_that_is_none_is_refused(
    robeval: Robeval, write_suite: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(write_suite(SUITE))
    ended = robeval("run", path, "--time-budget", "soon")
    assert ended.code == 2
    assert "'soon' is not a time such as 20m, 90s or 1h30m" in ended.err
    monkeypatch.setenv("ROBEVAL_TIME_BUDGET", "later")
    assert "'later' is not a time" in robeval("run", path).err


def test_an_interrupted_run_is_judged_incomplete(
    robeval: Robeval,
    write_suite: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = str(write_suite(SUITE, take=60))
    saved: list[str] = []
    real = RunDirectory.save_part

    def save_part(self: RunDirectory, cell_id: str, part: Part) -> None:
        real(self, cell_id, part)
        saved.append(cell_id)
        if len(saved) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "save_part", save_part)
        assert robeval("run", path, "-o", "out").code == 130
    assert not (tmp_path / "out" / "gates.json").exists()
    ended = robeval("gate", "out")
    assert ended.code == 4, ended.err
    assert "2 of 3 cells did not finish" in ended.out
    assert "Gate 'floor' lacks pgd linf 0.02 on 'linear'." in ended.out
    assert "the run was interrupted before it was finished" in ended.out
    again = robeval("run", path, "-o", "out", "--resume")
    assert again.code == 0
    assert robeval("gate", "out").code == 0
