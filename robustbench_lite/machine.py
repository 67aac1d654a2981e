"""The machine a run is on: device as asked for, threads, and what goes into the manifest."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
from pathlib import Path

import torch

from .errors import EnvironmentProblem, UsageError
from .types import Json

PACKAGES = (
    "robustbench-lite",
    "torch",
    "onnx",
    "onnxruntime-gpu",
    "onnxruntime",
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
    "pydantic",
    "pluggy",
)
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's mallopt (malloc.h)
_LARGEST_KEPT = 32 << 20  # bytes of one buffer: the most that every glibc takes for this option
_MOST_KEPT = (1 << 31) - 1  # bytes: an int is all that mallopt takes
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def device(asked: str) -> str:
    """`cpu` or `cuda:i` for what was asked for; an explicit cuda never falls back."""
    if asked == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    if asked == "cpu":
        return "cpu"
    kind, colon, index = asked.partition(":")
    if kind != "cuda" or (colon and not (index.isascii() and index.isdecimal())):
        raise UsageError(f"device '{asked}' is not one of auto, cpu, cuda, cuda:0, cuda:1 …")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(index or 0) >= count:
        raise EnvironmentProblem(
            f"device '{asked}' was asked for and torch {torch.__version__} finds {count} CUDA"
            " devices; use --device cpu, or install a CUDA build of torch and a driver"
        )
    return f"cuda:{int(index or 0)}"


def full_precision() -> None:
    """Multiply in float32 on every device: TF32 would keep 10 bits of each factor."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def keep_freed_memory() -> bool:
    """Have glibc keep what is freed for the next allocation; whether it does (not elsewhere).

    By default it hands every larger buffer back to the system, and the next pass through a network
    gets it again page by page: up to half of the time of a small one. What is kept is at most the
    peak that the process has reached.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # another C library, another system
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT) and mallopt(_TRIM_THRESHOLD, _MOST_KEPT))


def threads(asked: int | None) -> int:
    """The number asked for, else the cores that this process may use (affinity, cgroup)."""
    if asked is not None:
        return asked
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def facts(device_name: str, thread_count: int) -> dict[str, Json]:
    """Versions and hardware for the manifest; nothing of the environment's variables."""
    versions: dict[str, Json] = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    hardware: dict[str, Json] = {
        "device": device_name,
        "threads": thread_count,
        "processor": platform.processor() or platform.machine(),
        "system": platform.platform(),
    }
    if device_name.startswith("cuda"):
        properties = torch.cuda.get_device_properties(device_name)
        hardware |= {
            "gpu": properties.name,
            "gpu_memory_bytes": properties.total_memory,
            "cuda": torch.version.cuda,
            "tf32": torch.backends.cuda.matmul.allow_tf32,
        }
    return {"python": platform.python_version(), "versions": versions, "hardware": hardware}
