"""YAML text -> a tree of values that know where they stand.

Scalars follow the YAML 1.2 core schema and nothing more: `1e-3` and `0x1f` are numbers, only `true`
and `false` are booleans, `no`, `on`, `1:30` and dates are text. One thing is added: `8/255` is an
exact fraction. The text of every scalar is kept. Duplicate keys, tags and merge keys are problems.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import yaml

from ..types import Where
from ..words import Problem

Scalar = None | bool | int | float | Fraction | str

MAX_DEPTH = 40
MAX_ALIASED = 10_000
_MAX_DIGITS = 60  # longer than any number that means something, short enough to compute with
_MAX_EXPONENT = 400

_INTEGER = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_DECIMAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE](?P<exponent>[-+]?[0-9]+))?")
_INFINITE = re.compile(r"[-+]?\.(inf|Inf|INF)")
_NAN = frozenset({".nan", ".NaN", ".NAN"})
_NULL = frozenset({"", "~", "null", "Null", "NULL"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A value of the tree: a scalar, a list (tuple of nodes) or a mapping (names to nodes).

    `text`: the scalar as written. `base`: the folder that relative paths in it start from.
    `keys`: where each key of a mapping stands. `reference`: the `${env:NAME}` text that must be
    shown in place of the value, because it came from the environment. `size`: nodes below and here.
    """

    value: Scalar | tuple[Node, ...] | Mapping[str, Node]
    where: Where
    base: Path
    text: str = ""
    keys: Mapping[str, Where] = field(default_factory=dict)
    reference: str | None = None
    size: int = 1

    @property
    def shown(self) -> str:
        """The value in a few words, for a message; never what came from the environment."""
        if isinstance(self.value, Mapping):
            return "a mapping" if self.value else "an empty mapping"
        if isinstance(self.value, tuple):
            return "a list" if self.value else "an empty list"
        text = self.reference if self.reference is not None else self.text
        if self.value is None and self.reference is None:
            return "nothing"
        short = text if len(text) <= 60 else f"{text[:57]}..."
        return repr(short) if isinstance(self.value, str) else short


class Parsed(NamedTuple):
    """The tree (None if the text is not YAML at all) and every problem found in it."""

    root: Node | None
    problems: tuple[Problem, ...]


def parse(text: str, *, file: str, base: Path) -> Parsed:
    """The tree of one YAML document; `file` names it in messages."""
    builder = _Builder(text, file, base)
    try:
        root = builder.document()
    except yaml.MarkedYAMLError as error:
        return Parsed(None, (*builder.problems, _syntax(error, text, file)))
    except yaml.reader.ReaderError as error:
        where = _position(text, error.position, file)
        message = f"character U+{error.character:04X} is not allowed in a suite"
        return Parsed(None, (*builder.problems, Problem(where=where, path="", message=message)))
    except _Unreadable as error:
        return Parsed(None, (*builder.problems, error.problem))
    return Parsed(root, tuple(builder.problems))


def scalar(text: str) -> Scalar:
    """The value of a plain (unquoted) scalar; what is no null, boolean or number is text."""
    if text in _NULL:
        return None
    if text in ("true", "false"):
        return text == "true"
    number_ = number(text)
    return text if number_ is None else number_


def number(text: str) -> int | float | Fraction | None:
    """The number that `text` spells: integer, decimal, `.inf`, `.nan` or fraction; else None."""
    if len(text) > _MAX_DIGITS:
        return None
    if _INTEGER.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, base=0)
    return _ratio(text) if "/" in text else _real(text)


def exact(text: str) -> Fraction | None:
    """The finite number that `text` spells, without rounding; None for anything else."""
    value = number(text)
    if isinstance(value, float):
        return Fraction(text) if math.isfinite(value) else None
    return None if value is None else Fraction(value)


def _real(text: str) -> float | None:
    if _INFINITE.fullmatch(text):
        return -math.inf if text.startswith("-") else math.inf
    if text in _NAN:
        return math.nan
    return float(text) if _is_decimal(text) else None


def _ratio(text: str) -> Fraction | None:
    above, _, below = (part.strip(" ") for part in text.partition("/"))
    if not (_is_decimal(above) and _is_decimal(below)) or Fraction(below) == 0:
        return None
    return Fraction(above) / Fraction(below)


def _is_decimal(text: str) -> bool:
    match = _DECIMAL.fullmatch(text)
    return match is not None and abs(int(match["exponent"] or 0)) <= _MAX_EXPONENT


def remapped(like: Node, values: Mapping[str, Node], keys: Mapping[str, Where]) -> Node:
    """The mapping `like` with other values; its place stays."""
    size = 1 + sum(value.size for value in values.values())
    return replace(like, value=values, keys=keys, size=size)


# ---------------------------------------------------------------- events -> nodes


class _Unreadable(Exception):
    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class _Builder:
    """Turns PyYAML's events into nodes, noting what the language of suites does not have."""

    def __init__(self, text: str, file: str, base: Path) -> None:
        self.events: Iterator[yaml.Event] = iter(yaml.parse(text, Loader=yaml.SafeLoader))
        self.file = file
        self.base = base
        self.anchors: dict[str, Node] = {}
        self.open_anchors: set[str] = set()
        self.aliased = 0
        self.problems: list[Problem] = []

    def document(self) -> Node | None:
        """The first document; a second one is a problem."""
        next(self.events)  # the stream starts
        event = next(self.events)
        if isinstance(event, yaml.StreamEndEvent):
            return None
        root = self.node(next(self.events), "", 0)
        next(self.events)  # the document ends
        after = next(self.events)
        if isinstance(after, yaml.DocumentStartEvent):
            self.note(after, "", "a second document starts here; expected one per file")
        return root

    def node(self, event: yaml.Event, path: str, depth: int) -> Node:
        """The node that starts with `event`."""
        if depth > MAX_DEPTH:
            raise _Unreadable(self.problem(event, path, f"nested deeper than {MAX_DEPTH} levels"))
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event, path)
        assert isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent)
        if event.tag is not None:
            self.note(event, path, f"tag '{_short(event.tag)}': a suite has no tags; remove it")
        anchor: str | None = event.anchor
        if anchor is not None:
            self.open_anchors.add(anchor)
        if isinstance(event, yaml.ScalarEvent):
            node = self.scalar(event, path)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self.sequence(event, path, depth)
        else:
            node = self.mapping(event, path, depth)
        if anchor is not None:
            self.open_anchors.discard(anchor)
            self.anchors[anchor] = node
        return node

    def alias(self, event: yaml.AliasEvent, path: str) -> Node:
        """The node that an alias stands for; how much aliases may add is bounded."""
        name = str(event.anchor)
        node = self.anchors.get(name)
        if node is None:
            inside = name in self.open_anchors
            why = "stands inside the value it names" if inside else "has no anchor before it"
            raise _Unreadable(self.problem(event, path, f"alias '*{name}' {why}"))
        self.aliased += node.size
        if self.aliased > MAX_ALIASED:
            message = f"aliases repeat more than {MAX_ALIASED} values"
            raise _Unreadable(self.problem(event, path, message))
        return node

    def scalar(self, event: yaml.ScalarEvent, path: str) -> Node:
        plain = event.style is None
        text = str(event.value)
        half = next((ord(c) for c in text if 0xD800 <= ord(c) <= 0xDFFF), None)
        if half is not None:
            self.note(event, path, f"the text holds half a character (U+{half:04X})")
        value = scalar(text) if plain else text
        return Node(value=value, text=text, where=self.where(event), base=self.base)

    def sequence(self, event: yaml.Event, path: str, depth: int) -> Node:
        items: list[Node] = []
        while not isinstance(inner := next(self.events), yaml.SequenceEndEvent):
            items.append(self.node(inner, f"{path}.{len(items)}".lstrip("."), depth + 1))
        size = 1 + sum(item.size for item in items)
        return Node(value=tuple(items), where=self.where(event), base=self.base, size=size)

    def mapping(self, event: yaml.Event, path: str, depth: int) -> Node:
        values: dict[str, Node] = {}
        keys: dict[str, Where] = {}
        while not isinstance(start := next(self.events), yaml.MappingEndEvent):
            name = self.key(start, path, depth)
            inside = f"{path}.{name}".lstrip(".")
            value = self.node(next(self.events), inside, depth + 1)
            if name is None:
                continue
            if name in keys:
                self.note(
                    start, inside, f"duplicate key; it stands first in line {keys[name].line}"
                )
                continue
            keys[name] = self.where(start)
            values[name] = value
        size = 1 + sum(value.size for value in values.values())
        return Node(value=values, keys=keys, where=self.where(event), base=self.base, size=size)

    def key(self, event: yaml.Event, path: str, depth: int) -> str | None:
        """The text of a key, None (and a problem) for what cannot be a key."""
        node = self.node(event, path, depth + 1)
        if isinstance(node.value, tuple | Mapping):
            self.note(event, path, f"{node.shown} stands where a key is expected")
            return None
        if node.text == "<<" and isinstance(event, yaml.ScalarEvent) and event.style is None:
            message = "merge keys (<<) are not part of YAML 1.2; use `extends` or `vars`"
            self.note(event, path, message)
            return None
        return node.text

    def where(self, event: yaml.Event) -> Where:
        mark = event.start_mark
        assert mark is not None
        return Where(self.file, mark.line + 1, mark.column + 1)

    def problem(self, event: yaml.Event, path: str, message: str) -> Problem:
        return Problem(where=self.where(event), path=path, message=message)

    def note(self, event: yaml.Event, path: str, message: str) -> None:
        self.problems.append(self.problem(event, path, message))


def _syntax(error: yaml.MarkedYAMLError, text: str, file: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    where = Where(file, 1, 1) if mark is None else Where(file, mark.line + 1, mark.column + 1)
    lines = text.splitlines()
    line = lines[where.line - 1] if where.line <= len(lines) else ""
    message = ", ".join(part for part in (error.context, error.problem) if part)
    helps: tuple[str, ...] = ()
    if "\t" in line[: where.col]:
        message, helps = "a tab cannot indent YAML", ("indent with spaces",)
    elif "${" in line:
        helps = ('inside { } and [ ] write a reference in quotes: "${name}"',)
    elif error.context and error.context_mark and error.context_mark.line + 1 != where.line:
        helps = (f"the construct starts in line {error.context_mark.line + 1}",)
    return Problem(where=where, path="", message=f"YAML syntax: {message}", helps=helps)


def _position(text: str, position: int, file: str) -> Where:
    before = text[:position]
    return Where(file, before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1)


def _short(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!")
