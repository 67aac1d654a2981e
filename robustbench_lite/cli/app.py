"""The group of all commands, and how each of them ends."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

import click

from .._version import __version__
from ..errors import RobevalError
from . import logs

USAGE, INTERNAL, INTERRUPTED, TERMINATED = 2, 3, 130, 143
_COMPLETION = "_ROBEVAL_COMPLETE"  # click ends so once it has answered the shell
_RESUME = "finished cells are kept; run the same command with --resume to go on"

EXIT_CODES = """\b
Exit codes:
  0    complete, every gate passes, or there are none
  1    a gate failed on complete evidence
  2    usage, suite or plug-in error: nothing ran
  3    internal error (a bug in robeval)
  4    incomplete: cells failed, timed out, or are missing, an analysis or a report failed,
       or the time budget ended
  5    nothing selected
  6    a gate is inconclusive
  7    environment: device, provider, model file or dataset missing or not as declared
  8    the measurement is invalid: an error finding touches a gated cell
  130  interrupted (143: terminated); the run directory can be resumed
"""


class Terminated(BaseException):
    """SIGTERM arrived."""


def terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    """End the command: a signal handler."""
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
        logs.stop()
    return code if isinstance(code, int) else 0


def told(problem: RobevalError) -> str:
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
        code, text = problem.exit_code, told(problem)
    elif isinstance(problem, (click.Abort, KeyboardInterrupt)):
        code, text = INTERRUPTED, f"interrupted: {_RESUME}"
    elif isinstance(problem, Terminated):
        code, text = TERMINATED, f"terminated: {_RESUME}"
    elif isinstance(problem, SystemExit) and not problem.code:
        code, text = (0, "") if _COMPLETION in os.environ else (USAGE, _left(problem))
    elif isinstance(problem, (SystemExit, BrokenPipeError)):  # click ends so on a closed pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    else:
        trace = "".join(traceback.format_exception(problem))
        text = f"{trace}internal error: this is a bug in robeval; please report it"
    if text:
        click.echo(text, err=True)
    return code


def _left(problem: SystemExit) -> str:
    """What to say of a `sys.exit()` that would pass for a verdict: only code that is not ours."""
    last = traceback.extract_tb(problem.__traceback__)[-1]
    return (
        f"{last.filename}:{last.lineno}: error: the code of a plug-in ended the command with"
        " sys.exit(): there is no verdict\n  help: let it return or raise, and guard what is a"
        ' script by `if __name__ == "__main__":`'
    )


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXIT_CODES)
@click.version_option(__version__, prog_name="robeval", message="%(prog)s %(version)s")
def app() -> None:
    """The referee of model robustness: judges the model file that ships, and gates the release."""
