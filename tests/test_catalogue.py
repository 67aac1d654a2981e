"""The catalogue is whole: every finding that can be raised stands in it, and is tested."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import robustbench_lite
from robustbench_lite.catalogue import FINDINGS
from robustbench_lite.testing import zoo

PACKAGE = Path(robustbench_lite.__file__).parent
TESTS = Path(__file__).parent
RAISING = {"Finding": None, "finding": 0, "_Rule": 0, "_warning": 0}
"""What makes a finding -> the place of its id among the arguments; None: by the name `id`."""


def trees(folder: Path) -> Iterator[ast.Module]:
    for path in sorted(folder.rglob("*.py")):
        if path != Path(__file__):
            yield ast.parse(path.read_text(encoding="utf-8"))


def texts(node: ast.AST) -> set[str]:
    """String constants in a piece of code."""
    found = (part.value for part in ast.walk(node) if isinstance(part, ast.Constant))
    return {value for value in found if isinstance(value, str)}


def called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else ""


def ids(tree: ast.Module) -> set[str]:
    """Ids of the findings that a file makes; a variable stands for all that it is assigned."""
    assigned: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            assigned.setdefault(node.targets[0].id, set()).update(texts(node.value))
    found: set[str] = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or called(node) not in RAISING:
            continue
        place = RAISING[called(node)]
        named = [each.value for each in node.keywords if each.arg == "id"]
        argument = named[0] if place is None or named else node.args[place]
        found |= assigned.get(argument.id, set()) if isinstance(argument, ast.Name) else set()
        if isinstance(argument, ast.IfExp):
            found |= texts(argument.body) | texts(argument.orelse)
        elif isinstance(argument, ast.Constant):
            found |= texts(argument)
    return found


def raised() -> set[str]:
    return {name for tree in trees(PACKAGE / "diagnose") for name in ids(tree)}


def test_what_is_raised_is_in_the_catalogue_and_the_other_way_round() -> None:
    assert raised() == FINDINGS.keys()


def test_findings_are_made_in_one_room() -> None:
    for tree in trees(PACKAGE):
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and called(node) == "Finding":
                assert ids(tree) <= FINDINGS.keys()


def test_every_finding_is_named_by_a_test() -> None:
    named = {text for tree in trees(TESTS) for text in texts(tree)}
    named |= {name for member in zoo.MEMBERS for name in member.finding}  # tests/test_never_fooled
    assert not FINDINGS.keys() - named


def test_the_zoo_names_findings_that_there_are() -> None:
    named = {name for member in zoo.MEMBERS for name in member.finding}
    named |= {name for names in zoo.ATTACK_FINDINGS.values() for name in names}
    assert named - {"attack-failed", "timeout"} <= FINDINGS.keys()
