"""A model whose gradients are merely broken never comes out as robust."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Robeval

BROKEN = ["nan_gradient", "scaled", "quantised_input", "rounded_output", "sign_activations"]
SUITE = """\
schema: 1
name: broken
python_path: ["{tests}"]
models: {{net: {{load: torch, factory: "broken_nets:{name}", num_classes: 10{more}}}}}
datasets: {{mnist: {{load: mnist-sample, take: 50}}}}
attacks:
{attacks}
gates: {{floor: {{metric: worst_case_robust_accuracy, norm: linf, eps: 0.3, min: 0.5}}}}
"""
WHITE_BOX = """\
  fgsm: {attack: fgsm, norm: linf, eps: 0.3}
  pgd: {attack: pgd, norm: linf, eps: 0.3, steps: 10}"""
BLACK_BOX = "  square: {attack: square, norm: linf, eps: 0.3, queries: 1000}"


@pytest.fixture
def judged(tmp_path: Path, robeval: Robeval) -> Callable[[str, str], tuple[int, str]]:
    def run(name: str, attacks: str) -> tuple[int, str]:
        path = tmp_path / "suite.yaml"
        more = ", output: probabilities" if name == "rounded_output" else ""
        tests = Path(__file__).parent
        text = SUITE.format(tests=tests, name=name, more=more, attacks=attacks)
        path.write_text(text, encoding="utf-8")
        ended = robeval("run", str(path), "-o", str(tmp_path / "out"), "-q")
        return ended.code, ended.out

    return run


@pytest.mark.parametrize("name", BROKEN)
def test_gradients_that_do_not_work_make_the_measurement_invalid(
    judged: Callable[[str, str], tuple[int, str]], name: str
) -> None:
    code, out = judged(name, WHITE_BOX)
    assert code == 8
    assert "gradient was" in out


@pytest.mark.parametrize("name", BROKEN)
def test_an_attack_without_gradients_finds_the_truth(
    judged: Callable[[str, str], tuple[int, str]], name: str
) -> None:
    assert judged(name, BLACK_BOX)[0] == 1
