"""`compare`, and `baseline set`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from .app import app
from .shown import dump


@app.command()
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("head", type=click.Path(path_type=Path))
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="BASE=HEAD",
    help="Compare these models, where their names differ.",
)
@click.option(
    "-f",
    "--format",
    "form",
    default="text",
    show_default=True,
    type=click.Choice(["text", "json", "markdown", "html"]),
    help="How to say it.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as -f json.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write it here."
)
def compare(
    base: Path,
    head: Path,
    models: tuple[str, ...],
    form: str,
    as_json: bool,
    output: Path | None,
) -> int:
    """Compare two runs, or a baseline and a run, sample by sample: what broke, what was fixed."""
    from .. import versus
    from ..report import changes, changes_page
    from ..store import write_text

    found = versus.compared(base, head, _pairs(models))
    form = "json" if as_json else form
    if form == "text" and output is None:
        from rich.console import Console

        changes.render(found.comparison, Console())
        return 0
    texts: dict[str, Callable[[], str]] = {
        "text": lambda: "\n".join(changes.lines(found.comparison)) + "\n",
        "json": lambda: dump(changes.as_json(found.comparison)) + "\n",
        "markdown": lambda: changes.markdown(found.comparison),
        "html": lambda: changes_page.page(found.comparison, found.base, found.head),
    }
    if output is None:
        click.echo(texts[form](), nl=False)
    else:
        write_text(output, texts[form]())
        click.echo(f"wrote {output}")
    return 0


def _pairs(models: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for text in models:
        old, sign, new = text.partition("=")
        if not (old and sign and new):
            raise click.BadParameter(f"'{text}' is not BASE=HEAD", param_hint="--model")
        pairs[old] = new
    return pairs


@app.group()
def baseline() -> None:
    """Keep a run as the baseline that gates with max_drop compare with."""


@baseline.command("set")
@click.argument("run_path", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("name")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write it here instead of baselines/NAME.json.",
)
def baseline_set(run_path: Path, name: str, output: Path | None) -> int:
    """Write a complete run's metrics and per-sample bits to baselines/NAME.json, to be reviewed."""
    from .. import versus

    file = output or versus.file_of(name)
    versus.set_baseline(run_path, file)
    click.echo(f"wrote {file}, {file.stat().st_size:,} bytes")
    return 0
