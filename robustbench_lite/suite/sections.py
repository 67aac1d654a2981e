"""Typed reading of the mappings of a suite: a value of the right type, or None and a problem."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from ..types import Eps, Json, Where
from ..words import Problem, did_you_mean, listed, nearest
from .yamltext import Node, exact

SCHEMA = 1
"""Version of the language of suites that this robeval reads."""

KEYS = (
    "schema", "name", "extends", "vars", "python_path", "seed", "models", "datasets", "attacks",
    "evaluate", "gates", "analyses", "reports", "controls", "self_test", "waivers",
)  # fmt: skip
"""Keys of the top level of a suite, in the order in which a resolved suite shows them."""

MAX_NAME = 100
_PERCENT = re.compile(r"(\d{1,3}(?:\.\d*)?)\s*%")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(slots=True)
class Problems:
    """The problems found so far."""

    found: list[Problem] = field(default_factory=list)

    def note(self, where: Where, path: str, message: str, *helps: str) -> None:
        """Remember one problem; lines of `message` after the first that say `help:` are helps."""
        first, *rest = message.split("\n  help: ")
        self.found.append(Problem(where=where, path=path, message=first, helps=(*rest, *helps)))


@dataclass(frozen=True, slots=True)
class Section:
    """One mapping of the suite at the dotted key `path`; a key whose value is null is absent."""

    node: Node
    path: str
    problems: Problems

    @property
    def values(self) -> Mapping[str, Node]:
        """Keys with a value; empty if the section is no mapping (which was noted)."""
        found = self.node.value
        if not isinstance(found, Mapping):
            return {}
        return {key: value for key, value in found.items() if value.value is not None}

    def at(self, key: str) -> str:
        """The dotted path of a key."""
        return f"{self.path}.{key}" if self.path else key

    def where(self, key: str) -> Where:
        """Where the value of a key stands; the section itself if it has no such key."""
        return self.values[key].where if key in self.values else self.node.where

    def note(self, key: str, message: str, *helps: str) -> None:
        """Remember a problem with the value of `key`."""
        self.problems.note(self.where(key), self.at(key), message, *helps)

    def wrong(self, key: str, expected: str, *helps: str) -> None:
        """Remember that `key` has another kind of value than `expected`."""
        self.note(key, f"expected {expected}, found {self.values[key].shown}", *helps)

    def require(self, key: str, why: str) -> bool:
        """Whether the key is there; if not, `why` it is needed is noted."""
        if key in self.values:
            return True
        typo = nearest(key, self.values)
        helps = (f"is '{typo}' meant to be '{key}'?",) if typo is not None else ()
        self.note(key, f"missing; {why}", *helps)
        return False

    def only(self, known: Collection[str]) -> None:
        """Note every key that is not one of `known`."""
        for key in self.node.keys:
            if key not in known:
                helps = did_you_mean(key, known) or (f"known keys: {listed(known)}",)
                self.problems.note(
                    self.node.keys[key], self.at(key), f"unknown key '{key}'", *helps
                )

    def sections(self, key: str) -> Iterator[tuple[str, Section]]:
        """The named mappings under `key`, with valid names."""
        node = self.values.get(key)
        if node is None:
            return
        if not isinstance(node.value, Mapping):
            self.wrong(key, "a mapping of names to entries")
            return
        for name, entry in node.value.items():
            inner = Section(entry, f"{self.at(key)}.{name}", self.problems)
            if (reason := bad_name(name)) is not None:
                self.problems.note(node.keys[name], self.at(key), f"name {name!r} {reason}")
            elif not isinstance(entry.value, Mapping):
                message = f"expected a mapping, found {entry.shown}"
                self.problems.note(entry.where, inner.path, message)
            else:
                yield name, inner

    def items(self, key: str) -> tuple[Node, ...]:
        """The values of a list; a single value counts as a list of one."""
        node = self.values.get(key)
        if node is None:
            return ()
        return node.value if isinstance(node.value, tuple) else (node,)

    def text(self, key: str) -> str | None:
        """A text that is not empty."""
        node = self.values.get(key)
        if node is None:
            return None
        if not isinstance(node.value, str) or not node.value:
            quoted = "" if isinstance(node.value, tuple | Mapping | str) else "write it in quotes"
            self.wrong(key, "a text", *filter(None, [quoted]))
            return None
        return node.value

    def choice(self, key: str, choices: Iterable[str]) -> str | None:
        """One of `choices`."""
        node = self.values.get(key)
        known = tuple(choices)
        if node is None or node.value in known:
            return None if node is None else str(node.value)
        self.note(
            key, f"{node.shown} is not one of {listed(known)}", *did_you_mean(node.text, known)
        )
        return None

    def integer(self, key: str, *, least: int, most: int | None = None) -> int | None:
        """A whole number from `least` to `most`."""
        node = self.values.get(key)
        if node is None:
            return None
        value = node.value
        if not isinstance(value, int) or isinstance(value, bool):
            self.wrong(key, f"a whole number of at least {least}")
        elif value < least:
            self.note(key, f"expected at least {least}, found {node.shown}")
        elif most is not None and value > most:
            self.note(key, f"expected at most {most}, found {node.shown}")
        else:
            return value
        return None

    def flag(self, key: str) -> bool | None:
        """`true` or `false`."""
        node = self.values.get(key)
        if node is None or isinstance(node.value, bool):
            return None if node is None else bool(node.value)
        self.wrong(key, "true or false")
        return None

    def share(self, key: str) -> float | None:
        """A number from 0 to 1."""
        node = self.values.get(key)
        if node is None:
            return None
        value = node.value
        if not isinstance(value, int | float | Fraction) or isinstance(value, bool):
            percentage = _PERCENT.fullmatch(node.text) if isinstance(value, str) else None
            told = (f"write {float(percentage[1]) / 100:g}",) if percentage else ()
            self.wrong(key, "a number from 0 to 1", *told)
        elif not 0 <= value <= 1:  # NaN too
            percent = isinstance(value, int | float) and 1 < value <= 100
            self.note(
                key,
                f"expected a number from 0 to 1, found {node.shown}",
                *([f"is this a percentage? write {value / 100:g}"] if percent else []),
            )
        else:
            return float(value)
        return None

    def sha256(self, key: str) -> str | None:
        """A pinned hash: 64 hexadecimal digits."""
        node = self.values.get(key)
        if node is None:
            return None
        text = node.text.removeprefix("sha256:").lower()
        if not _SHA256.fullmatch(text):
            self.note(key, f"expected 64 hexadecimal digits, found {node.shown}")
            return None
        return text


def known(section: Section, key: str, names: Sequence[str]) -> str | None:
    """The name under `key`, one of `names`."""
    node = section.values.get(key)
    if node is None or node.text in names:
        return None if node is None else node.text
    helps = did_you_mean(node.text, names) or (f"known: {listed(names)}",)
    section.note(key, f"unknown {key} {node.shown}", *helps)
    return None


def bad_name(name: str) -> str | None:
    """Why `name` cannot name an entry of a suite, or None."""
    if not name.strip():
        return "is empty"
    if len(name) > MAX_NAME:
        return f"is longer than {MAX_NAME} characters"
    if "/" in name or not name.isprintable():
        return "has a character that names cannot have: no '/', no control characters"
    return None


def written(node: Node) -> Json:
    """The value as JSON for the resolved suite: fractions as their text, references unresolved."""
    if node.reference is not None:
        return node.reference
    if isinstance(node.value, Mapping):
        return {key: written(value) for key, value in node.value.items()}
    if isinstance(node.value, tuple):
        return [written(item) for item in node.value]
    if isinstance(node.value, Fraction) or (
        isinstance(node.value, float) and not math.isfinite(node.value)
    ):
        return node.text
    return node.value


def radius(node: Node) -> Eps | str:
    """The exact eps that a scalar spells, or what is wrong with it."""
    expected = "a finite number of at least 0, such as 0.1 or 8/255"
    if isinstance(node.value, tuple | Mapping | bool) or node.value is None:
        return f"expected {expected}, found {node.shown}"
    if isinstance(node.value, float) and not math.isfinite(node.value):
        return f"{node.shown} is not finite; expected {expected}"
    text = node.text.strip()
    value = exact(text)
    if value is None:
        above, slash, below = text.partition("/")
        if slash and exact(above) is not None and exact(below) == 0:
            return f"{node.shown} divides by zero; expected {expected}"
        return f"{node.shown} is not a number; expected {expected}"
    if value < 0:
        return f"{node.shown} is negative; expected {expected}"
    return Eps(value=value, text=text)
