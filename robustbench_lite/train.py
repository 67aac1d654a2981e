"""Make one model of a suite that is built from other entries, and write it where it is wanted."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from . import machine
from .errors import ModelError, UsageError
from .group import Failure
from .params import referring
from .prepare import Options, prepare
from .stock import Stock
from .store import naming_disk_problems
from .types import Json, LoadedModel
from .words import did_you_mean, listed

OPSET = 17
CHECKED = 64  # samples on which an exported file must agree
TOLERANCE = 1e-4  # of the largest logit
SUFFIXES = (".onnx", ".safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A model of a suite, made: its content id, what its loader says of it, the file written."""

    name: str
    content: str
    facts: Mapping[str, Json]
    output: Path | None


def train(suite: Path, name: str, options: Options, output: Path | None) -> Trained:
    """Make the model `name` of a suite, or take it from the cache, and export it to `output`.

    Raises UsageError for a model that is read from a file, and for an ending that is neither .onnx
    nor .safetensors; EnvironmentProblem for what its data or its training have wrong.
    """
    if output is not None and output.suffix not in SUFFIXES:
        raise UsageError(f"-o: '{output}' must end in {' or '.join(SUFFIXES)}")
    prepared = prepare(suite, options)
    device, threads = machine.device(options.device), machine.threads(options.threads)
    torch.set_num_threads(threads)
    machine.full_precision()
    machine.keep_freed_memory()
    entries = {entry.name: entry for entry in prepared.suite.models}
    if name not in entries:
        hints = did_you_mean(name, entries) or (f"models: {listed(entries)}",)
        raise UsageError(f"{suite}: there is no model '{name}'\n  help: {hints[0]}")
    if not referring(type(entries[name].params)):
        raise UsageError(
            f"{suite}: model '{name}' is read by '{entries[name].loader}' as it is; only a model"
            " that is made from other entries of the suite can be trained"
        )
    stock = Stock(
        prepared.suite, prepared.registry, prepared.places, device, threads, plan=prepared.plan
    )
    model = stock.model(name)
    if isinstance(model, Failure):
        raise ModelError(model.reason)
    if output is not None:
        export(model, output)
    return Trained(
        name=name, content=prepared.plan.models[name].content, facts=model.facts, output=output
    )


def export(model: LoadedModel, path: Path) -> None:
    """Write the differentiable network: inputs [n, *shape] in the data's box to logits [n, k].

    An ONNX file is run on uniform noise and compared. Raises ModelError where the two differ, or
    where there is no network to write.
    """
    network = model.differentiable
    if network is None or model.input_shape is None:
        raise ModelError(f"there is no network to write: {model.no_gradient}")
    with naming_disk_problems(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".safetensors":
            from safetensors.torch import save_file

            save_file({key: value.cpu() for key, value in network.state_dict().items()}, path)
            return
        _write_onnx(network.to("cpu"), path, model.input_shape)


def _write_onnx(network: nn.Module, path: Path, shape: tuple[int, ...]) -> None:
    import onnxruntime

    x = torch.rand(CHECKED, *shape, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter speaks of itself
        torch.onnx.export(
            network,
            (x[:2],),
            path,
            dynamo=False,  # the newer exporter writes stack traces with local paths into the file
            opset_version=OPSET,
            input_names=["input"],
            output_names=["logits"],
            dynamic_axes={"input": {0: "n"}, "logits": {0: "n"}},
        )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    exported = torch.from_numpy(session.run(["logits"], {"input": x.numpy()})[0])
    with torch.no_grad():
        expected = network(x)
    gap = float((exported - expected).abs().max())
    if not gap <= TOLERANCE * max(1.0, float(expected.abs().max())):
        path.unlink()
        raise ModelError(f"the ONNX file and the network differ by {gap:.1e} in a logit")
