"""Weights from a file into a network, with every way this goes wrong in the user's words."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

import torch
from torch import Tensor, nn

from robustbench_lite import ModelError

from .formats import DESCRIPTION, Format, existing_file, sniff

STATE_DICT: tuple[Format, ...] = ("safetensors", "torch-zip", "pickle")
_SHOWN = 4
_CHECKPOINT_KEYS = ("state_dict", "model_state_dict", "model", "net", "weights")


def read_state(path: Path, *, trust: bool) -> Mapping[str, Tensor]:
    """The tensors of a .safetensors file or a state dict, on the CPU; no code of the file runs.

    With `trust` a pickle may hold anything, and a pickled module gives its state dict.
    """
    existing_file(path)
    found = sniff(path)
    if found not in STATE_DICT:
        raise ModelError(
            f"{path} is {DESCRIPTION[found]}; expected weights as .safetensors or a state dict "
            "saved by torch.save(net.state_dict(), ...)"
        )
    if found == "safetensors":
        return _read_safetensors(path)
    saved = read_pickle(path, trust=trust)
    if isinstance(saved, nn.Module):
        return saved.state_dict()
    return _as_state(path, saved)


def _read_safetensors(path: Path) -> Mapping[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state: Mapping[str, Tensor] = load_file(path)
    except SafetensorError as problem:
        raise ModelError(
            f"{path} is truncated or no sound safetensors file ({problem}): fetch or save it again"
        ) from problem
    return state


def read_pickle(path: Path, *, trust: bool) -> object:
    """What torch.save wrote; without `trust` only plain tensors and containers are accepted."""
    try:
        with warnings.catch_warnings():
            # any protocol is read or refused; the advice to report it to torch helps nobody
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
            saved: object = torch.load(path, map_location="cpu", weights_only=not trust)
    except pickle.UnpicklingError as problem:
        if trust:
            raise _unreadable(path, problem) from problem
        raise ModelError(
            f"{path} is a pickle that holds Python objects, not only tensors: loading it would run "
            "its code. Save torch.save(net.state_dict(), ...) or safetensors instead, or set "
            "trust: true if you know where it comes from"
        ) from problem
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, AttributeError) as problem:
        raise _unreadable(path, problem) from problem
    except ImportError as problem:
        raise ModelError(
            f"{path} needs the module '{problem.name}' that its objects were defined in: {problem}"
        ) from problem
    return saved


def _unreadable(path: Path, problem: Exception) -> ModelError:
    text = str(problem).splitlines() or [type(problem).__name__]
    return ModelError(f"{path} is truncated or damaged ({text[0]}): fetch or save it again")


def _as_state(path: Path, saved: object) -> Mapping[str, Tensor]:
    if not isinstance(saved, Mapping):
        raise ModelError(
            f"{path} holds {type(saved).__name__}; expected a state dict (name -> tensor)"
        )
    state = {str(name): value for name, value in saved.items() if isinstance(value, Tensor)}
    others = [str(name) for name, value in saved.items() if not isinstance(value, Tensor)]
    if state and not others:
        return state
    inner = next((name for name in _CHECKPOINT_KEYS if isinstance(saved.get(name), Mapping)), None)
    hint = f": save checkpoint['{inner}'] on its own" if inner else ""
    held = f"the keys {_some(others)} that are no tensors" if state else "no tensors at all"
    raise ModelError(f"{path} is no plain state dict: it holds {held}{hint}")


def put_weights(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load `state` into `network`; ModelError if keys, shapes or values are not sound."""
    check_finite(state, str(path))
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as problem:
        raise ModelError(_mismatch(network, state, path, problem)) from problem


def check_finite(state: Mapping[str, Tensor], origin: str) -> None:
    """ModelError that names the tensors with NaN or infinite values."""
    bad = [
        name
        for name, value in state.items()
        if value.is_floating_point() and not bool(value.isfinite().all())
    ]
    if bad:
        raise ModelError(
            f"{origin}: NaN or infinite values in {_some(bad)}: the training diverged or the file "
            "is damaged"
        )


def _mismatch(
    network: nn.Module, state: Mapping[str, Tensor], path: Path, problem: RuntimeError
) -> str:
    own = network.state_dict()
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    shapes = [
        f"{name} is {list(value.shape)} in the file and {list(own[name].shape)} in the network"
        for name, value in state.items()
        if name in own and isinstance(own[name], Tensor) and own[name].shape != value.shape
    ]
    parts: list[str] = []
    if missing:
        parts.append(f"missing in the file: {_some(missing)}")
    if unexpected:
        parts.append(f"unknown to the network: {_some([_near(n, missing) for n in unexpected])}")
    if shapes:
        parts.append(f"other shapes: {_some(shapes, '; ')}")
    if unexpected and all(name.startswith("module.") for name in state):
        parts.append("every key starts with 'module.': save net.module.state_dict() instead")
    detail = "; ".join(parts) or str(problem).splitlines()[-1].strip()
    return f"{path} does not fit the network of the factory: {detail}"


def _near(name: str, missing: list[str]) -> str:
    near = get_close_matches(name, missing, n=1)
    return f"{name} (nearest missing: {near[0]})" if near else name


def _some(names: list[str], separator: str = ", ") -> str:
    more = len(names) - _SHOWN
    shown = separator.join(names[:_SHOWN])
    return f"{shown}{separator}and {more} more" if more > 0 else shown


def read_whole(path: Path, found: Format) -> nn.Module:
    """A network from a trusted TorchScript, .pt2 or pickled-module file. This can run its code."""
    if found == "torchscript":
        return _read_torchscript(path)
    if found == "pt2":
        return _read_exported(path)
    saved = read_pickle(path, trust=True)
    if not isinstance(saved, nn.Module):
        raise ModelError(
            f"{path} holds {type(saved).__name__} and no network: give factory: "
            "'package.module:name' that builds the network for these weights"
        )
    return saved


def _read_torchscript(path: Path) -> nn.Module:
    network: nn.Module
    with warnings.catch_warnings():
        # torch says that TorchScript is deprecated; the user's file is what it is
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            network = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError) as problem:
            raise _unreadable(path, problem) from problem
    return network


def _read_exported(path: Path) -> nn.Module:
    try:
        network: nn.Module = torch.export.load(path).module()
    except (RuntimeError, ValueError, KeyError, AssertionError, pickle.UnpicklingError) as problem:
        raise _unreadable(path, problem) from problem
    return network
