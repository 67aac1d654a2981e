"""How a verdict is printed, for people, as JSON and for GitHub."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import RobevalError

if TYPE_CHECKING:
    from ..run import Finished
    from ..types import Json

INCOMPLETE = 4


def show(finished: Finished, *, as_json: bool, github: bool) -> int:
    """Print the result; the verdict's exit code stands even if nobody reads it.

    A run that passes and lacks a report that the suite asks for is incomplete.
    """
    try:
        _print(finished, as_json=as_json, github=github)
        if github:
            tell_github(finished, err=as_json)
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):  # rich ends so on a closed pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return finished.verdict.exit_code or tell_unwritten(finished)


def tell_unwritten(finished: Finished) -> int:
    """Say on stderr which reports could not be written: 4 if there is any, else 0."""
    for problem in finished.unwritten:
        click.echo(f"error: {problem}", err=True)
    return INCOMPLETE if finished.unwritten else 0


def _print(finished: Finished, *, as_json: bool, github: bool) -> None:
    if as_json:
        from ..store import verdict_to_json

        click.echo(dump(verdict_to_json(finished.verdict)))
        return
    from rich.console import Console

    from ..report import terminal

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


def tell_github(finished: Finished, *, err: bool = False) -> None:
    """Annotations on stdout (on stderr beside JSON), the summary into its file."""
    from ..report import github, markdown

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
def annotating(github: bool, suite: Path, *, err: bool) -> Iterator[None]:
    """What keeps a run from starting, as annotations too: each problem at its line."""
    try:
        yield
    except RobevalError as problem:
        if github:
            from ..report import github as commands

            for line in commands.of_problem(problem, suite, _checkout()):
                click.echo(line, err=err)
        raise


def dump(value: Mapping[str, Json]) -> str:
    """JSON for people to read."""
    return json.dumps(value, indent=2, ensure_ascii=False)
