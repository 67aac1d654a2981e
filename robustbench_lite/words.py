"""The words of a problem: where it stands, what was found, the nearest valid name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from .types import Where

_NUMBER = r"(\d+(?:\.\d+)?)\s*"
_DURATION = re.compile(rf"(?:{_NUMBER}h)?\s*(?:{_NUMBER}m)?\s*(?:{_NUMBER}s?)?")
_PARTS = (3600, 60, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong in a suite; `path` is the dotted key, `helps` say what to do."""

    where: Where
    path: str
    message: str
    helps: tuple[str, ...] = ()


def render(problem: Problem) -> str:
    """`file:line:col: error: path: message`, then one indented `help:` line for each help.

    A place with line 0 is a whole file or a `--set` and is printed by its name alone.
    """
    where = str(problem.where) if problem.where.line else problem.where.file
    path = f"{problem.path}: " if problem.path else ""
    helps = "".join(f"\n  help: {text}" for text in problem.helps)
    return f"{where}: error: {path}{problem.message}{helps}"


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The one of `names` that a person most likely meant by `name`, if any is near."""
    known = {_folded(each): each for each in sorted(names, reverse=True)}
    folded = _folded(name)
    if folded in known:
        return known[folded]
    close = difflib.get_close_matches(folded, known, n=1, cutoff=0.6)
    return known[close[0]] if close else None


def did_you_mean(name: str, names: Iterable[str]) -> tuple[str, ...]:
    """The help line that names the nearest of `names`, or none."""
    near = nearest(name, names)
    return (f"did you mean '{near}'?",) if near is not None else ()


def listed(names: Iterable[str]) -> str:
    """Names as a person lists them, `none` if there are none."""
    return ", ".join(names) or "none"


def _folded(name: str) -> str:
    return name.casefold().replace("_", "-")


def duration(text: str) -> float | None:
    """Seconds of a text such as `20`, `90s`, `10m` or `1h30m`; None if it is no time above zero."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        return None
    given = zip(found.groups(), _PARTS, strict=True)
    seconds = sum(float(number) * each for number, each in given if number is not None)
    return seconds if 0 < seconds < float("inf") else None


def slug(name: str) -> str:
    """A name as the name of a file or a folder."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "suite"
