"""Two runs compared, as one offline HTML file with the images of what broke and what was fixed."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from ..types import CLEAN, NO_NORM, Cell, Change, Comparison, Samples
from . import changes as told
from . import words
from .pictures import Trio, trio
from .view import FinishedRun

TEMPLATES = Path(__file__).parent / "templates"
PER_CHANGE = 4  # samples that are shown for a line, of each kind
MOST_BYTES = 2_500_000  # of pictures in the page
MOST_LINES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """A sample with its pictures and what the model made of both."""

    sample_id: str
    label: int
    clean_pred: int
    clean_confidence: float
    adv_pred: int
    adv_confidence: float
    distance: str
    trio: Trio


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
    p = told.surely(comparison)
    compared = [each for each in comparison.changes if not each.reason]
    html = environment.get_template("compare.html.j2").render(
        css=css,
        policy=_policy(css),
        comparison=comparison,
        sentence=told.sentence(comparison),
        columns=told.HEAD,
        compared=compared[:MOST_LINES],
        left_out=max(0, len(compared) - MOST_LINES),
        apart=[each for each in comparison.changes if each.reason],
        sure={each.head_cell for each in compared if p[each.head_cell] <= told.CHANCE},
        cells=told.cells,
        shown=list(_shown(compared, base, head)),
        names=told.names,
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
    compared: Collection[Change], base: FinishedRun | None, head: FinishedRun | None
) -> Iterator[Shown]:
    """Lines with changed samples; pictures until there is no room for more."""
    room = MOST_BYTES
    for change in compared:
        if not change.newly_broken and not change.newly_fixed:
            continue
        broken = _shots(head, change.head_cell, change.newly_broken) if room > 0 else ()
        fixed = _shots(base, change.base_cell, change.newly_fixed) if room > 0 else ()
        room -= sum(shot.trio.size for shot in (*broken, *fixed))
        yield Shown(change, broken, fixed)


def _shots(run: FinishedRun | None, cell_id: str, ids: Collection[str]) -> tuple[Shot, ...]:
    """The samples among `ids` that a cell keeps images of."""
    if run is None:
        return ()
    cell = next((each for each in run.plan.cells if each.id == cell_id), None)
    examples, samples = run.examples(cell_id), run.samples(cell_id)
    if cell is None or cell.attack == CLEAN or examples is None or samples is None:
        return ()
    wanted = np.isin(samples.sample_id[examples.positions].astype(str), list(ids))
    return tuple(
        _shot(
            cell,
            samples,
            int(examples.positions[at]),
            trio(examples.x[at], examples.x_adv[at], ("clean", "adversarial")),
        )
        for at in np.flatnonzero(wanted)[:PER_CHANGE]
    )


def _shot(cell: Cell, samples: Samples, row: int, pictures: Trio) -> Shot:
    measured = cell.norm if cell.norm != NO_NORM else None
    distance = None if measured is None else float(getattr(samples, measured)[row])
    return Shot(
        sample_id=str(samples.sample_id[row]),
        label=int(samples.label[row]),
        clean_pred=int(samples.clean_pred[row]),
        clean_confidence=float(samples.clean_confidence[row]),
        adv_pred=int(samples.adv_pred[row]),
        adv_confidence=float(samples.adv_confidence[row]),
        distance="" if distance is None else f"{measured} distance {words.number(distance)}",
        trio=pictures,
    )
