"""A plug-in that breaks its contract never changes a rate: each lie is caught and named."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from robustbench_lite.store import load_run

if TYPE_CHECKING:
    from tests.conftest import Robeval

pytestmark = pytest.mark.usefixtures("lies")

INVALID = {
    "out-of-ball": ("illegal-candidate", "outside the linf ball"),
    "out-of-box": ("illegal-candidate", "outside the box"),
    "nan": ("illegal-candidate", "not finite"),
    "wrong-shape": ("illegal-candidate", "returned shape [25, 784], expected [25, 1, 28, 28]"),
    "claims-success": ("illegal-candidate", "returned tuple, expected a tensor"),
    "integers": ("illegal-candidate", "returned dtype torch.int64"),
    "returns-clean": ("attack-did-nothing", "unchanged"),
    "changes-weights": ("changed-model", "changed the model's weights"),
}
WARNED = {
    "global-rng": "touched-global-rng",
    "changes-input": "changed-input",
}
GATED = """\
attacks:
  lie: {{attack: lie-{name}, eps: 0.2}}
  honest: {{attack: fgsm, norm: linf, eps: 0.1}}
gates:
  floor: {{metric: robust_accuracy, attack: lie, min: 0.01}}
"""


TOY = "self_test: off  # it finds nothing that is planted\n"


def legacy_numpy_state() -> str:
    """The global state that attacks written before generators draw from."""
    return repr(sorted(np.random.get_state(legacy=False)["state"]["key"].tolist()))  # noqa: NPY002


def run(robeval: Robeval, path: Path) -> tuple[int, Path]:
    ended = robeval("run", str(path), "--batch-size", "25", "-o", "out", "-q")
    return ended.code, path.parent / "out"


@pytest.mark.parametrize("name", INVALID)
def test_a_lie_is_invalid_and_closes_the_gate(
    robeval: Robeval, write_suite: Callable[..., Path], name: str
) -> None:
    code, out = run(robeval, write_suite(GATED.format(name=name)))
    assert code == 8
    finding_id, text = INVALID[name]
    findings = json.loads((out / "findings.json").read_text())
    about = [f for f in findings if f["id"] == finding_id]
    assert about
    assert text in about[0]["message"]
    assert "'lie'" in about[0]["message"]
    gates = json.loads((out / "gates.json").read_text())
    assert gates["gates"][0]["status"] == "INVALID"


def test_the_honest_cell_beside_a_lie_is_unchanged(
    robeval: Robeval, write_suite: Callable[..., Path]
) -> None:
    _, alone = run(robeval, write_suite("attacks: {honest: {attack: fgsm, norm: linf, eps: 0.1}}"))
    expected = honest(alone)
    for name in (*INVALID, *WARNED, "raises", "changes-copy"):
        path = write_suite(GATED.format(name=name), name=f"{name}.yaml")
        robeval("run", str(path), "--batch-size", "25", "-o", name, "-q", "--refresh")
        assert honest(path.parent / name) == expected, name


def honest(out: Path) -> list[tuple[object, ...]]:
    stored = load_run(out)
    cell = next(cell for cell in stored.plan.cells if cell.entry == "honest")
    samples = stored.samples(cell.id)
    assert samples is not None
    return list(zip(samples.adv_pred.tolist(), samples.linf.tolist(), strict=True))


def test_a_crash_fails_its_cell_and_is_named(
    robeval: Robeval, write_suite: Callable[..., Path]
) -> None:
    code, out = run(robeval, write_suite(GATED.format(name="raises")))
    assert code == 4
    stored = load_run(out)
    cell = next(cell for cell in stored.plan.cells if cell.entry == "lie")
    result = stored.results[cell.id]
    assert result.status == "failed"
    assert "lie-raises" in result.reason
    assert "the attack gave up" in result.reason
    assert "robeval_lies.py" in result.traceback


def test_an_attack_that_ends_the_process_fails_its_cell(
    robeval: Robeval, write_suite: Callable[..., Path]
) -> None:
    code, out = run(robeval, write_suite(GATED.format(name="leaves")))
    assert code == 4
    stored = load_run(out)
    cell = next(cell for cell in stored.plan.cells if cell.entry == "lie")
    assert stored.results[cell.id].status == "failed"
    assert "SystemExit: 0" in stored.results[cell.id].reason


LATER = {
    "analyses: {{table: {{analysis: lie-{name}}}}}\n": ("breaks", "exits", "no-table"),
    "reports: [lie-{name}]\n": ("breaks", "exits"),
}


@pytest.mark.parametrize(
    ("section", "name"), [(text, name) for text, names in LATER.items() for name in names]
)
def test_what_breaks_after_the_cells_fails_alone(
    robeval: Robeval, write_suite: Callable[..., Path], tmp_path: Path, section: str, name: str
) -> None:
    suite = write_suite("controls: off\nattacks: {}\n" + section.format(name=name))
    ended = robeval("run", str(suite), "-o", "out", "-q")
    assert ended.code == 4
    named = (
        "analysis 'table' failed" if "analyses" in section else f"report 'lie-{name}' of plug-in"
    )
    assert named in ended.err + ended.out
    assert "bug in robeval" not in ended.err
    assert load_run(tmp_path / "out").results, "the cells stand"


def test_nobody_else_ends_the_command_with_0(
    robeval: Robeval, write_suite: Callable[..., Path]
) -> None:
    suite = write_suite("controls: off\nattacks: {}\n")
    ended = robeval("run", str(suite), "-o", "out", "-q", "--executor", "lie-exits")
    assert ended.code == 2
    assert "robeval_lies.py:" in ended.err
    assert "there is no verdict" in ended.err


def test_asking_for_more_than_declared_is_refused(
    robeval: Robeval, write_suite: Callable[..., Path]
) -> None:
    code, out = run(robeval, write_suite(GATED.format(name="greedy")))
    assert code == 4
    stored = load_run(out)
    cell = next(cell for cell in stored.plan.cells if cell.entry == "lie")
    assert "gradient access" in stored.results[cell.id].reason


@pytest.mark.parametrize("name", WARNED)
def test_a_side_effect_is_undone_and_warned_of(
    robeval: Robeval, write_suite: Callable[..., Path], name: str
) -> None:
    before = torch.get_rng_state(), random.getstate(), legacy_numpy_state()
    code, out = run(robeval, write_suite(GATED.format(name=name) + TOY))
    assert code in {0, 1, 6}
    assert WARNED[name] in [f["id"] for f in json.loads((out / "findings.json").read_text())]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert legacy_numpy_state() == before[2]


def test_a_private_copy_of_the_model_may_be_ruined(
    robeval: Robeval, write_suite: Callable[..., Path]
) -> None:
    code, out = run(robeval, write_suite(GATED.format(name="changes-copy") + TOY))
    assert code in {0, 1, 6}
    found = json.loads((out / "findings.json").read_text())
    about_gates = {"weak-gated-attack", "no-gradient-free-check"}
    assert {each["id"] for each in found} <= {*about_gates, "self-test"}


def test_a_model_that_answers_nan_is_never_robust(
    robeval: Robeval, write_suite: Callable[..., Path]
) -> None:
    path = write_suite("attacks: {noise: {attack: uniform-noise, norm: linf, eps: 0.1}}\n")
    text = path.read_text().replace('"nearest_mean:linear"', '"nearest_mean:nan", num_classes: 10')
    path.write_text(text + "gates: {floor: {metric: clean_accuracy, min: 0.0}}\n")
    code, out = run(robeval, path)
    assert code == 8
    assert "output-not-finite" in [f["id"] for f in json.loads((out / "findings.json").read_text())]
