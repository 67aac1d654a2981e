"""Everything that a training draws or keeps is where its data are: the CPU, and a GPU if there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from blobs import blobs, job

from robeval_train.training import loop
from robeval_train.training.augment import augmented
from robeval_train.training.draws import Draws
from robeval_train.training.kept import Folder
from robeval_train.training.options import RECIPES, Augment
from robustbench_lite import Box

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.cuda, GPU])]
MAXOUT = {"name": "maxout", "units": 8, "init": 0.1}
SGD = {"name": "sgd", "momentum": 0.5}


def on(device: str, n: int = 80, classes: int = 3) -> loop.Labelled:
    data = blobs(n, classes)
    return loop.Labelled(data.x.to(device), data.y.to(device))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_moves_every_weight_and_goes_on_from_its_state(
    tmp_path: Path, recipe: str, device: str
) -> None:
    exact = recipe == "worst-case-logistic"
    given: dict[str, object] = {
        "arch": "logistic" if exact else MAXOUT,
        "recipe": recipe,
        "augment": {"flip": True, "shift": 1},
        "optimiser": SGD,
    }
    one = job(tmp_path, {**given, "epochs": 1}, data=on(device, classes=2 if exact else 3))
    start = Draws(0, 0).built(one.build).state_dict()
    first, _ = loop.train(one)
    two = job(tmp_path, {**given, "epochs": 2}, data=one.data)  # from the state of the first epoch
    second, record = loop.train(two)
    assert record["epochs"] == 2
    for key, value in second.items():
        assert value.device.type == "cpu"
        assert bool(value.isfinite().all())
        assert not torch.equal(first[key], start[key])
        assert not torch.equal(value, first[key])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("arch", ["rbf", "cnn", "lenet", "resnet18", "conv-maxout"])
def test_every_phase_of_a_training_stays_on_its_device(
    tmp_path: Path, arch: str, device: str
) -> None:
    small: dict[str, dict[str, object]] = {
        "conv-maxout": {"channels": [4, 4, 4], "dense": 8, "init": 0.05},
        "resnet18": {"width": 4},
    }
    data = blobs(60, shape=(1, 28, 28))
    stop = {"on": "adversarial", "patience": 1, "eps": 0.1}
    given: dict[str, object] = {
        "arch": {"name": arch, **small.get(arch, {})},
        "optimiser": {"name": "adam"},
        "hold_out": 20,
        "stop": stop,
        "retrain": "on",
        "epochs": 1,
    }
    here = loop.Labelled(data.x.to(device), data.y.to(device))
    weights, record = loop.train(job(tmp_path, given, data=here))
    assert all(bool(value.isfinite().all()) for value in weights.values())
    history = record["history"]
    assert isinstance(history, list)
    assert [line["phase"] for line in history] == ["first", "again"]
    assert Folder(tmp_path).state() is not None


@pytest.mark.parametrize("device", DEVICES)
def test_flips_and_shifts_are_the_same_on_every_device(device: str) -> None:
    x = torch.rand(50, 3, 8, 6)
    options = Augment(flip=True, shift=2)
    found = augmented(options, x.to(device), Box(), torch.Generator().manual_seed(3))
    assert found.device.type == device
    expected = augmented(options, x, Box(), torch.Generator().manual_seed(3))
    assert torch.equal(found.cpu(), expected)
