"""Parts of a network that still behave as in training."""

from __future__ import annotations

from collections import Counter

from torch import nn

from . import keys

_DROPPING = frozenset(
    {"_DropoutNd", "Dropout", "AlphaDropout", "FeatureAlphaDropout", "DropPath"}
    | {"StochasticDepth", "RReLU"}
)
_NORMALISING = frozenset({"_BatchNorm", "BatchNorm", "SyncBatchNorm", "_SpectralNorm"})
_TRACKING = frozenset({"_InstanceNorm", "InstanceNorm"})
_SOMETIMES = frozenset({"RNNBase", "MultiheadAttention"})


def in_training(module: nn.Module | None) -> dict[str, float]:
    """How many parts of each kind are in train mode, where the mode changes the output."""
    if module is None:
        return {}
    found = Counter(_name(part) for part in module.modules() if part.training and _matters(part))
    return {f"{keys.TRAINING}{name}": count for name, count in sorted(found.items())}


def _name(part: nn.Module) -> str:
    """The class; of a TorchScript module the one that it was made from."""
    return str(getattr(part, "original_name", type(part).__name__))


def _matters(part: nn.Module) -> bool:
    names = {kind.__name__ for kind in type(part).__mro__} | {_name(part).rstrip("123d")}
    if names & _DROPPING:
        return _positive(part, "p", otherwise=True)
    if names & _TRACKING:
        return bool(getattr(part, "track_running_stats", False))
    if names & _SOMETIMES:
        return _positive(part, "dropout", otherwise=False)
    return bool(names & _NORMALISING)


def _positive(part: nn.Module, name: str, *, otherwise: bool) -> bool:
    value = getattr(part, name, None)
    return value > 0 if isinstance(value, int | float) else otherwise
