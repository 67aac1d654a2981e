"""Fixtures of the plug-in's tests."""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path

import pytest
import torch


def pytest_configure() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def mnist() -> Path:
    """Root of the full data sets; the test is skipped by name where they are not there."""
    root = os.environ.get("ROBEVAL_DATA")
    if not root or not (Path(root) / "mnist").is_dir():
        pytest.skip("needs the full MNIST files: set ROBEVAL_DATA to the folder that holds mnist/")
    return Path(root)


@pytest.fixture(scope="session")
def installed() -> None:
    """The plug-in must be installed: a suite finds it by its entry point."""
    points = importlib.metadata.entry_points(group="robeval")
    assert "robeval_train" in {point.value for point in points}, "pip install plugins/robeval-train"
