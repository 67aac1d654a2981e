"""Cells shared among processes: the same bytes, and a process that dies takes one group with it."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from multiprocessing import Pipe
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from robustbench_lite import parallel
from robustbench_lite.errors import SuiteError, UsageError
from robustbench_lite.plan import plan_id
from robustbench_lite.prepare import Options, prepare
from robustbench_lite.run import Silence
from robustbench_lite.store import load_run, open_directory
from robustbench_lite.types import Terms

if TYPE_CHECKING:
    from tests.conftest import Robeval

WriteSuite = Callable[..., Path]

WORK = """\
controls: off
reports: [csv]
attacks:
  noise: {attack: uniform-noise, norm: linf, eps: [0.05, 0.1]}
  pgd: {attack: pgd, norm: linf, eps: 0.02, steps: 20}
  gray: {attack: gaussian-noise, norm: l2, eps: 1}
"""


def tables(out: Path) -> dict[str, bytes]:
    """Every per-sample table of a run: cell id -> the bytes of its file."""
    files = sorted(out.glob("cells/*/samples.parquet"))
    return {file.parent.name: file.read_bytes() for file in files}


def test_what_several_processes_find_is_what_one_finds(
    robeval: Robeval, write_suite: WriteSuite, tmp_path: Path
) -> None:
    path = write_suite(WORK)
    one = robeval("run", str(path), "-o", "one", "--refresh", "--threads", "1")
    two = robeval("run", str(path), "-o", "two", "--refresh", "--threads", "1", "--jobs", "2")
    assert (one.code, two.code) == (0, 0), two.err
    assert len(tables(tmp_path / "one")) == 5
    assert tables(tmp_path / "two") == tables(tmp_path / "one")
    assert "cells: 5 computed, 0 reused" in two.out
    assert two.err.count("of 50 robust") == 5, "a line for every cell"
    assert json.loads((tmp_path / "two" / "manifest.json").read_text())["jobs"] == 2

    again = robeval("run", str(path), "-o", "two", "--jobs", "2")
    assert "cells: 0 computed, 5 reused" in again.out


DEADLY = """\
import os, signal
import nearest_mean

class Deadly(type(nearest_mean.linear())):
    def forward(self, x):
        if x.shape[0] > 1:  # not yet when it is looked at before its work
            {end}
        return super().forward(x)

def net():
    healthy = nearest_mean.linear()
    healthy.__class__ = Deadly
    return healthy
"""
ENDS = {
    "os.kill(os.getpid(), signal.SIGKILL)": "was killed by SIGKILL, often for want of memory",
    "os._exit(0)": "ended with exit code 0 in the middle of its work",
}


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("end", ENDS)
def test_a_model_that_ends_its_process_fails_its_own_cells(
    robeval: Robeval, write_suite: WriteSuite, tmp_path: Path, end: str
) -> None:
    (tmp_path / "deadly.py").write_text(DEADLY.format(end=end))
    path = write_suite(WORK)
    text = path.read_text()
    text = text.replace('python_path: ["', 'python_path: [".", "')
    text = text.replace("models:\n", 'models:\n  deadly: {load: torch, factory: "deadly:net"}\n')
    path.write_text(text)
    ended = robeval("run", str(path), "-o", "out", "--jobs", "2")
    assert ended.code == 4, ended.err
    assert ENDS[end] in ended.err
    stored = load_run(tmp_path / "out")
    status = {cell.id: stored.results[cell.id].status for cell in stored.plan.cells}
    of = {
        name: {status[cell.id] for cell in stored.plan.cells if cell.model == name}
        for name in stored.plan.models
    }
    assert of == {"deadly": {"failed"}, "linear": {"ok"}}


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_an_interrupt_ends_every_process_and_the_run_goes_on(
    robeval: Robeval, write_suite: WriteSuite, tmp_path: Path
) -> None:
    path = write_suite(WORK.replace("steps: 20", "steps: 800"), take=300)
    command = [sys.executable, "-m", "robustbench_lite", "run", str(path), "--jobs", "2"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        child = subprocess.Popen(
            [*command, "-o", "out"],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", "ROBEVAL_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    with child:
        assert child.stderr is not None
        lines = []
        for line in child.stderr:
            lines.append(line)
            if line.startswith("[1] "):
                os.killpg(child.pid, signal.SIGINT)  # as a terminal does
                break
        lines.append(child.stderr.read())  # ends once no process holds the other end any more
        child.wait(timeout=60)
    err = "".join(lines)
    assert child.returncode == 130, err
    assert "Traceback" not in err
    ended = robeval("run", str(path), "-o", "out", "--jobs", "2")
    assert ended.code == 0, ended.err
    assert "0 reused" not in ended.out


def test_a_deadline_leaves_cells_unfinished_and_none_failed(
    robeval: Robeval, write_suite: WriteSuite, tmp_path: Path
) -> None:
    path = write_suite(WORK.replace("steps: 20", "steps: 100000"))
    ended = robeval("run", str(path), "-o", "out", "--jobs", "2", "--time-budget", "12s")
    assert ended.code == 4, ended.err
    stored = load_run(tmp_path / "out")
    assert stored.manifest["status"] == "out of time"
    assert {result.status for result in stored.results.values()} <= {"ok"}


def test_another_executor_has_no_jobs(robeval: Robeval, write_suite: WriteSuite) -> None:
    ended = robeval("run", str(write_suite(WORK)), "--jobs", "2", "--executor", "cluster")
    assert ended.code == 2
    assert "--jobs 2: executor 'cluster' shares out the cells itself" in ended.err


def test_what_a_process_raises_is_raised(write_suite: WriteSuite, tmp_path: Path) -> None:
    path = write_suite(WORK)
    options = Options(data=None, jobs=2)
    prepared = prepare(path, options)
    directory = open_directory(tmp_path / "out", plan_id(prepared.plan))
    path.write_text(path.read_text().replace("steps: 20", "steps: 21"))
    results = parallel.cells(
        path,
        prepared,
        frozenset(cell.id for cell in prepared.plan.cells),
        options=options,
        directory=directory,
        device="cpu",
        threads=1,
        observer=Silence(),
        terms=Terms(),
    )
    with pytest.raises(UsageError, match=r"suite\.yaml', or a file that it names, changed while"):
        list(results)


def test_an_exception_that_cannot_travel_sends_its_words() -> None:
    class Local(Exception):
        """Of a class that no other process can import."""

    assert str(parallel._sendable(Local("no luck"))) == "Local: no luck"
    same = parallel._sendable(SuiteError(["one", "two"]))
    assert isinstance(same, SuiteError)


def test_a_log_line_travels_with_its_words_put_together() -> None:
    ours, theirs = Pipe(duplex=False)
    try:
        raise ValueError("why")
    except ValueError:
        record = logging.LogRecord(
            "robustbench_lite.x", logging.INFO, "f", 1, "%s: %s", ("a", lambda: 0), sys.exc_info()
        )
    parallel._Forwarded(theirs).emit(record)
    got = ours.recv()
    assert got.getMessage().startswith("a: <function")
    assert "ValueError: why" in got.getMessage()
    assert got.levelno == logging.INFO
    ours.close()
    theirs.close()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "ended with exit code 0 in the middle of its work"),
        (-11, "was killed by SIGSEGV"),
        (-200, "was killed by signal 200"),
    ],
)
def test_how_a_process_ended(code: int, words: str) -> None:
    assert parallel._cause(code) == words
