"""Cells shared among processes: each takes the next group that nobody has and tells its parent.

A process prepares the suite for itself and loads its own models, so that nothing but the cells is
shared. The parent alone stores results. Whatever kills a process ends one group, not the run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import multiprocessing
import os
import pickle
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import cast

import torch

from . import identity, machine
from . import plan as planning
from .errors import FOREIGN, EnvironmentProblem, UsageError
from .execute import cells as execute
from .prepare import Options, Prepared, prepare
from .store import RunDirectory, StoredRun
from .types import Cell, CellResult, Observer, Samples, Terms

log = logging.getLogger(__name__)

PATIENCE = 0.05  # seconds between two looks for what another process is about to finish
SHOWN_EVERY = 0.2  # seconds between two messages about the samples of a cell
LOGGER = "robustbench_lite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What every process is told.

    `suite`: its file. `directory`: of the run. `claims`: a folder with a file for each group that
    somebody has. `todo`: ids of cells. `skipped`: those of them that only need to be told of.
    `level`: of the log.
    """

    suite: Path
    options: Options
    plan_id: str
    directory: Path
    claims: Path
    todo: frozenset[str]
    skipped: frozenset[str]
    device: str
    threads: int
    terms: Terms
    level: int


@dataclass(frozen=True, slots=True)
class _Advanced:
    cell_id: str
    done: int
    total: int
    robust: int


@dataclass(frozen=True, slots=True)
class _Claimed:
    cell_ids: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Raised:
    problem: Exception


@dataclass(frozen=True, slots=True)
class _Done:
    """A process has nothing left to do; one that ends without a word was ended by something."""


_Message = CellResult | _Advanced | _Claimed | _Raised | _Done | logging.LogRecord


class _OutOfTime(Exception):
    """The deadline came while another process was at what is needed."""


def cells(
    suite: Path,
    prepared: Prepared,
    todo: frozenset[str],
    *,
    options: Options,
    directory: RunDirectory,
    device: str,
    threads: int,
    observer: Observer,
    terms: Terms,
) -> Iterator[CellResult]:
    """Compute the cells whose ids are in `todo` in `options.jobs` processes, as they come.

    The results are those of one process, in another order. `threads`: of each process. A cell whose
    process dies is failed, with what killed it. What a process raises is raised here.
    """
    skipped = frozenset(cell.id for cell in prepared.plan.cells if cell.skip is not None) & todo
    with tempfile.TemporaryDirectory(prefix="robeval-") as claims:
        job = Job(
            suite=suite,
            options=dataclasses.replace(options, jobs=1),
            plan_id=planning.plan_id(prepared.plan),
            directory=directory.path.absolute(),
            claims=Path(claims),
            todo=todo,
            skipped=skipped,
            device=device,
            threads=threads,
            terms=terms,
            level=logging.getLogger(LOGGER).getEffectiveLevel(),
        )
        crew = _Crew(job, {cell.id: cell for cell in prepared.plan.cells}, observer)
        try:
            crew.start(min(options.jobs, max(1, len(todo - skipped))))
            yield from crew.results()
        finally:
            crew.dismiss()


@dataclass(slots=True)
class _Worker:
    """A process, the pipe it tells through, and the cells that it has and that have no result."""

    process: BaseProcess
    pipe: Connection
    begun: set[str] = field(default_factory=set)
    done: bool = False


class _Crew:
    """The processes, from the parent's side."""

    def __init__(self, job: Job, plan: dict[str, Cell], observer: Observer) -> None:
        self._job = job
        self._plan = plan
        self._observer = observer
        self._context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads
        self._workers: list[_Worker] = []

    def start(self, count: int) -> None:
        """Start processes; the first one of all tells of the skipped cells too."""
        for _ in range(count):
            ours, theirs = self._context.Pipe(duplex=False)
            process = self._context.Process(target=_work, args=(self._job, theirs), daemon=True)
            process.start()
            self._job = dataclasses.replace(self._job, todo=self._job.todo - self._job.skipped)
            theirs.close()  # so that the end of the process is the end of the pipe
            self._workers.append(_Worker(process, ours))

    def results(self) -> Iterator[CellResult]:
        """What the processes finish, until all of them have ended."""
        while self._workers:
            ready = wait([worker.pipe for worker in self._workers])
            for worker in [worker for worker in self._workers if worker.pipe in ready]:
                try:
                    message = cast("_Message", worker.pipe.recv())
                except (EOFError, OSError, pickle.UnpicklingError):
                    yield from self._ended(worker)
                else:
                    yield from self._told(worker, message)

    def _told(self, worker: _Worker, message: _Message) -> Iterator[CellResult]:
        if isinstance(message, CellResult):
            worker.begun.discard(message.cell.id)
            yield message
        elif isinstance(message, _Claimed):
            worker.begun |= message.cell_ids & self._job.todo
        elif isinstance(message, _Done):
            worker.done = True
        elif isinstance(message, _Raised):
            raise message.problem
        elif isinstance(message, logging.LogRecord):
            logging.getLogger(message.name).handle(message)
        else:
            self._show(message)

    def _show(self, told: _Advanced) -> None:
        try:
            cell = self._plan[told.cell_id]
            self._observer.advanced(cell, told.done, told.total, told.robust)
        except Exception:  # an observer never changes a result
            log.exception("progress display failed")

    def _ended(self, worker: _Worker) -> Iterator[CellResult]:
        """A process is gone; if it was not done, another one takes its place."""
        self._workers.remove(worker)
        worker.pipe.close()
        worker.process.join()
        if worker.done:
            return
        cause = _cause(worker.process.exitcode or 0)
        if not worker.begun:
            raise EnvironmentProblem(
                f"a process of --jobs {self._job.options.jobs} {cause} before its first cell; run"
                " without --jobs to see what it meets"
            )
        log.warning("a process of --jobs %s; another one takes its place", cause)
        for cell_id in sorted(worker.begun):
            yield _lost(self._plan[cell_id], f"its process {cause}", self._job.device)
        self.start(1)

    def dismiss(self) -> None:
        """End what is still running; its finished parts are on disk."""
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join()
            worker.pipe.close()
        self._workers.clear()


def _cause(code: int) -> str:
    """How a process ended, after "a process": by a signal (negative) or with an exit code."""
    if code >= 0:
        return f"ended with exit code {code} in the middle of its work"
    with contextlib.suppress(ValueError):
        name = signal.Signals(-code).name
        more = ", often for want of memory: try fewer --jobs" if name == "SIGKILL" else ""
        return f"was killed by {name}{more}"
    return f"was killed by signal {-code}"


def _lost(cell: Cell, reason: str, device: str) -> CellResult:
    return CellResult(
        cell=cell,
        status="failed",
        reason=reason,
        samples=None,
        examples=None,
        seconds=0.0,
        device=device,
        provider="",
        batch_size=0,
    )


# ---------------------------------------------------------------- in a process


def _work(job: Job, pipe: Connection) -> None:
    """The life of one process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it too, and ends this process
    logger = logging.getLogger(LOGGER)
    logger.setLevel(logging.CRITICAL)  # what there is to say of the suite the parent has said
    logger.propagate = False
    try:
        with contextlib.suppress(_OutOfTime):
            for result in _computed(job, pipe):
                pipe.send(result)
        pipe.send(_Done())
    except BrokenPipeError:  # the parent is gone
        os._exit(1)
    except FOREIGN as problem:  # the parent raises it
        pipe.send(_Raised(_sendable(problem)))
    finally:
        pipe.close()


def _computed(job: Job, pipe: Connection) -> Iterator[CellResult]:
    prepared = prepare(job.suite, job.options)
    if planning.plan_id(prepared.plan) != job.plan_id:
        raise UsageError(f"'{job.suite}', or a file that it names, changed while the run began")
    logger = logging.getLogger(LOGGER)
    logger.addHandler(_Forwarded(pipe))
    logger.setLevel(job.level)
    torch.set_num_threads(job.threads)
    machine.full_precision()
    machine.keep_freed_memory()
    return execute(
        prepared.suite,
        prepared.plan,
        job.todo,
        registry=prepared.registry,
        places=prepared.places,
        device=job.device,
        threads=job.threads,
        batch_size=job.options.batch_size,
        shard=job.options.shard,
        selections={
            entry.name: identity.selection(entry, job.options.limit)
            for entry in prepared.suite.datasets
        },
        parts=RunDirectory(job.directory),
        stored=_waiting(job, prepared),
        observer=_Teller(pipe),
        terms=job.terms,
        claim=_claiming(job, pipe),
    )


def _claiming(job: Job, pipe: Connection) -> Callable[[Sequence[Cell]], bool]:
    """Whether a group is this process's: it is who first makes the file of its first cell."""

    def claim(cells: Sequence[Cell]) -> bool:
        try:
            (job.claims / cells[0].id).touch(exist_ok=False)
        except FileExistsError:
            return False
        pipe.send(_Claimed(frozenset(cell.id for cell in cells)))
        return True

    return claim


def _waiting(job: Job, prepared: Prepared) -> Callable[[str], Samples | None]:
    """The samples of a cell, once whoever has it has finished it.

    Groups are claimed in their order and a clean pass waits for nothing, so this ends.
    """
    directory = RunDirectory(job.directory)
    reader = StoredRun(
        path=job.directory, manifest={}, plan=prepared.plan, suite_text="", results={}
    )

    def stored(cell_id: str) -> Samples | None:
        while cell_id in job.todo and not directory.has(cell_id):
            if time.monotonic() >= job.terms.deadline:
                raise _OutOfTime
            time.sleep(PATIENCE)
        return reader.samples(cell_id)

    return stored


class _Teller:
    """An observer that tells the parent."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._last = 0.0

    def advanced(self, cell: Cell, done: int, total: int, robust: int) -> None:
        """Tell it, but not too often."""
        now = time.monotonic()
        if now - self._last >= SHOWN_EVERY:
            self._last = now
            self._pipe.send(_Advanced(cell.id, done, total, robust))

    def finished(self, result: CellResult) -> None:
        """The parent sees it."""


class _Forwarded(logging.Handler):
    """Log lines go to the parent, which has the console and the file."""

    def __init__(self, pipe: Connection) -> None:
        super().__init__()
        self._pipe = pipe

    def emit(self, record: logging.LogRecord) -> None:
        """Send it with its words put together: what they are made of may not be fit for it."""
        record.msg, record.args = self.format(record), None
        record.exc_info = record.exc_text = record.stack_info = None
        self._pipe.send(record)


def _sendable(problem: BaseException) -> Exception:
    """The exception itself where another process can read it, else its words."""
    words = RuntimeError(f"{type(problem).__name__}: {problem}")
    if not isinstance(problem, Exception):
        return words
    try:
        pickle.loads(pickle.dumps(problem))  # noqa: S301  (its own)
    except Exception:  # noqa: BLE001  (whatever its class does)
        return words
    return problem
