"""Our wheel and a stranger's, built and installed in a fresh environment: run, and blocked."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MINIMAL = ROOT / "plugins" / "robeval-minimal"
SUITE = """\
schema: 1
name: wheels
models:
  cnn: {load: onnx, path: "pkg://robustbench_lite/embedded/mnist_cnn.onnx"}
datasets:
  digits: {load: mnist-sample, take: 20}
attacks:
  light: {attack: brightness, eps: [0.05, 0.2], levels: 2}
gates:
  clean: {metric: clean_accuracy, min: 0.5}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fresh:
    """An environment with two wheels of ours and the third-party packages of this one."""

    site: Path
    robeval: Path
    folder: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`robeval` with these arguments, in a folder where only the suite stands."""
        hidden = {"PYTHONPATH", "VIRTUAL_ENV", "CI"}
        env = {
            key: value
            for key, value in os.environ.items()
            if key not in hidden and not key.startswith("ROBEVAL_")
        }
        command = [str(self.robeval), *arguments]
        # metadata of other plug-ins of this environment is seen without their code
        env["ROBEVAL_DISABLE_PLUGINS"] = "robeval-sarif,robeval-train"
        return subprocess.run(
            command, cwd=self.folder, env=env, text=True, capture_output=True, check=False
        )


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def wheel(source: Path, dist: Path) -> Path:
    """The wheel of a copy of `source`, so that nothing is left in the checkout."""
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(dist), str(source))
    (built,) = dist.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("wheels")
    leave = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "tests")
    shutil.copytree(MINIMAL, folder / "minimal", ignore=leave)
    (folder / "core").mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "core" / name)
    shutil.copytree(ROOT / "robustbench_lite", folder / "core" / "robustbench_lite", ignore=leave)
    return (
        wheel(folder / "core", folder / "dist-core"),
        wheel(folder / "minimal", folder / "dist-minimal"),
    )


@pytest.fixture(scope="module")
def fresh(wheels: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Fresh:
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder / "env", with_pip=False)
    scripts = folder / "env" / ("Scripts" if os.name == "nt" else "bin")
    python = next(scripts.glob("python*"))
    pip("--python", str(python), "install", "--no-deps", "--no-index", *map(str, wheels))
    (minimal,) = (folder / "env").glob("**/robeval_minimal")
    # A path file adds the packages of this environment behind the new ones; the path files in
    # there are not read, so that an editable install of ours stays out of sight.
    parents = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (minimal.parent / "parent.pth").write_text("\n".join([*parents, ""]))
    (folder / "work").mkdir()
    (folder / "work" / "suite.yaml").write_text(SUITE)
    return Fresh(site=minimal.parent, robeval=scripts / "robeval", folder=folder / "work")


def test_our_wheel_carries_what_a_run_needs_and_nothing_else(wheels: tuple[Path, Path]) -> None:
    names = set(zipfile.ZipFile(wheels[0]).namelist())
    inside = {name.removeprefix("robustbench_lite/") for name in names}
    assert {
        "py.typed",
        "cli/app.py",
        "builtin/attacks/fgsm.py",
        "embedded/mnist_cnn.onnx",
    } <= inside
    sources = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "robustbench_lite").glob("**/*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert sources <= names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"robustbench_lite"}
    assert wheels[0].stat().st_size < 6_000_000


def test_the_plugin_is_listed_with_its_provenance(fresh: Fresh) -> None:
    done = fresh.run("plugins", "--json")
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)
    (plugin,) = [each for each in listed["plugins"] if each["name"] == "minimal"]
    assert (plugin["distribution"], plugin["version"]) == ("robeval-minimal", "0.1.0")
    assert (plugin["status"], plugin["hooks"]) == ("ok", ["robeval_attacks"])
    origins = {Path(each["origin"]) for each in listed["plugins"] if each["status"] == "ok"}
    assert all(fresh.site in origin.parents for origin in origins)
    assert "brightness" in {attack["name"] for attack in listed["attacks"]}


def test_a_suite_runs_it(fresh: Fresh) -> None:
    done = fresh.run("run", "suite.yaml", "-o", "out", "--device", "cpu")
    assert done.returncode == 0, done.stdout + done.stderr
    with (fresh.folder / "out" / "tables" / "cells.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["attack"] == "light"]
    assert [(row["eps_text"], row["status"], row["n"]) for row in rows] == [
        ("0.05", "ok", "20"),
        ("0.2", "ok", "20"),
    ]
    assert [float(row["queries_mean"]) for row in rows] == [4.0, 4.0]


@pytest.mark.parametrize("name", ["robeval-minimal", "minimal"])
def test_blocked_it_is_named_and_the_suite_that_needs_it_does_not_run(
    fresh: Fresh, name: str
) -> None:
    done = fresh.run("run", "suite.yaml", "-o", "blocked", "-p", f"no:{name}")
    assert done.returncode == 2
    assert (
        "suite.yaml:8:19: error: attacks.light.attack: unknown attack 'brightness'" in done.stderr
    )
    assert "plug-in minimal of distribution robeval-minimal is blocked" in done.stderr
    assert not (fresh.folder / "blocked").exists()
