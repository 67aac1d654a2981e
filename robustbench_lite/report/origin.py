"""Where the numbers come from: the manifest, what was judged, and the command to repeat it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..types import Json
from . import words
from .view import FinishedRun

_LONGEST = 400
_SHOWN_APART = frozenset(  # of the manifest
    {"argv", "gates", "models", "datasets", "waivers", "failed_analyses"}
)


@dataclass(frozen=True, slots=True)
class Waived:
    """A waiver of the suite: who answers for which finding, until when and why."""

    name: str
    finding: str
    model: str
    reason: str
    owner: str
    expires: str


def command(run: FinishedRun) -> str:
    """The command that made the run, quoted for a shell; the program by its name, not its path."""
    argv = run.manifest.get("argv")
    if isinstance(argv, Sequence) and not isinstance(argv, str) and len(argv) > 1:
        return shlex.join(["robeval", *(str(each) for each in argv[1:])])
    return shlex.join(["robeval", "run", str(run.manifest.get("suite_file", "suite.yaml"))])


def waivers(run: FinishedRun) -> list[Waived]:
    """The waivers of the manifest."""
    stored = run.manifest.get("waivers")
    if not isinstance(stored, Sequence) or isinstance(stored, str):
        return []
    names = ("name", "finding", "model", "reason", "owner", "expires")
    return [
        Waived(*(str(each.get(name, "")) for name in names))
        for each in stored
        if isinstance(each, Mapping)
    ]


def flat(value: Json, path: str = "") -> Iterator[tuple[str, str]]:
    """A manifest as dotted keys and short texts."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if path or key not in _SHOWN_APART:
                yield from flat(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        if any(isinstance(inner, Mapping) for inner in value):
            for at, inner in enumerate(value):
                yield from flat(inner, f"{path}.{at}")
        else:
            yield path, cut(", ".join(str(inner) for inner in value), _LONGEST)
    else:
        yield path, words.NOTHING if value is None else cut(str(value), _LONGEST)


def cut(text: str, most: int) -> str:
    """A text of at most `most` characters, with dots where something was cut."""
    return text if len(text) <= most else f"{text[:most]} ..."
