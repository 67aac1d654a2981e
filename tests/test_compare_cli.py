"""`compare`, `baseline set` and `--baseline` through the command line, on two real releases."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.torch import save_model

from robustbench_lite.run import judge_run
from robustbench_lite.store import load_run
from tests.conftest import TESTS, Ended
from tests.nearest_mean import linear, pruned

if TYPE_CHECKING:
    from tests.conftest import Robeval

SUITE = """\
schema: 1
name: release
python_path: ["{tests}"]
models:
  {model}: {{load: torch, factory: "nearest_mean:linear", weights: {weights}}}
datasets:
  mnist: {{load: mnist-sample, take: {take}}}
attacks:
  pgd: {{attack: pgd, norm: linf, eps: 0.05, steps: {steps}}}
controls: off
reports: [markdown]
self_test: off
gates:
  drop: {{metric: robust_accuracy, max_drop: 0.01, baseline: baselines/main}}
"""


class Releases:
    """Two releases of one model, side by side, and the command line."""

    def __init__(self, folder: Path, robeval: Robeval) -> None:
        self.folder, self.call = folder, robeval
        for name, net in (("v1", linear()), ("v2", pruned())):
            save_model(net, str(folder / f"{name}.safetensors"))

    def suite(
        self, weights: str, *, steps: int = 3, take: int = 400, model: str = "candidate"
    ) -> str:
        path = self.folder / f"{weights}-{steps}-{take}-{model}.yaml"
        text = SUITE.format(
            tests=TESTS, weights=f"{weights}.safetensors", steps=steps, take=take, model=model
        )
        path.write_text(text)
        return str(path)

    def run(self, out: str, suite: str, *more: str) -> Ended:
        return self.call("run", suite, "-o", out, "-q", *more)

    def gates(self, out: str) -> list[dict[str, object]]:
        found: list[dict[str, object]] = json.loads((self.folder / out / "gates.json").read_text())[
            "gates"
        ]
        return found


@pytest.fixture
def releases(tmp_path: Path, robeval: Robeval) -> Releases:
    return Releases(tmp_path, robeval)


@pytest.fixture
def both(releases: Releases) -> Releases:
    """With both releases run as `old` and `new`."""
    releases.run("old", releases.suite("v1"))
    releases.run("new", releases.suite("v2"))
    return releases


def test_compare_says_the_same_in_every_form(both: Releases) -> None:
    ended = both.call("compare", "old", "new")
    assert ended.code == 0, ended.err
    assert "candidate on mnist, pgd linf 0.05" in ended.out
    assert "new against old, 3 compared on 400 samples of both" in ended.out
    said = both.call("compare", "old", "new", "--json")
    assert said.code == 0
    assert both.call("compare", "old", "new", "-f", "json").out == said.out
    told = json.loads(said.out)
    pgd = next(each for each in told["changes"] if each["attack"] == "pgd")
    old, new = (load_run(both.folder / name) for name in ("old", "new"))
    right, names = [], np.array([])
    for run in (old, new):
        (cell,) = [each for each in run.plan.cells if each.entry == "pgd"]
        rows = run.samples(cell.id)
        assert rows is not None
        right.append(rows.clean_correct & ~rows.success)
        names = rows.sample_id
    assert pgd["newly_broken"] == sorted(names[right[0] & ~right[1]].tolist())
    assert pgd["newly_fixed"] == sorted(names[~right[0] & right[1]].tolist())
    assert len(pgd["newly_broken"]) > 8
    first = pgd["newly_broken"][0]
    for form in ("text", "markdown", "html"):
        assert both.call("compare", "old", "new", "-f", form, "-o", f"out.{form}").code == 0
        written = (both.folder / f"out.{form}").read_text()
        assert first in written, form
        assert f"{100 * pgd['difference']:+.1f}" in written.replace("\\", ""), form
    page = (both.folder / "out.html").read_text()
    assert page.count("data:image/png;base64,") >= 3
    assert 'content="default-src &#39;none&#39;; img-src data:;' in page
    assert not re.search(r"<script|https?://(?!www\.w3\.org)", page)


def test_compare_refuses_with_what_differs(both: Releases) -> None:
    both.run("weak", both.suite("v1", steps=1))
    ended = both.call("compare", "old", "weak", "--json")
    told = {each["subject"]: each["reason"] for each in json.loads(ended.out)["changes"]}
    assert ended.code == 0, "the clean passes can be compared"
    assert "parameters.steps is 3 in old and 1 in weak" in told["candidate on mnist, pgd linf 0.05"]
    skip = both.suite("v1")
    Path(skip).write_text(Path(skip).read_text().replace("take: 400", "take: 400, skip: 500"))
    both.run("moved", skip)
    ended = both.call("compare", "old", "moved")
    assert ended.code == 2
    assert "the data differ: 0 samples are in both, of 400 in old and 400 in moved" in ended.err
    for wrong, words in (
        (("old", "nowhere"), "'nowhere' is neither a run directory nor a baseline"),
        (("nowhere", "new"), "'nowhere' is neither a run directory nor a baseline"),
        (("old",), "Missing argument 'HEAD'"),
        (("old", "new", "--model", "candidate"), "'candidate' is not BASE=HEAD"),
        (("old", "new", "--model", "candidate=x"), "the head judges no model 'x'"),
        (("old", "new", "-f", "pdf"), "'pdf' is not one of"),
    ):
        ended = both.call("compare", *wrong)
        assert (ended.code, words in ended.err) == (2, True), ended.err


def test_releases_of_another_name_are_paired(releases: Releases) -> None:
    releases.run("old", releases.suite("v1", model="v1"))
    releases.run("new", releases.suite("v2", model="v2"))
    plain = releases.call("compare", "old", "new", "--json")
    named = releases.call("compare", "old", "new", "--json", "--model", "v1=v2")
    assert plain.code == 0
    assert plain.out == named.out
    assert all(not each["reason"] for each in json.loads(plain.out)["changes"])


def test_compare_changes_nothing(both: Releases) -> None:
    def bytes_of(name: str) -> dict[str, bytes]:
        files = (path for path in (both.folder / name).rglob("*") if path.is_file())
        return {str(path): path.read_bytes() for path in files}

    before = bytes_of("old"), bytes_of("new")
    both.call("compare", "old", "new")
    both.call("baseline", "set", "old", "main")
    assert (bytes_of("old"), bytes_of("new")) == before


# ---------------------------------------------------------------- baselines


def test_a_gate_without_its_baseline_is_4_until_it_is_set(releases: Releases) -> None:
    suite = releases.suite("v1")
    ended = releases.run("first", suite)
    assert ended.code == 4
    assert "robeval baseline set RUN main" in ended.out
    assert releases.call("baseline", "set", "first", "main").code == 0
    assert releases.run("second", suite).code == 0
    strict = releases.run("third", suite, "--set", "gates.drop.max_drop=0.005")
    assert strict.code == 6, "400 samples without a change do not show half a point"
    (gate,) = releases.gates("second")
    assert (gate["status"], gate["value"], gate["n"]) == ("PASS", 0.0, 400)


def test_a_worse_release_fails_and_names_the_broken(releases: Releases) -> None:
    releases.run("first", releases.suite("v1", take=1000))
    releases.call("baseline", "set", "first", "main")
    ended = releases.run("worse", releases.suite("v2", take=1000))
    assert ended.code == 1
    (gate,) = releases.gates("worse")
    found = json.loads(releases.call("compare", "baselines/main", "worse", "--json").out)
    pgd = next(each for each in found["changes"] if each["attack"] == "pgd")
    assert gate["newly_broken"] == pgd["newly_broken"]
    assert gate["value"] == pgd["difference"]
    assert str(pgd["newly_broken"][0]) in str(gate["reason"])
    run = judge_run(releases.folder / "worse", ()).run
    assert run.comparison is not None
    assert run.comparison.base == "main"
    notes = json.loads((releases.folder / "worse" / "findings.json").read_text())
    (changed,) = [each for each in notes if each["id"] == "artefact-changed"]
    assert changed["severity"] == "note"
    hashes = [
        json.loads((releases.folder / name / "manifest.json").read_text())["models"]["candidate"]
        for name in ("first", "worse")
    ]
    (old, new) = (files["weights"] for files in hashes)
    assert (
        f"weights is sha256 {new}, in the baseline 'main' it was sha256 {old}" in changed["message"]
    )


def test_the_baseline_of_a_run_stays_with_it(releases: Releases) -> None:
    """Judging again does not depend on what has become of the baseline since."""
    suite = releases.suite("v2", take=1000)
    releases.run("first", releases.suite("v1", take=1000))
    releases.call("baseline", "set", "first", "main")
    assert releases.run("worse", suite).code == 1
    shutil.rmtree(releases.folder / "baselines")
    assert releases.call("gate", "worse").code == 1
    kept = releases.gates("worse")
    itself = releases.call("gate", "worse", "--baseline", "worse")
    assert itself.code == 2
    assert "--baseline: the baseline 'worse' is this very run" in itself.err
    assert releases.call("gate", "worse", "--baseline", "first").code == 1
    shutil.copytree(releases.folder / "worse", releases.folder / "copy")
    told = releases.call("gate", "worse", "--baseline", "copy", "--json")
    assert (told.code, json.loads(told.out)["exit_code"]) == (0, 0)
    assert releases.gates("worse") == kept, "what is asked for a moment is no verdict of the run"
    gone = releases.call("gate", "worse", "--suite", suite, "--baseline", "gone")
    assert gone.code == 2
    assert "--baseline: there is no baseline 'gone'" in gone.err


def test_a_run_is_no_baseline_of_itself(releases: Releases) -> None:
    """Neither by the gate's own path: going on with a run would compare it with what it was."""
    suite = releases.suite("v2")
    for _ in range(2):
        own = f"gates.drop.baseline={releases.folder / 'out'}"
        assert releases.run("out", suite, "--set", own).code == 4
    reasons = {str(gate["reason"]) for gate in releases.gates("out")}
    (reason,) = (each for each in reasons if "very run" in each)
    assert "name an earlier run" in reason


def test_baseline_of_the_command_line_and_of_the_environment(
    releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = releases.suite("v1")
    ended = releases.run("none", suite, "--baseline", "nowhere")
    assert ended.code == 2
    assert not (releases.folder / "none").exists(), "nothing ran"
    releases.run("old", suite)
    loose = ("--set", "gates.drop.max_drop=0.05")
    assert releases.run("flag", suite, *loose, "--baseline", "old").code == 0
    assert releases.call("gate", "flag").code == 0, "what it was given is kept"
    monkeypatch.setenv("ROBEVAL_BASELINE", "old")
    assert releases.run("variable", suite, *loose).code == 0
    monkeypatch.setenv("ROBEVAL_BASELINE", "nowhere")
    assert releases.run("beaten", suite, *loose, "--baseline", "old").code == 0


def test_a_damaged_baseline_stops_before_anything_runs(releases: Releases) -> None:
    suite = releases.suite("v1")
    (releases.folder / "baselines").mkdir()
    (releases.folder / "baselines" / "main.json").write_text('{"robeval_baseline": 1}')
    ended = releases.run("out", suite)
    assert ended.code == 2
    assert "is damaged" in ended.err
    assert not (releases.folder / "out").exists()


def test_baseline_set_refuses_what_is_no_evidence(releases: Releases) -> None:
    suite = releases.suite("v1")
    releases.run("part", suite, "--limit", "20")
    ended = releases.call("baseline", "set", "part", "main")
    assert ended.code == 2
    assert "'part' cannot become a baseline: it is partial (--limit or -k)" in ended.err
    releases.run("whole", suite)
    for wrong in ("a/b", "", ".."):
        ended = releases.call("baseline", "set", "whole", wrong)
        assert (ended.code, "cannot name a baseline" in ended.err) == (2, True), wrong
    assert releases.call("baseline", "set", "nowhere", "main").code == 2
    ended = releases.call("baseline", "set", "whole", "main", "-o", "deep/b.json")
    assert (ended.code, "wrote deep/b.json" in ended.out) == (0, True)
    cell = next((releases.folder / "whole" / "cells").iterdir())
    shutil.rmtree(cell)
    ended = releases.call("baseline", "set", "whole", "main")
    assert (ended.code, "is timeout: not run" in ended.err) == (2, True), ended.err


def test_a_partial_run_passes_where_a_gate_allows_it(releases: Releases) -> None:
    suite = releases.suite("v1")
    gate = "gates.drop={metric: clean_accuracy, min: 0.2, allow_partial: true}"
    ended = releases.run("part", suite, "--limit", "60", "--set", gate)
    assert ended.code == 0, ended.out + ended.err
    assert "on a partial run as allowed" in ended.out
    strict = "gates.drop={metric: clean_accuracy, min: 0.2, allow_partial: true, min_samples: 61}"
    assert releases.run("few", suite, "--limit", "60", "--set", strict).code == 4


HOSTILE = "<script>alert(1)</script>|`x`"


def test_hostile_names_are_only_text(both: Releases) -> None:
    for name in ("old", "new"):
        for file in ("plan.json", "manifest.json"):
            path = both.folder / name / file
            path.write_text(path.read_text().replace('"candidate"', json.dumps(HOSTILE)))
        for path in (both.folder / name / "cells").glob("*/result.json"):
            path.write_text(path.read_text().replace('"candidate"', json.dumps(HOSTILE)))
    page = both.call("compare", "old", "new", "-f", "html")
    assert page.code == 0, page.err
    assert "<script" not in page.out
    assert "&lt;script&gt;" in page.out
    text = both.call("compare", "old", "new", "-f", "markdown").out
    assert "<script" not in text
    assert "|`x`" not in text
