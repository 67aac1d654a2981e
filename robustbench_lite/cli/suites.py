"""`plan`, `validate`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..errors import RobevalError
from .app import app, told
from .options import DEVICE, SUITE, SUITE_PATH, parsed

_PRECEDENCE = (2, 7, 5, 0)  # of what `validate` may find


@app.command()
@SUITE_PATH
@SUITE
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def plan(suite: Path, as_json: bool, **chosen: object) -> int:
    """Show every cell that a run would compute, with its cost, and why any is skipped."""
    from ..prepare import prepare
    from ..progress import describe
    from ..records import plan_to_json

    prepared = prepare(suite, parsed(**chosen))
    if as_json:
        click.echo(json.dumps(plan_to_json(prepared.plan), indent=2))
        return 0
    for cell in prepared.plan.cells:
        cost = "" if cell.cost is None else f"{cell.cost.queries:g} + {cell.cost.gradients:g}"
        mark: str = "skipped" if cell.skip else cell.role if cell.norm else "clean"
        mark = "standby" if cell.fallback_for else mark
        note = f"  ({cell.skip or cell.why})" if cell.skip or cell.why else ""
        click.echo(f"{cell.id}  {mark:8}  {cost:>14}  {describe(cell)}{note}")
    click.echo(f"{len(prepared.plan.cells)} cells; cost is queries + gradients per sample, at most")
    if any(cell.fallback_for for cell in prepared.plan.cells):
        click.echo("standby: runs only if the attack that it stands for finds no usable gradient")
    return 0


@app.command()
@click.argument("suites", nargs=-1, required=True, type=click.Path(path_type=Path))
@SUITE
@DEVICE
@click.option("--deep", is_flag=True, help="Also load everything and run 2 samples per cell.")
def validate(suites: tuple[Path, ...], deep: bool, **chosen: object) -> int:
    """Check suites: every problem at once, with file, line and column."""
    from ..prepare import prepare

    worst = 0
    for path in suites:
        try:
            if deep:
                from ..run import rehearse

                cells = rehearse(path, parsed(**chosen))
            else:
                cells = len(prepare(path, parsed(**chosen)).plan.cells)
        except RobevalError as problem:
            click.echo(told(problem), err=True)
            worst = min(worst, problem.exit_code, key=_PRECEDENCE.index)
        else:
            click.echo(f"{path}: valid, {cells} cells")
    return worst
