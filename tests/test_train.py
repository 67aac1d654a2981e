"""`robeval train`: what can be trained, and files that are compared before they are kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from robustbench_lite.errors import ModelError
from robustbench_lite.train import export
from robustbench_lite.types import LoadedModel
from tests.conftest import Robeval

WriteSuite = Callable[..., Path]


def loaded(net: nn.Module | None, shape: tuple[int, ...] | None = (4,)) -> LoadedModel:
    return LoadedModel(
        predict=lambda x: x,
        differentiable=net,
        num_classes=4,
        input_shape=shape,
        output="logits",
        device="cpu",
        provider="torch",
        no_gradient="" if net else "it is a decision tree",
    )


class Moody(nn.Module):
    """Gives another answer to every caller."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("linear",), "model 'linear' is read by 'torch' as it is"),
        (("liner",), "there is no model 'liner'\n  help: did you mean 'linear'?"),
        (("linear", "-o", "net.pth"), "'net.pth' must end in .onnx or .safetensors"),
    ],
)
def test_what_cannot_be_trained_is_told(
    robeval: Robeval, write_suite: WriteSuite, argv: tuple[str, ...], words: str
) -> None:
    ended = robeval("train", str(write_suite()), *argv)
    assert ended.code == 2
    assert words in ended.err


def test_weights_are_written_as_they_are(tmp_path: Path) -> None:
    net = nn.Linear(4, 4)
    export(loaded(net), tmp_path / "deep" / "net.safetensors")
    assert torch.equal(load_file(tmp_path / "deep" / "net.safetensors")["weight"], net.weight)


def test_a_file_that_answers_otherwise_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="differ by"):
        export(loaded(Moody()), tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("model", [loaded(None), loaded(nn.Linear(4, 4), None)])
def test_without_a_network_of_known_inputs_there_is_nothing_to_write(
    tmp_path: Path, model: LoadedModel
) -> None:
    with pytest.raises(ModelError, match="no network to write"):
        export(model, tmp_path / "net.onnx")
