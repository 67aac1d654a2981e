"""Options that several commands share, and how they and the environment are read."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..prepare import Options

Command = Callable[..., int]


def option(*names: str, **settings: object) -> Callable[[Command], Command]:
    """An option that also reads its `ROBEVAL_` variable."""
    long = next(name for name in names if name.startswith("--"))
    variable = "ROBEVAL_" + long.strip("-").replace("-", "_").upper()
    return click.option(*names, envvar=variable, show_envvar=True, **settings)  # type: ignore[arg-type]


def apply(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


PLUGINS = apply(
    click.option(
        "-p",
        "block",
        multiple=True,
        metavar="no:NAME",
        help="Block a plug-in by entry point or distribution name (also ROBEVAL_DISABLE_PLUGINS).",
    ),
    option("--no-plugins", is_flag=True, help="Only what ships with robeval."),
    option(
        "--strict-plugins/--no-strict-plugins",
        default=None,
        help="A broken plug-in is an error (default where CI=true).",
    ),
)
SUITE = apply(
    click.option(
        "--set", "overrides", multiple=True, metavar="A.B=VALUE", help="Override a suite value."
    ),
    option("--seed", type=click.IntRange(min=0), help="Seed of every random draw."),
    option("--limit", type=click.IntRange(min=1), help="At most N samples; marks the run partial."),
    click.option("-k", "select", metavar="EXPR", help="Only cells matching EXPR (and, or, not)."),
    option(
        "--data",
        type=click.Path(path_type=Path, file_okay=False),
        help="Root of local data sets.",
    ),
    PLUGINS,
)
LOGS = apply(
    click.option("-q", "--quiet", is_flag=True, help="No progress."),
    click.option("-v", "--verbose", count=True, help="More log lines on stderr."),
    option("--log-file", type=click.Path(path_type=Path, dir_okay=False), help="Log here too."),
)
DEVICE = apply(
    option(
        "--device",
        default="auto",
        show_default=True,
        help="auto, cpu, cuda or cuda:i; an explicit cuda never falls back.",
    ),
    option("--threads", type=click.IntRange(min=1), help="Threads of torch and onnxruntime."),
)
GITHUB = option(
    "--github",
    is_flag=True,
    help="Annotate the suite's lines and append the summary to $GITHUB_STEP_SUMMARY.",
)
BASELINE = option(
    "--baseline",
    type=click.Path(path_type=Path),
    help="Compare with this baseline or run, in place of those that gates name.",
)
SUITE_PATH = click.argument("suite", type=click.Path(path_type=Path))


def parsed(**chosen: object) -> Options:
    """Options from parsed flags and the environment: the only reader of os.environ."""
    from ..prepare import Options

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
