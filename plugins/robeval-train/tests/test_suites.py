"""The plug-in through suites: references, cache, the command `train`, and Goodfellow 2015."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from robustbench_lite.cli import invoke
from robustbench_lite.store import load_run

ROOT = Path(__file__).parents[3]
GOODFELLOW = ROOT / "suites" / "goodfellow2015.yaml"
AGREEMENT = ROOT / "suites" / "goodfellow2015-agreement.yaml"
SMALL = """\
schema: 1
name: small
datasets:
  train: {load: mnist-sample, take: 300}
  test: {load: mnist-sample, skip: 300, take: 100}
  two: {load: classes-of, of: test, keep: ["3", "7"]}
models:
  soft: {load: trained, on: train, arch: softmax, epochs: 2}
  net:
    {load: trained, on: train, arch: {name: mlp, widths: [16]}, epochs: 2, recipe: fgsm-adversarial}
  both: {load: ensemble, of: [soft, net]}
attacks:
  fgsm: {attack: fgsm, norm: linf, eps: 0.1}
  mean: {attack: fgsm-own-loss, loss: negative-score, eps: 0.1}
analyses:
  norms: {analysis: weight-norms, models: [soft]}
  reference:
    analysis: reference-table
    profile: any
    rows:
      - {id: R, what: growth, hard: [any], window: {any: [0, 1000]},
         ours: {table: norms, where: {model: soft}, column: l2}, unit: number}
gates:
  reference: {analysis: reference}
reports: [csv, reference]
"""

pytestmark = pytest.mark.usefixtures("installed")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command line in `tmp_path`, with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("ROBEVAL_THREADS", "1")
    monkeypatch.setenv("ROBEVAL_DEVICE", "cpu")
    (tmp_path / "s.yaml").write_text(SMALL)
    return lambda *argv: invoke([str(word) for word in argv])


def kept(folder: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in folder.glob("**/weights.safetensors")}


def test_a_suite_trains_what_it_judges_once_and_its_gates_judge_an_analysis(
    here: Callable[..., int], tmp_path: Path
) -> None:
    assert here("run", "s.yaml", "-o", "a", "-q") == 0
    run = load_run("a")
    assert {name: part.refers for name, part in run.plan.models.items()} == {
        "soft": ("train",),
        "net": ("train",),
        "both": ("soft", "net"),
    }
    first = kept(tmp_path / "cache")
    assert first.keys() == {run.plan.models[name].content for name in ("soft", "net")}
    with (tmp_path / "a" / "tables" / "cells.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    # the training data are an ingredient, nothing is judged on them
    assert {row["dataset"] for row in rows} == {"test", "two"}
    gates = json.loads((tmp_path / "a" / "gates.json").read_text())
    assert [each["status"] for each in gates["gates"]] == ["PASS"]
    stamps = [path.stat().st_mtime_ns for path in (tmp_path / "cache").glob("**/*.safetensors")]
    assert here("run", "s.yaml", "-o", "b", "-q", "--refresh") == 0
    assert stamps == [p.stat().st_mtime_ns for p in (tmp_path / "cache").glob("**/*.safetensors")]


def test_a_gate_on_an_analysis_fails_closed(here: Callable[..., int], tmp_path: Path) -> None:
    assert here("run", "s.yaml", "-o", "a", "-q") == 0
    path = tmp_path / "a" / "tables" / "reference.csv"
    text = path.read_text()
    path.write_text(text.replace("holds", "fails"))
    assert here("gate", "a") == 1
    path.write_text(text.replace("holds", "no evidence"))
    assert here("gate", "a") == 4
    path.unlink()
    assert here("gate", "a") == 4


def test_a_part_of_a_suite_trains_only_what_it_needs(
    here: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert here("run", "s.yaml", "-o", "a", "-q", "-k", "net and fgsm and not both") == 4
    assert len(kept(tmp_path / "cache")) == 1
    assert "analysis 'norms' is left out: this run has no soft" in capsys.readouterr().err


def test_train_makes_one_model_and_writes_it(here: Callable[..., int], tmp_path: Path) -> None:
    assert here("train", "s.yaml", "net", "-o", "out/net.onnx", "-q") == 0
    assert len(kept(tmp_path / "cache")) == 1
    session = onnxruntime.InferenceSession(tmp_path / "out" / "net.onnx")
    x = torch.rand(5, 1, 28, 28).numpy()
    assert session.run(None, {"input": x})[0].shape == (5, 10)


@pytest.mark.parametrize("quiet", [False, True])
def test_epochs_are_shown_unless_they_are_not_wanted(
    here: Callable[..., int], capsys: pytest.CaptureFixture[str], quiet: bool
) -> None:
    assert here("train", "s.yaml", "soft", *(["-q"] if quiet else [])) == 0
    assert ("epoch 2 of at most 2" in capsys.readouterr().err) != quiet


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (("train", "s.yaml", "nett"), 2, "did you mean 'net'"),
        (("train", "s.yaml", "net", "-o", "net.pt"), 2, "must end in .onnx or .safetensors"),
        (("run", "s.yaml", "--set", "models.net.on=trian"), 2, "there is no dataset 'trian'"),
        (("run", "s.yaml", "--set", "models.both.of=both"), 2, "expected a list"),
        (("run", "s.yaml", "--set", "models.both.of=[both]"), 2, "refers to itself: both -> both"),
        (("run", "s.yaml", "--set", "datasets.two.keep=[x, y]", "-q"), 7, "'x' is no class of"),
        (("run", "s.yaml", "--set", "models.net.hold_out=300", "-q"), 7, "nothing to train on"),
    ],
)
def test_mistakes_are_told_in_words(
    here: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    argv: tuple[str, ...],
    code: int,
    words: str,
) -> None:
    assert here(*argv) == code
    captured = capsys.readouterr()
    assert words in captured.err + captured.out


@pytest.mark.parametrize("profile", ["smoke", "cpu", "full"])
def test_goodfellow_is_valid_in_every_profile(
    here: Callable[..., int], mnist: Path, profile: str
) -> None:
    argv = ("validate", GOODFELLOW, "--data", mnist, "--set", f"vars.profile={profile}")
    assert here(*argv) == 0


def test_the_agreement_suite_is_valid(here: Callable[..., int], mnist: Path) -> None:
    assert here("validate", AGREEMENT, "--data", mnist) == 0


def _some_cifar(folder: Path) -> None:
    """Random images in the format of CIFAR-10's binary batches."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        rows = rng.integers(0, 256, (20, 3073), dtype=np.uint8)
        rows[:, 0] %= 10
        rows.tofile(folder / f"{name}.bin")


@pytest.mark.slow
def test_the_full_profile_runs_on_a_slice(
    here: Callable[..., int], tmp_path: Path, mnist: Path
) -> None:
    """The paper's stop rules, retraining and 1600-unit networks, on a few images and two epochs."""
    small = {
        "vars.profile": "full",
        "vars.train_take.full": 300,
        "vars.test_take.full": 60,
        "vars.few_take.full": 10,
        "vars.epochs.full": 2,
        "vars.beside.full": 2,
        "vars.hold_out.full": 100,
        "vars.wide_hold_out": 100,
        "vars.units.full": 8,
        "vars.wide_net.units": 8,
        "vars.stop.full.patience": 1,
        "vars.wide_stop.patience": 1,
        "vars.logistic_epochs.full": 1,
        "vars.rbf_epochs.full": 1,
        "vars.short.full": 1,
        "vars.path_samples.full": 1,
        "analyses.rubbish.samples": 50,
        "analyses.rubbish.stepped": 2,
        "analyses.rotation.samples": 10,
        "vars.cifar": "yes",
        "vars.cifar_root": tmp_path / "cifar",
        "vars.cifar_epochs": 1,
        "vars.conv_net.channels": "[4, 4, 4]",
        "vars.conv_net.dense": 8,
        "vars.cifar_rubbish.yes.samples": 20,
        "vars.cifar_rubbish.yes.stepped": 2,
    }
    _some_cifar(tmp_path / "cifar")
    sets = [word for key, value in small.items() for word in ("--set", f"{key}={value}")]
    argv = ("run", GOODFELLOW, "--data", mnist, "-o", "full", "-q", *sets)
    assert here(*argv) in {1, 4, 8}  # such networks reach nothing of the paper
    assert (tmp_path / "full" / "tables" / "reference.csv").is_file()
    text = (tmp_path / "full" / "reference.md").read_text()
    assert "1600 units, adversarially trained, seed 5, clean error" in text
    records = [json.loads(p.read_text()) for p in (tmp_path / "cache").glob("**/training.json")]
    phases = {line["phase"] for record in records for line in record["history"]}
    assert phases == {"first", "again"}
    assert "conv maxout on whitened CIFAR-10" in text
    adversarial = [
        line for r in records for line in r["history"] if "held_out_adversarial_error" in line
    ]
    assert adversarial


@pytest.mark.slow
def test_the_agreement_suite_tabulates_every_case_on_a_slice(
    here: Callable[..., int], tmp_path: Path, mnist: Path
) -> None:
    sets = ("--set", "vars.take=300", "--set", "vars.judged=40")
    assert here("run", AGREEMENT, "--data", mnist, "-o", "out", "-q", *sets) in {0, 8}
    text = (tmp_path / "out" / "reference.md").read_text()
    for case in ("the paper", "maxout 100 epochs, seed 2", "maxout 15, softmax 30 epochs"):
        assert f"| {case} | " in text
    with (tmp_path / "out" / "tables" / "epochs-of-maxout.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["case"] for row in rows[:3]] == ["the paper", "maxout 5 epochs", "maxout 15 epochs"]
    assert all(0 <= float(row["A3"]) <= 1 for row in rows)
