"""Findings that someone answers for: marked as waived until the last day, an error after it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import date

from ..types import Cell, Finding, Waiver


def waived(
    found: Sequence[Finding], waivers: Sequence[Waiver], cells: Sequence[Cell], today: date
) -> list[Finding]:
    """The findings with the waivers that hold `today`, and an error for each that has expired.

    A waiver covers a finding whose cells are all of its model, as the one judged or as the source.
    """
    by_id = {cell.id: cell for cell in cells}
    running = [waiver for waiver in waivers if today <= waiver.expires]
    expired = [waiver for waiver in waivers if today > waiver.expires]
    marked = [_marked(finding, running, by_id) for finding in found]
    return [*marked, *(_expired(waiver, cells) for waiver in expired)]


def _marked(finding: Finding, waivers: Sequence[Waiver], cells: dict[str, Cell]) -> Finding:
    models = {cells[cell].model for cell in finding.cells if cell in cells}
    for waiver in waivers:
        if waiver.finding == finding.id and models == {waiver.model}:
            until = waiver.expires.isoformat()
            text = f"waived until {until} by {waiver.owner}: {waiver.reason} ({waiver.where})"
            return dataclasses.replace(finding, waived=text)
    return finding


def _expired(waiver: Waiver, cells: Sequence[Cell]) -> Finding:
    return Finding(
        id="expired-waiver",
        severity="error",
        message=(
            f"{waiver.where}: waiver '{waiver.name}' of {waiver.finding} for '{waiver.model}' ended"
            f" on {waiver.expires.isoformat()} (owner {waiver.owner}: {waiver.reason})"
        ),
        advice="mend the model or the measurement, or decide again and give a later day",
        cells=tuple(cell.id for cell in cells if cell.model == waiver.model),
    )
