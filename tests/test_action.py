"""The GitHub Action and the pipelines of docs/ci.md: they name what exists, and the script runs."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from robustbench_lite.cli import app

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
EXPRESSION = re.compile(r"\$\{\{ ([\w.-]+) \}\}")


def action() -> Any:
    return yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))


def step(name: str) -> Any:
    (found,) = [each for each in action()["runs"]["steps"] if each["name"] == name]
    return found


def pipelines() -> dict[str, Any]:
    """File name -> the YAML that the page shows for it."""
    blocks = re.findall(r"```yaml\n# (\S+)\n(.*?)```", PAGE, re.DOTALL)
    return {name: yaml.safe_load(text) for name, text in blocks}


def options_of(command: click.Command) -> set[str]:
    return {name for parameter in command.params for name in (*parameter.opts, "--help")}


def commands(text: str) -> Iterator[tuple[str, set[str]]]:
    """Every `robeval COMMAND ...` in a text with the options that it is given."""
    for line in re.findall(r"(?:^|[`$;] ?|^ *)robeval ([a-z]+[^`\n|]*)", text, re.MULTILINE):
        words = line.split()
        yield words[0], {word.split("=")[0] for word in words[1:] if word.startswith("-")} - {"--"}


def checked(text: str) -> int:
    """How many commands a text has; each exists and takes its options."""
    found = list(commands(text))
    for name, options in found:
        assert name in app.commands, name
        assert options <= options_of(app.commands[name]), (name, options)
    return len(found)


# ---------------------------------------------------------------- what is written


def test_the_action_has_what_github_asks_for() -> None:
    whole = action()
    assert {"name", "description", "inputs", "outputs", "runs"} <= set(whole)
    assert whole["runs"]["using"] == "composite"
    for each in whole["runs"]["steps"]:
        assert ("run" in each) != ("uses" in each)
        assert ("run" in each) == ("shell" in each)
        assert "uses" not in each or re.fullmatch(r"actions/[\w-]+@v\d+", each["uses"])
    for name, entry in whole["inputs"].items():
        assert entry["description"], name
        assert entry.get("required") or isinstance(entry["default"], str), name
    for name, entry in whole["outputs"].items():
        assert entry["value"] == f"${{{{ steps.run.outputs.{name} }}}}"
        assert f"{name}=" in step("Run the suite")["run"]


def test_no_input_is_pasted_into_a_script() -> None:
    for each in action()["runs"]["steps"]:
        assert "${{" not in each.get("run", "")
        for name, value in each.get("env", {}).items():
            assert EXPRESSION.fullmatch(value), name
            assert f"${name}" in each["run"] or f'environ["{name}"]' in each["run"]


def test_every_input_is_used_and_none_is_made_up() -> None:
    text = (ROOT / "action.yml").read_text(encoding="utf-8")
    used = set(re.findall(r"inputs\.([\w-]+)", text))
    assert used == set(action()["inputs"])


def test_the_script_calls_the_command_line_with_options_that_it_has() -> None:
    script = step("Run the suite")["run"]
    assert re.search(r"^robeval run ", script, re.MULTILINE)
    options = set(re.findall(r"[(\s](--?[a-z][a-z-]*)\b", script.split("words=")[1]))
    options -= {"-z", "-n", "-r", "-c"}
    assert options == {"--github", "-o", "--baseline"}
    assert options <= options_of(app.commands["run"])


def test_the_page_tells_of_every_input_with_its_default() -> None:
    rows = dict(re.findall(r"^\| (`[^|]+`) \|\s*([^|]*?)\s*\|", PAGE, re.MULTILINE))
    named = {name for row in rows for name in re.findall(r"`([\w-]+)`", row)}
    assert named == set(action()["inputs"])
    assert rows["`python-version`"].strip(" `") == action()["inputs"]["python-version"]["default"]


def test_the_commands_of_the_page_exist() -> None:
    assert checked(PAGE) >= 5
    readme = (ROOT / "plugins" / "robeval-sarif" / "README.md").read_text(encoding="utf-8")
    assert checked(readme) >= 1


def test_the_workflow_gives_the_action_inputs_that_it_has() -> None:
    workflow = pipelines()[".github/workflows/robustness.yml"]
    (job,) = workflow["jobs"].values()
    (used,) = [each for each in job["steps"] if "robeval@" in each.get("uses", "")]
    assert set(used["with"]) <= set(action()["inputs"])
    outputs = re.findall(r"steps\.robeval\.outputs\.([\w-]+)", str(workflow))
    assert outputs
    assert set(outputs) <= set(action()["outputs"])
    given = {word for word in used["with"]["args"].split() if word.startswith("-")}
    assert given <= options_of(app.commands["run"])
    assert all("${{" not in each.get("run", "") for each in job["steps"])


def test_the_pipeline_of_gitlab_uploads_what_its_command_writes() -> None:
    job = pipelines()[".gitlab-ci.yml"]["robustness"]
    (command,) = [line for line in job["script"] if line.startswith("robeval")]
    words = shlex.split(command)
    folder = words[words.index("-o") + 1]
    assert job["artifacts"]["reports"]["junit"] == f"{folder}/junit.xml"
    assert job["artifacts"]["when"] == "always"
    assert checked(f"$ {command}") == 1
    same = [line for line in PAGE.splitlines() if line == f"$ {command}"]
    assert same, "the page's one command is the pipeline's"


# ---------------------------------------------------------------- the script runs

SUITE = """\
controls: off
gates:
  clean: {metric: clean_accuracy, min: 0.3}
"""


@dataclass(frozen=True)
class Step:
    """How the action's step ended, and what it told GitHub."""

    code: int
    out: str
    err: str
    outputs: dict[str, str]
    summary: str


Run = Callable[..., Step]
BASH = shutil.which("bash")
RECORD = """\
import json, sys
with open("argv.json", "w") as stream:
    json.dump(sys.argv[1:], stream)
sys.exit(6)
"""


@pytest.fixture
def run_step(tmp_path: Path) -> Run:
    """The script of "Run the suite" as a runner calls it, in `tmp_path`.

    `real`: with robeval itself; else with a program that keeps its arguments and exits 6.
    """
    if BASH is None:
        pytest.skip("needs bash")
    script = tmp_path / "script.sh"
    script.write_text(step("Run the suite")["run"])
    (tmp_path / "record.py").write_text(RECORD)
    programs = tmp_path / "bin"
    programs.mkdir()

    def program(name: str, arguments: str) -> None:
        path = programs / name
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
        path.chmod(0o755)

    def run(*, real: bool = False, **inputs: str) -> Step:
        program("python", "-S -E")
        program("robeval", "-m robustbench_lite" if real else f'"{tmp_path / "record.py"}"')
        given = {"SUITE": "suite.yaml", "ARGS": "", "BASELINE": "", "RUN_DIR": "", **inputs}
        told = {name: tmp_path / name.lower() for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        for path in told.values():
            path.write_text("")
        ended = subprocess.run(
            [str(BASH), "--noprofile", "--norc", "-eo", "pipefail", str(script)],
            cwd=tmp_path,
            env={
                "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
                "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
                "HOME": str(tmp_path),
                "RUNNER_TEMP": str(tmp_path),
                "GITHUB_WORKSPACE": str(tmp_path),
                "ROBEVAL_THREADS": "1",
                "OMP_NUM_THREADS": "1",
                "CI": "true",
                **given,
                **{name: str(path) for name, path in told.items()},
            },
            text=True,
            capture_output=True,
            check=False,
        )
        lines = told["GITHUB_OUTPUT"].read_text().splitlines()
        return Step(
            code=ended.returncode,
            out=ended.stdout,
            err=ended.stderr,
            outputs=dict(line.split("=", 1) for line in lines),
            summary=told["GITHUB_STEP_SUMMARY"].read_text(encoding="utf-8"),
        )

    return run


def test_the_step_ends_with_the_verdict_and_tells_where_the_run_is(
    run_step: Run, write_suite: Callable[..., Path], tmp_path: Path
) -> None:
    write_suite(SUITE, take=20)
    args = "-q --set 'gates.clean.min=0.999' --set gates.clean.confidence=0.9"
    ended = run_step(real=True, ARGS=args, RUN_DIR="out dir/run")
    assert ended.code == 1, ended.err
    assert ended.outputs == {"exit-code": "1", "run-dir": "out dir/run"}
    for name in ("junit.xml", "report.html", "gates.json"):
        assert (tmp_path / "out dir" / "run" / name).is_file()
    assert "\n::error file=suite.yaml,line=" in ended.out
    assert ended.summary.startswith("# ✕ FAIL")


def arguments(folder: Path) -> list[str]:
    found: list[str] = json.loads((folder / "argv.json").read_text())
    return found


def test_inputs_arrive_word_by_word(run_step: Run, tmp_path: Path) -> None:
    ended = run_step(SUITE="my suites/a.yaml", ARGS="-k 'fgsm and not pgd'  --limit 5")
    folder = arguments(tmp_path)[3]
    assert arguments(tmp_path) == [
        *("run", "--github", "-o", folder),
        *("-k", "fgsm and not pgd", "--limit", "5"),
        *("--", "my suites/a.yaml"),
    ]
    assert Path(folder).parent.parent == tmp_path
    assert ended.outputs == {"exit-code": "6", "run-dir": folder}
    run_step(BASELINE="base lines/main.json", RUN_DIR="out")
    assert arguments(tmp_path) == [
        *("run", "--github", "-o", "out", "--baseline", "base lines/main.json"),
        *("--", "suite.yaml"),
    ]


HOSTILE = ["$(touch pwned)", "`touch pwned`; touch pwned #", "--help", "*", "-", "${ARGS}", "\\"]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_input_becomes_a_command(run_step: Run, tmp_path: Path, text: str) -> None:
    ended = run_step(SUITE=text, ARGS=shlex.quote(text), BASELINE=text, RUN_DIR=text)
    assert ended.code == 6, ended.err
    assert not (tmp_path / "pwned").exists()
    given = [*("run", "--github", "-o", text), text, *("--baseline", text), *("--", text)]
    assert arguments(tmp_path) == given
    assert ended.outputs == {"exit-code": "6", "run-dir": text}


def test_an_open_quote_stops_the_step(run_step: Run, tmp_path: Path) -> None:
    ended = run_step(ARGS="-k 'fgsm")
    assert ended.code not in {0, 6}
    assert "No closing quotation" in ended.err
    assert not (tmp_path / "argv.json").exists()


def test_a_path_of_two_lines_adds_no_output(run_step: Run) -> None:
    ended = run_step(RUN_DIR="a\nexit-code=0")
    assert ended.outputs == {"exit-code": "6", "run-dir": "aexit-code=0"}
