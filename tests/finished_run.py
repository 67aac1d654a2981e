"""A finished run in memory, drawn from a known world: sample i breaks iff strength * eps > margin i.

The runs have the attributes of `StoredRun`, so that summary, gates and reports are tested without
a model. Names are passed in, so that hostile ones can be.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robustbench_lite import gate, summary
from robustbench_lite.types import (
    CLEAN,
    Cell,
    CellResult,
    Comparison,
    Component,
    Eps,
    Examples,
    Finding,
    Gate,
    Json,
    Norm,
    Plan,
    Role,
    Samples,
    Summary,
    Verdict,
    Where,
)

WHERE = Where("suite.yaml", 12, 3)
CLASSES = 10


@dataclass(frozen=True, kw_only=True)
class FakeRun:
    """A run in memory with the public attributes of `StoredRun`."""

    path: Path
    manifest: Mapping[str, Json]
    plan: Plan
    suite_text: str
    results: Mapping[str, CellResult]
    tables: Mapping[str, Samples]
    images: Mapping[str, Examples] = field(default_factory=dict)
    summary: Summary | None = None
    verdict: Verdict | None = None
    comparison: Comparison | None = None

    def samples(self, cell_id: str) -> Samples | None:
        return self.tables.get(cell_id)

    def examples(self, cell_id: str) -> Examples | None:
        return self.images.get(cell_id)


def eps(text: str) -> Eps:
    return Eps(Fraction(text), text)


def cell(
    entry: str,
    radius: str | None = None,
    *,
    model: str = "candidate",
    dataset: str = "test",
    norm: Norm | None = "linf",
    role: Role = "attack",
    source: str | None = None,
    skip: str | None = None,
) -> Cell:
    """A cell whose id spells what it is; the clean pass if no radius is given."""
    clean = radius is None
    return Cell(
        id=f"{model}.{dataset}.{entry}.{norm}.{radius}".replace("/", "_"),
        model=model,
        dataset=dataset,
        entry=CLEAN if clean else entry,
        attack=CLEAN if clean else entry,
        source=source or model,
        role="control" if clean else role,
        kind="fixed-budget",
        effort="iterative",
        norm=None if clean else norm,
        eps=None if radius is None else eps(radius),
        target=None,
        repeats=1,
        params={},
        carried=(),
        implicit=False,
        skip=skip,
        cost=None,
    )


def table(
    correct: Sequence[bool] | NDArray[np.bool_],
    broken: Sequence[bool] | NDArray[np.bool_],
    **columns: NDArray[np.generic],
) -> Samples:
    """A per-sample table from clean-correct and success bits; other columns may be replaced."""
    clean_correct, success = np.asarray(correct, dtype=bool), np.asarray(broken, dtype=bool)
    n = len(clean_correct)
    label = np.arange(n, dtype=np.int64) % CLASSES
    wrong = (label + 1) % CLASSES
    whole: dict[str, object] = {
        "sample_id": np.array([f"test-{i}" for i in range(n)], dtype=object),
        "sample_hash": np.array([f"{i:032x}" for i in range(n)], dtype=object),
        "label": label,
        "clean_pred": np.where(clean_correct, label, wrong),
        "clean_confidence": np.full(n, 0.9, dtype=np.float32),
        "adv_pred": np.where(clean_correct & ~success, label, wrong),
        "adv_confidence": np.full(n, 0.8, dtype=np.float32),
        "clean_correct": clean_correct,
        "adv_correct": clean_correct & ~success,
        "success": success,
        "legal": np.ones(n, dtype=bool),
        "l0": np.full(n, 5.0),
        "l1": np.full(n, 2.0),
        "l2": np.full(n, 1.0),
        "linf": np.full(n, 0.1),
        "survives_uint8": success,
        "pixel": np.full(n, -1, dtype=np.int64),
        "queries": np.full(n, 3.0),
        "gradients": np.full(n, 2.0),
        "status": np.full(n, "ok", dtype=object),
    }
    return Samples(**{**whole, **columns})  # type: ignore[arg-type]  # one array per field


def result(which: Cell, **changes: object) -> CellResult:
    """A finished cell on the CPU; `changes` replace fields."""
    finished = CellResult(
        cell=which,
        status="skipped" if which.skip else "ok",
        reason=which.skip or "",
        samples=None,
        examples=None,
        seconds=1.5,
        device="cpu",
        provider="CPUExecutionProvider",
        batch_size=64,
    )
    return dataclasses.replace(finished, **changes)  # type: ignore[arg-type]  # names are checked


def rule(name: str = "floor", metric: str = "robust_accuracy", **changes: object) -> Gate:
    """A gate that selects everything; `changes` replace fields."""
    plain = Gate(
        name=name,
        metric=metric,
        model=None,
        dataset=None,
        attack=None,
        norm=None,
        eps=None,
        minimum=None,
        maximum=None,
        confidence=0.95,
        where=WHERE,
    )
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]  # names are checked


def summarised(
    *tables: tuple[Cell, Samples], findings: Sequence[Finding] = (), partial: bool = False
) -> Summary:
    """The summary of cells that all finished, each with its table."""
    by_id = {each.id: samples for each, samples in tables}
    results = {each.id: result(each) for each, _ in tables}
    cells = [each for each, _ in tables]
    return summary.make(cells, results, by_id.get, findings, partial=partial)


def images(positions: Sequence[int], shape: tuple[int, ...], radius: float) -> Examples:
    """Smooth blobs and a signed pattern of size `radius`, clipped to [0, 1]."""
    flat = np.linspace(0.0, 3.0, int(np.prod(shape))).reshape(shape)
    x = np.stack([0.5 + 0.5 * np.sin(flat * (1 + at % 7)) for at in positions])
    x_adv = np.clip(x + radius * np.sign(np.cos(17 * x)), 0, 1)
    return Examples(
        positions=np.asarray(positions, dtype=np.int64),
        x=x.astype(np.float32),
        x_adv=x_adv.astype(np.float32),
    )


STRENGTHS: Mapping[str, tuple[float, Role, Norm]] = {
    "uniform-noise": (0.2, "control", "linf"),
    "fgsm": (0.8, "attack", "linf"),
    "pgd": (1.0, "attack", "linf"),
    "single-pixel": (0.05, "attack", "l0"),
}
RADII: Mapping[Norm, tuple[str, ...]] = {"linf": ("8/255", "0.1", "0.2", "0.3"), "l0": ("1",)}


def world(
    path: Path,
    *,
    n: int = 200,
    models: Mapping[str, float] | None = None,
    dataset: str = "test",
    gates: Sequence[Gate] = (),
    findings: Sequence[Finding] = (),
    shape: tuple[int, ...] = (1, 12, 12),
    skipped: Sequence[Cell] = (),
    manifest: Mapping[str, Json] | None = None,
    more: Sequence[tuple[Cell, Samples, Examples]] = (),
) -> FakeRun:
    """A whole run: every attack of STRENGTHS on every model (name -> mean margin), and `more`."""
    rng = np.random.default_rng(7)
    models = models or {"robust": 0.5, "undefended": 0.08}
    cells: list[Cell] = []
    tables: dict[str, Samples] = {}
    gallery: dict[str, Examples] = {}
    for name, mean in models.items():
        margin = rng.gamma(3.0, mean / 3, n)
        correct = rng.random(n) < 0.98
        clean = cell(CLEAN, model=name, dataset=dataset)
        cells.append(clean)
        tables[clean.id] = table(correct, np.zeros(n, dtype=bool))
        for attack, (strength, role, norm) in STRENGTHS.items():
            for text in RADII[norm]:
                each = cell(attack, text, model=name, dataset=dataset, norm=norm, role=role)
                broken = correct & (strength * float(Fraction(text)) > margin)
                confidence = rng.uniform(0.4, 1.0, n).astype(np.float32)
                cells.append(each)
                tables[each.id] = table(correct, broken, adv_confidence=confidence)
                shown = np.flatnonzero(broken)[:4].tolist()
                gallery[each.id] = images(shown, shape, 0.1) if shown else images([0], shape, 0.1)
    for each, samples, shown in more:
        cells.append(each)
        tables[each.id], gallery[each.id] = samples, shown
    cells += skipped
    plan = Plan(suite=path.name, seed=0, models={}, datasets={}, cells=tuple(cells))
    component = Component(name=dataset, loader="arrays", content="ab12", files={}, parameters={})
    plan = dataclasses.replace(plan, datasets={dataset: component})
    results = {each.id: result(each) for each in cells}
    whole = summary.make(cells, results, tables.get, findings)
    return FakeRun(
        path=path,
        manifest=manifest or {"status": "complete", "argv": ["robeval", "run", "my suite.yaml"]},
        plan=plan,
        suite_text="schema: 1\n",
        results=results,
        tables=tables,
        images=gallery,
        summary=whole,
        verdict=gate.verdict(gate.check(gates, whole), whole),
    )
