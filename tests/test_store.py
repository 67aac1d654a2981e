"""What is written is read back as it was, whole or not at all."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import shutil
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NoReturn, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from robustbench_lite import records, store
from robustbench_lite.errors import EnvironmentProblem, UsageError
from robustbench_lite.store import RunDirectory
from robustbench_lite.types import (
    NORMS,
    Cell,
    CellResult,
    CellStatus,
    Component,
    Cost,
    Eps,
    Examples,
    Gate,
    Json,
    Part,
    Plan,
    Samples,
    Where,
)

# ---------------------------------------------------------------- values, drawn

DRAWN = settings(deadline=None, max_examples=50)
NAMES = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=12)
EPS = st.builds(
    lambda above, below: Eps(Fraction(above, below), f"{above}/{below}"),
    st.integers(0, 1000),
    st.integers(1, 1000),
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9) | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
SHARES = st.none() | st.floats(0, 1)
CELLS = st.builds(
    Cell,
    id=st.text("0123456789abcdef", min_size=16, max_size=16),
    model=NAMES,
    dataset=NAMES,
    entry=NAMES,
    attack=NAMES,
    source=NAMES,
    role=st.sampled_from(["attack", "control"]),
    kind=st.sampled_from(["fixed-budget", "minimal-norm"]),
    effort=st.sampled_from(["single-step", "iterative", "exhaustive", "random"]),
    norm=st.none() | st.sampled_from(NORMS),
    eps=st.none() | EPS,
    target=st.none() | NAMES,
    repeats=st.integers(1, 9),
    params=st.dictionaries(NAMES, PLAIN, max_size=3),
    carried=st.lists(EPS, max_size=3).map(tuple),
    implicit=st.booleans(),
    skip=st.none() | NAMES,
    cost=st.none() | st.builds(Cost, st.floats(0, 1e9), st.floats(0, 1e9)),
)
COMPONENTS = st.builds(
    Component,
    name=NAMES,
    loader=NAMES,
    content=NAMES,
    files=st.dictionaries(NAMES, NAMES, max_size=3),
    parameters=st.dictionaries(NAMES, PLAIN, max_size=3),
    access=st.sampled_from(["gradient", "score", "decision", "none"]),
)
PLANS = st.builds(
    Plan,
    suite=NAMES,
    seed=st.integers(0, 2**63 - 1),
    models=st.dictionaries(NAMES, COMPONENTS, max_size=2),
    datasets=st.dictionaries(NAMES, COMPONENTS, max_size=2),
    cells=st.lists(CELLS, max_size=3).map(tuple),
)
GATES = st.builds(
    Gate,
    name=NAMES,
    metric=NAMES,
    model=st.none() | NAMES,
    dataset=st.none() | NAMES,
    attack=st.none() | NAMES,
    norm=st.none() | st.sampled_from(NORMS),
    eps=st.none() | EPS,
    minimum=SHARES,
    maximum=SHARES,
    confidence=st.floats(0.5, 1),
    where=st.builds(Where, NAMES, st.integers(0, 999), st.integers(0, 999)),
)
RESULTS = st.builds(
    CellResult,
    cell=CELLS,
    status=st.sampled_from(["ok", "invalid", "failed", "skipped", "timeout"]),
    reason=NAMES,
    samples=st.none(),
    examples=st.none(),
    observed=st.dictionaries(NAMES, st.floats(0, 1e9), max_size=3),
    seconds=st.floats(0, 1e6),
    device=NAMES,
    provider=NAMES,
    batch_size=st.integers(1, 1000),
    traceback=NAMES,
    environment=st.booleans(),
)


def through_text(value: Json) -> Json:
    """A value as another process reads it."""
    return cast("Json", json.loads(json.dumps(value, allow_nan=False)))


@DRAWN
@given(EPS)
def test_an_eps_keeps_its_fraction_and_its_text(eps: Eps) -> None:
    assert records.eps_from_json(through_text(records.eps_to_json(eps))) == eps


@DRAWN
@given(CELLS)
def test_a_cell(cell: Cell) -> None:
    assert records.cell_from_json(through_text(records.cell_to_json(cell))) == cell


@DRAWN
@given(PLANS)
def test_a_plan(plan: Plan) -> None:
    assert records.plan_from_json(through_text(records.plan_to_json(plan))) == plan


@DRAWN
@given(st.lists(GATES, max_size=3))
def test_gates(gates: list[Gate]) -> None:
    assert records.gates_from_json(through_text(records.gates_to_json(gates))) == tuple(gates)


@DRAWN
@given(RESULTS)
def test_a_result(result: CellResult) -> None:
    assert records.result_from_json(through_text(records.result_to_json(result))) == result


# ---------------------------------------------------------------- tables


def samples(n: int, *, first: int = 0) -> Samples:
    """A table with a different value in every place, and what floats can be besides numbers."""
    rng = np.random.default_rng(first)
    ids = np.array([f"sample-{first + i} é" for i in range(n)], dtype=object)
    odd = np.array([math.nan, math.inf, 5e-324, 1 / 3])[np.arange(n) % 4]
    columns: dict[str, NDArray[np.generic]] = {}
    for field in dataclasses.fields(Samples):
        if field.name in records.TEXT_COLUMNS:
            columns[field.name] = ids
        elif "float32" in str(field.type):
            columns[field.name] = rng.random(n).astype(np.float32)
        elif "float64" in str(field.type):
            columns[field.name] = odd
        elif "int64" in str(field.type):
            columns[field.name] = rng.integers(-1, 2**62, n)
        else:
            columns[field.name] = rng.random(n) < 0.5
    return Samples(**columns)  # type: ignore[arg-type]  # one array for each field


def examples(n: int, *, first: int = 0) -> Examples:
    """Gallery images with a different value in every place."""
    x = ((np.arange(n * 12) + first) / 7).astype(np.float32).reshape(n, 3, 2, 2)
    return Examples(positions=np.arange(first, first + n), x=x, x_adv=-x)


def assert_same(found: object, expected: object) -> None:
    """Equal field by field, types of the arrays included."""
    assert type(found) is type(expected)
    for field in dataclasses.fields(cast("Samples", expected)):
        a, b = getattr(found, field.name), getattr(expected, field.name)
        assert a.dtype == b.dtype, field.name
        np.testing.assert_array_equal(a, b, err_msg=field.name)


@pytest.mark.parametrize("n", [0, 1, 9])
def test_samples_and_examples_on_disk(tmp_path: Path, n: int) -> None:
    records.write_samples(samples(n), tmp_path / "samples.parquet")
    assert_same(records.read_samples(tmp_path / "samples.parquet"), samples(n))
    records.write_examples(examples(n), tmp_path / "examples.npz")
    assert_same(records.read_examples(tmp_path / "examples.npz"), examples(n))


def test_the_same_table_is_the_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        records.write_samples(samples(9), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def part(start: int, stop: int) -> Part:
    """Rows `start` to `stop` of one long table."""
    return Part(
        start=start,
        stop=stop,
        samples=samples(stop - start, first=start),
        examples=examples(min(stop - start, 3), first=start),
        observed={"zero gradient": 1.0, f"only in {start}": 2.0},
        seconds=0.5,
        batch_size=4,
    )


def test_parts_are_joined_in_sample_order() -> None:
    parts = [part(10, 12), part(0, 4), part(4, 10)]
    table, gallery, observed = records.join(parts, 4)
    expected = records.concat([part(0, 4).samples, part(4, 10).samples, part(10, 12).samples])
    assert_same(table, expected)
    assert gallery.positions.tolist() == [0, 1, 2, 4]
    assert len(gallery.x) == len(gallery.x_adv) == 4
    assert observed["zero gradient"] == 3.0
    assert observed["only in 10"] == 2.0


# ---------------------------------------------------------------- files


def test_json_is_json_whatever_the_numbers_are(tmp_path: Path) -> None:
    def refuse(constant: str) -> NoReturn:
        raise AssertionError(f"{constant} is not JSON")

    value: Json = {
        "nan": math.nan,
        "up": math.inf,
        "down": [-math.inf, 1.5],
        "text": "é",
        "none": None,
    }
    store.write_json(tmp_path / "deep" / "value.json", value)
    text = (tmp_path / "deep" / "value.json").read_text(encoding="utf-8")
    found = json.loads(text, parse_constant=refuse)
    assert found["nan"] is None
    assert (found["down"][1], found["text"], found["none"]) == (1.5, "é", None)


def test_a_file_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "manifest.json"
    store.write_text(path, "old")

    def full(_descriptor: int) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnvironmentProblem, match="the disk is full"):
        store.write_text(path, "new and longer")
    assert path.read_text() == "old"


CAUSES = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "it is not writable",
    errno.EROFS: "the file system is read-only",
    errno.ENOTDIR: "a part of its path is a file",
    errno.EIO: "Input/output error",
}


@pytest.mark.parametrize("number", CAUSES)
def test_a_disk_problem_in_the_users_words(tmp_path: Path, number: int) -> None:
    def fail() -> None:
        raise OSError(number, os.strerror(number))

    with (
        pytest.raises(EnvironmentProblem) as caught,
        store.naming_disk_problems(tmp_path / "out"),
    ):
        fail()
    assert f"cannot write to '{tmp_path / 'out'}'" in str(caught.value)
    assert CAUSES[number] in str(caught.value)
    assert "--resume" in str(caught.value)


# ---------------------------------------------------------------- run directories


def cell(cell_id: str) -> Cell:
    """A clean cell."""
    return Cell(
        id=cell_id,
        model="model",
        dataset="test",
        entry="clean",
        attack="clean",
        source="model",
        role="control",
        kind="fixed-budget",
        effort="random",
        norm=None,
        eps=None,
        target=None,
        repeats=1,
        params={},
        carried=(),
        implicit=False,
        skip=None,
        cost=None,
    )


def finished(cell_id: str, status: CellStatus = "ok", n: int = 5) -> CellResult:
    """A finished cell; only one that is ok has a table."""
    ok = status == "ok"
    return CellResult(
        cell=cell(cell_id),
        status=status,
        reason="" if ok else "why not",
        samples=samples(n) if ok else None,
        examples=examples(2) if ok else None,
        observed={"unchanged": 2.0},
        seconds=1.25,
        device="cpu",
        provider="torch",
        batch_size=4,
    )


def plan(*cell_ids: str) -> Plan:
    """A plan of clean cells."""
    cells = tuple(cell(cell_id) for cell_id in cell_ids)
    return Plan(suite="small", seed=0, models={}, datasets={}, cells=cells)


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    """A new run directory with manifest and plan of cells aa and bb."""
    opened = store.open_directory(tmp_path / "runs" / "first", "plan-1")
    store.write_json(opened.path / store.MANIFEST, {"plan_id": "plan-1", "partial": True})
    store.write_json(opened.path / store.PLAN, records.plan_to_json(plan("aa", "bb")))
    store.write_text(opened.path / store.SUITE, "schema: 1\n")
    return opened


def test_a_finished_cell_is_read_back(directory: RunDirectory) -> None:
    assert not directory.has("aa")
    directory.save(finished("aa"))
    directory.save(finished("bb", "failed"))
    assert directory.has("aa")
    assert directory.has("bb")
    stored = store.load_run(directory.path)
    assert stored.plan == plan("aa", "bb")
    assert stored.partial
    assert stored.suite_text == "schema: 1\n"
    assert stored.results["aa"] == dataclasses.replace(finished("aa"), samples=None, examples=None)
    assert stored.results["bb"] == finished("bb", "failed")
    table, gallery = stored.samples("aa"), stored.examples("aa")
    assert_same(table, finished("aa").samples)
    assert_same(gallery, finished("aa").examples)
    assert stored.samples("bb") is None
    assert stored.examples("bb") is None
    assert store.load_run(str(directory.path)).results == stored.results


def test_saving_again_replaces_the_whole_cell(directory: RunDirectory) -> None:
    directory.save(finished("aa"))
    directory.save(finished("aa", "failed"))
    stored = store.load_run(directory.path)
    assert stored.results["aa"].status == "failed"
    assert stored.samples("aa") is None
    directory.forget("aa")
    assert not directory.has("aa")
    directory.forget("aa")
    assert "aa" not in store.load_run(directory.path).results


def test_parts_are_kept_until_their_cell_is_finished(directory: RunDirectory) -> None:
    assert directory.parts("aa") == []
    for start, stop in ((4, 9), (0, 4)):
        directory.save_part("aa", part(start, stop))
    found = directory.parts("aa")
    assert [(each.start, each.stop) for each in found] == [(0, 4), (4, 9)]
    for each in found:
        expected = part(each.start, each.stop)
        assert_same(each.samples, expected.samples)
        assert_same(each.examples, expected.examples)
        plain = ("observed", "seconds", "batch_size")
        assert [getattr(each, name) for name in plain] == [
            getattr(expected, name) for name in plain
        ]
    assert not directory.has("aa")
    assert store.load_run(directory.path).results == {}
    directory.save(finished("aa"))
    assert directory.parts("aa") == []


def _raises(*_: object) -> NoReturn:
    raise KeyboardInterrupt


STEPS = ["write_samples", "write_examples", "result_to_json"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("earlier", [None, "failed"])
def test_a_cell_that_was_cut_off_is_not_there(
    directory: RunDirectory, step: str, earlier: CellStatus | None
) -> None:
    if earlier is not None:
        directory.save(finished("aa", earlier))
    directory.save_part("aa", part(0, 4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, step, _raises)
        with pytest.raises(KeyboardInterrupt):
            directory.save(finished("aa"))
    assert directory.has("aa") == (earlier is not None)
    assert len(directory.parts("aa")) == 1
    results = store.load_run(directory.path).results
    assert [result.status for result in results.values()] == ([earlier] if earlier else [])
    directory.save(finished("aa"))
    assert store.load_run(directory.path).results["aa"].status == "ok"


@pytest.mark.parametrize("step", ["write_samples", "write_examples", "part_to_json"])
def test_a_part_that_was_cut_off_is_not_there(directory: RunDirectory, step: str) -> None:
    directory.save_part("aa", part(0, 4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, step, _raises)
        with pytest.raises(KeyboardInterrupt):
            directory.save_part("aa", part(4, 9))
    assert [each.start for each in directory.parts("aa")] == [0]
    directory.save_part("aa", part(4, 9))
    assert [each.start for each in directory.parts("aa")] == [0, 4]


def test_what_a_killed_process_left_is_ignored_and_swept_away(directory: RunDirectory) -> None:
    # two leftovers: of this very process number, and of one that will never come back
    for process in (os.getpid(), 999_999_999):
        for folder in (directory.path / "cells", directory.path / "parts" / "aa"):
            name = "aa" if folder.name == "cells" else "000000000-000000004"
            leftover = folder / f".{name}.{process}.tmp"
            leftover.mkdir(parents=True)
            (leftover / "samples.parquet").write_bytes(b"PAR1")
    assert not directory.has("aa")
    assert directory.parts("aa") == []
    assert store.load_run(directory.path).results == {}
    assert store.find_finished(directory.path.parent, [cell("aa")], Path("elsewhere")) == {}

    reopened = store.open_directory(directory.path, "plan-1")
    reopened.save_part("aa", part(0, 4))
    reopened.save(finished("aa"))
    assert_same(store.load_run(directory.path).samples("aa"), finished("aa").samples)
    assert list(directory.path.rglob("*.tmp")) == []


# ---------------------------------------------------------------- opening


def test_a_new_an_empty_and_the_own_directory_are_opened(tmp_path: Path) -> None:
    new = store.open_directory(tmp_path / "deep" / "new", "plan-1")
    assert new.path.is_dir()
    (tmp_path / "empty").mkdir()
    assert store.open_directory(tmp_path / "empty", "plan-1").path == tmp_path / "empty"
    # killed before its first file was written
    assert store.open_directory(tmp_path / "deep" / "new", "plan-1") == new
    store.write_json(new.path / store.MANIFEST, {"plan_id": "plan-1"})
    new.save(finished("aa"))
    assert store.open_directory(new.path, "plan-1").has("aa")


def _foreign(path: Path) -> None:
    path.mkdir()
    (path / "thesis.tex").write_text("mine")


def _file(path: Path) -> None:
    path.write_text("mine")


def _other(path: Path) -> None:
    store.write_json(path / store.MANIFEST, {"plan_id": "plan-2"})


def _no_json(path: Path) -> None:
    store.write_text(path / store.MANIFEST, "mine")


def _list(path: Path) -> None:
    store.write_text(path / store.MANIFEST, "[1]")


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "foreign files": (_foreign, "is not empty and holds no run of robeval"),
    "a file": (_file, "holds no run of robeval"),
    "another run": (_other, r"holds another run \(plan plan-2, this one is plan-1\)"),
    "a manifest that is no JSON": (_no_json, "cannot be read"),
    "a manifest that is a list": (_list, "does not hold a JSON object"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_anything_else_is_refused_and_left_alone(tmp_path: Path, case: str) -> None:
    make, message = REFUSED[case]
    path = tmp_path / "out"
    make(path)
    before = _contents(tmp_path)
    with pytest.raises(UsageError, match=message):
        store.open_directory(path, "plan-1")
    assert _contents(tmp_path) == before


def _contents(folder: Path) -> dict[Path, str]:
    return {path: path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_directory_below_a_file_is_an_environment_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(EnvironmentProblem, match="a part of its path is a file"):
        store.open_directory(tmp_path / "file" / "run", "plan-1")


@pytest.mark.parametrize("gone", [store.MANIFEST, store.PLAN, None])
def test_what_is_no_run_is_not_loaded(directory: RunDirectory, gone: str | None) -> None:
    if gone is None:
        shutil.rmtree(directory.path)
    else:
        (directory.path / gone).unlink()
    with pytest.raises(UsageError, match="is not a run directory") as caught:
        store.load_run(directory.path)
    assert str(directory.path) in str(caught.value)


def test_a_run_without_its_suite_text_is_named(directory: RunDirectory) -> None:
    (directory.path / store.SUITE).unlink()
    with pytest.raises(UsageError, match=r"suite\.yaml"):
        store.load_run(directory.path)


# ---------------------------------------------------------------- taking over


def other_run(directory: RunDirectory, name: str, *results: CellResult) -> Path:
    """A run beside the first one with these finished cells."""
    opened = store.open_directory(directory.path.with_name(name), "plan-2")
    for result in results:
        opened.save(result)
    return opened.path / "cells"


def found(directory: RunDirectory, cell_ids: Sequence[str]) -> dict[str, Path]:
    """What other runs have finished of these cells."""
    cells = [cell(cell_id) for cell_id in cell_ids]
    return store.find_finished(directory.path.parent, cells, directory.path)


def test_only_final_results_of_other_runs_are_found(directory: RunDirectory) -> None:
    statuses: tuple[CellStatus, ...] = ("ok", "skipped", "failed", "timeout", "invalid")
    cells = other_run(directory, "other", *(finished(f"{s}-id", s) for s in statuses))
    directory.save(finished("own"))
    wanted = ["ok-id", "skipped-id", "failed-id", "timeout-id", "invalid-id", "own", "nowhere"]
    assert found(directory, wanted) == {"ok-id": cells / "ok-id"}
    assert found(directory, ["nowhere"]) == {}


def test_the_newest_run_is_preferred_and_a_failure_hides_no_success(
    directory: RunDirectory,
) -> None:
    old = other_run(directory, "2020", finished("aa"), finished("bb"))
    new = other_run(directory, "2021", finished("aa"), finished("bb", "failed"))
    assert found(directory, ["aa", "bb"]) == {"aa": new / "aa", "bb": old / "bb"}


def test_a_cell_is_taken_over_whole(directory: RunDirectory) -> None:
    cells = other_run(directory, "other", finished("aa", n=7))
    directory.adopt("aa", cells / "aa")
    stored = store.load_run(directory.path)
    assert_same(stored.samples("aa"), samples(7))
    shutil.rmtree(cells)
    assert store.load_run(directory.path).results["aa"].seconds == 1.25
    assert list(directory.path.rglob("*.tmp")) == []


def test_a_damaged_cell_of_another_run_is_as_good_as_none(directory: RunDirectory) -> None:
    good = other_run(directory, "2020", finished("aa"))
    bad = other_run(directory, "2021", finished("aa"))
    (bad / "aa" / "result.json").write_text("")
    assert found(directory, ["aa"]) == {"aa": good / "aa"}
