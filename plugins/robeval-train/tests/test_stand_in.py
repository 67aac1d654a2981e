"""The CIFAR-10 rows of Goodfellow 2015 on a slice of Fashion-MNIST: the same suite, directions."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from robustbench_lite.cli import invoke

GOODFELLOW = Path(__file__).parents[3] / "suites" / "goodfellow2015.yaml"
SLICE = {
    "vars.profile": "full",
    "vars.cifar": "yes",
    "vars.cifar_train.yes": "{load: fashion-mnist, split: train, take: 3000}",
    "vars.cifar_test.yes": "{load: fashion-mnist, split: test, take: 300}",
    "vars.cifar_epochs": 16,
    # So small a network learns within seconds from larger weights, without dropout, in small steps.
    "vars.conv_net": "{name: conv-maxout, channels: [8, 16, 16], dense: 40, init: 0.05,"
    " keep_input: 1, keep_hidden: 1}",
    "vars.conv.yes.batch": 32,
    "vars.conv.yes.augment.shift": 1,
    "vars.conv.yes.optimiser": "{name: sgd, lr: 0.05, momentum: 0.8, conv_scale: 0.2}",
    "vars.cifar_rubbish.yes.samples": 300,
    "vars.cifar_rubbish.yes.stepped": 50,
}
Row = Mapping[str, str]


def rows(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rows' part of the suite, trained and measured once."""
    root = os.environ.get("ROBEVAL_DATA")
    if not root or not (Path(root) / "fashion-mnist").is_dir():
        pytest.skip("needs Fashion-MNIST: set ROBEVAL_DATA to the folder that holds fashion-mnist/")
    folder = tmp_path_factory.mktemp("stand-in")
    sets = [word for key, value in SLICE.items() for word in ("--set", f"{key}={value}")]
    argv = ["run", GOODFELLOW, "--data", root, "-o", folder / "out", "-q", "-k", "conv-maxout"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setenv("ROBEVAL_THREADS", "1")
        patch.setenv("ROBEVAL_DEVICE", "cpu")
        assert invoke([str(word) for word in [*argv, *sets]]) == 4  # a part decides no gate
    return folder / "out"


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("installed")]


def test_one_step_in_whitened_space_breaks_what_noise_of_its_size_does_not(run: Path) -> None:
    """G3: 87.15 % error at 96.6 % confidence on CIFAR-10."""
    found = {row["attack"]: row for row in rows(run / "tables" / "cells.csv")}
    error = {name: float(row["adversarial_error"]) for name, row in found.items()}
    clean, noise, fgsm = error["clean"], error["uniform-noise (control)"], error["fgsm-whitened"]
    assert clean < 0.3
    assert abs(noise - clean) < 0.05
    assert fgsm > clean + 0.3
    sure = {
        name: float(found[name]["confidence_on_mistakes"]) for name in ("clean", "fgsm-whitened")
    }
    assert sure["fgsm-whitened"] > max(sure["clean"], 0.7)


def test_rubbish_is_taken_for_a_class_and_one_step_makes_it_any(run: Path) -> None:
    """G23: 93.4 % error; G24: few classes get it all; G25: 75.3 % of the steps succeed."""
    (row,) = rows(run / "tables" / "rubbish-cifar.csv")
    shares = sorted(float(row[f"share_{k}"]) for k in range(10))
    assert float(row["error"]) > 0.5
    assert float(row["confidence"]) > 0.6
    assert shares[-1] > 0.3
    assert shares[0] == 0
    # at most one class of ten is sure without a step
    assert float(row["step_error"]) > 2 * float(row["error"]) / 10


def test_the_reference_table_has_the_numbers(run: Path) -> None:
    table = rows(run / "tables" / "reference.csv")
    stood_in = [row for row in table if "conv maxout" in row["what"] or row["id"] == "G25"]
    assert sorted({row["id"] for row in stood_in}) == ["G23", "G24", "G25", "G3"]
    assert all(row["ours"] for row in stood_in)


def test_the_convolutions_were_trained_with_flips_shifts_and_a_smaller_rate(run: Path) -> None:
    plan = json.loads((run / "plan.json").read_text(encoding="utf-8"))
    found = plan["models"]["conv-maxout"]["parameters"]
    assert found["augment"] == {"flip": True, "shift": 1}
    assert found["optimiser"]["conv_scale"] == 0.2
