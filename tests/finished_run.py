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
from robustbench_lite.stats import rate
from robustbench_lite.types import (
    CLEAN,
    Cell,
    CellResult,
    Change,
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
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{7*191}}"


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


def showcase(path: Path, n: int = 200) -> FakeRun:
    """A run with something for every section of the report, and a comparison with a baseline."""
    rng = np.random.default_rng(11)
    clean = {name: rng.random(n) < 0.98 for name in ("robust", "undefended")}
    more = [each for name, correct in clean.items() for each in _specialities(name, correct, rng)]
    gates = [
        rule("worst", "worst_case_robust_accuracy", minimum=0.75, eps=eps("0.1"), norm="linf"),
        rule("narrow", minimum=0.97, attack="fgsm", model="robust", eps=eps("8/255")),
    ]
    warning = Finding(id="f", severity="warning", message="odd `x`", advice="look", cells=())
    waived = dataclasses.replace(warning, id="g", waived="waived until 2027-01-31 by maria: known")
    skipped = [cell("apgd", "0.1", model="robust", norm="l2", skip="needs gradients")]
    manifest: dict[str, Json] = {
        "status": "complete",
        "argv": ["robeval", "run", "my suite.yaml"],
        "waivers": [{"name": "known", "finding": "g", "model": "robust", "owner": "maria"}],
    }
    run = world(
        path,
        n=n,
        gates=gates,
        findings=[warning, waived],
        skipped=skipped,
        manifest=manifest,
        more=more,
    )
    return dataclasses.replace(run, comparison=_comparison(run))


def _specialities(
    model: str, correct: NDArray[np.bool_], rng: np.random.Generator
) -> list[tuple[Cell, Samples, Examples]]:
    """A transfer, a minimal-norm attack on two radii, two strengths of fog, one pixel each."""
    n = len(correct)
    other = "undefended" if model == "robust" else "robust"
    transfer = cell("pgd-transfer", "0.1", model=model, source=other)
    distance = rng.gamma(3.0, 0.5, n)
    found: list[tuple[Cell, NDArray[np.bool_], dict[str, NDArray[np.generic]]]] = [
        (dataclasses.replace(transfer, attack="pgd"), correct & (rng.random(n) < 0.3), {}),
        (cell("fog", "1", model=model, norm="none"), correct & (rng.random(n) < 0.1), {}),
        (cell("fog", "3", model=model, norm="none"), correct & (rng.random(n) < 0.6), {}),
    ]
    for text in ("1", "2"):
        minimal = dataclasses.replace(
            cell("ddn", text, model=model, norm="l2"), kind="minimal-norm"
        )
        found.append((minimal, correct & (distance <= float(text)), {"l2": distance}))
    one = correct & (rng.random(n) < 0.2)
    pixel = np.where(one, rng.integers(0, 144, n), -1)
    found.append((cell("every-pixel", "1", model=model, norm="l0"), one, {"pixel": pixel}))
    return [
        (
            each,
            table(correct, broken, **columns),
            images(np.flatnonzero(broken)[:4].tolist(), (1, 12, 12), 0.1),
        )
        for each, broken, columns in found
    ]


def _comparison(run: FakeRun) -> Comparison:
    attacked = [each for each in run.plan.cells if each.entry in ("fgsm", "pgd") and not each.skip]
    changes = [_change(each, run.tables[each.id], at) for at, each in enumerate(attacked[:6])]
    refused = dataclasses.replace(
        changes[0], base=None, head=None, difference=None, reason="data differ"
    )
    return Comparison(
        base="main",
        head="candidate",
        changes=(*changes, refused),
        unmatched=("robust on test, cw l2 3: only in the baseline",),
    )


def _change(of: Cell, samples: Samples, at: int) -> Change:
    """The head as measured; in the baseline its first `at` broken samples were right."""
    broken = samples.clean_correct & samples.success
    robust = int((samples.clean_correct & ~samples.success).sum())
    ids = tuple(str(each) for each in samples.sample_id[broken][:at])
    n, difference = len(broken), -len(ids) / len(broken)
    return Change(
        subject=f"{of.model} on {of.dataset}, {of.entry} {of.norm} {of.eps.text if of.eps else ''}",
        metric="robust_accuracy",
        model=of.model,
        dataset=of.dataset,
        attack=of.entry,
        norm=of.norm,
        eps=of.eps,
        base_cell="",
        head_cell=of.id,
        n=n,
        base=rate(robust + len(ids), n),
        head=rate(robust, n),
        newly_broken=ids,
        newly_fixed=(),
        difference=difference,
        low=difference - 0.012,
        high=difference + 0.012,
        p_value=0.5 ** len(ids),
    )


def hostile_run(path: Path) -> FakeRun:
    """A run in which every name and text is HOSTILE."""
    finding = Finding(
        id=HOSTILE,
        severity="error",
        message=HOSTILE,
        advice=HOSTILE,
        cells=(HOSTILE,),
        numbers={HOSTILE: 1.0},
        waived=HOSTILE,
    )
    skipped = [cell(HOSTILE, "0.1", model=HOSTILE, dataset=HOSTILE, source=HOSTILE, skip=HOSTILE)]
    words = ("name", "finding", "model", "reason", "owner", "expires")
    run = world(
        path,
        n=40,
        models={HOSTILE: 0.1},
        dataset=HOSTILE,
        gates=[rule(HOSTILE, minimum=0.5), rule("b", minimum=0.4, attack=HOSTILE)],
        findings=[finding],
        skipped=skipped,
        manifest={
            "argv": ["robeval", "run", HOSTILE],
            HOSTILE: {HOSTILE: [HOSTILE, 1]},
            "waivers": [dict.fromkeys(words, HOSTILE)],
        },
    )
    tables = {
        key: dataclasses.replace(
            each, sample_id=np.array([f"{HOSTILE}{i}" for i in range(40)], dtype=object)
        )
        for key, each in run.tables.items()
    }
    run = dataclasses.replace(run, tables=tables, suite_text=HOSTILE)
    attacked = next(each for each in run.plan.cells if each.entry == "pgd")
    change = dataclasses.replace(_change(attacked, tables[attacked.id], 2), subject=HOSTILE)
    compared = Comparison(base=HOSTILE, head=HOSTILE, changes=(change,), unmatched=(HOSTILE,))
    (path / "tables").mkdir(parents=True)
    quoted = HOSTILE.replace('"', '""')
    (path / "tables" / "own.csv").write_text(f'"{quoted}",b\n1,<b>x</b>\n')
    return dataclasses.replace(
        run, comparison=compared, plan=dataclasses.replace(run.plan, suite=HOSTILE)
    )
