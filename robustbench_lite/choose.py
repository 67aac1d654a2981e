"""`-k EXPR`: names joined by and, or, not and parentheses; each matches part of a label."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass

from .errors import UsageError
from .types import CLEAN, Cell, Plan

_TOKEN = re.compile(r"\s*(\(|\)|[^\s()]+)")
Match = Callable[[str], bool]


def label(cell: Cell) -> str:
    """What `-k` matches: model, dataset, entry, attack, norm, eps and source in lower case."""
    eps = cell.eps.text if cell.eps else ""
    parts = [cell.model, cell.dataset, cell.entry, cell.attack, cell.norm or "", eps, cell.source]
    return " ".join(parts).lower()


def choose(plan: Plan, expression: str) -> Plan:
    """The plan with only the matching cells, and the clean passes and smaller eps they need."""
    matches = parse(expression)
    kept = [cell for cell in plan.cells if matches(label(cell))]
    kept += [cell for cell in plan.cells if any(_starts_from(other, cell) for other in kept)]
    pairs = {(cell.model, cell.dataset) for cell in kept}
    cells = tuple(
        cell
        for cell in plan.cells
        if cell in kept or (cell.attack == CLEAN and (cell.model, cell.dataset) in pairs)
    )
    return dataclasses.replace(plan, cells=cells)


def _starts_from(cell: Cell, smaller: Cell) -> bool:
    return smaller.eps in cell.carried and (
        cell.entry,
        cell.model,
        cell.dataset,
        cell.norm,
        cell.source,
    ) == (smaller.entry, smaller.model, smaller.dataset, smaller.norm, smaller.source)


def parse(expression: str) -> Match:
    """A predicate on labels. Raises UsageError showing where the expression breaks off."""
    reader = _Reader(expression, _TOKEN.findall(expression))
    predicate = reader.either()
    if reader.words:
        raise UsageError(f"-k '{expression}': expected `and` or `or` before '{reader.words[0]}'")
    return predicate


@dataclass(slots=True)
class _Reader:
    expression: str
    words: list[str]

    def either(self) -> Match:
        left = self.both()
        while self._next_is("or"):
            left = _or(left, self.both())
        return left

    def both(self) -> Match:
        left = self.one()
        while self._next_is("and"):
            left = _and(left, self.one())
        return left

    def one(self) -> Match:
        if not self.words or self.words[0] in {")", "and", "or"}:
            found = f"'{self.words[0]}'" if self.words else "the end"
            raise UsageError(
                f"-k '{self.expression}': expected a name, `not` or `(`, found {found}"
            )
        word = self.words.pop(0)
        if word == "not":
            return _not(self.one())
        if word != "(":
            return _contains(word.lower())
        inner = self.either()
        if not self._next_is(")"):
            raise UsageError(f"-k '{self.expression}': a `(` is not closed")
        return inner

    def _next_is(self, word: str) -> bool:
        if self.words and self.words[0] == word:
            self.words.pop(0)
            return True
        return False


def _or(left: Match, right: Match) -> Match:
    return lambda text: left(text) or right(text)


def _and(left: Match, right: Match) -> Match:
    return lambda text: left(text) and right(text)


def _not(inner: Match) -> Match:
    return lambda text: not inner(text)


def _contains(part: str) -> Match:
    return lambda text: part in text
