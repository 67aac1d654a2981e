"""The command line: options, printing, and the one place where an outcome becomes an exit code.

Nothing heavy is imported before a command runs: `robeval --help` loads no plug-in.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import click

from ._version import __version__
from .errors import RobevalError

if TYPE_CHECKING:
    from .prepare import Options
    from .run import Finished
    from .types import Json

_PRECEDENCE = (2, 7, 5, 0)  # of what `validate` may find
USAGE, INTERNAL, INTERRUPTED, TERMINATED = 2, 3, 130, 143
Command = Callable[..., int]
_RESUME = "finished cells are kept; run the same command with --resume to go on"

EXIT_CODES = """\b
Exit codes:
  0    complete, every gate passes, or there are none
  1    a gate failed on complete evidence
  2    usage, suite or plug-in error: nothing ran
  3    internal error (a bug in robeval)
  4    incomplete: cells failed, timed out, or are missing, or the time budget ended
  5    nothing selected
  6    a gate is inconclusive
  7    environment: device, provider, model file or dataset missing or not as declared
  8    the measurement is invalid: an error finding touches a gated cell
  130  interrupted (143: terminated); the run directory can be resumed
"""


class Terminated(BaseException):
    """SIGTERM arrived."""


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with the code of the table in `robeval --help`."""
    sys.exit(invoke(sys.argv[1:] if argv is None else argv))


def invoke(argv: Sequence[str]) -> int:
    """Run the command line; the exit code."""
    try:
        code = app.main(args=list(argv), prog_name="robeval", standalone_mode=False)
    except BaseException as problem:  # noqa: BLE001  (every way to end has its exit code)
        return _explain(problem)
    finally:
        _stop_logging()
    return code if isinstance(code, int) else 0


def _told(problem: RobevalError) -> str:
    """The problem as it is printed; one that starts with its place says `error` there."""
    text = str(problem)
    return text if ": error: " in text.partition("\n")[0] else f"error: {text}"


def _explain(problem: BaseException) -> int:
    """Say on stderr how a command ended; its exit code."""
    code, text = INTERNAL, ""
    if isinstance(problem, click.ClickException):
        problem.show()
        code = USAGE
    elif isinstance(problem, RobevalError):
        code, text = problem.exit_code, _told(problem)
    elif isinstance(problem, (click.Abort, KeyboardInterrupt)):
        code, text = INTERRUPTED, f"interrupted: {_RESUME}"
    elif isinstance(problem, Terminated):
        code, text = TERMINATED, f"terminated: {_RESUME}"
    elif isinstance(problem, SystemExit) and not problem.code:  # completion
        code = 0
    elif isinstance(problem, (SystemExit, BrokenPipeError)):  # click ends so on a closed pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    else:
        trace = "".join(traceback.format_exception(problem))
        text = f"{trace}internal error: this is a bug in robeval; please report it"
    if text:
        click.echo(text, err=True)
    return code


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXIT_CODES)
@click.version_option(__version__, prog_name="robeval", message="%(prog)s %(version)s")
def app() -> None:
    """The referee of model robustness: judges the model file that ships, and gates the release."""


def _option(*names: str, **settings: object) -> Callable[[Command], Command]:
    """An option that also reads its `ROBEVAL_` variable."""
    long = next(name for name in names if name.startswith("--"))
    variable = "ROBEVAL_" + long.strip("-").replace("-", "_").upper()
    return click.option(*names, envvar=variable, show_envvar=True, **settings)  # type: ignore[arg-type]


def _apply(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_PLUGINS = _apply(
    click.option(
        "-p",
        "block",
        multiple=True,
        metavar="no:NAME",
        help="Block a plug-in by entry point or distribution name (also ROBEVAL_DISABLE_PLUGINS).",
    ),
    _option("--no-plugins", is_flag=True, help="Only what ships with robeval."),
    _option(
        "--strict-plugins/--no-strict-plugins",
        default=None,
        help="A broken plug-in is an error (default where CI=true).",
    ),
)
_SUITE = _apply(
    click.option(
        "--set", "overrides", multiple=True, metavar="A.B=VALUE", help="Override a suite value."
    ),
    _option("--seed", type=click.IntRange(min=0), help="Seed of every random draw."),
    _option(
        "--limit", type=click.IntRange(min=1), help="At most N samples; marks the run partial."
    ),
    click.option("-k", "select", metavar="EXPR", help="Only cells matching EXPR (and, or, not)."),
    _option(
        "--data",
        type=click.Path(path_type=Path, file_okay=False),
        help="Root of local data sets.",
    ),
    _PLUGINS,
)
_LOGS = _apply(
    click.option("-q", "--quiet", is_flag=True, help="No progress."),
    click.option("-v", "--verbose", count=True, help="More log lines on stderr."),
    _option("--log-file", type=click.Path(path_type=Path, dir_okay=False), help="Log here too."),
)
_DEVICE = _apply(
    _option(
        "--device",
        default="auto",
        show_default=True,
        help="auto, cpu, cuda or cuda:i; an explicit cuda never falls back.",
    ),
    _option("--threads", type=click.IntRange(min=1), help="Threads of torch and onnxruntime."),
)
_GITHUB = _option(
    "--github",
    is_flag=True,
    help="Annotate the suite's lines and append the summary to $GITHUB_STEP_SUMMARY.",
)
_BASELINE = _option(
    "--baseline",
    type=click.Path(path_type=Path),
    help="Compare with this baseline or run, in place of those that gates name.",
)
_SUITE_PATH = click.argument("suite", type=click.Path(path_type=Path))


def _options(**chosen: object) -> Options:
    """Options from parsed flags and the environment: the only reader of os.environ."""
    from .prepare import Options

    block = [str(name).removeprefix("no:") for name in chosen.pop("block", ())]  # type: ignore[attr-defined]
    disabled = os.environ.get("ROBEVAL_DISABLE_PLUGINS", "").split(",")
    block += [name.strip() for name in disabled if name.strip()]
    strict = chosen.pop("strict_plugins", None)
    if strict is None:
        strict = os.environ.get("CI", "").lower() == "true"
    cache = os.environ.get("XDG_CACHE_HOME")
    return Options(
        **chosen,  # type: ignore[arg-type]  # click has parsed each to its type
        block=tuple(block),
        strict=bool(strict),
        cache=(Path(cache) if cache else Path.home() / ".cache") / "robeval",
        env=dict(os.environ),
        argv=tuple(sys.argv),
    )


def _stop_logging() -> None:
    logger = logging.getLogger("robustbench_lite")
    for handler in list(logger.handlers):
        if handler.name in _HANDLERS:
            logger.removeHandler(handler)
            handler.close()


PROGRESS = "robustbench_lite.progress"
"""The logger on which plug-ins tell of long work, such as the epochs of a training."""

_HANDLERS = ("robeval console", "robeval file")


def _start_logging(verbose: int, log_file: Path | None, *, quiet: bool = False) -> None:
    """Log lines on stderr; those of `PROGRESS` are shown without -v, unless `quiet`."""
    level = {0: logging.WARNING, 1: logging.INFO}.get(verbose, logging.DEBUG)
    logger = logging.getLogger("robustbench_lite")
    logger.setLevel(min(level, logging.INFO))
    console = logging.StreamHandler(sys.stderr)
    console.addFilter(
        lambda record: record.levelno >= level or (record.name == PROGRESS and not quiet)
    )
    console.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    console.name = _HANDLERS[0]
    logger.addHandler(console)
    if log_file is not None:
        from .store import naming_disk_problems

        with naming_disk_problems(log_file):
            log_file.parent.mkdir(parents=True, exist_ok=True)
            handler = logging.FileHandler(log_file, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        handler.name = _HANDLERS[1]
        logger.addHandler(handler)


@app.command(epilog=EXIT_CODES)
@_SUITE_PATH
@_option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Exactly this run directory, new or of this very run.",
)
@_SUITE
@_DEVICE
@_option("--batch-size", default="auto", show_default=True, help="N or auto.")
@_option("--resume", is_flag=True, help="Go on with the newest run of this plan.")
@_option("--retry-errors", is_flag=True, help="Compute failed and invalid cells again.")
@_option("--refresh", is_flag=True, help="Take over no finished cell of another run.")
@_BASELINE
@_option(
    "--time-budget",
    metavar="TIME",
    help="End after 20m, 90s or 1h30m, what gates need first; the run can be resumed.",
)
@_option("--no-examples", is_flag=True, help="Keep no adversarial points for `robeval replay`.")
@_option("--executor", default="local", show_default=True, help="How cells are computed.")
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON.")
@_GITHUB
@_LOGS
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
    from .progress import display
    from .run import run as run_suite

    _start_logging(verbose, log_file, quiet=quiet)
    signal.signal(signal.SIGTERM, _terminate)
    options = _options(
        **chosen, batch_size=_batch_size(batch_size), time_budget=_duration(time_budget)
    )
    with (
        _annotating(github, suite, err=as_json),
        display(sys.stderr, quiet=quiet, terminal=sys.stderr.isatty()) as observer,
    ):
        finished = run_suite(suite, options, observer)
    return _verdict(finished, as_json=as_json, github=github)


def _batch_size(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdigit() or int(text) < 1:
        raise click.BadParameter(
            f"'{text}' is neither auto nor a positive number", param_hint="--batch-size"
        )
    return int(text)


def _duration(text: str | None) -> float | None:
    from .words import duration

    if text is None:
        return None
    seconds = duration(text)
    if seconds is None:
        raise click.BadParameter(
            f"'{text}' is not a time such as 20m, 90s or 1h30m", param_hint="--time-budget"
        )
    return seconds


def _verdict(finished: Finished, *, as_json: bool, github: bool) -> int:
    """Print the result; the verdict's exit code stands even if nobody reads it."""
    try:
        _print(finished, as_json=as_json, github=github)
        if github:
            _tell_github(finished, err=as_json)
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):  # rich ends so on a closed pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return finished.verdict.exit_code


def _print(finished: Finished, *, as_json: bool, github: bool) -> None:
    if as_json:
        click.echo((finished.run.path / "gates.json").read_text(encoding="utf-8"))
        return
    from rich.console import Console

    from .report import terminal

    with _no_commands(github):
        terminal.render(finished.run, Console())
        if finished.computed or finished.reused:
            click.echo(f"cells: {finished.computed} computed, {finished.reused} reused")
        click.echo(f"run:    {finished.run.path}")


@contextlib.contextmanager
def _no_commands(github: bool) -> Iterator[None]:
    """Keep GitHub from taking a printed name such as `::add-mask::x` for a command."""
    if not github:
        yield
        return
    token = secrets.token_hex(16)
    click.echo(f"::stop-commands::{token}")
    try:
        yield
    finally:
        sys.stdout.flush()
        click.echo(f"::{token}::")


def _checkout() -> Path:
    return Path(os.environ.get("GITHUB_WORKSPACE") or Path.cwd())


def _tell_github(finished: Finished, *, err: bool = False) -> None:
    """Annotations on stdout (on stderr beside JSON), the summary into its file."""
    from .report import github, markdown

    for line in github.lines(finished.run, _checkout()):
        click.echo(line, err=err)
    page = os.environ.get("GITHUB_STEP_SUMMARY")
    if not page:
        click.echo("note: GITHUB_STEP_SUMMARY is not set, so no summary was appended", err=True)
        return
    try:
        markdown.append(finished.run, Path(page))
    except OSError as problem:  # the verdict stands whatever becomes of its page
        click.echo(f"warning: cannot append the summary to '{page}': {problem}", err=True)


@contextlib.contextmanager
def _annotating(github: bool, suite: Path, *, err: bool) -> Iterator[None]:
    """What keeps a run from starting, as annotations too: each problem at its line."""
    try:
        yield
    except RobevalError as problem:
        if github:
            from .report import github as commands

            for line in commands.of_problem(problem, suite, _checkout()):
                click.echo(line, err=err)
        raise


@app.command()
@_SUITE_PATH
@_SUITE
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def plan(suite: Path, as_json: bool, **chosen: object) -> int:
    """Show every cell that a run would compute, with its cost, and why any is skipped."""
    from .prepare import prepare
    from .progress import describe
    from .records import plan_to_json

    prepared = prepare(suite, _options(**chosen))
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
    return 0


@app.command()
@click.argument("suites", nargs=-1, required=True, type=click.Path(path_type=Path))
@_SUITE
@_DEVICE
@click.option("--deep", is_flag=True, help="Also load everything and run 2 samples per cell.")
def validate(suites: tuple[Path, ...], deep: bool, **chosen: object) -> int:
    """Check suites: every problem at once, with file, line and column."""
    from .prepare import prepare

    worst = 0
    for path in suites:
        try:
            if deep:
                from .run import rehearse

                cells = rehearse(path, _options(**chosen))
            else:
                cells = len(prepare(path, _options(**chosen)).plan.cells)
        except RobevalError as problem:
            click.echo(_told(problem), err=True)
            worst = min(worst, problem.exit_code, key=_PRECEDENCE.index)
        else:
            click.echo(f"{path}: valid, {cells} cells")
    return worst


@app.command(epilog=EXIT_CODES)
@click.argument("run_path", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--suite", type=click.Path(path_type=Path), help="Take the gates from this suite.")
@click.option("--set", "overrides", multiple=True, metavar="A.B=VALUE")
@_BASELINE
@_PLUGINS
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON.")
@_GITHUB
def gate(run_path: Path, suite: Path | None, as_json: bool, github: bool, **chosen: object) -> int:
    """Judge a finished run again: no model, device or data is needed."""
    from .run import rejudge

    finished = rejudge(run_path, suite, _options(**chosen), reports=False)
    return _verdict(finished, as_json=as_json, github=github)


@app.command()
@click.argument("run_path", metavar="RUN", type=click.Path(path_type=Path))
@click.option("-f", "--format", "formats", multiple=True, help="Only these reports.")
@_PLUGINS
@_GITHUB
def report(run_path: Path, formats: tuple[str, ...], github: bool, **chosen: object) -> int:
    """Render the reports of a finished run again."""
    from .run import rejudge

    finished = rejudge(run_path, None, _options(**chosen), reports=True, formats=formats or None)
    click.echo(f"run:    {finished.run.path}")
    if github:
        _tell_github(finished)
    return 0


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
    from . import history as histories
    from .report import trend

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
    from . import versus
    from .report import changes, changes_page
    from .store import write_text

    found = versus.compared(base, head, _pairs(models))
    form = "json" if as_json else form
    if form == "text" and output is None:
        from rich.console import Console

        changes.render(found.comparison, Console())
        return 0
    texts: dict[str, Callable[[], str]] = {
        "text": lambda: "\n".join(changes.lines(found.comparison)) + "\n",
        "json": lambda: _dump(changes.as_json(found.comparison)) + "\n",
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
    from . import versus

    file = output or versus.file_of(name)
    versus.set_baseline(run_path, file)
    click.echo(f"wrote {file}, {file.stat().st_size:,} bytes")
    return 0


@app.command()
@click.argument("run_path", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--model",
    metavar="[NAME=]FILE",
    help="Judge this file, in the place of one model of the run or of all; default: the same.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write replay.json here.")
@_DEVICE
@_PLUGINS
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
    from . import machine, rebuild, store
    from . import replay as replays
    from .prepare import registry_of
    from .types import Places

    options = _options(**chosen)
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
    click.echo(_dump(result) if as_json else "\n".join(replays.lines(found)))
    return 0


@app.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--factory", help="pkg.mod:name that builds the network of a torch weights file.")
@click.option(
    "--input-shape",
    metavar="C,H,W",
    help="Shape of one sample, where the file leaves it open, such as 3,224,224.",
)
@click.option(
    "--data",
    "samples",
    metavar="NAME|FILE",
    help="Check it on real samples too: a dataset such as mnist-sample, or a .npz with x and y.",
)
@_DEVICE
@_PLUGINS
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def doctor(
    path: Path,
    factory: str | None,
    input_shape: str | None,
    samples: str | None,
    device: str,
    threads: int | None,
    as_json: bool,
    **chosen: object,
) -> int:
    """Tell what a model file is: inputs, outputs, provider, and what an attack can do with it."""
    from . import doctor as doctors
    from . import machine
    from .prepare import registry_of
    from .types import Places

    options = _options(**chosen)
    root = options.env.get("ROBEVAL_DATA")
    report = doctors.examine(
        path,
        registry_of(options),
        device=machine.device(device),
        threads=machine.threads(threads),
        factory=factory,
        input_shape=_shape(input_shape),
        data=samples,
        places=Places(suite=Path(), data=Path(root) if root else None, cache=options.cache),
    )
    click.echo(_dump(report.as_json()) if as_json else "\n".join(report.lines()))
    return 0 if report.runs else 7


def _shape(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = text.split(",")
    if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise click.BadParameter(
            f"'{text}' is not a list of positive numbers such as 3,224,224",
            param_hint="--input-shape",
        )
    return tuple(int(part) for part in parts)


@app.command()
@_SUITE_PATH
@click.argument("model")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write it here too: .onnx or .safetensors.",
)
@_SUITE
@_DEVICE
@_LOGS
def train(
    suite: Path,
    model: str,
    output: Path | None,
    quiet: bool,
    verbose: int,
    log_file: Path | None,
    **chosen: object,
) -> int:
    """Make one model of a suite that a recipe trains; a finished one comes from the cache."""
    from .train import train as make

    _start_logging(verbose, log_file, quiet=quiet)
    signal.signal(signal.SIGTERM, _terminate)
    made = make(suite, model, _options(**chosen), output)
    for key, value in made.facts.items():
        click.echo(f"{key}: {value}")
    click.echo(f"content: {made.content}")
    if made.output is not None:
        click.echo(f"wrote {made.output}")
    return 0


@app.command()
@_PLUGINS
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.option("--doctor", "causes", is_flag=True, help="Show why a plug-in is broken.")
def plugins(as_json: bool, causes: bool, **chosen: object) -> int:
    """List what is installed: plug-ins, and the names that they add."""
    from . import listing
    from .prepare import registry_of

    registry = registry_of(_options(**chosen))
    if as_json:
        click.echo(_dump(listing.as_json(registry)))
        return 0
    for line in listing.lines(registry, causes=causes):
        click.echo(line)
    return 0


@app.command()
@_PLUGINS
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write it here.")
def schema(output: Path | None, **chosen: object) -> int:
    """Print the JSON Schema of suites, built from the plug-ins installed."""
    from .prepare import registry_of
    from .store import write_json
    from .suite.schema import json_schema

    value = json_schema(registry_of(_options(**chosen)))
    if output is None:
        click.echo(_dump(value))
    else:
        write_json(output, value)
        click.echo(f"wrote {output}")
    return 0


def _dump(value: Mapping[str, Json]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
