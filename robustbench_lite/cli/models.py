"""`doctor`, `train`."""

from __future__ import annotations

import signal
from pathlib import Path

import click

from . import logs
from .app import app, terminate
from .options import DEVICE, LOGS, PLUGINS, SUITE, SUITE_PATH, parsed
from .shown import dump


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
@DEVICE
@PLUGINS
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
    from .. import doctor as doctors
    from .. import machine
    from ..prepare import registry_of
    from ..types import Places

    options = parsed(**chosen)
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
    click.echo(dump(report.as_json()) if as_json else "\n".join(report.lines()))
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
@SUITE_PATH
@click.argument("model")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write it here too: .onnx or .safetensors.",
)
@SUITE
@DEVICE
@LOGS
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
    from ..train import train as make

    logs.start(verbose, log_file, quiet=quiet)
    signal.signal(signal.SIGTERM, terminate)
    made = make(suite, model, parsed(**chosen), output)
    for key, value in made.facts.items():
        click.echo(f"{key}: {value}")
    click.echo(f"content: {made.content}")
    if made.output is not None:
        click.echo(f"wrote {made.output}")
    return 0
