"""What a command imports: help is free of heavy libraries and plug-ins, planning of the rest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

WriteSuite = Callable[..., Path]

HEAVY = ("torch", "onnx", "onnxruntime", "pandas", "pyarrow", "scipy", "numpy", "pydantic", "rich")
CANARY = "robeval_canary"
SCRIPT = """\
import json, sys
from robustbench_lite.cli import invoke
code = invoke(sys.argv[2:])
open(sys.argv[1], "w").write(json.dumps([code, sorted(sys.modules)]))
"""


@dataclass(frozen=True)
class Ran:
    """How a command ended in a process of its own, and the modules that it had imported."""

    code: int
    out: str
    err: str
    modules: frozenset[str]

    def has(self, package: str) -> bool:
        """Whether the package or any part of it was imported."""
        return any(f"{name}.".startswith(f"{package}.") for name in self.modules)


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[..., Ran]:
    """Run a command in a new interpreter in which a plug-in of another distribution is installed."""
    site = tmp_path / "site"
    info = site / "robeval_canary-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: robeval-canary\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[robeval]\ncanary = {CANARY}\n")
    (site / f"{CANARY}.py").write_text(
        "from robustbench_lite import hookimpl\n\n\n"
        "@hookimpl\ndef robeval_attacks():\n    return []\n"
    )

    def run(*argv: str, env: Mapping[str, str] | None = None) -> Ran:
        found = tmp_path / "modules.json"
        ended = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(found), *argv],
            cwd=tmp_path,
            env={**_plain(), "PYTHONPATH": _python_path(site), **(env or {})},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        code, modules = json.loads(found.read_text())
        return Ran(code, ended.stdout, ended.stderr, frozenset(modules))

    return run


def _plain() -> dict[str, str]:
    """The environment without what would choose for robeval."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ROBEVAL_")}
    return {**kept, "OMP_NUM_THREADS": "1"}


def _python_path(site: Path) -> str:
    return os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))


COMPLETION = {"_ROBEVAL_COMPLETE": "bash_complete", "COMP_WORDS": "robeval va", "COMP_CWORD": "1"}
OPTIONS = {**COMPLETION, "COMP_WORDS": "robeval run --de", "COMP_CWORD": "2"}
LIGHT: dict[str, tuple[tuple[str, ...], dict[str, str], str]] = {
    "--help": (("--help",), {}, "The referee of model robustness"),
    "-h": (("-h",), {}, "Exit codes:"),
    "run --help": (("run", "--help"), {}, "ROBEVAL_DEVICE"),
    "--version": (("--version",), {}, "robeval "),
    "completion": ((), COMPLETION, "plain,validate"),
    "completion of options": ((), OPTIONS, "plain,--device"),
    "completion script": ((), {"_ROBEVAL_COMPLETE": "zsh_source"}, "#compdef robeval"),
}


@pytest.mark.parametrize("case", LIGHT)
def test_help_version_and_completion_are_light(fresh: Callable[..., Ran], case: str) -> None:
    argv, env, shown = LIGHT[case]
    ran = fresh(*argv, env=env)
    assert shown in ran.out
    assert ran.err == ""
    assert [name for name in HEAVY if ran.has(name)] == []
    assert not ran.has("robustbench_lite.builtin")
    assert not ran.has("robustbench_lite.plugins")
    assert not ran.has(CANARY)
    assert ran.code == 0


@pytest.mark.parametrize("command", ["validate", "plan"])
def test_planning_opens_no_model_library(
    fresh: Callable[..., Ran], write_suite: WriteSuite, command: str
) -> None:
    path = write_suite(
        """\
        attacks: {f: {attack: fgsm, norm: linf, eps: 0.1}, p: {attack: single-pixel}}
        gates: {g: {metric: clean_accuracy, min: 0.5}}
        """
    )
    model = "file: {load: onnx, path: 'pkg://robustbench_lite/embedded/mnist_cnn.onnx'}"
    path.write_text(path.read_text().replace("models:\n", f"models:\n  {model}\n"))
    ran = fresh(command, str(path))
    assert (ran.code, ran.err) == (0, "")
    assert "cells" in ran.out
    assert [name for name in ("onnx", "onnxruntime", "pandas") if ran.has(name)] == []
    assert not ran.has("nearest_mean"), "a factory is imported by a run only"
    # the specs are loaded, and so the check above can fail
    assert ran.has("robustbench_lite.builtin.models")
    assert ran.has(CANARY)


def test_the_package_itself_costs_nothing(tmp_path: Path) -> None:
    code = "import robustbench_lite, sys; dir(robustbench_lite); print(*sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=_plain(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    modules = ended.stdout.split()
    assert "robustbench_lite" in modules
    assert not set(HEAVY) & set(modules)
    assert not [name for name in modules if name.startswith("robustbench_lite.builtin")]
