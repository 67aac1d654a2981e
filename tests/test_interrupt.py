"""A run that is stopped goes on where it was, and gives the table of a run that never was."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import pytest

from robustbench_lite.store import RunDirectory, load_run
from robustbench_lite.types import Part

if TYPE_CHECKING:
    from tests.conftest import Ended, Robeval

WriteSuite = Callable[..., Path]

SLOW = """\
controls: off
reports: [csv, parquet]
attacks:
  noise: {attack: uniform-noise, norm: linf, eps: [0.05, 0.1]}
  pgd: {attack: pgd, norm: linf, eps: 0.02, steps: 60}
"""
SIGNALS = {"SIGINT": 130, "SIGTERM": 143, "SIGKILL": -9}


def tables(out: Path) -> dict[str, bytes]:
    """Every per-sample table of a run: cell id -> the bytes of its file."""
    stored = load_run(out)
    files = {cell.id: out / "cells" / cell.id / "samples.parquet" for cell in stored.plan.cells}
    return {cell_id: file.read_bytes() for cell_id, file in files.items()}


def written(out: Path) -> dict[str, int]:
    """When each finished cell was written, in nanoseconds."""
    return {file.parent.name: file.stat().st_mtime_ns for file in out.glob("cells/*/result.json")}


def status(out: Path) -> str:
    """The status in the manifest."""
    return str(json.loads((out / "manifest.json").read_text())["status"])


def says(ended: Ended, computed: int, reused: int) -> bool:
    """Whether a run told that it computed and took over so many cells."""
    return f"cells: {computed} computed, {reused} reused" in ended.out


def the_run(folder: Path) -> Path:
    """The only run directory of the suite called small."""
    (out,) = (folder / "reports" / "small").iterdir()
    return out


# ---------------------------------------------------------------- signals, in a process of its own


def stopped_after_one_cell(path: Path, name: str) -> tuple[int, str]:
    """Run a suite and send the signal when its first finished cell is told; code and stderr."""
    # a handler of Python's own is reset to the default in the child, an ignored signal is not
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        child = subprocess.Popen(
            [sys.executable, "-m", "robustbench_lite", "run", str(path), "--batch-size", "250"],
            cwd=path.parent,
            env={**os.environ, "OMP_NUM_THREADS": "1", "ROBEVAL_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    with child:
        assert child.stderr is not None
        lines = []
        for line in child.stderr:
            lines.append(line)
            if line.startswith("[1] "):
                child.send_signal(getattr(signal, name))
                break
        lines.append(child.stderr.read())
        child.wait(timeout=60)
    return child.returncode, "".join(lines)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Where the run that nothing stopped is kept, once there is one."""
    return {"folder": tmp_path_factory.mktemp("uninterrupted")}


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("name", SIGNALS)
def test_a_stopped_run_goes_on(
    robeval: Robeval,
    write_suite: WriteSuite,
    tmp_path: Path,
    uninterrupted: dict[str, Path],
    name: str,
) -> None:
    path = write_suite(SLOW, take=1000)
    code, err = stopped_after_one_cell(path, name)
    out = the_run(tmp_path)
    assert code == SIGNALS[name], err
    assert "Traceback" not in err
    if name != "SIGKILL":
        word = {"SIGINT": "interrupted", "SIGTERM": "terminated"}[name]
        assert f"{word}: finished cells are kept" in err
        assert "--resume" in err
        assert status(out) == "interrupted"
    finished = written(out)
    total = len(load_run(out).plan.cells)
    assert 1 <= len(finished) < total

    ended = robeval("run", str(path), "--resume", "--batch-size", "250")
    assert ended.code == 0, ended.err
    assert says(ended, total - len(finished), len(finished))
    assert the_run(tmp_path) == out
    assert status(out) == "finished"
    assert {cell_id: written(out)[cell_id] for cell_id in finished} == finished

    reference = uninterrupted["folder"] / "run"
    if not reference.exists():
        ended = robeval("run", str(path), "-o", str(reference), "--batch-size", "250")
        assert says(ended, total, 0)
    assert tables(out) == tables(reference)
    parquet = Path("tables") / "samples.parquet"
    assert (out / parquet).read_bytes() == (reference / parquet).read_bytes()


# ---------------------------------------------------------------- between the parts of one cell

NET = """\
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Linear(6, 3)
"""


@pytest.fixture
def long_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A suite on 2,500 samples: every cell has three parts."""
    (tmp_path / "long_net.py").write_text(NET)
    monkeypatch.delitem(sys.modules, "long_net", raising=False)
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "x.npz", x=rng.random((2500, 6)).astype("f4"), y=rng.integers(0, 3, 2500))
    path = tmp_path / "long.yaml"
    path.write_text(
        "schema: 1\nname: small\npython_path: [.]\n"
        "models: {net: {load: torch, factory: 'long_net:net'}}\n"
        "datasets: {points: {load: arrays, path: x.npz}}\n"
        "controls: off\nreports: [parquet]\n"
        "attacks: {pgd: {attack: pgd, norm: linf, eps: [0.05, 0.1], steps: 5, restarts: 2}}\n"
    )
    return path


def counting(
    patch: pytest.MonkeyPatch, saved: list[tuple[str, int]], *, stop_after: int | None = None
) -> None:
    """Note every part that is stored; Ctrl-C right after the one with this number."""
    real = RunDirectory.save_part

    def save_part(self: RunDirectory, cell_id: str, part: Part) -> None:
        real(self, cell_id, part)
        saved.append((cell_id, part.start))
        if len(saved) == stop_after:
            raise KeyboardInterrupt

    patch.setattr(RunDirectory, "save_part", save_part)


@pytest.mark.parametrize("stop_after", [1, 3, 4, 6, 9])
def test_finished_parts_are_not_computed_again(
    robeval: Robeval, long_suite: Path, tmp_path: Path, stop_after: int
) -> None:
    before: list[tuple[str, int]] = []
    with pytest.MonkeyPatch.context() as patch:
        counting(patch, before, stop_after=stop_after)
        ended = robeval("run", str(long_suite), "-o", "out")
    assert ended.code == 130
    assert "--resume" in ended.err
    assert status(tmp_path / "out") == "interrupted"

    after: list[tuple[str, int]] = []
    with pytest.MonkeyPatch.context() as patch:
        counting(patch, after)
        assert robeval("run", str(long_suite), "-o", "out").code == 0
    assert len(before) == stop_after
    assert not set(before) & set(after)
    assert len({*before, *after}) == 9

    assert robeval("run", str(long_suite), "-o", "whole", "--refresh").code == 0
    assert tables(tmp_path / "out") == tables(tmp_path / "whole")


# ---------------------------------------------------------------- what is computed again

GRID = """\
controls: off
reports: [parquet]
attacks:
  noise: {attack: uniform-noise, norm: linf, eps: [0.1, 0.2], repeats: 2}
  fgsm: {attack: fgsm, norm: linf, eps: [0.05, 0.1]}
  pgd: {attack: pgd, norm: linf, eps: [0.02, 0.05], steps: 4, restarts: 2}
"""


def test_a_second_run_computes_nothing(
    robeval: Robeval, write_suite: WriteSuite, tmp_path: Path
) -> None:
    path = str(write_suite(GRID))
    assert says(robeval("run", path, "-o", "first"), 7, 0)
    second = robeval("run", path, "-o", "second")
    assert second.code == 0
    assert says(second, 0, 7)
    assert tables(tmp_path / "second") == tables(tmp_path / "first")
    assert says(robeval("run", path, "-o", "first"), 0, 7)
    assert says(robeval("run", path, "-o", "third", "--refresh"), 7, 0)
    assert tables(tmp_path / "third") == tables(tmp_path / "first")
    # elsewhere there is nothing to take over
    assert says(robeval("run", path, "-o", "folder/fourth"), 7, 0)


def test_more_of_a_suite_computes_what_is_new(
    robeval: Robeval, write_suite: WriteSuite, tmp_path: Path
) -> None:
    assert says(robeval("run", str(write_suite(GRID)), "-o", "first"), 7, 0)
    more = GRID + "  sign: {attack: sign-noise, norm: linf, eps: 0.1}\n"
    assert says(robeval("run", str(write_suite(more)), "-o", "second"), 1, 7)
    assert says(robeval("run", str(write_suite(more, take=40)), "-o", "third"), 8, 0)
    renamed = more.replace("fgsm:", "one-step:")
    assert says(robeval("run", str(write_suite(renamed)), "-o", "fourth"), 0, 8)
    stored = load_run(tmp_path / "fourth")
    assert {row.entry for row in stored.plan.cells} >= {"one-step", "pgd"}


@pytest.mark.parametrize("expression", ["0.05", "0.1 or 0.2", "pgd and not 0.02", "clean"])
def test_a_run_of_a_part_computes_the_numbers_of_the_whole(
    robeval: Robeval, write_suite: WriteSuite, tmp_path: Path, expression: str
) -> None:
    path = str(write_suite(GRID))
    robeval("run", path, "-o", "part", "-k", expression)
    robeval("run", path, "-o", "elsewhere/whole")
    whole = tables(tmp_path / "elsewhere" / "whole")
    part = tables(tmp_path / "part")
    assert part
    assert part == {cell_id: whole[cell_id] for cell_id in part}
    robeval("run", path, "-o", "grown")
    assert tables(tmp_path / "grown") == whole


MIXED = """\
controls: off
reports: [parquet]
attacks:
  failed: {attack: lie-raises, eps: 0.2}
  invalid: {attack: lie-out-of-ball, eps: 0.2}
  warned: {attack: lie-global-rng, eps: 0.2}
  fine: {attack: fgsm, norm: linf, eps: 0.1}
"""


@pytest.mark.usefixtures("lies")
def test_retry_errors_computes_failed_and_invalid_cells_again(
    robeval: Robeval, write_suite: WriteSuite, tmp_path: Path
) -> None:
    path = str(write_suite(MIXED))
    assert says(robeval("run", path, "-o", "out"), 5, 0)
    assert says(robeval("run", path, "-o", "out"), 0, 5)
    before = written(tmp_path / "out")
    assert says(robeval("run", path, "-o", "out", "--retry-errors"), 2, 3)
    after = written(tmp_path / "out")
    entries = {cell.id: cell.entry for cell in load_run(tmp_path / "out").plan.cells}
    again = {entries[cell_id] for cell_id in entries if before[cell_id] != after[cell_id]}
    assert again == {"failed", "invalid"}


@pytest.mark.usefixtures("lies")
@pytest.mark.parametrize("out", ["first", "second", "third"])
def test_retry_errors_takes_no_error_over_from_another_run(
    robeval: Robeval, write_suite: WriteSuite, out: str
) -> None:
    path = str(write_suite(MIXED))
    robeval("run", path, "-o", "first")
    robeval("run", path, "-o", "second")
    assert says(robeval("run", path, "-o", out, "--retry-errors"), 2, 3)


FLAKY = """\
from pathlib import Path
from nearest_mean import linear

def flaky():
    if not Path("ready").exists():
        raise OSError("the share is not mounted")
    return linear()
"""


def with_flaky_model(path: Path) -> Path:
    """Add a model that can be loaded only where a file called ready is."""
    (path.parent / "flaky_net.py").write_text(FLAKY)
    sys.modules.pop("flaky_net", None)
    path.write_text(
        path.read_text()
        .replace("python_path: [", "python_path: [., ")
        .replace("models:\n", "models:\n  flaky: {load: torch, factory: 'flaky_net:flaky'}\n")
    )
    return path


def test_an_environment_that_was_repaired(
    robeval: Robeval, write_suite: WriteSuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "flaky_net.py").write_text(FLAKY)
    monkeypatch.delitem(sys.modules, "flaky_net", raising=False)
    path = write_suite(
        "controls: off\nreports: [parquet]\nattacks: {f: {attack: fgsm, eps: 0.1}}\n"
    )
    path.write_text(
        path.read_text()
        .replace("python_path: [", "python_path: [., ")
        .replace("models:\n", "models:\n  flaky: {load: torch, factory: 'flaky_net:flaky'}\n")
    )
    ended = robeval("run", str(path))
    assert ended.code == 7
    assert "the share is not mounted" in ended.out + ended.err
    assert says(ended, 4, 0)
    (tmp_path / "ready").touch()
    assert says(robeval("run", str(path), "--resume"), 0, 4), "a failed cell is a finished one"
    ended = robeval("run", str(path), "--resume", "--retry-errors")
    assert ended.code == 0
    assert says(ended, 2, 2)
    # a failed cell is never taken over, so that a new run tries again by itself
    (tmp_path / "ready").unlink()
    shutil.rmtree(tmp_path / "reports")
    assert robeval("run", str(path), "-o", "runs/failed").code == 7
    (tmp_path / "ready").touch()
    assert says(robeval("run", str(path), "-o", "runs/again"), 2, 2)


@pytest.mark.parametrize("lost", ["model", "data"])
def test_a_failure_on_going_on_loses_no_finished_cell(
    robeval: Robeval, write_suite: WriteSuite, tmp_path: Path, lost: str
) -> None:
    """The larger eps starts from what the smaller one broke, which is finished and stays so."""
    path = with_flaky_model(write_suite(GRID))
    (tmp_path / "ready").touch()
    x = np.random.default_rng(0).random((20, 1, 28, 28), dtype=np.float32)
    np.savez(tmp_path / "x.npz", x=x, y=np.arange(20) % 10)
    path.write_text(
        path.read_text().replace("datasets:\n", "datasets:\n  x: {load: arrays, path: x.npz}\n")
    )
    out = tmp_path / "out"
    assert robeval("run", str(path), "-o", "out").code == 0
    unfinished = [
        cell.id
        for cell in load_run(out).plan.cells
        if (cell.entry, cell.eps and cell.eps.text) == ("pgd", "0.05")
        and (cell.model, cell.dataset) == ("flaky", "x")
    ]
    for cell_id in unfinished:
        shutil.rmtree(out / "cells" / cell_id)
    before = written(out)

    with pytest.MonkeyPatch.context() as patch:
        if lost == "model":
            (tmp_path / "ready").unlink()
        else:
            patch.setattr("robustbench_lite.builtin.data.arrays.open_columns", _gone)
        assert robeval("run", str(path), "-o", "out").code == 7
    results = load_run(out).results
    assert {key for key, result in results.items() if result.status != "ok"} == {*unfinished}
    assert {key: written(out)[key] for key in before} == before


def _gone(*_: object, **__: object) -> NoReturn:
    raise OSError("the share is not mounted")


# ---------------------------------------------------------------- what --resume goes on with


def test_resume_without_a_run_to_resume(robeval: Robeval, write_suite: WriteSuite) -> None:
    path = str(write_suite(GRID))
    ended = robeval("run", path, "--resume")
    assert ended.code == 2
    assert "--resume: there is no run of this plan" in ended.err
    assert robeval("run", path, "-o", "reports/small/mine").code == 0
    assert robeval("run", path, "--resume", "--seed", "1").code == 2


def test_resume_takes_the_newest_run_of_this_plan(
    robeval: Robeval, write_suite: WriteSuite
) -> None:
    path = str(write_suite(GRID))
    for name in ("20200101T000000Z-aaaaaa", "20210101T000000Z-bbbbbb"):
        assert robeval("run", path, "-o", f"reports/small/{name}").code == 0
    other = "20220101T000000Z-cccccc"
    assert robeval("run", path, "-o", f"reports/small/{other}", "--seed", "1").code == 0
    ended = robeval("run", path, "--resume")
    assert says(ended, 0, 7)
    assert "20210101T000000Z-bbbbbb" in ended.out


def test_a_run_killed_at_its_start_stops_no_other(
    robeval: Robeval, write_suite: WriteSuite, tmp_path: Path
) -> None:
    path = str(write_suite(GRID))
    assert robeval("run", path).code == 0
    out = the_run(tmp_path)
    # killed between its two first files, and before the first
    dead = tmp_path / "reports" / "small" / "29991231T235959Z-dead00"
    (dead / "cells").mkdir(parents=True)
    shutil.copy(out / "manifest.json", dead)
    (tmp_path / "reports" / "small" / "29991231T235959Z-dead01" / "cells").mkdir(parents=True)
    ended = robeval("run", path, "--resume")
    assert ended.code == 0, ended.err
    assert says(robeval("run", path), 0, 7)
    # and the dead directory can be used by the run that made it
    assert robeval("run", path, "-o", str(dead.with_name("29991231T235959Z-dead01"))).code == 0
