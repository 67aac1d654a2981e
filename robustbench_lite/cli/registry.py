"""`plugins`, `schema`."""

from __future__ import annotations

from pathlib import Path

import click

from .app import app
from .options import PLUGINS, parsed
from .shown import dump


@app.command()
@PLUGINS
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.option("--doctor", "causes", is_flag=True, help="Show why a plug-in is broken.")
def plugins(as_json: bool, causes: bool, **chosen: object) -> int:
    """List what is installed: plug-ins, and the names that they add."""
    from .. import listing
    from ..prepare import registry_of

    registry = registry_of(parsed(**chosen))
    if as_json:
        click.echo(dump(listing.as_json(registry)))
        return 0
    for line in listing.lines(registry, causes=causes):
        click.echo(line)
    return 0


@app.command()
@PLUGINS
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write it here.")
def schema(output: Path | None, **chosen: object) -> int:
    """Print the JSON Schema of suites, built from the plug-ins installed."""
    from ..prepare import registry_of
    from ..store import write_json
    from ..suite.schema import json_schema

    value = json_schema(registry_of(parsed(**chosen)))
    if output is None:
        click.echo(dump(value))
    else:
        write_json(output, value)
        click.echo(f"wrote {output}")
    return 0
