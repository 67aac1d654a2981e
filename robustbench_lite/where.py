"""Where the entries of a suite stand in its text, for reports that point at a line."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import PurePath
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from .types import Cell, Plan, Where

if TYPE_CHECKING:
    import yaml


class OfSuite(Protocol):
    """What of a run is needed to find a line of its suite."""

    @property
    def manifest(self) -> Mapping[str, object]:
        """As in manifest.json."""
        ...

    @property
    def plan(self) -> Plan:
        """Every cell, in order."""
        ...

    @property
    def suite_text(self) -> str:
        """The suite as the user wrote it."""
        ...


def where_is(run: OfSuite, cells: Collection[str] = ()) -> Where:
    """The line of the suite that some cells (ids) have in common, for what is said about them.

    Their attack if they share one, else their model; else, and for entries that another file
    brings by `extends`, the suite itself (line 0).
    """
    wanted = set(cells)
    return _shared(run, [cell for cell in run.plan.cells if cell.id in wanted])


def where_each(run: OfSuite) -> dict[str, Where]:
    """Cell id -> the line of its attack, or of its model, as `where_is` finds it."""
    return {cell.id: _shared(run, [cell]) for cell in run.plan.cells}


def _shared(run: OfSuite, cells: Sequence[Cell]) -> Where:
    file = suite_file(run.manifest)
    places = entry_places(run.suite_text, file)
    attacks = {("attacks", cell.family or cell.fallback_for or cell.entry) for cell in cells}
    models = {("models", cell.model) for cell in cells}
    for keys in (attacks, models):
        if len(keys) == 1 and (key := next(iter(keys))) in places:
            return places[key]
    return Where(file, 0, 0)


def place_of(where: str) -> Where:
    """`file:line:col` as a place; line and column are 0 where the text names none (a `--set`)."""
    parts = where.rsplit(":", 2)
    if len(parts) == 3 and parts[1].isdigit() and parts[2].isdigit():
        return Where(parts[0], int(parts[1]), int(parts[2]))
    return Where(where, 0, 0)


def suite_file(manifest: Mapping[str, object]) -> str:
    """The path of the suite as the run was given it; its bare name in a run of an older version."""
    folder = PurePath(str(manifest.get("suite_folder", "")))
    return (folder / str(manifest.get("suite_file", "suite.yaml"))).as_posix()


@functools.lru_cache(maxsize=4)
def entry_places(text: str, file: str) -> Mapping[tuple[str, str], Where]:
    """(section, entry) -> its place in the suite `text`, such as ("attacks", "fgsm").

    Of a text that is no YAML mapping nothing is known and nothing is given.
    """
    import yaml

    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        root = None
    return MappingProxyType(
        {
            (str(section.value), str(entry.value)): _place(entry, file)
            for section, body in _pairs(root)
            for entry, _ in _pairs(body)
        }
    )


def _pairs(node: yaml.Node | None) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    """Key and value of a mapping; of anything else none."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        yield from node.value


def _place(node: yaml.Node, file: str) -> Where:
    mark = node.start_mark
    return Where(file, mark.line + 1, mark.column + 1)
