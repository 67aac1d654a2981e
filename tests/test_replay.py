"""Stored points judged again: the same model says the same, another is told apart or refused."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file

from robustbench_lite import candidates
from robustbench_lite.store import load_run
from robustbench_lite.types import Candidates
from tests.nearest_mean import linear

if TYPE_CHECKING:
    from tests.conftest import Robeval

SUITE = """\
self_test: "off"
controls: off
reports: [csv]
attacks:
  noise: {attack: uniform-noise, norm: linf, eps: 0.3}
  pgd: {attack: pgd, norm: linf, eps: [0.02, 0.05], steps: 4}
  aimed: {attack: pgd, norm: linf, eps: 0.05, steps: 4, target: next}
  pixel: {attack: random-pixel}
gates:
  floor: {metric: robust_accuracy, attack: pgd, min: 0.99}
"""


def graph(path: Path, weight: np.ndarray, bias: np.ndarray, shape: tuple[int, ...]) -> Path:
    """A linear classifier as an ONNX file."""
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("Gemm", ["f", "w", "b"], ["y"]),
    ]
    made = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", len(bias)])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(path))
    return path


@pytest.fixture(scope="module")
def weights() -> tuple[np.ndarray, np.ndarray]:
    weight, bias = (each.detach().numpy() for each in linear().parameters())
    return weight.T.copy(), bias.copy()


@pytest.fixture
def run(robeval: Robeval, write_suite: Callable[..., Path]) -> Path:
    """A run of 60 samples whose gate fails."""
    ended = robeval("run", str(write_suite(SUITE, take=60)), "-o", "out")
    assert ended.code == 1, ended.err
    return Path("out")


def replayed(robeval: Robeval, *argv: str) -> dict[tuple[str, str], dict[str, object]]:
    ended = robeval("replay", "out", *argv, "--json")
    assert ended.code == 0, ended.err
    cells = json.loads(ended.out)["cells"]
    return {(each["attack"], each["eps_text"]): each for each in cells}


def test_the_same_model_says_the_same_without_data(robeval: Robeval, run: Path) -> None:
    found = replayed(robeval)
    assert {attack for attack, _ in found} >= {"pgd", "aimed"}
    stored = load_run(run)
    for cell in stored.plan.cells:
        if cell.eps is None or (cell.entry, cell.eps.text) not in found:
            continue
        samples, again = stored.samples(cell.id), found[cell.entry, cell.eps.text]
        assert samples is not None
        broken = int((samples.success & samples.clean_correct).sum())
        assert again["broke"] == again["still_break"] == broken
        assert again["newly_right"] == again["newly_wrong"] == []
        assert again["clean_accuracy"] == 1
        if cell.role == "attack" and cell.target is None:
            assert again["n"] == int((samples.clean_correct & samples.legal).sum())
            assert again["adversarial_error"] == pytest.approx(broken / int(again["n"]))  # type: ignore[call-overload]


def test_the_text_says_what_it_is_worth(robeval: Robeval, run: Path) -> None:
    ended = robeval("replay", str(run), "-o", "again")
    assert ended.code == 0  # the gate of the run fails all the same
    assert "lower bound on what an attacker can do" in ended.out
    assert "no gate is passed by it" in ended.out
    assert "linear on mnist" in ended.out
    written = json.loads(Path("again/replay.json").read_text())
    assert "no measure of robustness" in written["caution"]
    assert robeval("gate", str(run)).code == 1


def test_a_file_in_its_place(
    robeval: Robeval, run: Path, weights: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    weight, bias = weights
    same = graph(tmp_path / "same.onnx", weight, bias, (1, 28, 28))
    for argv in (("--model", str(same)), ("--model", f"linear={same}")):
        for each in replayed(robeval, *argv).values():
            assert each["newly_right"] == each["newly_wrong"] == []
            assert each["broke"] == each["still_break"]
    rng = np.random.default_rng(1)
    noisy = weight + rng.normal(0, 0.02, weight.shape).astype(np.float32)
    other = graph(tmp_path / "other.onnx", noisy, bias, (1, 28, 28))
    found = replayed(robeval, "--model", str(other))
    stored = load_run(run)
    for cell in stored.plan.cells:
        if cell.entry != "pgd":
            continue
        assert cell.eps is not None
        again = found["pgd", cell.eps.text]
        points = candidates.concat(list(stored.candidates(cell.id)))
        samples = stored.samples(cell.id)
        assert points is not None
        assert samples is not None
        pred = (points.x_adv.reshape(len(points.x_adv), -1) @ noisy + bias).argmax(axis=1)
        place = {name: row for row, name in enumerate(samples.sample_id)}
        rows = [place[name] for name in points.sample_id.tolist()]
        wrong, broke = pred != samples.label[rows], samples.success[rows]
        assert again["adversarial_error"] == pytest.approx(wrong.mean())
        assert again["still_break"] == int((wrong & broke).sum())
        assert again["newly_right"] == points.sample_id[broke & ~wrong].tolist()
        assert again["newly_wrong"] == points.sample_id[~broke & wrong].tolist()


def test_a_name_that_the_run_does_not_have_is_no_part_of_a_file_name(
    robeval: Robeval, run: Path, weights: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    same = graph(tmp_path / "same.onnx", *weights, (1, 28, 28))
    ended = robeval("replay", str(run), "--model", f"linaer={same}")
    assert ended.code == 2
    assert "--model: the run has no model 'linaer'" in ended.err
    assert "did you mean 'linear'?" in ended.err
    odd = graph(tmp_path / "a=b.onnx", *weights, (1, 28, 28))
    assert replayed(robeval, "--model", str(odd))


def test_a_model_for_another_task_is_refused(
    robeval: Robeval, run: Path, weights: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    weight, bias = weights
    fewer = graph(tmp_path / "fewer.onnx", weight[:, :7].copy(), bias[:7].copy(), (1, 28, 28))
    ended = robeval("replay", str(run), "--model", str(fewer))
    assert ended.code == 7
    assert "has 7 classes and 'linear' of the run has 10" in ended.err
    wide = np.zeros((3072, 10), dtype=np.float32)
    larger = graph(tmp_path / "larger.onnx", wide, bias, (3, 32, 32))
    ended = robeval("replay", str(run), "--model", str(larger))
    assert ended.code == 7
    assert "[1, 28, 28]" in ended.err
    assert "Traceback" not in ended.err
    ended = robeval("replay", str(run), "--model", "nowhere.onnx")
    assert ended.code == 7
    assert "there is no file 'nowhere.onnx'" in ended.err
    (tmp_path / "model.txt").write_text("")
    ended = robeval("replay", str(run), "--model", "model.txt")
    assert ended.code == 2
    assert "no loader opens 'model.txt'" in ended.err


def test_a_run_without_points(
    robeval: Robeval, write_suite: Callable[..., Path], tmp_path: Path
) -> None:
    path = str(write_suite(SUITE, take=20))
    assert robeval("run", path, "-o", "out", "--no-examples").code in {1, 6}
    assert not list((tmp_path / "out").rglob("candidates*"))
    ended = robeval("replay", "out")
    assert ended.code == 2
    assert "holds no adversarial points to replay" in ended.err


def test_a_changed_run_directory_is_noticed(robeval: Robeval, run: Path) -> None:
    path = next(iter(sorted(run.glob("cells/*/candidates/*.npz"))))
    points = candidates.read(path)
    points.x[0, 0, 14, 14] += 0.25
    candidates.write(Candidates(sample_id=points.sample_id, x=points.x, x_adv=points.x_adv), path)
    ended = robeval("replay", str(run))
    assert ended.code == 7
    assert "the run directory was changed" in ended.err


def test_points_survive_a_take_over_and_the_ids_of_cells_stay(
    robeval: Robeval, run: Path, tmp_path: Path
) -> None:
    assert robeval("run", "suite.yaml", "-o", "second").code == 1
    one, two = load_run(run), load_run(tmp_path / "second")
    assert [cell.id for cell in one.plan.cells] == [cell.id for cell in two.plan.cells]
    shutil.rmtree(run)
    shutil.move("second", "out")
    assert all(not each["newly_wrong"] for each in replayed(robeval).values())


def test_a_plug_in_that_is_gone_is_named(robeval: Robeval, run: Path) -> None:
    resolved = run / "suite.resolved.yaml"
    suite = json.loads(resolved.read_text())
    suite["models"]["linear"]["load"] = "vanished"
    resolved.write_text(json.dumps(suite))
    ended = robeval("replay", str(run))
    assert ended.code == 2
    assert "vanished" in ended.err
    assert "nearest_mean" in sys.modules


TORCH = """\
schema: 1
name: small
python_path: ["{tests}"]
models:
  net: {{load: torch, factory: "${{env:FACTORY}}", weights: first.safetensors}}
datasets:
  mnist: {{load: mnist-sample, take: 20}}
self_test: "off"
controls: off
reports: [csv]
attacks:
  pgd: {{attack: pgd, norm: linf, eps: 0.05, steps: 2}}
"""


@pytest.mark.parametrize("factory", ["${env:FACTORY}", "nearest_mean:linear"])
def test_new_weights_for_the_same_network(
    robeval: Robeval, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factory: str
) -> None:
    """The file takes the place of the old one; the factory stays, if the run kept it."""
    net = linear()
    save_file(net.state_dict(), tmp_path / "first.safetensors")
    with torch.no_grad():
        for each in net.parameters():
            each.mul_(-1)
    save_file(net.state_dict(), tmp_path / "second.safetensors")
    suite = TORCH.format(tests=Path(__file__).parent).replace("${env:FACTORY}", factory)
    (tmp_path / "suite.yaml").write_text(suite)
    monkeypatch.setenv("FACTORY", "nearest_mean:linear")
    assert robeval("run", "suite.yaml", "-o", "out").code == 0
    ended = robeval("replay", "out", "--model", "second.safetensors", "--json")
    if "env" in factory:
        assert ended.code == 2
        assert "factory came from the environment, which a run does not keep" in ended.err
        return
    assert ended.code == 0, ended.err
    (cell,) = json.loads(ended.out)["cells"]
    assert cell["clean_accuracy"] < 0.1  # the least likely class of the first
    assert cell["adversarial_error"] > 0.9
    assert all(not each["newly_wrong"] for each in replayed(robeval).values())
    ended = robeval("replay", "out", "--model", "missing.safetensors")
    assert ended.code == 7
