"""A model file that is not the one of the baseline: a note, with both hashes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..types import Cell, Component, Finding


@dataclass(frozen=True, slots=True)
class Before:
    """What a baseline, by its name, had of a model: file -> sha256."""

    baseline: str
    files: Mapping[str, str]


def of_files(
    cells: Sequence[Cell], models: Mapping[str, Component], before: Mapping[str, Before]
) -> list[Finding]:
    """One note for each judged model of which a file differs from the baseline's."""
    return [
        Finding(
            id="artefact-changed",
            severity="note",
            message=f"'{name}': {changes}",
            advice="see what changed against the baseline; if this is the release to compare the"
            " next one with, set it: `robeval baseline set RUN NAME`",
            cells=tuple(cell.id for cell in cells if cell.model == name),
        )
        for name, known in before.items()
        if name in models and (changes := "; ".join(_changes(models[name].files, known)))
    ]


def _changes(now: Mapping[str, str], known: Before) -> Iterator[str]:
    for file in dict.fromkeys((*known.files, *now)):
        old, new = known.files.get(file), now.get(file)
        if old == new:
            continue
        said = f"sha256 {new}" if new else "not there"
        was = f"sha256 {old}" if old else "none"
        yield f"{file} is {said}, in the baseline '{known.baseline}' it was {was}"
