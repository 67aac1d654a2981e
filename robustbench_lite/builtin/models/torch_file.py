"""The `torch` loader: a factory with its weights, or a trusted file that is a whole network."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

import torch
from torch import Tensor, nn

from robustbench_lite import LoadedModel, ModelError, Places

from .formats import DESCRIPTION, existing_file, sniff
from .parameters import TorchParams
from .preprocess import Classification, Preprocess
from .weights import check_finite, put_weights, read_state, read_whole

INITIALISATION_SEED = 0
REFUSALS = (RuntimeError, ValueError, TypeError, IndexError, AssertionError)
"""What a network raises on an input that does not fit it."""


def load(params: TorchParams, *, places: Places, device: str, threads: int) -> LoadedModel:  # noqa: ARG001
    """The network in eval mode, float32, on `device`, its parameters without gradients.

    `predict` and `differentiable` are the same module. Raises ModelError for all that a file, a
    factory or a declaration can have wrong.
    """
    network = _network(params)
    _freeze(network)
    # also where no state dict was loaded: an initialisation or a pickled module can hold NaN
    check_finite(network.state_dict(), str(params.weights or params.factory))
    preprocess = Preprocess(params).eval()
    num_classes = params.num_classes or _count_classes(network, preprocess, params)
    whole = Classification(preprocess, network, params.output, num_classes)
    whole.training = False
    whole.to(device)
    return LoadedModel(
        predict=_predictor(whole),
        differentiable=whole,
        num_classes=num_classes,
        input_shape=params.input_shape,
        output=params.output,
        device=device,
        provider="torch",
        facts=_facts(params, network),
    )


def _predictor(whole: Classification) -> Callable[[Tensor], Tensor]:
    # no_grad, not inference_mode: what a network caches in forward must stay differentiable
    @torch.no_grad()
    def predict(x: Tensor) -> Tensor:
        try:
            return whole.own_output(x)
        except REFUSALS as problem:
            if "memory" in str(problem).lower():  # torch.OutOfMemoryError, or the CPU allocator
                raise
            raise ModelError(_refusal(x, problem)) from problem

    return predict


def _refusal(x: Tensor, problem: Exception) -> str:
    lines = str(problem).splitlines() or [""]
    return (
        f"the network refuses inputs of shape {list(x.shape)} "
        f"({type(problem).__name__}: {lines[0]})"
    )


def _network(params: TorchParams) -> nn.Module:
    if params.factory is not None:
        network = build(params.factory, params.kwargs)
        if params.weights is not None:
            put_weights(network, read_state(params.weights, trust=params.trust), params.weights)
        return network
    assert params.weights is not None
    existing_file(params.weights)
    found = sniff(params.weights)
    if found not in {"torchscript", "pt2", "torch-zip", "pickle"}:
        raise ModelError(
            f"{params.weights} is {DESCRIPTION[found]}; expected TorchScript, .pt2 or a pickled "
            "module, or a factory that builds the network"
        )
    return read_whole(params.weights, found)


def build(factory: str, kwargs: dict[str, object]) -> nn.Module:
    """Import "package.module:name" and call it, its random initialisation drawn with seed 0."""
    create = _find(factory)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(INITIALISATION_SEED)
        try:
            network = create(**kwargs)
        except (Exception, SystemExit) as problem:
            cause = f"{type(problem).__name__}: {problem}{_signature(create)}"
            raise ModelError(f"factory '{factory}' raised {cause}") from problem
    if not isinstance(network, nn.Module):
        raise ModelError(
            f"factory '{factory}' returned {type(network).__name__}; expected a torch.nn.Module"
        )
    return network


def _find(factory: str) -> Callable[..., object]:
    module_name, _, name = factory.partition(":")
    try:
        found: object = importlib.import_module(module_name)
    except ModuleNotFoundError as problem:
        if problem.name is None or not f"{module_name}.".startswith(f"{problem.name}."):
            raise ModelError(
                f"factory '{factory}': its module needs '{problem.name}', which is not installed"
            ) from problem
        raise ModelError(
            f"factory '{factory}': there is no module '{problem.name}'. Install its package, or "
            "name its folder in the suite: python_path: [.]"
        ) from problem
    except (Exception, SystemExit) as problem:
        raise ModelError(
            f"factory '{factory}': importing {module_name} raised "
            f"{type(problem).__name__}: {problem}"
        ) from problem
    for part in name.split("."):
        if not hasattr(found, part):
            raise ModelError(_no_such_name(factory, module_name, part, found))
        found = getattr(found, part)
    if not callable(found):
        kind = type(found).__name__
        raise ModelError(f"factory '{factory}' is of type {kind}; expected a function")
    return found


def _no_such_name(factory: str, module: str, part: str, owner: object) -> str:
    names = [name for name in dir(owner) if not name.startswith("_")]
    near = get_close_matches(part, names, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return f"factory '{factory}': {module} has no '{part}'{hint}"


def _signature(create: Callable[..., object]) -> str:
    try:
        return f" (its parameters: {inspect.signature(create)})"
    except (TypeError, ValueError):
        return ""


def _freeze(network: nn.Module) -> None:
    """Eval mode, float32, no parameter gradients.

    The flag is set by hand where eval() is refused: a torch.export module has its mode built in.
    """
    try:
        network.eval()
    except NotImplementedError:
        for module in network.modules():
            module.training = False
    network.float()
    for parameter in network.parameters():  # a script module has no requires_grad_ of its own
        parameter.requires_grad = False


def _count_classes(network: nn.Module, preprocess: Preprocess, params: TorchParams) -> int:
    columns = _columns_by_running(network, preprocess, params)
    if columns is None:
        widths = [getattr(module, "out_features", None) for module in network.modules()]
        columns = next((width for width in reversed(widths) if isinstance(width, int)), None)
    if columns is None:
        raise ModelError(
            "the number of classes cannot be read from the network: add num_classes (or "
            "input_shape, one sample's shape, so that it can be run once) to the model"
        )
    return 2 if columns == 1 else columns


@torch.no_grad()
def _columns_by_running(
    network: nn.Module, preprocess: Preprocess, params: TorchParams
) -> int | None:
    if params.input_shape is None:
        return None
    x = torch.zeros(2, *params.input_shape)
    try:
        own = network(preprocess(x))
    except REFUSALS as problem:
        raise ModelError(f"input_shape: {_refusal(x, problem)}") from problem
    if not isinstance(own, Tensor):
        return None  # the first real batch is refused with what it returned
    return 1 if own.ndim == 1 else own.shape[1]


def _facts(params: TorchParams, network: nn.Module) -> dict[str, str | int | list[int] | None]:
    path: Path | None = params.weights
    return {
        "format": sniff(path) if path is not None else "factory",
        "factory": params.factory,
        "file_bytes": path.stat().st_size if path is not None else 0,
        "parameters": sum(value.numel() for value in network.parameters()),
        "sample_shape": list(params.input_shape or _first_width(network)) or None,
    }


def _first_width(network: nn.Module) -> tuple[int, ...]:
    """The only shape that a network shows: what its first layer with weights takes, if linear."""
    weighted = (module for module in network.modules() if "weight" in module._parameters)  # noqa: SLF001
    first = next(weighted, None)
    return (first.in_features,) if isinstance(first, nn.Linear) else ()
