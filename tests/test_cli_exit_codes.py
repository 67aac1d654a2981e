"""Every exit code of the table in `robeval --help`, their precedence, and the other commands."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
import torch

from robustbench_lite import summary
from robustbench_lite.store import load_run
from robustbench_lite.types import Summary

if TYPE_CHECKING:
    from tests.conftest import Robeval

WriteSuite = Callable[..., Path]
Record = Mapping[str, object]

FGSM = "fgsm: {attack: fgsm, norm: linf, eps: 0.1}"
PASSES = "passes: {metric: clean_accuracy, min: 0.5}"
FAILS = "fails: {metric: clean_accuracy, min: 0.999, confidence: 0.9}"
OPEN = "open: {metric: clean_accuracy, min: 0.88}"
CRASH = "crash: {attack: lie-raises, eps: 0.2}"
LIE = "lie: {attack: lie-out-of-ball, eps: 0.2}"
ON_CRASH = "on-crash: {metric: robust_accuracy, attack: crash, min: 0.01}"
ON_LIE = "on-lie: {metric: robust_accuracy, attack: lie, min: 0.01}"
SKIPPED = "skipped: {attack: fgsm, norm: linf, eps: 0.1, source: file}"
ON_SKIPPED = "on-skipped: {metric: robust_accuracy, attack: skipped, min: 0.01}"
ON_SKIPPED_SET = ON_SKIPPED.replace(": ", "=", 1)
FEW = "few: {metric: clean_accuracy, min: 0.1, min_samples: 51}"
NO_BASELINE = "drop: {metric: robust_accuracy, max_drop: 0.5, baseline: nowhere}"
FILE = "file: {load: scores, factory: 'nearest_mean:linear'}"
BROKEN = "broken: {load: torch, factory: 'nearest_mean:raising'}"


def text(
    attacks: tuple[str, ...] = (FGSM,), gates: tuple[str, ...] = (), reports: str = "markdown"
) -> str:
    """Sections of a suite, one entry to a line."""
    lines = [f"reports: [{reports}]", "controls: off", "attacks:", *(f"  {a}" for a in attacks)]
    lines += ["gates:", *(f"  {gate}" for gate in gates)] if gates else []
    return "\n".join(lines) + "\n"


def add_model(path: Path, model: str) -> str:
    """Declare one more model in a suite; its path as text."""
    path.write_text(path.read_text().replace("models:\n", f"models:\n  {model}\n"))
    return str(path)


def gates_of(out: Path) -> dict[str, str]:
    """Gate -> its worst status in gates.json."""
    return told_gates((out / "gates.json").read_text())


def told_gates(text: str) -> dict[str, str]:
    """Gate -> its worst status in a verdict as JSON."""
    found = json.loads(text)["gates"]
    return {gate["gate"]: gate["status"] for gate in found}


SCORES = """\
from robustbench_lite import ModelSpec, hookimpl
from robustbench_lite.builtin.models import TORCH

@hookimpl
def robeval_models():
    yield ModelSpec(
        name="scores", implementation=TORCH.implementation, summary="shows no gradient",
        params=TORCH.params, access=lambda params: "score", content=TORCH.content,
    )
"""


@pytest.fixture
def scores(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a model loader that offers no gradients as a distribution of its own."""
    site = tmp_path_factory.mktemp("site")
    (site / "robeval_scores.py").write_text(SCORES)
    info = site / "robeval_scores-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: robeval-scores\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[robeval]\nscores = robeval_scores\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "robeval_scores", raising=False)


# ---------------------------------------------------------------- the table

# attacks, gates -> exit code
TABLE: dict[str, tuple[tuple[str, ...], tuple[str, ...], int]] = {
    "no gates": ((FGSM,), (), 0),
    "gate passes": ((FGSM,), (PASSES,), 0),
    "gate fails": ((FGSM,), (FAILS,), 1),
    "failed, ungated": ((FGSM, CRASH), (PASSES,), 4),
    "failed, gated": ((FGSM, CRASH), (PASSES, ON_CRASH), 4),
    "inconclusive": ((FGSM,), (OPEN,), 6),
    "invalid, gated": ((FGSM, LIE), (ON_LIE,), 8),
    "invalid, ungated": ((FGSM, LIE), (PASSES,), 0),
    # precedence 1, 8, 4, 6, 0: a failure on complete evidence stands whatever else happened
    "fails + failed": ((FGSM, CRASH), (FAILS,), 1),
    "fails + failed gated": ((FGSM, CRASH), (FAILS, ON_CRASH), 1),
    "fails + invalid gated": ((FGSM, LIE), (FAILS, ON_LIE), 1),
    "fails + inconclusive": ((FGSM,), (OPEN, FAILS), 1),
    "invalid gated + failed": ((FGSM, LIE, CRASH), (ON_LIE, ON_CRASH), 8),
    "invalid gated + inconclusive": ((FGSM, LIE), (OPEN, ON_LIE), 8),
    "failed + inconclusive": ((FGSM, CRASH), (OPEN,), 4),
    "inconclusive + passes": ((FGSM,), (PASSES, OPEN), 6),
    "too few samples": ((FGSM,), (PASSES, FEW), 4),
    "no baseline": ((FGSM,), (PASSES, NO_BASELINE), 4),
    "fails + no baseline": ((FGSM,), (FAILS, NO_BASELINE), 1),
    "invalid gated + no baseline": ((FGSM, LIE), (ON_LIE, NO_BASELINE), 8),
    "inconclusive + too few": ((FGSM,), (OPEN, FEW), 4),
}


@pytest.mark.usefixtures("lies")
@pytest.mark.parametrize("case", TABLE)
def test_the_code_of_a_run_and_of_judging_it_again(
    robeval: Robeval, write_suite: WriteSuite, tmp_path: Path, case: str
) -> None:
    attacks, gates, code = TABLE[case]
    ended = robeval("run", str(write_suite(text(attacks, gates))), "-o", "out", "-q")
    assert ended.code == code, ended.out
    judged = json.loads((tmp_path / "out" / "gates.json").read_text())
    assert judged["exit_code"] == code
    again = robeval("gate", "out")
    assert again.code == code
    assert json.loads((tmp_path / "out" / "gates.json").read_text()) == judged
    verdict = next(line for line in ended.out.splitlines() if line.startswith("verdict:"))
    assert verdict in again.out
    assert str(judged["sentence"]) in verdict


def test_a_suite_that_cannot_be_read_is_2(robeval: Robeval, write_suite: WriteSuite) -> None:
    assert robeval("run", str(write_suite("attacks: {f: {attack: nothing}}\n"))).code == 2
    assert robeval("run").code == 2
    assert robeval("walk").code == 2
    assert robeval("run", "suite.yaml", "--no-such-flag").code == 2


def test_a_bug_is_3_with_a_traceback_and_keeps_the_cells(
    robeval: Robeval, write_suite: WriteSuite, tmp_path: Path
) -> None:
    path = str(write_suite(text(gates=(PASSES,))))

    def bug(*_: object, **__: object) -> Summary:
        raise KeyError("a bug in a stage")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(summary, "make", bug)
        ended = robeval("run", path, "-o", "out")
    assert ended.code == 3
    assert "KeyError: 'a bug in a stage'" in ended.err
    assert "Traceback" in ended.err
    assert "this is a bug in robeval" in ended.err
    assert [result.status for result in load_run(tmp_path / "out").results.values()] == ["ok", "ok"]
    assert "cells: 0 computed, 2 reused" in robeval("run", path, "-o", "out").out


def test_the_environment_is_7_before_any_gate(
    robeval: Robeval, write_suite: WriteSuite, tmp_path: Path
) -> None:
    path = add_model(write_suite(text(gates=("fails: {metric: clean_accuracy, min: 1}",))), BROKEN)
    ended = robeval("run", path, "-o", "out", "-q")
    assert ended.code == 7
    assert "no weights today" in ended.out
    assert robeval("gate", "out").code == 7
    gates = json.loads((tmp_path / "out" / "gates.json").read_text())["gates"]
    assert sorted(gate["status"] for gate in gates) == ["FAIL", "INVALID"]


@pytest.mark.usefixtures("scores")
def test_a_skipped_cell_passes_no_gate(
    robeval: Robeval, write_suite: WriteSuite, tmp_path: Path
) -> None:
    path = write_suite(text((FGSM, SKIPPED), (PASSES,)))
    add_model(path, FILE)
    ended = robeval("run", str(path), "-o", "ungated", "-q")
    assert ended.code == 0
    assert "skipped" in ended.out
    ended = robeval("gate", "ungated", "--suite", str(path), "--set", "gates." + ON_SKIPPED_SET)
    assert ended.code == 4, ended.out
    assert "needs gradient access" in ended.out
    more = ("--suite", str(path), "--set", "gates." + ON_SKIPPED_SET, "--json")
    told = told_gates(robeval("gate", "ungated", *more).out)
    assert told == {"passes": "PASS", "on-skipped": "INVALID"}
    assert gates_of(tmp_path / "ungated") == {"passes": "PASS"}, "told, not kept"


def test_a_factory_that_ends_the_process_is_7(robeval: Robeval, write_suite: WriteSuite) -> None:
    path = write_suite(text(gates=(PASSES,)))
    ended = robeval("run", add_model(path, BROKEN.replace("raising", "leaving")), "-o", "out")
    assert ended.code == 7
    assert "factory 'nearest_mean:leaving' raised SystemExit: 0" in ended.err + ended.out


# ---------------------------------------------------------------- parts of a suite


def test_nothing_selected_is_5(robeval: Robeval, write_suite: WriteSuite) -> None:
    path = str(write_suite(text()))
    for command in ("run", "plan", "validate"):
        ended = robeval(command, path, "-k", "pgd")
        assert ended.code == 5
        assert "by -k 'pgd'" in ended.err
    assert not Path("reports").exists()


@pytest.mark.parametrize(
    ("expression", "entries"),
    [
        ("fgsm and not 0.05", [("clean", None), ("fgsm", "0.1")]),
        ("0.05", [("clean", None), ("fgsm", "0.05"), ("noise", "0.05")]),
        ("noise or (fgsm and 0.05)", [("clean", None), ("fgsm", "0.05"), ("noise", "0.05")]),
        ("clean", [("clean", None)]),
        ("NOISE", [("clean", None), ("noise", "0.05")]),
    ],
)
def test_k_keeps_the_clean_pass_and_what_matches(
    robeval: Robeval,
    write_suite: WriteSuite,
    expression: str,
    entries: list[tuple[str, str | None]],
) -> None:
    attacks = (
        "fgsm: {attack: fgsm, norm: linf, eps: [0.05, 0.1]}",
        "noise: {attack: uniform-noise, norm: linf, eps: 0.05}",
    )
    ended = robeval("plan", str(write_suite(text(attacks))), "--json", "-k", expression)
    cells = json.loads(ended.out)["cells"]
    found = [(cell["entry"], cell["eps"] and cell["eps"]["text"]) for cell in cells]
    assert sorted(found, key=str) == sorted(entries, key=str)


@pytest.mark.parametrize("expression", ["fgsm and", "(fgsm", "fgsm noise", "", "or"])
def test_k_that_breaks_off_is_2(robeval: Robeval, write_suite: WriteSuite, expression: str) -> None:
    ended = robeval("run", str(write_suite(text())), "-k", expression)
    assert ended.code == 2
    assert f"-k '{expression}'" in ended.err


@pytest.mark.parametrize("part", [("--limit", "10"), ("-k", "clean")])
def test_a_part_never_passes(
    robeval: Robeval, write_suite: WriteSuite, tmp_path: Path, part: tuple[str, str]
) -> None:
    path = str(write_suite(text(gates=(PASSES,))))
    assert robeval("run", path, "-o", "whole", "-q").code == 0
    ended = robeval("run", path, "-o", "part", "-q", *part)
    assert ended.code == 4
    assert gates_of(tmp_path / "part") == {"passes": "INVALID"}
    assert "partial run" in ended.out
    assert robeval("gate", "part").code == 4
    assert robeval("run", str(write_suite(text())), "-o", "free", "-q", *part).code == 0


def test_a_part_never_fails_either(robeval: Robeval, write_suite: WriteSuite) -> None:
    # 1 stands on complete evidence only, whatever the part shows
    path = str(write_suite(text(gates=(FAILS,))))
    assert robeval("run", path, "-o", "out", "-q", "-k", "clean").code == 4


# ---------------------------------------------------------------- gate, report


def test_gates_of_another_suite(robeval: Robeval, write_suite: WriteSuite, tmp_path: Path) -> None:
    path = write_suite(text(gates=(PASSES,)))
    assert robeval("run", str(path), "-o", "out", "-q").code == 0
    strict = str(write_suite(text(gates=(FAILS,)), name="strict.yaml"))
    told = robeval("gate", "out", "--suite", strict, "--json")
    assert (told.code, told_gates(told.out)) == (1, {"fails": "FAIL"})
    loose = robeval("gate", "out", "--suite", strict, "--set", "gates.fails.min=0.5", "--json")
    assert (loose.code, told_gates(loose.out)) == (0, {"fails": "PASS"})
    assert gates_of(tmp_path / "out") == {"passes": "PASS"}, "told, not kept"
    # its own gates are kept, and need neither suite nor plug-ins
    path.unlink()
    assert robeval("gate", "out", "--no-plugins").code == 0
    assert gates_of(tmp_path / "out") == {"passes": "PASS"}


def test_gate_as_json(robeval: Robeval, write_suite: WriteSuite) -> None:
    ended = robeval("run", str(write_suite(text(gates=(FAILS,)))), "-o", "out", "--json", "-q")
    verdict = json.loads(ended.out)
    assert (ended.code, verdict["exit_code"]) == (1, 1)
    assert [gate["gate"] for gate in verdict["gates"]] == ["fails"]
    assert {"value", "low", "high", "n", "reason", "status"} <= verdict["gates"][0].keys()
    assert json.loads(robeval("gate", "out", "--json").out) == verdict


def test_set_without_a_suite_is_refused(robeval: Robeval, write_suite: WriteSuite) -> None:
    robeval("run", str(write_suite(text(gates=(PASSES,)))), "-o", "out", "-q")
    ended = robeval("gate", "out", "--set", "gates.passes.min=0.99")
    assert ended.code == 2
    assert "--suite" in ended.err


@pytest.mark.parametrize("command", ["gate", "report"])
def test_what_is_no_run_is_refused(robeval: Robeval, tmp_path: Path, command: str) -> None:
    (tmp_path / "folder").mkdir()
    for path in ("nowhere", "folder"):
        ended = robeval(command, path)
        assert ended.code == 2
        assert f"'{path}' is not a run directory" in ended.err


def test_report_renders_again(robeval: Robeval, write_suite: WriteSuite, tmp_path: Path) -> None:
    path = str(write_suite(text(gates=(PASSES,), reports="markdown, html, csv, parquet")))
    assert robeval("run", path, "-o", "out", "-q").code == 0
    out = tmp_path / "out"
    files = [out / "report.html", out / "summary.md", *sorted((out / "tables").iterdir())]
    before = {file: file.read_bytes() for file in files}
    assert len(before) >= 5
    shutil.rmtree(out / "tables")
    (out / "report.html").unlink()
    assert robeval("report", "out", "-f", "csv").code == 0
    assert (out / "tables" / "cells.csv").read_bytes() == before[out / "tables" / "cells.csv"]
    assert not (out / "report.html").exists()
    assert robeval("report", "out").code == 0
    assert {file: file.read_bytes() for file in files} == before
    ended = robeval("report", "out", "-f", "htlm")
    assert ended.code == 2
    assert "did you mean 'html'?" in ended.err


# ---------------------------------------------------------------- plan, validate


def test_plan_lists_what_a_run_computes(
    robeval: Robeval, write_suite: WriteSuite, tmp_path: Path
) -> None:
    path = str(write_suite(text((FGSM, "pixel: {attack: single-pixel}"))))
    planned = json.loads(robeval("plan", path, "--json").out)
    lines = robeval("plan", path).out
    assert not (tmp_path / "reports").exists()
    robeval("run", path, "-o", "out", "-q")
    assert planned == json.loads((tmp_path / "out" / "plan.json").read_text())
    assert [cell["id"] for cell in planned["cells"]] == [
        line.split()[0] for line in lines.splitlines() if line.startswith(tuple("0123456789abcdef"))
    ][:3]
    assert "3 cells" in lines


@pytest.mark.usefixtures("scores")
def test_plan_says_why_a_cell_is_skipped(robeval: Robeval, write_suite: WriteSuite) -> None:
    path = add_model(write_suite(text((FGSM, SKIPPED))), FILE)
    ended = robeval("plan", path)
    assert ended.code == 0
    skipped = [line for line in ended.out.splitlines() if " skipped " in line]
    assert len(skipped) == 1
    assert "offers score only" in skipped[0]


def test_validate_tells_of_every_file(robeval: Robeval, write_suite: WriteSuite) -> None:
    good = str(write_suite(text(), name="good.yaml"))
    more = str(write_suite(text((FGSM, "n: {attack: sign-noise, eps: 0.1}")), name="more.yaml"))
    ended = robeval("validate", good, more)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines() == [f"{good}: valid, 2 cells", f"{more}: valid, 3 cells"]

    typo = str(write_suite("atacks: {}\n", name="typo.yaml"))
    gone = add_model(write_suite(text(), name="gone.yaml"), "m: {load: onnx, path: gone.onnx}")
    ended = robeval("validate", typo, good, gone)
    assert f"{good}: valid, 2 cells" in ended.out
    assert f"{typo}:8:1: error: atacks" in ended.err
    assert f"{gone}:5:3: error: models.m" in ended.err
    assert robeval("validate", good, gone).code == 7
    assert robeval("validate", good, typo).code == 2
    # precedence 2, 7: what is wrong with the text comes before what is missing around it
    assert ended.code == 2


@pytest.mark.usefixtures("lies")
def test_validate_deep_runs_two_samples_and_keeps_nothing(
    robeval: Robeval, write_suite: WriteSuite, tmp_path: Path
) -> None:
    good = str(write_suite(text()))
    ended = robeval("validate", good, "--deep")
    assert (ended.code, ended.out) == (0, f"{good}: valid, 2 cells\n")

    broken = add_model(write_suite(text(), name="broken.yaml"), BROKEN)
    assert robeval("validate", broken).code == 0
    ended = robeval("validate", broken, "--deep")
    assert ended.code == 7
    assert "no weights today" in ended.err

    crash = str(write_suite(text((CRASH,)), name="crash.yaml"))
    ended = robeval("validate", crash, "--deep")
    assert ended.code == 2
    line = next(
        at for at, text in enumerate(Path(crash).read_text().split("\n"), 1) if "crash" in text
    )
    assert ended.err.startswith(
        f"{crash}:{line}:3: error: attacks.crash: attack 'lie-raises' raised"
    )
    assert "the attack gave up (robeval_lies.py:" in ended.err
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "broken.yaml",
        "crash.yaml",
        "suite.yaml",
    ]


# ---------------------------------------------------------------- plugins, schema, doctor


@pytest.mark.usefixtures("lies")
def test_plugins_as_json(robeval: Robeval) -> None:
    listing = json.loads(robeval("plugins", "--json").out)
    assert {"fgsm", "pgd", "lie-raises"} <= {attack["name"] for attack in listing["attacks"]}
    assert {"torch", "onnx"} <= {model["name"] for model in listing["models"]}
    owner = next(plugin for plugin in listing["plugins"] if plugin["name"] == "lies")
    assert (owner["distribution"], owner["version"], owner["status"]) == (
        "robeval-lies",
        "0.1",
        "ok",
    )
    blocked = json.loads(robeval("plugins", "--json", "-p", "no:lies").out)
    assert "lie-raises" not in {attack["name"] for attack in blocked["attacks"]}
    assert "lie-raises" not in robeval("plugins", "--no-plugins").out
    assert "lie-raises" in robeval("plugins").out


@pytest.mark.usefixtures("lies")
def test_the_schema_knows_what_is_installed(robeval: Robeval, tmp_path: Path) -> None:
    ended = robeval("schema")
    schema = json.loads(ended.out)
    assert "json-schema.org" in str(schema["$schema"])
    assert "lie-raises" in ended.out
    assert "lie-raises" not in robeval("schema", "--no-plugins").out
    assert robeval("schema", "-o", "deep/suite.schema.json").code == 0
    assert json.loads((tmp_path / "deep" / "suite.schema.json").read_text()) == schema


def test_doctor_on_the_embedded_model(robeval: Robeval) -> None:
    import robustbench_lite

    model = Path(robustbench_lite.__file__).parent / "embedded" / "mnist_cnn.onnx"
    ended = robeval("doctor", str(model), "--json")
    assert ended.code == 0
    report = json.loads(ended.out)
    assert report["format"] == "onnx"
    assert (report["loadable"], report["runs"], report["deterministic"]) == (True, True, True)
    assert (report["num_classes"], report["output_kind"]) == (10, "logits")
    assert report["batch_dependent"] is False
    assert "onnx" in robeval("doctor", str(model)).out


def test_doctor_on_what_is_no_model(robeval: Robeval, tmp_path: Path) -> None:
    (tmp_path / "page.onnx").write_text("<!DOCTYPE html><html></html>")
    for name, words in (("page.onnx", "HTML page"), ("gone.onnx", "gone.onnx")):
        ended = robeval("doctor", name)
        assert ended.code == 7
        assert words in ended.out + ended.err
        assert "Traceback" not in ended.err


# ---------------------------------------------------------------- output and environment


def test_progress_is_on_stderr_and_results_on_stdout(
    robeval: Robeval, write_suite: WriteSuite
) -> None:
    path = str(write_suite(text(gates=(PASSES,))))
    ended = robeval("run", path, "-o", "loud")
    assert [line.split("]")[0] for line in ended.err.splitlines()] == ["[1", "[2"]
    assert "fgsm linf 0.1: ok" in ended.err
    assert "[1]" not in ended.out
    assert "run:    loud" in ended.out
    quiet = robeval("run", path, "-o", "quiet", "-q", "--refresh")
    assert quiet.err == ""
    assert quiet.out == ended.out.replace("loud", "quiet")


def test_v_and_the_log_file_tell_more(
    robeval: Robeval, write_suite: WriteSuite, tmp_path: Path
) -> None:
    path = str(write_suite(text()))
    ended = robeval("run", path, "-o", "out", "-q", "--log-file", "logs/run.log")
    assert (ended.code, ended.err) == (0, "")
    log = (tmp_path / "logs" / "run.log").read_text()
    # without a terminal the log is all that is left of a night's run: every cell is in it
    assert "clean" in log
    assert "fgsm linf 0.1: ok" in log
    assert "INFO" in robeval("run", path, "-o", "more", "-q", "-v", "--refresh").err


def manifest(out: Path) -> Record:
    return cast("Record", json.loads((out / "manifest.json").read_text()))


def test_each_flag_has_its_variable_and_beats_it(
    robeval: Robeval, write_suite: WriteSuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_suite("seed: 3\n" + text())
    monkeypatch.setenv("ROBEVAL_DEVICE", "cpu")
    assert robeval("run", str(path), "-o", "suite", "-q").code == 0
    assert manifest(tmp_path / "suite")["seed"] == 3
    monkeypatch.setenv("ROBEVAL_SEED", "4")
    monkeypatch.setenv("ROBEVAL_LIMIT", "10")
    monkeypatch.setenv("ROBEVAL_BATCH_SIZE", "7")
    monkeypatch.setenv("ROBEVAL_OUTPUT", "variable")
    assert robeval("run", str(path), "-q").code == 0
    found = manifest(tmp_path / "variable")
    assert (found["seed"], found["partial"]) == (4, True)
    sizes = [(len(samples), size) for samples, size in _sizes(tmp_path / "variable")]
    assert sizes == [(10, 7), (10, 7)]

    flags = ("--seed", "5", "--limit", "6", "--batch-size", "3", "--threads", "2")
    assert robeval("run", str(path), "-q", "-o", "flag", *flags).code == 0
    torch.set_num_threads(1)
    found = manifest(tmp_path / "flag")
    assert found["seed"] == 5
    assert cast("Record", found["hardware"])["threads"] == 2
    assert [(len(samples), size) for samples, size in _sizes(tmp_path / "flag")] == [(6, 3), (6, 3)]


def _sizes(out: Path) -> list[tuple[list[int], int]]:
    stored = load_run(out)
    tables = [(stored.samples(cell_id), result) for cell_id, result in stored.results.items()]
    return [
        (table.label.tolist(), result.batch_size) for table, result in tables if table is not None
    ]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_the_device_of_the_environment(
    robeval: Robeval, write_suite: WriteSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(write_suite(text()))
    monkeypatch.setenv("ROBEVAL_DEVICE", "cuda")
    ended = robeval("run", path, "-q")
    assert ended.code == 7
    assert "device 'cuda' was asked for" in ended.err
    assert robeval("run", path, "-q", "--device", "cpu").code == 0
    assert robeval("validate", path, "--deep").code == 7


def test_a_value_of_the_environment_that_is_none(
    robeval: Robeval, write_suite: WriteSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROBEVAL_SEED", "many")
    ended = robeval("run", str(write_suite(text())))
    assert ended.code == 2
    assert "many" in ended.err
    assert "--seed" in ended.err or "ROBEVAL_SEED" in ended.err


@pytest.mark.usefixtures("lies")
def test_plugins_blocked_by_the_environment(
    robeval: Robeval,
    write_suite: WriteSuite,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = str(write_suite(text((LIE,))))
    assert robeval("validate", path).code == 0
    monkeypatch.setenv("ROBEVAL_DISABLE_PLUGINS", "other, lies")
    ended = robeval("validate", path)
    assert ended.code == 2
    assert "unknown attack 'lie-out-of-ball'" in ended.err
    (warned,) = [each for each in caplog.messages if "blocks nothing" in each]
    assert warned.startswith("'other' blocks nothing")
    monkeypatch.delenv("ROBEVAL_DISABLE_PLUGINS")
    monkeypatch.setenv("ROBEVAL_NO_PLUGINS", "1")
    assert robeval("validate", path).code == 2


def test_help_shows_every_code(robeval: Robeval) -> None:
    ended = robeval("run", "--help")
    assert ended.code == 0
    for code in (0, 1, 2, 3, 4, 5, 6, 7, 8, 130):
        assert any(line.split()[:1] == [str(code)] for line in ended.out.splitlines())
    assert "143" in ended.out


def test_a_reader_that_goes_away_changes_no_verdict(
    robeval: Robeval, write_suite: WriteSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    # `robeval run suite.yaml | head -1` with pipefail: neither "a gate failed" nor "a bug"
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        for gates, code in (((PASSES,), 0), ((FAILS,), 1), ((OPEN,), 6)):
            ended = robeval("run", str(write_suite(text(gates=gates))), "-q", "--refresh")
            assert (ended.code, ended.err) == (code, "")


def test_doctor_looks_at_real_samples_too(robeval: Robeval) -> None:
    file = str(files("robustbench_lite").joinpath("embedded/mnist_cnn.onnx"))
    ended = robeval("doctor", file, "--data", "mnist-sample", "--json")
    assert ended.code == 0
    report = json.loads(ended.out)
    assert report["data"]
    assert {finding["severity"] for finding in report["findings"]} <= {"note"}
    assert robeval("doctor", file, "--data", "nowhere").code == 2
