"""Imports only point down: the picture of the house, enforced."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import robustbench_lite

ROOT = Path(robustbench_lite.__file__).parent
LAYERS = (
    {"_version", "errors", "types"},
    {
        "hookspecs",
        "params",
        "losses",
        "norms",
        "rng",
        "stats",
        "records",
        "words",
        "catalogue",
        "where",
        "metrics",
        "paired",
        "candidates",
        "unmet",
    },
    {"adaptive", "seen", "bits", "sequential"},
    {"contract", "plugins", "judge", "access", "samples", "machine", "choose"},
    {
        "blame",
        "craft",
        "group",
        "ensemble",
        "listing",
        "progress",
        "checkup",
        "identity",
        "needs",
        "graph",
        "preflight",
        "planted",
        "selftest",
    },
    {
        "ledger",
        "turns",
        "advance",
        "work",
        "standing",
        "trial",
        "lookback",
        "stock",
        "probe",
    },
    {
        "suite",
        "plan",
        "execute",
        "store",
        "summary",
        "diagnose",
        "gate",
        "tablegate",
        "compare",
        "report",
    },
    {"analyse", "prepare", "doctor", "assess", "versus", "history", "frames", "train"},
    {"run", "rebuild", "replay"},
    {"cli"},
    {"__main__"},
)
STAGES = next(names for names in LAYERS if "execute" in names)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
FREE = {"__init__", "builtin", "embedded", "testing"}


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Rooms of the package that a file imports, wherever in the file the import stands."""
    parts = ("robustbench_lite", *path.relative_to(ROOT).with_suffix("").parts)
    package = parts[:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[tuple[str, ...]] = []
        if isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, *(node.module.split(".") if node.module else ()))
            names = [(*module, alias.name) for alias in node.names]
        found |= {name[1] for name in names if name[0] == "robustbench_lite" and len(name) > 1}
    return found


FILES = sorted(path for path in ROOT.rglob("*.py") if room(path) not in FREE)


def test_every_file_has_its_place() -> None:
    assert {room(path) for path in FILES} <= LEVEL.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    here = room(path)
    for other in imported(path) & LEVEL.keys():
        if other == here:
            continue
        assert LEVEL[other] <= LEVEL[here], f"{here} imports {other} from a higher layer"
        assert not (here in STAGES and other in STAGES), f"stages {here} and {other} are coupled"


BUILTIN = sorted((ROOT / "builtin").rglob("*.py"))


@pytest.mark.parametrize("path", BUILTIN, ids=lambda path: str(path.relative_to(ROOT)))
def test_built_ins_use_public_names_only(path: Path) -> None:
    allowed = {*robustbench_lite.__all__, "builtin", "embedded"}
    assert imported(path) <= allowed


def test_the_picture_has_no_cycle_within_a_layer() -> None:
    edges = {
        here: {
            other
            for path in FILES
            if room(path) == here
            for other in imported(path)
            if LEVEL.get(other) == LEVEL[here] and other != here
        }
        for here in LEVEL
    }

    def reaches(start: str, goal: str, seen: frozenset[str]) -> bool:
        return any(
            step == goal or (step not in seen and reaches(step, goal, seen | {step}))
            for step in edges[start]
        )

    assert [name for name in LEVEL if reaches(name, name, frozenset())] == []
