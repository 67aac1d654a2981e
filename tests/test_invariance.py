"""How a number is computed never changes it: batch size, parts, resuming, other cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from robustbench_lite import plan as planning
from robustbench_lite import plugins
from robustbench_lite import suite as suites
from robustbench_lite.execute import cells as execute
from robustbench_lite.records import COLUMNS
from robustbench_lite.run import Silence
from robustbench_lite.store import RunDirectory, load_run, open_directory
from robustbench_lite.types import Part, PartStore, Places, Plan, Samples, Suite

if TYPE_CHECKING:
    from tests.conftest import Robeval

N = 250
ATTACKS = """\
attacks:
  fgsm: {attack: fgsm, norm: linf, eps: [0.02, 0.05]}
  pgd: {attack: pgd, norm: linf, eps: [0.02, 0.05], steps: 5, restarts: 2}
  pgd-l2: {attack: pgd, norm: l2, eps: [0.5, 1.0], steps: 5}
  sign: {attack: sign-noise, norm: linf, eps: 0.2, repeats: 3}
  gauss: {attack: gaussian-noise, norm: l2, eps: 2}
  pepper: {attack: salt-and-pepper, eps: 20}
  targeted: {attack: pgd, norm: linf, eps: 0.05, steps: 5, target: random}
"""
EXACT = ("sample_id", "sample_hash", "label", "legal", "status")
DECISIONS = ("clean_pred", "adv_pred", "adv_correct", "success")
DRAWN = ("l0", "l1", "l2", "linf")  # of a control: drawn without looking at the model


class Prepared:
    def __init__(self, path: Path, device: str) -> None:
        self.registry = plugins.load(strict=True)
        self.places = Places(suite=path.parent, data=None, cache=path.parent)
        self.suite: Suite = suites.load(path, self.registry, places=self.places)
        self.plan: Plan = planning.make(self.suite, self.registry, self.places)
        self.device = device

    def run(
        self,
        folder: Path,
        *,
        batch_size: int,
        shard: int | None = None,
        directory: PartStore | None = None,
    ) -> dict[str, Samples]:
        """Every cell computed with these settings: cell id -> table."""
        directory = directory or open_directory(folder, "test")
        results = {}
        for result in execute(
            self.suite,
            self.plan,
            {cell.id for cell in self.plan.cells},
            registry=self.registry,
            places=self.places,
            device=self.device,
            threads=1,
            batch_size=batch_size,
            shard=shard,
            selections={entry.name: entry.selection for entry in self.suite.datasets},
            parts=directory,
            stored=lambda _: None,
            observer=Silence(),
        ):
            assert result.status == "ok", result.reason
            assert result.samples is not None
            results[result.cell.id] = result.samples
        return results


@pytest.fixture
def prepared(
    write_suite: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, device: torch.device
) -> Prepared:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return Prepared(write_suite(ATTACKS, take=N), str(device))


def differing(one: Mapping[str, Samples], two: Mapping[str, Samples]) -> list[tuple[str, str, int]]:
    """(cell, column, rows that differ) for every column of every cell that is not bit-equal."""
    assert one.keys() == two.keys()
    return [
        (cell, name, int((left != right).sum()))
        for cell in one
        for name in COLUMNS
        if ((left := getattr(one[cell], name)) != (right := getattr(two[cell], name))).any()
    ]


def test_the_same_run_twice_is_bit_equal(prepared: Prepared, tmp_path: Path) -> None:
    first = prepared.run(tmp_path / "a", batch_size=64)
    assert differing(first, prepared.run(tmp_path / "b", batch_size=64)) == []


def test_two_parts_are_bit_equal_to_one(prepared: Prepared, tmp_path: Path) -> None:
    whole = prepared.run(tmp_path / "whole", batch_size=25)
    assert differing(whole, prepared.run(tmp_path / "two", batch_size=25, shard=125)) == []


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_batch_size_changes_at_most_rounding(
    prepared: Prepared, tmp_path: Path, batch_size: int
) -> None:
    large = prepared.run(tmp_path / "large", batch_size=1000)
    small = prepared.run(tmp_path / "small", batch_size=batch_size)
    controls = {cell.id for cell in prepared.plan.cells if cell.role == "control"}
    flipped: list[tuple[str, str]] = []
    for cell, table in small.items():
        other = large[cell]
        for name in (*EXACT, *(DRAWN if cell in controls else ())):
            assert np.array_equal(getattr(table, name), getattr(other, name)), (cell, name)
        changed = np.zeros(N, dtype=bool)
        for name in DECISIONS:
            changed |= getattr(table, name) != getattr(other, name)
        flipped += [(cell, sample) for sample in table.sample_id[changed]]
    total = N * len(small)
    assert len(flipped) <= 0.002 * total, f"of {total} decisions rounding changed {flipped}"


class Killed(Exception):
    """Stands for a kill: raised while a part is being stored."""


class Dying:
    """A store whose process dies after some parts."""

    def __init__(self, directory: RunDirectory, left: int) -> None:
        self._directory = directory
        self._left = left

    def parts(self, cell_id: str) -> Sequence[Part]:
        return self._directory.parts(cell_id)

    def save_part(self, cell_id: str, part: Part) -> None:
        if self._left == 0:
            raise Killed
        self._left -= 1
        self._directory.save_part(cell_id, part)


@pytest.mark.parametrize("survived", [0, 1, 4, 9, 15, 22])
def test_resumed_after_a_kill_is_bit_equal(
    prepared: Prepared, tmp_path: Path, survived: int
) -> None:
    whole = prepared.run(tmp_path / "whole", batch_size=25, shard=125)
    opened = open_directory(tmp_path / "killed", "test")
    with pytest.raises(Killed):
        prepared.run(tmp_path, batch_size=25, shard=125, directory=Dying(opened, survived))
    assert len(list(opened.path.glob("parts/*/[0-9]*"))) == survived
    resumed = prepared.run(tmp_path, batch_size=25, shard=125, directory=opened)
    assert differing(whole, resumed) == []


def test_a_carried_grid_is_the_same_when_only_its_largest_eps_is_left(
    robeval: Robeval, write_suite: Callable[..., Path]
) -> None:
    text = "attacks: {pgd: {attack: pgd, norm: linf, eps: [0.02, 0.05], steps: 3}}\n"
    path = write_suite(text)
    robeval("run", str(path), "-o", "whole", "-q")
    robeval("run", str(path), "-o", "again", "-q")
    whole = load_run(path.parent / "whole")
    last = next(c for c in whole.plan.cells if c.entry == "pgd" and c.carried)
    again = RunDirectory(path.parent / "again")
    again.forget(last.id)
    ended = robeval("run", str(path), "-o", "again", "-q", "--refresh")
    assert "cells: 1 computed" in ended.out
    before, after = whole.samples(last.id), load_run(again.path).samples(last.id)
    assert before is not None
    assert after is not None
    assert differing({"x": before}, {"x": after}) == []


def test_other_cells_of_a_suite_change_nothing(
    robeval: Robeval, write_suite: Callable[..., Path]
) -> None:
    one = write_suite(
        "attacks: {p: {attack: pgd, norm: linf, eps: 0.05, steps: 3}}\n", name="one.yaml"
    )
    many = write_suite(
        "attacks:\n"
        "  a: {attack: fgsm, norm: linf, eps: [0.01, 0.05]}\n"
        "  p: {attack: pgd, norm: linf, eps: 0.05, steps: 3}\n"
        "  z: {attack: sign-noise, norm: linf, eps: 0.3}\n",
        name="many.yaml",
    )
    robeval("run", str(one), "-o", "one", "-q")
    robeval("run", str(many), "-o", "many", "-q", "--refresh")
    tables = []
    for name in ("one", "many"):
        stored = load_run(one.parent / name)
        cell = next(cell for cell in stored.plan.cells if cell.entry == "p")
        table = stored.samples(cell.id)
        assert table is not None
        tables.append({"p": table})
    assert differing(*tables) == []
