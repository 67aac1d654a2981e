"""Fixtures shared by every test: device, full data sets, threads."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
import torch

TESTS = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="cpu or cuda[:i]; runs the same tests there")


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)
    device = torch.device(config.getoption("--device"))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise pytest.UsageError("--device cuda was asked for and torch finds no CUDA device")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    """The device under test, from `--device`."""
    return torch.device(request.config.getoption("--device"))


@pytest.fixture(scope="session")
def full_data() -> Path:
    """Root of the full data sets; the test is skipped by name where they are not there."""
    root = os.environ.get("ROBEVAL_DATA")
    if not root or not (Path(root) / "mnist").is_dir():
        pytest.skip("needs the full MNIST files: set ROBEVAL_DATA to the folder that holds mnist/")
    return Path(root)


@pytest.fixture
def lies(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the lying attacks as a distribution of their own."""
    site = tmp_path_factory.mktemp("site")
    shutil.copy(TESTS / "lies" / "robeval_lies.py", site)
    info = site / "robeval_lies-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: robeval-lies\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[robeval]\nlies = robeval_lies\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "robeval_lies", raising=False)


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


class Robeval(Protocol):
    """Runs the command line in this process."""

    def __call__(self, *argv: str) -> Ended: ...


@pytest.fixture
def robeval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Robeval:
    """The command line with `tmp_path` as working directory, one thread, no leaking variables."""
    from robustbench_lite.cli import invoke

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("ROBEVAL_THREADS", "1")
    monkeypatch.setattr(sys, "path", [*sys.path])
    handler = signal.getsignal(signal.SIGTERM)

    def call(*argv: str) -> Ended:
        logger = logging.getLogger("robustbench_lite")
        handlers = list(logger.handlers)
        capsys.readouterr()
        try:
            code = invoke([str(part) for part in argv])
        finally:
            logger.handlers = handlers
            signal.signal(signal.SIGTERM, handler)
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return call


SUITE = """\
schema: 1
name: small
python_path: ["{tests}"]
models:
  linear: {{load: torch, factory: "nearest_mean:linear"}}
datasets:
  mnist: {{load: mnist-sample, take: {take}}}
"""


@pytest.fixture
def write_suite(tmp_path: Path) -> Callable[..., Path]:
    """Write a suite of the nearest-mean classifier on the MNIST sample, plus the given text."""

    def write(text: str = "", *, take: int = 50, name: str = "suite.yaml") -> Path:
        path = tmp_path / name
        path.write_text(SUITE.format(tests=TESTS, take=take) + textwrap.dedent(text))
        return path

    return write
