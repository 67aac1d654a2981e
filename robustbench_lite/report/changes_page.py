"""Two runs compared, as one offline HTML file with the images of what broke and what was fixed."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from ..types import Change, Comparison, Row
from . import changes as told
from . import words
from .gallery import Specimen, _Candidate, _specimen
from .html import TEMPLATES, policy
from .view import FinishedRun, summary_of

PER_CHANGE = 4  # samples that are shown for a line, of each kind
MOST_BYTES = 2_500_000  # of pictures in the page
MOST_LINES = 2000


@dataclass(frozen=True, slots=True)
class Shown:
    """A line whose samples changed, with the pictures of the first few."""

    change: Change
    broken: tuple[Specimen, ...]
    fixed: tuple[Specimen, ...]


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
        policy=policy(css),
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


def _shown(
    compared: Collection[Change], base: FinishedRun | None, head: FinishedRun | None
) -> Iterator[Shown]:
    """Lines with changed samples; pictures until there is no room for more."""
    room = MOST_BYTES
    for change in compared:
        if not change.newly_broken and not change.newly_fixed:
            continue
        broken = _pictures(head, change.head_cell, change.newly_broken) if room > 0 else ()
        fixed = _pictures(base, change.base_cell, change.newly_fixed) if room > 0 else ()
        room -= sum(len(each.clean) + len(each.adversarial) for each in (*broken, *fixed))
        yield Shown(change, tuple(broken), tuple(fixed))


def _pictures(run: FinishedRun | None, cell_id: str, ids: Collection[str]) -> tuple[Specimen, ...]:
    """The samples among `ids` that a cell keeps images of."""
    row = None if run is None else _row(run, cell_id)
    if run is None or row is None:
        return ()
    examples, samples = run.examples(cell_id), run.samples(cell_id)
    if examples is None or samples is None:
        return ()
    wanted = np.isin(samples.sample_id[examples.positions].astype(str), list(ids))
    chosen = np.flatnonzero(wanted)[:PER_CHANGE]
    return tuple(
        _specimen(run, _Candidate(row, int(at), int(examples.positions[at]))) for at in chosen
    )


def _row(run: FinishedRun, cell_id: str) -> Row | None:
    rows = (row for row in summary_of(run).rows if row.cell_id == cell_id)
    return next((row for row in rows if row.norm is not None and not row.members), None)
