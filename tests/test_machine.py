"""The device as asked for, the threads that a process may use, and what a manifest says of both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from robustbench_lite import __version__, machine
from robustbench_lite.errors import EnvironmentProblem, UsageError

COUNT = torch.cuda.device_count() if torch.cuda.is_available() else 0


def test_auto_may_choose_the_cpu_and_cpu_is_the_cpu() -> None:
    assert machine.device("auto") == ("cuda:0" if COUNT else "cpu")
    assert machine.device("cpu") == "cpu"


@pytest.mark.parametrize("asked", [f"cuda:{COUNT}", f"cuda:{COUNT + 7}"])
def test_an_explicit_cuda_never_falls_back(asked: str) -> None:
    with pytest.raises(EnvironmentProblem) as caught:
        machine.device(asked)
    assert f"'{asked}' was asked for" in str(caught.value)
    assert f"finds {COUNT} CUDA" in str(caught.value)
    assert caught.value.exit_code == 7


def test_cuda_is_the_first_device_or_an_error() -> None:
    if COUNT:
        assert machine.device("cuda") == machine.device("cuda:0") == "cuda:0"
        return
    with pytest.raises(EnvironmentProblem, match="'cuda' was asked for"):
        machine.device("cuda")


@pytest.mark.parametrize(
    "asked",
    ["gpu", "", "CPU", "cuda0", "cuda:one", "cuda:-1", "cuda:1.5", "mps", "cpu:0", "cuda:²"],
)
def test_an_unknown_device_is_named_with_the_known_ones(asked: str) -> None:
    with pytest.raises(UsageError, match="is not one of auto, cpu, cuda"):
        machine.device(asked)


# ---------------------------------------------------------------- threads


def cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def test_the_number_asked_for_is_taken() -> None:
    assert machine.threads(3) == 3


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000", None),
        ("100000 100000", 1),
        ("150000 100000", 1),
        ("50000 100000", 1),
        ("99900000 100000", None),
        ("garbage", None),
        ("1 2 3", None),
        ("", None),
    ],
)
def test_a_quota_of_the_container_is_a_limit(
    quota: str, expected: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cpu.max"
    path.write_text(f"{quota}\n")
    monkeypatch.setattr(machine, "_QUOTA", path)
    assert machine.threads(None) == (cores() if expected is None else expected)


def test_without_a_quota_the_cores_of_the_process_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_QUOTA", tmp_path / "none")
    assert machine.threads(None) == cores()


# ---------------------------------------------------------------- facts


def test_the_manifest_names_versions_and_hardware_and_no_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ROBEVAL_SECRET", "hush-hush")
    facts = machine.facts("cpu", 2)
    text = json.dumps(facts)
    assert "hush-hush" not in text
    assert json.loads(text) == facts
    versions, hardware = facts["versions"], facts["hardware"]
    assert isinstance(versions, dict)
    assert isinstance(hardware, dict)
    assert versions["torch"] == torch.__version__
    assert versions.get("robustbench-lite", __version__) == __version__
    assert (hardware["device"], hardware["threads"]) == ("cpu", 2)
    assert hardware["system"]
    assert "gpu" not in hardware


@pytest.mark.skipif(not COUNT, reason="needs a CUDA device")
def test_a_gpu_is_named_with_its_memory() -> None:
    hardware = machine.facts("cuda:0", 1)["hardware"]
    assert isinstance(hardware, dict)
    assert hardware["gpu"] == torch.cuda.get_device_name(0)
    assert isinstance(hardware["gpu_memory_bytes"], int)


PASSES = """
import resource, sys, torch
from robustbench_lite import machine
if sys.argv[1] == "kept" and not machine.keep_freed_memory():
    sys.exit(3)
big = 4_000_000  # bytes: above what glibc serves from its own heap as it comes
def look():
    return torch.ones(big // 4).mul_(2).sum()
look()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    look()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_freed_memory_is_not_asked_for_page_by_page_again() -> None:
    """50 buffers of 4 MB: some 50,000 pages where each is handed back, at most one's if kept."""
    handed_back = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
    counts = {}
    for how in ("kept", "system"):
        argv = [sys.executable, "-c", PASSES, how]
        env = {**os.environ, **handed_back}
        ended = subprocess.run(argv, capture_output=True, text=True, check=False, env=env)
        if ended.returncode == 3:
            pytest.skip("another C library than glibc")
        assert ended.returncode == 0, ended.stderr
        counts[how] = int(ended.stdout)
    assert counts["kept"] < 1000
    assert counts["system"] > 40_000
