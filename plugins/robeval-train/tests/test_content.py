"""What decides the weights is in the content id: sources, the version of torch, the data."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from blobs import params

import robeval_train
from robeval_train.nets import options
from robeval_train.training.options import RECIPES
from robeval_train.training.spec import SPEC
from robustbench_lite import Places, norms

PACKAGE = Path(robeval_train.__file__).parent
HOOKS = PACKAGE / "__init__.py"
PLACES = Places(suite=Path(), data=None, cache=Path())


def imported(path: Path) -> set[Path]:
    """The package's own modules that a file imports by a relative import."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            ends = [base, *(base / name.name for name in node.names)]
            tried = [each.with_suffix(".py") for each in ends if each != path.parent]
            tried += [each / "__init__.py" for each in ends]
            found |= {each for each in tried if each.is_file()}
    return found


def reached(start: Path) -> set[Path]:
    """Every module of the package that a module needs; the hooks beside them are wiring."""
    found, new = {start}, {start}
    while new:
        new = {each for path in new for each in imported(path)} - found - {HOOKS}
        found |= new
    return found


@pytest.mark.parametrize("arch", options.NETS)
def test_every_source_that_a_training_runs_is_in_its_id(arch: str) -> None:
    training = PACKAGE / "training"
    content = SPEC.content(params(arch=arch), PLACES)
    named = {path for path in content.values() if isinstance(path, Path)}
    net = next(path for path in named if path.parent.name == "nets" and path.stem not in
               {"__init__", "layers", "options"})  # fmt: skip
    used = reached(training / "load.py") | reached(net)
    assert {training / "loop.py", PACKAGE / "nets" / "layers.py"} <= used
    assert {path for path in used if path.parent != training} <= named


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_that_searches_counts_the_steps_and_projections_of_the_core(recipe: str) -> None:
    content = SPEC.content(params(arch="logistic", recipe=recipe), PLACES)
    searches = recipe in {"pgd-adversarial", "trades"}
    assert (content.get("norms.py") == Path(norms.__file__)) == searches


def test_the_version_of_torch_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata

    now = SPEC.content(params(), PLACES)["torch"]
    version = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata,
        "version",
        lambda name: "0.0" if name == "torch" else version(name),
    )
    assert str(torch.__version__) != "0.0"
    assert SPEC.content(params(), PLACES)["torch"] != now
