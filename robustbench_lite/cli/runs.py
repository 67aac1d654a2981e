"""`run`, and what is done with a finished run: `gate`, `report`, `history`, `replay`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import click

from . import logs
from .app import EXIT_CODES, app, terminate
from .options import BASELINE, DEVICE, GITHUB, LOGS, PLUGINS, SUITE, SUITE_PATH, option, parsed
from .shown import annotating, dump, show, tell_github, tell_unwritten


@app.command(epilog=EXIT_CODES)
@SUITE_PATH
@option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Exactly this run directory, new or of this very run.",
)
@SUITE
@DEVICE
@option("--batch-size", default="auto", show_default=True, help="N or auto.")
@option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes that share the cells, each with its own copy of the models.",
)
@option("--resume", is_flag=True, help="Go on with the newest run of this plan.")
@option("--retry-errors", is_flag=True, help="Compute failed and invalid cells again.")
@option("--refresh", is_flag=True, help="Take over no finished cell of another run.")
@BASELINE
@option(
    "--time-budget",
    metavar="TIME",
    help="End after 20m, 90s or 1h30m, what gates need first; the run can be resumed.",
)
@option("--no-examples", is_flag=True, help="Keep no adversarial points for `robeval replay`.")
@option("--executor", default="local", show_default=True, help="How cells are computed.")
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON.")
@GITHUB
@LOGS
def run(
    suite: Path,
    batch_size: str,
    time_budget: str | None,
    as_json: bool,
    github: bool,
    quiet: bool,
    verbose: int,
    log_file: Path | None,
    **chosen: object,
) -> int:
    """Run a suite: attack, judge, report, and exit with the verdict's code."""
    from ..progress import display
    from ..run import run as run_suite

    logs.start(verbose, log_file, quiet=quiet)
    signal.signal(signal.SIGTERM, terminate)
    options = parsed(
        **chosen, batch_size=_batch_size(batch_size), time_budget=_duration(time_budget)
    )
    with (
        annotating(github, suite, err=as_json),
        display(sys.stderr, quiet=quiet, terminal=sys.stderr.isatty()) as observer,
    ):
        finished = run_suite(suite, options, observer)
    return show(finished, as_json=as_json, github=github)


def _batch_size(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdigit() or int(text) < 1:
        raise click.BadParameter(
            f"'{text}' is neither auto nor a positive number", param_hint="--batch-size"
        )
    return int(text)


def _duration(text: str | None) -> float | None:
    from ..words import duration

    if text is None:
        return None
    seconds = duration(text)
    if seconds is None:
        raise click.BadParameter(
            f"'{text}' is not a time such as 20m, 90s or 1h30m", param_hint="--time-budget"
        )
    return seconds


@app.command(epilog=EXIT_CODES)
@click.argument("run_path", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--suite", type=click.Path(path_type=Path), help="Take the gates from this suite.")
@click.option("--set", "overrides", multiple=True, metavar="A.B=VALUE")
@BASELINE
@PLUGINS
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON.")
@GITHUB
def gate(run_path: Path, suite: Path | None, as_json: bool, github: bool, **chosen: object) -> int:
    """Judge a finished run again: no model, device or data is needed."""
    from ..run import rejudge

    finished = rejudge(run_path, suite, parsed(**chosen), reports=False)
    return show(finished, as_json=as_json, github=github)


@app.command()
@click.argument("run_path", metavar="RUN", type=click.Path(path_type=Path))
@click.option("-f", "--format", "formats", multiple=True, help="Only these reports.")
@PLUGINS
@GITHUB
def report(run_path: Path, formats: tuple[str, ...], github: bool, **chosen: object) -> int:
    """Render the reports of a finished run again."""
    from ..run import rejudge

    finished = rejudge(run_path, None, parsed(**chosen), reports=True, formats=formats or None)
    click.echo(f"run:    {finished.run.path}")
    if github:
        tell_github(finished)
    return tell_unwritten(finished)


@app.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="Print as CSV.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a page with a chart per gate here, such as trend.html.",
)
def history(runs: tuple[Path, ...], as_json: bool, as_csv: bool, output: Path | None) -> int:
    """Show runs over time, a line per run and gate; RUNS are run directories or roots of them."""
    if as_json and as_csv:
        raise click.UsageError("choose one of --json and --csv")
    from .. import history as histories
    from ..report import trend

    found = histories.read(runs)
    for line in found.left_out:
        click.echo(f"left out: {line}", err=True)
    form = trend.as_json if as_json else trend.as_csv if as_csv else trend.as_text
    click.echo(form(found.rows), nl=False)
    if output is not None:
        trend.write(found, output)
        click.echo(f"trend:  {output}", err=as_json or as_csv)
    return 0


@app.command()
@click.argument("run_path", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--model",
    metavar="[NAME=]FILE",
    help="Judge this file, in the place of one model of the run or of all; default: the same.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write replay.json here.")
@DEVICE
@PLUGINS
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def replay(
    run_path: Path,
    model: str | None,
    output: Path | None,
    device: str,
    threads: int | None,
    as_json: bool,
    **chosen: object,
) -> int:
    """Judge the stored adversarial points of a run again: a lower bound, in seconds.

    No data set is needed. It measures no robustness, and no gate is passed by it.
    """
    from .. import machine, rebuild, store
    from .. import replay as replays
    from ..prepare import registry_of
    from ..types import Places

    options = parsed(**chosen)
    stored = store.load_run(run_path)
    instead = None if model is None else replays.given(model, stored)
    folder = stored.manifest.get(rebuild.FOLDER)
    found = replays.replay(
        stored,
        registry_of(options),
        Places(suite=Path(str(folder or ".")), data=options.data, cache=options.cache),
        device=machine.device(device),
        threads=machine.threads(threads),
        instead=instead,
    )
    result = replays.as_json(stored, found, instead)
    if output is not None:
        store.write_json(output / "replay.json", result)
    click.echo(dump(result) if as_json else "\n".join(replays.lines(found)))
    return 0
