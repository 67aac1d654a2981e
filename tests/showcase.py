"""Runs that fill the report: one with something for every section, one of hostile names."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robustbench_lite.stats import rate
from robustbench_lite.types import Cell, Change, Comparison, Examples, Finding, Json, Samples
from tests.finished_run import FakeRun, cell, eps, images, rule, table, world

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{7*191}}"


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
    """The head as measured; in the baseline its first `at` squared broken samples were right."""
    broken = samples.clean_correct & samples.success
    robust = int((samples.clean_correct & ~samples.success).sum())
    ids = tuple(str(each) for each in samples.sample_id[broken][: at * at])
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
