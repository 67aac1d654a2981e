"""A finding that someone answers for counts as answered until its day, and as an error after it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from robustbench_lite.diagnose.waivers import waived
from robustbench_lite.types import Finding, Waiver, Where
from tests.conftest import Robeval
from tests.small_world import attack_spec, entry, simple
from tests.test_trial import whole

WHERE = Where("s.yaml", 9, 3)
DAY = date(2026, 11, 21)


def waiver(**own: object) -> Waiver:
    fields: dict[str, object] = {
        "name": "w",
        "finding": "zero-gradient",
        "model": "m",
        "reason": "known",
        "owner": "ana",
        "expires": DAY,
        "where": WHERE,
    }
    return Waiver(**{**fields, **own})  # type: ignore[arg-type]


def marked(given: Waiver, today: date) -> list[Finding]:
    spec = attack_spec(whole, access="gradient")
    cells = simple((spec, entry("a", spec, "0.4")), n=4).world().plan.cells
    finding = Finding(
        id="zero-gradient",
        severity="error",
        message="zero",
        advice="",
        cells=tuple(cell.id for cell in cells),
    )
    return waived([finding], [given], cells, today)


def test_it_holds_to_the_last_day() -> None:
    (finding,) = marked(waiver(), DAY)
    assert finding.waived == "waived until 2026-11-21 by ana: known (s.yaml:9:3)"


def test_after_that_day_it_is_an_error_of_every_cell_of_the_model() -> None:
    finding, expired = marked(waiver(), date(2026, 11, 22))
    assert finding.waived == ""
    assert (expired.id, expired.severity) == ("expired-waiver", "error")
    assert expired.cells == finding.cells


@pytest.mark.parametrize("own", [{"finding": "broken-gradient"}, {"model": "other"}])
def test_it_covers_its_own_finding_and_model_only(own: dict[str, object]) -> None:
    assert marked(waiver(**own), DAY)[0].waived == ""


GATED = """
attacks:
  pgd: {attack: pgd, norm: linf, eps: 0.15, steps: 5}
  square: {attack: square, norm: linf, eps: 0.15, queries: 50}
gates:
  floor: {metric: robust_accuracy, attack: pgd, max: 1}
"""
WAIVED = """
waivers:
  known:
    finding: zero-gradient
    model: linear
    reason: it rounds its input, square is what we rely on
    owner: ana
    expires: %s
"""
ROUNDING = """
from torch import nn
from nearest_mean import linear


class Rounded(nn.Module):
    def forward(self, x):
        return (x * 8).round() / 8


def masked():
    return nn.Sequential(Rounded(), linear())
"""


@pytest.fixture
def judged(
    robeval: Robeval, write_suite: Callable[..., Path], tmp_path: Path
) -> Callable[[str], tuple[int, str]]:
    def run(more: str) -> tuple[int, str]:
        (tmp_path / "masks.py").write_text(ROUNDING)
        path = write_suite(GATED + more + "self_test: off\n", take=20)
        text = path.read_text().replace("nearest_mean:linear", "masks:masked")
        path.write_text(text.replace('python_path: ["', 'python_path: [., "'))
        ended = robeval("run", str(path), "-o", str(tmp_path / "out"))
        return ended.code, ended.out

    return run


def test_a_waived_error_lets_the_gate_be_judged_and_is_shown(
    judged: Callable[[str], tuple[int, str]], tmp_path: Path
) -> None:
    assert judged("")[0] == 8
    more = (
        WAIVED % "2999-01-31"
        + WAIVED.split("waivers:\n")[1]
        .replace("known:", "hidden:")
        .replace("zero-gradient", "black-box-beats-white-box")
        % "2999-01-31"
    )
    code, out = judged(more)
    assert code == 0, out
    assert "waived until 2999-01-31 by ana" in out
    findings = json.loads((tmp_path / "out" / "findings.json").read_text(encoding="utf-8"))
    assert any(each["waived"] for each in findings)
    assert "Waived until 2999-01-31" in (tmp_path / "out" / "report.html").read_text()


def test_an_expired_one_voids_the_gate(judged: Callable[[str], tuple[int, str]]) -> None:
    code, out = judged(WAIVED % "2020-01-31")
    assert code == 8
    assert "ended on 2020-01-31" in out


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("zero-gradient", "zero-gradients", "did you mean 'zero-gradient'?"),
        ("model: linear", "model: linaer", "did you mean 'linear'?"),
        ("2020-01-31", "soon", "a day such as 2027-01-31"),
        ("    owner: ana\n", "", "missing"),
    ],
)
def test_what_is_wrong_with_a_waiver_is_named(
    robeval: Robeval, write_suite: Callable[..., Path], old: str, new: str, message: str
) -> None:
    text = GATED + (WAIVED % "2020-01-31").replace(old, new)
    ended = robeval("validate", str(write_suite(text)))
    assert (ended.code, message in ended.err) == (2, True), ended.err
