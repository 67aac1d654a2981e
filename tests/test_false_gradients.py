"""An attack that is led astray in a ball where no score moves has measured nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Robeval

SUITE = """\
schema: 1
name: astray
models: {{net: {{load: torch, factory: "{factory}", num_classes: 10}}}}
datasets: {{digits: {{load: mnist-sample, take: {take}}}}}
controls: off
attacks:
  pgd: {{attack: apgd, norm: linf, eps: {grid}, steps: 10}}
  square: {{attack: square, norm: linf, eps: {grid}, queries: {queries}}}
gates: {{worst: {{metric: worst_case_robust_accuracy, norm: linf, eps: {eps}, min: 0.5}}}}
reports: [csv]
"""
ROBUST = "robustbench_lite.testing.zoo:robust"

Run = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def run(robeval: Robeval, tmp_path: Path) -> Run:
    def go(
        factory: str, *, eps: float = 0.3, take: int = 12, queries: int = 50, below: str = ""
    ) -> tuple[int, list[str]]:
        path = tmp_path / "suite.yaml"
        path.write_text(
            SUITE.format(
                factory=factory, eps=eps, grid=f"[{below}{eps}]", take=take, queries=queries
            )
        )
        code = robeval("run", str(path), "-o", "out", "-q").code
        found = json.loads(Path("out/findings.json").read_text())
        return code, [each["id"] for each in found if each["severity"] == "error"]

    return go


@pytest.mark.parametrize("name", ["snapped", "snapped_in_company", "shelled"])
def test_a_gradient_that_no_score_follows_is_an_error(run: Run, name: str) -> None:
    code, errors = run(f"false_gradients:{name}")
    assert code == 8
    assert "scores-stand-still" in errors


def test_in_a_tiny_ball_scores_may_stand_still(run: Run) -> None:
    assert run(ROBUST, eps=1e-5) == (0, [])


def test_few_samples_prove_nothing(run: Run) -> None:
    _, errors = run("false_gradients:snapped", take=7)
    assert "scores-stand-still" not in errors


def test_a_robust_network_is_not_accused(run: Run) -> None:
    assert run(ROBUST, queries=300) == (0, [])


def test_a_grid_of_radii_finds_what_is_weak_only_nearer_by(run: Run) -> None:
    code, _ = run("false_gradients:thin", below="0.075, ", queries=300)
    assert code == 1
