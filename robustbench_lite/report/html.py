"""report.html: one offline file without any request, under a strict content security policy.

It holds one style sheet and one small script of our own, both allowed by their hash alone; without
the script everything can be read, with it tables sort and filter, models and attacks can be hidden
and points tell their values. See docs/report.md.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from ..types import GateResult
from . import confidence, curves, outcome, pixels, svg, words
from .content import Gathered, content, gather
from .limits import LEVELS, MOST_BYTES, Limits
from .tallies import tallies
from .view import FinishedRun, write_text

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"


def write(run: FinishedRun) -> None:
    """Write report.html."""
    write_text(run.path / "report.html", page(run))


def page(run: FinishedRun) -> str:
    """The whole report as HTML, 5 MB at most; every string of suite, model or plug-in is escaped.

    The tables of samples are read once, one at a time; a page that comes out too large is drawn
    again with less detail, and says what it left out.
    """
    environment = _environment()
    gathered = gather(run, LEVELS[0], tallies)
    text = ""
    for limits in LEVELS:
        text = _rendered(environment, run, gathered, limits)
        if len(text.encode()) <= MOST_BYTES:
            break
    return text


def policy(css: str, script: str) -> str:
    """The content security policy: data images, this very style sheet and this very script."""
    return (
        f"default-src 'none'; img-src data:; style-src '{_digest(css)}';"
        f" script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        svg=svg,
        curves=curves,
        words=words,
        outcome=outcome,
        pixels=pixels,
        strips=confidence,
        limits=_limits,
        coded=_coded,
    )
    return environment


def _rendered(
    environment: Environment, run: FinishedRun, gathered: Gathered, limits: Limits
) -> str:
    css, script = (_own(name) for name in ("report.css", "report.js"))
    template = environment.get_template("report.html.j2")
    html = template.render(
        css=css, script=script, policy=policy(css, script), **content(run, gathered, limits)
    )
    return f"{html}\n"


def _own(name: str) -> Markup:
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))  # noqa: S704  (our own file)


def _coded(text: str) -> Markup:
    """A text with what stands between backticks as code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if at % 2 else escape(part)
        for at, part in enumerate(parts)
    )


def _limits(gate: GateResult) -> Markup:
    """The picture of a gate's limits; none for a distance."""
    if gate.value is None or gate.low is None or gate.high is None:
        return Markup("")
    bounds = [bound for _, bound in words.bounds(gate)]
    least = -1.0 if words.is_difference(gate) else 0.0
    if not bounds or not all(least <= each <= 1 for each in (*bounds, gate.low, gate.high)):
        return Markup("")
    said = f"value {words.gate_value(gate)}, limits {words.gate_limits(gate)}"
    return svg.limits(
        (gate.low, gate.value, gate.high), bounds, gate.status, said=said, least=least
    )
