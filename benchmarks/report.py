"""Time and memory to render the report of a large run, which is made up on disk first.

`python -m benchmarks.report --models 50 --samples 10000` writes 30 cells per model to a temporary
folder (about 1 GB), then judges and renders the run in a process of its own and prints seconds,
peak memory and the size of the page.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robustbench_lite import run as running
from robustbench_lite import store
from robustbench_lite.records import plan_to_json
from robustbench_lite.report import html
from robustbench_lite.types import (
    CLEAN,
    Cell,
    CellResult,
    Component,
    Eps,
    Examples,
    Kind,
    Norm,
    Plan,
    Role,
    Samples,
)

RADII = ("2/255", "4/255", "8/255")
ATTACKS: tuple[tuple[str, float, Role, Kind], ...] = (
    ("uniform-noise", 0.1, "control", "fixed-budget"),
    ("sign-noise", 0.15, "control", "fixed-budget"),
    ("fgsm", 0.6, "attack", "fixed-budget"),
    ("gone-plug-in", 0.8, "attack", "fixed-budget"),
    ("pgd", 0.95, "attack", "fixed-budget"),
    ("apgd", 1.0, "attack", "fixed-budget"),
    ("square", 0.7, "attack", "fixed-budget"),
    ("pgd-transfer", 0.3, "attack", "fixed-budget"),
    ("fmn", 0.9, "attack", "minimal-norm"),
)
CLASSES = 10
SHAPE = (3, 32, 32)
GALLERY = 8


def cells(model: str) -> Iterator[Cell]:
    """A clean pass, nine attacks on three radii, and two that change one pixel: 30 cells."""
    yield _cell(model, CLEAN, "control", "fixed-budget", None, None)
    for name, _, role, kind in ATTACKS:
        for text in RADII:
            yield _cell(model, name, role, kind, "linf", Eps(Fraction(text), text))
    one = Eps(Fraction(1), "1")
    yield _cell(model, "random-pixel", "control", "fixed-budget", "l0", one)
    yield _cell(model, "single-pixel", "attack", "fixed-budget", "l0", one)


def _cell(
    model: str, name: str, role: Role, kind: Kind, norm: Norm | None, eps: Eps | None
) -> Cell:
    return Cell(
        id=f"{model}-{name}-{eps.text.replace('/', '_') if eps else 0}",
        model=model,
        dataset="made-up",
        entry=name,
        attack="pgd" if name == "pgd-transfer" else name,
        source="model-00" if name == "pgd-transfer" else model,
        role=role,
        kind=kind,
        effort="iterative",
        norm=norm,
        eps=eps,
        target=None,
        repeats=1,
        params={},
        carried=(),
        implicit=False,
        skip=None,
        cost=None,
    )


def make(path: Path, models: int, samples: int) -> None:
    """A run directory like one of `robeval run`, with numbers from a made-up world."""
    rng = np.random.default_rng(0)
    names = [f"model-{at:02d}" for at in range(models)]
    every = {name: list(cells(name)) for name in names}
    parts = {
        name: Component(name=name, loader="onnx", content=name, files={}, parameters={})
        for name in (*names, "made-up")
    }
    plan = Plan(
        suite="large",
        seed=0,
        models={name: parts[name] for name in names},
        datasets={"made-up": parts["made-up"]},
        cells=tuple(cell for name in names for cell in every[name]),
    )
    directory = store.RunDirectory(path)
    store.write_json(path / store.PLAN, plan_to_json(plan))
    store.write_json(path / store.MANIFEST, {"status": "finished", "seed": 0, "self_test": False})
    store.write_text(path / store.SUITE, "schema: 1\nname: large\n")
    for at, name in enumerate(names):
        _fill(directory, every[name], samples, 0.01 + 0.05 * at / models, rng)


def _fill(
    directory: store.RunDirectory,
    of: list[Cell],
    n: int,
    mean: float,
    rng: np.random.Generator,
) -> None:
    margin = rng.gamma(3.0, mean / 3, n)
    label = np.arange(n) % CLASSES
    correct = rng.random(n) < 0.95
    ids = np.array([f"made-up/test/{at:06d}" for at in range(n)], dtype=object)
    hashes = np.array([f"{at:032x}" for at in range(n)], dtype=object)
    strengths = {name: strength for name, strength, _, _ in ATTACKS}
    for cell in of:
        eps = float(cell.eps) if cell.eps else 0.0
        one = cell.norm == "l0"
        reach = 0.004 if one else strengths.get(cell.entry, 0.0) * eps
        broken = correct & (reach > margin) & (cell.entry not in (CLEAN, "random-pixel"))
        table = _table(ids, hashes, label, correct, broken, margin, rng, one=one)
        directory.save(_result(cell, table, _examples(broken, rng)))


def _table(
    ids: NDArray[np.object_],
    hashes: NDArray[np.object_],
    label: NDArray[np.int64],
    correct: NDArray[np.bool_],
    broken: NDArray[np.bool_],
    margin: NDArray[np.float64],
    rng: np.random.Generator,
    *,
    one: bool,
) -> Samples:
    n = len(label)
    wrong = (label + rng.integers(1, CLASSES, n)) % CLASSES
    pixel = np.where(broken & one, rng.integers(0, SHAPE[1] * SHAPE[2], n), -1)
    return Samples(
        sample_id=ids,
        sample_hash=hashes,
        label=label,
        clean_pred=np.where(correct, label, wrong),
        clean_confidence=rng.uniform(0.5, 1, n).astype(np.float32),
        adv_pred=np.where(correct & ~broken, label, wrong),
        adv_confidence=rng.uniform(0.3, 1, n).astype(np.float32),
        clean_correct=correct,
        adv_correct=correct & ~broken,
        success=broken,
        legal=np.ones(n, dtype=bool),
        l0=np.full(n, 1.0 if one else 1024.0),
        l1=margin * 3072,
        l2=margin * 55,
        linf=margin,
        survives_uint8=broken,
        pixel=pixel,
        queries=rng.integers(1, 100, n).astype(np.float64),
        gradients=rng.integers(0, 100, n).astype(np.float64),
        status=np.full(n, "ok", dtype=object),
    )


def _examples(broken: NDArray[np.bool_], rng: np.random.Generator) -> Examples:
    positions = np.flatnonzero(broken)[:GALLERY]
    x = rng.random((len(positions), *SHAPE), dtype=np.float32)
    delta = np.float32(8 / 255) * rng.choice([-1, 1], x.shape).astype(np.float32)
    return Examples(positions=positions, x=x, x_adv=np.clip(x + delta, 0, 1))


def _result(cell: Cell, table: Samples, examples: Examples) -> CellResult:
    return CellResult(
        cell=cell,
        status="ok",
        reason="",
        samples=table,
        examples=examples,
        seconds=1.0,
        device="cpu",
        provider="CPUExecutionProvider",
        batch_size=256,
    )


def measure(path: Path) -> None:
    """Judge and render; prints seconds of both, peak memory and the size of the page."""
    clocks = [(time.perf_counter(), time.process_time())]
    finished = running.judge_run(path, ())
    clocks.append((time.perf_counter(), time.process_time()))
    text = html.page(finished.run)
    clocks.append((time.perf_counter(), time.process_time()))
    (judge, judge_cpu), (draw, draw_cpu) = (
        (after[0] - before[0], after[1] - before[1]) for before, after in itertools.pairwise(clocks)
    )
    print("| rows | judge, s (CPU) | render, s (CPU) | peak, MB | page, MB |")
    print(f"{'|---' * 5}|")
    print(
        f"| {len(finished.summary.rows):,} | {judge:.1f} ({judge_cpu:.1f}) | {draw:.1f}"
        f" ({draw_cpu:.1f}) | {_peak():.0f} | {len(text.encode()) / 1e6:.2f} |"
    )
    (path / "report.html").write_text(text, encoding="utf-8")


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Parse the options, make the run, measure it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=50)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--keep", type=Path, help="a folder for the run, kept and used again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.keep or Path(folder) / "run"
        if not (path / store.MANIFEST).is_file():
            make(path, options.models, options.samples)
        child = multiprocessing.get_context("spawn").Process(target=measure, args=(path,))
        child.start()
        child.join()


if __name__ == "__main__":
    main()
