"""An ONNX file whose gradients cannot be used, through the command line: what runs instead."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from torch import Tensor

from robustbench_lite.builtin.models import onnx_twin
from robustbench_lite.builtin.models.twin import Twin, convert
from robustbench_lite.store import load_run
from tests.nearest_mean import sample
from tests.onnx_zoo import EMBEDDED, branching, digits, opened, quantised

if TYPE_CHECKING:
    from tests.conftest import Ended, Robeval

FGSM = "fgsm: {attack: fgsm, norm: linf, eps: [0.2, 0.3]}"
ON_FGSM = "on-fgsm: {metric: robust_accuracy, attack: fgsm, eps: 0.2, max: 1}"
ON_WORST = "on-worst: {metric: worst_case_robust_accuracy, norm: linf, eps: 0.2, max: 1}"


def suite(
    folder: Path,
    path: Path,
    *attacks: str,
    gates: Sequence[str] = (),
    take: int = 8,
    self_test: str = "auto",
) -> str:
    """A suite of one ONNX file on a few digits."""
    lines = ["schema: 1", "name: file", "reports: [html, markdown, csv]"]
    lines += [f"self_test: {self_test}", "models:"]
    lines += [f"  file: {{load: onnx, path: '{path}'}}", "datasets:"]
    lines += [f"  digits: {{load: mnist-sample, take: {take}}}", "attacks:"]
    lines += [f"  {attack}" for attack in attacks or (FGSM,)]
    lines += ["gates:", *(f"  {gate}" for gate in gates)] if gates else []
    (folder / "suite.yaml").write_text("\n".join(lines) + "\n")
    return str(folder / "suite.yaml")


def rows(out: Path) -> dict[tuple[str, str], dict[str, str]]:
    """(attack, eps) -> its line of cells.csv."""
    with (out / "tables" / "cells.csv").open(newline="") as stream:
        return {(row["attack"], row["eps_text"]): row for row in csv.DictReader(stream)}


def statuses(out: Path) -> dict[tuple[str, str], str]:
    """(attack, eps) -> status, without clean pass and controls."""
    return {key: row["status"] for key, row in rows(out).items() if row["role"] == "attack"}


def gates_of(out: Path) -> dict[str, str]:
    return {
        gate["gate"]: gate["status"]
        for gate in json.loads((out / "gates.json").read_text())["gates"]
    }


def findings_of(out: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads((out / "findings.json").read_text())
    return found


@pytest.fixture
def refused(tmp_path: Path) -> Path:
    return branching(tmp_path / "branch.onnx")


Spoil = Callable[[Callable[[Twin], None]], None]


@pytest.fixture
def spoiling(monkeypatch: pytest.MonkeyPatch) -> Spoil:
    """Change every twin where it is made; the parity check and all behind it are the real ones."""

    def spoil(change: Callable[[Twin], None]) -> None:
        def made(*given: object, **named: object) -> Twin:
            twin = convert(*given, **named)  # type: ignore[arg-type]  # what the loader passes
            change(twin)
            return twin

        monkeypatch.setattr(onnx_twin, "convert", made)

    return spoil


# ---------------------------------------------------------------- square stands in


@pytest.fixture
def ran(robeval: Robeval, tmp_path: Path, refused: Path) -> Ended:
    path = suite(tmp_path, refused, gates=(ON_FGSM, ON_WORST))
    return robeval("run", path, "-o", "out")


def test_square_runs_where_no_gradient_can_be_had(ran: Ended, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert statuses(out) == {
        ("fgsm", "0.2"): "skipped",
        ("fgsm", "0.3"): "skipped",
        ("fgsm (fallback square)", "0.2"): "ok",
        ("fgsm (fallback square)", "0.3"): "ok",
        ("worst-case", "0.2"): "ok",
        ("worst-case", "0.3"): "ok",
    }
    table = rows(out)
    assert "operator If (node 'choose')" in table["fgsm", "0.2"]["reason"]
    assert table["fgsm", "0.2"]["robust_accuracy"] == ""
    stand_in, worst = table["fgsm (fallback square)", "0.3"], table["worst-case", "0.3"]
    assert float(stand_in["robust_accuracy"]) < float(stand_in["clean_accuracy"])
    assert worst["robust_accuracy"] == stand_in["robust_accuracy"]
    assert (stand_in["n"], worst["n"]) == ("8", "8")
    assert float(table["fgsm (fallback square)", "0.2"]["queries_mean"]) > 1
    assert float(table["fgsm (fallback square)", "0.2"]["gradients_mean"]) == 0
    assert ran.code == 4


def test_a_gate_on_the_skipped_attack_does_not_pass(
    ran: Ended, robeval: Robeval, tmp_path: Path
) -> None:
    assert gates_of(tmp_path / "out") == {"on-fgsm": "INVALID", "on-worst": "PASS"}
    assert "on-fgsm" in ran.out
    assert robeval("gate", "out").code == 4


def test_every_report_names_the_reason_and_what_ran_instead(ran: Ended, tmp_path: Path) -> None:
    for text in (
        ran.out,
        (tmp_path / "out" / "summary.md").read_text().replace("\\", ""),
        (tmp_path / "out" / "report.html").read_text(),
    ):
        assert "fallback square" in text
        assert "operator If" in text
        assert "skipped" in text


def test_a_second_run_takes_everything_over(ran: Ended, robeval: Robeval, tmp_path: Path) -> None:
    before = rows(tmp_path / "out")
    again = robeval("run", "suite.yaml", "-o", "out")
    assert again.code == ran.code == 4
    assert "0 computed" in again.out
    assert rows(tmp_path / "out") == before


def test_without_gates_the_run_is_complete(robeval: Robeval, tmp_path: Path, refused: Path) -> None:
    assert robeval("run", suite(tmp_path, refused), "-o", "out", "-q").code == 0


def test_each_attack_has_its_own_stand_in(robeval: Robeval, tmp_path: Path, refused: Path) -> None:
    attacks = (
        "fgsm: {attack: fgsm, norm: linf, eps: 0.3}",
        "pgd: {attack: pgd, norm: linf, eps: 0.3, fallback: square}",
        "round: {attack: fgsm, norm: l2, eps: 3}",
    )
    robeval("run", suite(tmp_path, refused, *attacks), "-o", "out", "-q")
    table = rows(tmp_path / "out")
    names = {attack for attack, _ in table if "fallback" in attack}
    assert names == {
        "fgsm (fallback square)", "pgd (fallback square)", "round (fallback square)"
    }  # fmt: skip
    assert table["round (fallback square)", "3"]["norm"] == "l2"
    assert table["worst-case", "0.3"]["status"] == table["worst-case", "3"]["status"] == "ok"


# ---------------------------------------------------------------- other choices


def test_off_leaves_the_worst_case_without_a_rate(
    robeval: Robeval, tmp_path: Path, refused: Path
) -> None:
    attack = 'fgsm: {attack: fgsm, norm: linf, eps: 0.2, fallback: "off"}'
    ended = robeval("run", suite(tmp_path, refused, attack, gates=(ON_WORST,)), "-o", "out")
    assert statuses(tmp_path / "out") == {
        ("fgsm", "0.2"): "skipped",
        ("worst-case", "0.2"): "skipped",
    }
    assert (ended.code, gates_of(tmp_path / "out")) == (4, {"on-worst": "INVALID"})


PLUGIN = """\
from robustbench_lite import AttackSpec, Cost, hookimpl


def darker(model, x, y, *, budget, rng):
    return (x - budget.eps).clamp(budget.box.low, budget.box.high)


def walk(model, x, y, *, budget, rng):
    # the first point along the gradient's sign that is misclassified, however far it is
    step, best = model.gradient(x, y).sign(), x.clone()
    for number in range(1, 11):
        point = (x + 0.04 * number * step).clamp(budget.box.low, budget.box.high)
        fresh = (model.logits(best).argmax(1) == y) & (model.logits(point).argmax(1) != y)
        best[fresh] = point[fresh]
    return best


@hookimpl
def robeval_attacks():
    yield AttackSpec(
        name="walk", implementation=walk, summary="walks along the gradient", norms=("linf",),
        access="gradient", kind="minimal-norm", cost=lambda params, shape, classes: Cost(10, 1),
    )
    yield AttackSpec(
        name="darker", implementation=darker, summary="subtracts eps", norms=("linf",),
        access="score", cost=lambda params, shape, classes: Cost(0, 0),
    )
"""


@pytest.fixture
def darker(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a gradient-free attack as a distribution of its own."""
    site = tmp_path_factory.mktemp("site")
    (site / "robeval_darker.py").write_text(PLUGIN)
    info = site / "robeval_darker-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: robeval-darker\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[robeval]\ndarker = robeval_darker\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "robeval_darker", raising=False)


@pytest.mark.usefixtures("darker")
def test_any_gradient_free_attack_may_stand_in(
    robeval: Robeval, tmp_path: Path, refused: Path
) -> None:
    attack = "fgsm: {attack: fgsm, norm: linf, eps: 0.2, fallback: darker}"
    text = suite(tmp_path, refused, attack, self_test="off")  # darker is a toy
    robeval("run", text, "-o", "out", "-q")
    assert statuses(tmp_path / "out") == {
        ("fgsm", "0.2"): "skipped",
        ("fgsm (fallback darker)", "0.2"): "ok",
        ("worst-case", "0.2"): "ok",
    }


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("pgd", "'pgd' is no gradient-free attack"),
        ("squar", "did you mean 'square'?"),
        ("uniform-noise", "'uniform-noise' is no gradient-free attack"),
        ("single-pixel", "l0"),
    ],
)
def test_a_fallback_that_cannot_stand_in_is_told_before_anything_runs(
    robeval: Robeval, tmp_path: Path, refused: Path, name: str, told: str
) -> None:
    attack = f"fgsm: {{attack: fgsm, norm: linf, eps: 0.2, fallback: {name}}}"
    ended = robeval("validate", suite(tmp_path, refused, attack))
    assert ended.code == 2
    assert told in ended.err


# ---------------------------------------------------------------- a twin that is not the file


def test_a_twin_that_fails_parity_is_replaced_as_well(
    robeval: Robeval, tmp_path: Path, spoiling: Spoil
) -> None:
    def wrong(twin: Twin) -> None:
        next(buffer for buffer in twin.buffers() if buffer.shape == (10,))[3] += 1.0

    spoiling(wrong)
    path = suite(tmp_path, EMBEDDED, gates=(ON_FGSM, ON_WORST))
    ended = robeval("run", path, "-o", "out")
    table = rows(tmp_path / "out")
    assert "its twin differs from the file by 1, allowed is 0.00" in table["fgsm", "0.2"]["reason"]
    assert statuses(tmp_path / "out")["fgsm (fallback square)", "0.2"] == "ok"
    assert statuses(tmp_path / "out")["worst-case", "0.2"] == "ok"
    assert (ended.code, gates_of(tmp_path / "out")["on-fgsm"]) == (4, "INVALID")
    assert "differs from the file" in (tmp_path / "out" / "summary.md").read_text()


def test_a_twin_that_does_not_run_on_the_data_is_replaced_as_well(
    robeval: Robeval, tmp_path: Path, spoiling: Spoil
) -> None:
    def torn(twin: Twin) -> None:
        weights = max(
            twin.program._buffers.values(), key=lambda each: 0 if each is None else each.numel()
        )
        assert weights is not None
        weights.data = weights.data[:, :-1]

    spoiling(torn)
    ended = robeval("run", suite(tmp_path, EMBEDDED), "-o", "out", "-q")
    assert ended.code == 0
    assert "its twin does not run" in rows(tmp_path / "out")["fgsm", "0.2"]["reason"]
    assert statuses(tmp_path / "out")["fgsm (fallback square)", "0.2"] == "ok"


# ---------------------------------------------------------------- a twin that is used


def test_a_good_file_lists_no_fallback_at_all(robeval: Robeval, tmp_path: Path) -> None:
    ended = robeval("run", suite(tmp_path, EMBEDDED, gates=(ON_FGSM, ON_WORST)), "-o", "out")
    assert ended.code == 6  # a single step carries no worst case
    assert statuses(tmp_path / "out") == {
        (attack, eps): "ok" for attack in ("fgsm", "worst-case") for eps in ("0.2", "0.3")
    }
    for text in (
        ended.out,
        (tmp_path / "out" / "summary.md").read_text(),
        (tmp_path / "out" / "report.html").read_text(),
        (tmp_path / "out" / "tables" / "cells.csv").read_text(),
    ):
        assert "(fallback" not in text
        assert "not needed" not in text
    found = findings_of(tmp_path / "out")
    notes = [each["id"] for each in found if each["severity"] == "note"]
    assert notes == ["twin-parity"]
    assert {each["severity"] for each in found} == {"note"}
    assert robeval("gate", "out").code == 6


def test_points_that_only_the_twin_believes_are_a_figure_of_the_report(
    robeval: Robeval, tmp_path: Path, spoiling: Spoil
) -> None:
    """A quantised file allows its twin a step of the output grid: some points do not carry over."""
    file = quantised(tmp_path / "quantised.onnx")

    def leaning(twin: Twin) -> None:
        original = twin.forward

        def forward(x: Tensor) -> Tensor:
            logits = original(x)
            rival = logits.detach().topk(2, dim=1).indices[:, 1:]
            return logits.scatter_add(1, rival, logits.new_full(rival.shape, 0.5))

        twin.forward = forward  # type: ignore[method-assign]

    spoiling(leaning)
    attack = "fgsm: {attack: fgsm, norm: linf, eps: [0.02, 0.05, 0.1, 0.15]}"
    path = suite(tmp_path, file, attack, take=200)
    robeval("run", path, "-o", "out", "-q")
    failures = [each for each in findings_of(tmp_path / "out") if each["id"] == "transfer-failure"]
    assert failures
    stored = load_run(tmp_path / "out")
    for finding in failures:
        cells, numbers = finding["cells"], finding["numbers"]
        assert isinstance(cells, list)
        assert isinstance(numbers, dict)
        assert len(cells) == 1
        samples = stored.samples(str(cells[0]))
        assert samples is not None
        found, missed = numbers["found on twin"], numbers["not confirmed by the file"]
        assert 0 < missed <= found
        # what the file confirms is what the run counts as wrong
        assert found - missed <= (~samples.adv_correct).sum()
        assert f"{missed:.0f} of {found:.0f} points that break the twin" in str(finding["message"])
        assert finding["severity"] == ("warning" if missed > 0.01 * found else "note")
    assert "break the twin" in (tmp_path / "out" / "summary.md").read_text()
    assert "break the twin" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.usefixtures("darker")
def test_points_beyond_an_eps_are_not_counted_as_unconfirmed(
    robeval: Robeval, tmp_path: Path
) -> None:
    """A minimal-norm attack is judged at each eps by its distances; file and twin agree here."""
    attack = "walk: {attack: walk, norm: linf, eps: [0.05, 0.4]}"
    text = suite(tmp_path, EMBEDDED, attack, take=30, self_test="off")  # walk is a toy
    robeval("run", text, "-o", "out", "-q")
    table = rows(tmp_path / "out")
    broken = [float(table["walk", eps]["attack_success_rate"]) for eps in ("0.05", "0.4")]
    assert broken[0] < broken[1]
    ids = [each["id"] for each in findings_of(tmp_path / "out")]
    assert ids == ["twin-parity", "self-test"]


def test_a_quantised_file_is_attacked_through_its_twin(robeval: Robeval, tmp_path: Path) -> None:
    file = quantised(tmp_path / "quantised.onnx")
    robeval("run", suite(tmp_path, file, take=100), "-o", "out", "-q")
    table = rows(tmp_path / "out")
    broken = float(table["fgsm", "0.2"]["attack_success_rate"])
    assert broken > 0.5
    (note,) = findings_of(tmp_path / "out")
    assert note["id"] == "twin-parity"
    clean = (opened(file).predict(digits(100)).argmax(1) == sample()[1][:100]).float().mean()
    assert float(table["clean", ""]["clean_accuracy"]) == pytest.approx(float(clean))
