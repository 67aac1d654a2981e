"""The zoo through the command line: no broken model and no broken attack ends as robust."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks import false_alarms
from robustbench_lite.testing import zoo
from tests.conftest import Robeval

BROKEN = [member for member in zoo.MEMBERS if member.kind == "broken"]
HEALTHY = [member for member in zoo.MEMBERS if member.kind == "healthy"]
TRUTH = 0.05  # how far from the true robust accuracy a cured measurement may be


@dataclass(frozen=True, slots=True)
class Told:
    """What a run said: exit code, findings by id with their severity, robust accuracy by entry."""

    code: int
    findings: dict[str, set[str]]
    robust: dict[str, str]
    status: dict[str, str]
    sentence: str


Run = Callable[..., Told]


@pytest.fixture
def run(robeval: Robeval, tmp_path: Path) -> Run:
    def go(
        member: zoo.Member,
        attacks: str,
        *,
        take: int = 20,
        gate: str = "worst",
        declare: bool = False,
        seed: int = 0,
    ) -> Told:
        model: dict[str, object] = {"load": "torch", "factory": member.reference}
        model["num_classes"] = len(member.classes)
        model.update(member.declaration if declare else {})
        data: dict[str, object] = {"load": "mnist-sample", "take": take}
        if len(member.classes) < 10:
            data["classes"] = [str(digit) for digit in member.classes]
        if member.shape != (1, 28, 28):
            data = _as_rows(tmp_path, take)
        metric = {"worst": "worst_case_robust_accuracy"}.get(gate, "robust_accuracy")
        rule: dict[str, object] = {"metric": metric, "norm": "linf", "eps": 0.3, "min": 0.5}
        suite = {
            "schema": 1,
            "name": "zoo",
            "models": {"net": model},
            "datasets": {"digits": data},
            "attacks": json.loads(attacks),
            "gates": {"floor": rule if gate == "worst" else {**rule, "attack": gate}},
            "reports": ["csv"],
        }
        path = tmp_path / "zoo.yaml"
        path.write_text(json.dumps(suite), encoding="utf-8")
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        ended = robeval("run", str(path), "-o", str(out), "-q", "--seed", str(seed))
        return _told(out, ended.code)

    return go


def _as_rows(folder: Path, take: int) -> dict[str, object]:
    import numpy as np

    x, y = zoo.digits()
    np.savez(folder / "rows.npz", x=x[:take].flatten(1).numpy(), y=y[:take].numpy())
    return {"load": "arrays", "path": "rows.npz"}


def _told(out: Path, code: int) -> Told:
    if not (out / "findings.json").exists():
        return Told(code, {}, {}, {}, "")
    listed = json.loads((out / "findings.json").read_text(encoding="utf-8"))
    found: dict[str, set[str]] = {}
    for each in listed["findings"] if isinstance(listed, dict) else listed:
        found.setdefault(each["id"], set()).add(each["severity"])
    with (out / "tables" / "cells.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    verdict = json.loads((out / "gates.json").read_text(encoding="utf-8"))
    return Told(
        code,
        found,
        {row["attack"]: row["robust_accuracy"] for row in rows},
        {row["attack"]: row["status"] for row in rows},
        verdict["sentence"],
    )


STANDARD = '{"std": {"attack": "standard", "norm": "linf", "eps": 0.3, "queries": 300}}'


UNBROKEN = {"cached-answers", "cached-places", "counted-calls", "two-faced"}
"""Nothing breaks these while they are judged, so that every attack goes all its way."""


@pytest.mark.parametrize(
    "member",
    [
        pytest.param(each, marks=[pytest.mark.slow] if each.name in UNBROKEN else [])
        for each in BROKEN
    ],
    ids=lambda member: member.name,
)
def test_a_broken_model_never_ends_as_robust(run: Run, member: zoo.Member) -> None:
    told = run(member, STANDARD, gate="std")
    assert told.code != 0, told.sentence
    assert told.code in {1, 8}, told.sentence
    assert set(member.finding) <= told.findings.keys(), told.sentence


FEW_STEPS = """{
    "pgd": {"attack": "apgd", "norm": "linf", "eps": 0.3, "steps": 10},
    "square": {"attack": "square", "norm": "linf", "eps": 0.3, "queries": 50}
}"""


@pytest.mark.parametrize("name", sorted(UNBROKEN))
def test_a_model_with_two_answers_never_ends_as_robust(run: Run, name: str) -> None:
    member = zoo.member(name)
    told = run(member, FEW_STEPS)
    assert told.code == 8, told.sentence
    assert set(member.finding) <= told.findings.keys()


CURED = [member for member in BROKEN if member.remedy]


@pytest.mark.parametrize("member", CURED, ids=lambda member: member.name)
def test_the_adaptive_attack_brings_out_the_truth(run: Run, member: zoo.Member) -> None:
    attack = {"norm": "linf", "eps": 0.3, **member.remedy}
    told = run(member, json.dumps({"cure": attack}), gate="cure", declare=True)
    assert member.truth is not None
    if told.robust["cure"]:
        assert abs(float(told.robust["cure"]) - member.truth) <= TRUTH
    else:  # the finding is about the model itself: nothing makes its numbers mean anything
        assert told.code == 8
        assert set(member.finding) & {"randomised-output", "batch-dependent", "train-mode"}


@pytest.mark.parametrize("member", HEALTHY, ids=lambda member: member.name)
@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 5))]
)
def test_a_healthy_model_raises_neither_error_nor_warning(member: zoo.Member, seed: int) -> None:
    assert false_alarms.alarms(member, seed) == {}


# ---------------------------------------------------------------- broken attacks


@pytest.fixture
def with_zoo(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken attacks, installed as a distribution of their own."""
    site = tmp_path_factory.mktemp("site")
    (site / "zoo_attacks.py").write_text(
        "from robustbench_lite import hookimpl\n"
        "from robustbench_lite.testing import zoo\n\n\n"
        "@hookimpl\ndef robeval_attacks():\n    return zoo.ATTACKS\n"
    )
    info = site / "zoo_attacks-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zoo-attacks\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[robeval]\nzoo = zoo_attacks\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "zoo_attacks", raising=False)
    zoo.forget()


OUTCOMES = {"zoo-crashes": "failed", "zoo-sleeps": "timeout"}


@pytest.mark.usefixtures("with_zoo")
@pytest.mark.parametrize("spec", zoo.ATTACKS, ids=lambda spec: spec.name)
def test_a_broken_attack_is_found_out(run: Run, spec: object) -> None:
    name = str(getattr(spec, "name", ""))
    own = {"seconds": 30, "time_limit": 1} if name == "zoo-sleeps" else {}
    attacks = {
        "bad": {"attack": name, "norm": "linf", "eps": 0.3, **own},
        "square": {"attack": "square", "norm": "linf", "eps": 0.3, "queries": 300},
    }
    take = 260 if name == "zoo-crashes" else 40  # the second batch
    told = run(zoo.member("surrogate"), json.dumps(attacks), take=take, gate="bad")
    if name in OUTCOMES:
        assert told.status["bad"] == OUTCOMES[name]
        assert told.code == 4
    else:
        assert set(zoo.ATTACK_FINDINGS[name]) <= told.findings.keys(), told.sentence
        assert told.code != 0


def test_the_zoo_is_whole() -> None:
    assert {member.name for member in BROKEN} >= {"nan-gradient", "hard-label", "tabular"}
    assert len(BROKEN) >= 26
