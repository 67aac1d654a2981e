"""Two runs compared, as one offline HTML file with the images of what broke and what was fixed."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from ..types import Change, Comparison
from . import outcome, words
from .shots import Shot, shots
from .view import FinishedRun

TEMPLATES = Path(__file__).parent / "templates"
PER_CHANGE = 4  # samples that are shown for a line, of each kind
MOST_BYTES = 2_500_000  # of pictures in the page
MOST_LINES = 2000


@dataclass(frozen=True, slots=True)
class Shown:
    """A line whose samples changed, with the pictures of the first few."""

    change: Change
    broken: tuple[Shot, ...]
    fixed: tuple[Shot, ...]


def page(comparison: Comparison, base: FinishedRun | None, head: FinishedRun | None) -> str:
    """The page; `base` and `head` give the images, None where there is only a baseline file."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    css = Markup((TEMPLATES / "compare.css").read_text(encoding="utf-8"))  # noqa: S704  (our own file)
    compared = outcome.compared(comparison)
    html = environment.get_template("compare.html.j2").render(
        css=css,
        policy=_policy(css),
        comparison=comparison,
        outcome=outcome,
        compared=compared[:MOST_LINES],
        left_out=max(0, len(compared) - MOST_LINES),
        apart=[each for each in comparison.changes if each.reason],
        shown=list(_shown([change for _, change in compared], base, head)),
        words=words,
    )
    return f"{html}\n"


def _policy(css: str) -> str:
    """Nothing but data images and this very style sheet."""
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}';"
        " base-uri 'none'; form-action 'none'"
    )


def _shown(
    compared: Iterable[Change], base: FinishedRun | None, head: FinishedRun | None
) -> Iterator[Shown]:
    """Lines with changed samples; pictures until there is no room for more."""
    room = MOST_BYTES
    for change in compared:
        if not change.newly_broken and not change.newly_fixed:
            continue
        broken = shots(head, change.head_cell, change.newly_broken, most=PER_CHANGE, room=room)
        room -= sum(shot.trio.size for shot in broken)
        fixed = shots(base, change.base_cell, change.newly_fixed, most=PER_CHANGE, room=room)
        room -= sum(shot.trio.size for shot in fixed)
        yield Shown(change, broken, fixed)
