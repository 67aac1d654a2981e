"""A suite's files, `--set` overrides and references -> one tree that still knows its places.

Problems are collected, not raised, so that they can be shown together with those of the values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ..errors import SuiteError
from ..types import Where
from ..words import Problem, did_you_mean, render
from .references import References
from .yamltext import Node, parse, remapped

MAX_BYTES = 1 << 20


class Tree(NamedTuple):
    """The merged suite with every reference resolved, and the problems met on the way.

    `unresolved`: where a reference could not be resolved: what is said of those values is noise.
    `whole`: whether every extended file could be read; if not, what is missing says nothing.
    """

    root: Node
    problems: tuple[Problem, ...]
    unresolved: frozenset[Where]
    whole: bool


def read_text(path: Path) -> str:
    """The text of a suite file.

    Raises `SuiteError` if it is no readable UTF-8 text of at most 1 MiB.
    """
    text = _text_of(path)
    if isinstance(text, Problem):
        raise SuiteError(render(text))
    return text


def read_tree(path: Path, text: str, overrides: Sequence[str], env: Mapping[str, str]) -> Tree:
    """The suite at `path` (already read as `text`) with what it extends, overridden and resolved.

    Raises `SuiteError` where no tree is left to look at: not YAML, empty, or not a mapping.
    """
    files = _Files()
    root = files.merged(path, text, ())
    if root is None:
        raise SuiteError([render(problem) for problem in sorted(files.problems, key=_place)])
    problems = list(files.problems)
    for override in overrides:
        root, found = _overridden(root, override, path.parent)
        problems += found
    references = References(root, env)
    resolved = references.everywhere()
    told = {problem.where for problem in references.problems}
    unresolved = frozenset(told | references.unresolved)
    return Tree(resolved, (*problems, *references.problems), unresolved, files.whole)


# ---------------------------------------------------------------- files


class _Files:
    """Reads files and what they extend, each once."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.known: dict[Path, Node | None] = {}
        self.whole = True

    def merged(self, path: Path, text: str, chain: tuple[Path, ...]) -> Node | None:
        """The tree of one file laid over the trees that it extends; None if there is none."""
        root, problems = parse(text, file=str(path), base=path.parent)
        self.problems += problems
        if root is None and problems:
            return None
        if root is None or root.value is None:
            message = "is empty; a suite starts with 'schema: 1'"
            self.problems.append(_of_file(path, message))
            return None
        if not isinstance(root.value, Mapping):
            message = f"a suite is a mapping of keys to values, found {root.shown}"
            self.problems.append(Problem(where=root.where, path="", message=message))
            return None
        extends = root.value.get("extends")
        own = {key: value for key, value in root.value.items() if key != "extends"}
        result = replace(root, value=own)
        if extends is None:
            return result
        below: Node | None = None
        for link in self.links(extends):
            under = self.below(link, (*chain, path))
            self.whole = self.whole and under is not None
            if under is not None:
                below = under if below is None else _laid_over(below, under)
        return result if below is None else _laid_over(below, result)

    def links(self, extends: Node) -> tuple[Node, ...]:
        """The files that `extends` names, in order."""
        links = extends.value if isinstance(extends.value, tuple) else (extends,)
        for link in links:
            if not isinstance(link.value, str) or not link.value:
                message = f"expected the path of a suite file or a list of them, found {link.shown}"
                self.problems.append(Problem(where=link.where, path="extends", message=message))
                self.whole = False
        return tuple(link for link in links if isinstance(link.value, str) and link.value)

    def below(self, link: Node, chain: tuple[Path, ...]) -> Node | None:
        """The tree of an extended file; None (and a problem) for a cycle or an unreadable file."""
        path = link.base / link.text
        resolved = path.resolve()
        if resolved in {each.resolve() for each in chain}:
            names = " -> ".join(each.name for each in (*chain, path))
            message = f"the suite extends itself: {names}"
            self.problems.append(Problem(where=link.where, path="extends", message=message))
            return None
        if resolved not in self.known:
            text = _text_of(path)
            if isinstance(text, Problem):
                message = f"'{link.text}': {text.message}"
                self.problems.append(
                    replace(text, where=link.where, path="extends", message=message)
                )
                return None
            self.known[resolved] = self.merged(path, text, chain)
        return self.known[resolved]


def _text_of(path: Path) -> str | Problem:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        return _unopened(path, error)
    if len(raw) > MAX_BYTES:
        return _of_file(path, "is larger than 1 MiB; is this a suite?")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        col = error.start - raw.rfind(b"\n", 0, error.start)
        message = f"byte 0x{raw[error.start]:02x} is not UTF-8; save the file as UTF-8"
        return Problem(where=Where(str(path), line, col), path="", message=message)


def _laid_over(below: Node, above: Node) -> Node:
    if not (isinstance(below.value, Mapping) and isinstance(above.value, Mapping)):
        return above
    values = dict(below.value)
    for key, value in above.value.items():
        values[key] = _laid_over(values[key], value) if key in values else value
    return remapped(above, values, {**below.keys, **above.keys})


def _unopened(path: Path, error: OSError) -> Problem:
    if path.is_dir():
        return _of_file(path, "is a folder; expected a suite file")
    if isinstance(error, FileNotFoundError):
        folder = path.parent
        beside = [each.name for each in folder.glob("*.y*ml")] if folder.is_dir() else []
        return _of_file(path, "there is no such suite file", did_you_mean(path.name, beside))
    return _of_file(path, f"cannot be read: {error.strerror}")


# ---------------------------------------------------------------- overrides


def _overridden(root: Node, override: str, base: Path) -> tuple[Node, list[Problem]]:
    where = Where(f"--set {override}", 0, 0)
    name, equals, text = override.partition("=")
    if not equals or not all(name.split(".")):
        helps = ("for example --set attacks.fgsm.eps=8/255",)
        return root, [Problem(where=where, path="", message="expected KEY.KEY=VALUE", helps=helps)]
    parsed = parse(text, file=where.file, base=base)
    problems = [replace(problem, where=where, path=name) for problem in parsed.problems]
    if problems:
        return root, problems
    value = Node(value=None, where=where, base=base) if parsed.root is None else parsed.root
    if name.partition(".")[0] == "extends":
        return root, [
            Problem(where=where, path=name, message="`extends` cannot be set from outside")
        ]
    try:
        return _with(root, name.split("."), _moved(value, where), ""), []
    except _NoPlaceError as error:
        return root, [Problem(where=where, path=name, message=str(error))]


class _NoPlaceError(Exception):
    """An override's key leads nowhere."""


def _with(node: Node, keys: Sequence[str], value: Node, path: str) -> Node:
    if not keys:
        return value
    if isinstance(node.value, tuple):
        if not keys[0].isascii() or not keys[0].isdigit() or int(keys[0]) >= len(node.value):
            raise _NoPlaceError(f"{path} is a list of {len(node.value)}: '{keys[0]}' is not in it")
        items = list(node.value)
        at = int(keys[0])
        items[at] = _with(items[at], keys[1:], value, f"{path}.{at}")
        return replace(node, value=tuple(items), size=1 + sum(item.size for item in items))
    if not isinstance(node.value, Mapping) and node.value is not None:
        raise _NoPlaceError(f"{path} is {node.shown}: there is nothing inside it to set")
    values = dict(node.value or {})
    name, rest = _first(values, keys)
    child = values.get(name) or Node(value={}, where=value.where, base=value.base)
    values[name] = _with(child, rest, value, f"{path}.{name}".lstrip("."))
    return remapped(node, values, {name: value.where, **node.keys})


def _first(values: Mapping[str, Node], keys: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The longest existing key that the parts spell: names may contain dots."""
    for count in range(len(keys), 1, -1):
        name = ".".join(keys[:count])
        if name in values:
            return name, keys[count:]
    return keys[0], keys[1:]


def _moved(node: Node, where: Where) -> Node:
    if isinstance(node.value, tuple):
        return replace(node, value=tuple(_moved(item, where) for item in node.value), where=where)
    if isinstance(node.value, Mapping):
        values = {key: _moved(value, where) for key, value in node.value.items()}
        return replace(node, value=values, keys=dict.fromkeys(values, where), where=where)
    return replace(node, where=where)


def _of_file(path: Path, message: str, helps: tuple[str, ...] = ()) -> Problem:
    return Problem(where=Where(str(path), 0, 0), path="", message=message, helps=helps)


def _place(problem: Problem) -> Where:
    return problem.where
