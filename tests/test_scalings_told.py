"""Inputs that are scaled or ordered otherwise than in training: `doctor` and a run name the way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import Robeval

NETWORKS = '''
"""A network of ten colours that wants its images as the name of its factory says."""

import torch
from torch import nn

LEVELS = (torch.arange(10)[:, None] * torch.tensor([1, 3, 7]) % 10 + 0.5) / 10
MEAN = torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1)


class Colours(nn.Module):
    """The nearest of ten colours."""

    def __init__(self, undo):
        super().__init__()
        self.undo, self.nearest = undo, nn.Linear(3, 10)
        self.nearest.weight.data = 20 * LEVELS
        self.nearest.bias.data = -10 * LEVELS.square().sum(dim=1)

    def forward(self, x):
        return self.nearest(self.undo(x).mean(dim=(2, 3)))


def plain():
    return Colours(lambda x: x)


def bgr():
    return Colours(lambda x: x.flip(1))


def bytes_wanted():
    return Colours(lambda x: x / 255)


def imagenet():
    return Colours(lambda x: x * STD + MEAN)
'''
WANTED = {
    "bgr": "BGR",
    "bytes_wanted": "0 to 255",
    "imagenet": "ImageNet mean and std",
}
CURES: dict[str, dict[str, object]] = {
    "bgr": {"channels": "bgr"},
    "bytes_wanted": {"scale": 255},
    "imagenet": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Coloured images in `colours.npz` and the networks beside them."""
    (tmp_path / "coloured.py").write_text(NETWORKS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    y = torch.arange(80) % 10
    levels = (y[:, None] * torch.tensor([1, 3, 7]) % 10 + 0.5) / 10
    noise = 0.02 * torch.randn((80, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    x = (levels[:, :, None, None] + noise).clamp(0, 1)
    np.savez(tmp_path / "colours.npz", x=x.numpy(), y=y.numpy())
    return tmp_path


@pytest.mark.parametrize("name", ["plain", *WANTED])
def test_doctor_names_the_scaling_that_a_network_wants(
    robeval: Robeval, folder: Path, name: str
) -> None:
    import coloured  # type: ignore[import-not-found]

    torch.save(getattr(coloured, name)().state_dict(), folder / "w.pt")
    ended = robeval(
        "doctor", "w.pt", "--factory", f"coloured:{name}", "--data", "colours.npz", "--json"
    )
    messages = {each["id"]: each["message"] for each in json.loads(ended.out)["findings"]}
    if name == "plain":
        assert messages == {}
    else:
        assert f"fed '{WANTED[name]}'" in messages["input-scaling"]


@pytest.mark.parametrize("name", ["plain", *WANTED])
def test_a_run_names_it_before_any_attack_and_voids_the_gate(
    robeval: Robeval, folder: Path, name: str
) -> None:
    network = {"load": "torch", "factory": f"coloured:{name}", "num_classes": 10}
    suite: dict[str, object] = {
        "schema": 1,
        "name": "colours",
        "python_path": ["."],
        "models": {"net": network},
        "datasets": {"colours": {"load": "arrays", "path": "colours.npz"}},
        "attacks": {"pgd": {"attack": "pgd", "norm": "linf", "eps": 0.01, "steps": 10}},
        "gates": {"floor": {"metric": "robust_accuracy", "attack": "pgd", "min": 0.0}},
        "reports": ["csv"],
    }
    (folder / "suite.yaml").write_text(json.dumps(suite), encoding="utf-8")
    ended = robeval("run", "suite.yaml", "-o", "out", "-q")
    found = json.loads((folder / "out" / "findings.json").read_text(encoding="utf-8"))
    told = {each["id"]: each for each in found if each["severity"] == "error"}
    if name == "plain":
        assert (ended.code, told) == (0, {})
    else:
        assert ended.code == 8
        message, advice = (told["input-scaling"][key] for key in ("message", "advice"))
        assert f"fed '{WANTED[name]}'" in message
        assert all(f"`{key}: {value}`" in advice for key, value in CURES[name].items())
        assert len(told["input-scaling"]["cells"]) == 3  # the clean pass, the attack, its control
        cured = suite | {"models": {"net": {**network, **CURES[name]}}}
        (folder / "suite.yaml").write_text(json.dumps(cured), encoding="utf-8")
        assert robeval("run", "suite.yaml", "-o", "cured", "-q").code == 0
