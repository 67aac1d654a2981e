"""Outputs that are a yes or no for each class: decision, confidence and logits."""

from __future__ import annotations

import pytest
import torch

from robustbench_lite.judge import decide, to_logits
from robustbench_lite.preflight.outputs import kind, shown
from robustbench_lite.types import LoadedModel, Output


def model(rows: torch.Tensor, output: Output) -> LoadedModel:
    return LoadedModel(
        predict=lambda x: rows,
        differentiable=None,
        num_classes=rows.shape[1],
        input_shape=(1,),
        output=output,
        device="cpu",
        provider="torch",
    )


def test_the_confidence_is_the_classes_own_probability() -> None:
    rows = torch.tensor([[0.02, 0.01, 0.0], [0.9, 0.95, 0.2]])
    decision = decide(model(rows, "independent-probabilities"), torch.zeros(2, 1))
    assert decision.pred.tolist() == [0, 1]
    assert decision.confidence.tolist() == pytest.approx([0.02, 0.95])


def test_their_logits_are_what_a_sigmoid_makes_them_of() -> None:
    z = torch.linspace(-30, 12, 85).view(1, -1)  # float32 holds no 1 - 1e-7
    assert torch.allclose(to_logits(z.sigmoid(), "independent-probabilities"), z, atol=0.1)
    ends = to_logits(torch.tensor([[0.0, 1.0]]), "independent-probabilities")
    assert bool(ends.isfinite().all())
    assert float(ends[0, 0]) < -80
    assert float(ends[0, 1]) > 15


def test_preflight_does_not_take_them_for_a_softmax_and_sees_what_they_are_not() -> None:
    softmax = torch.randn(20, 4).softmax(dim=1)
    assert kind(softmax, "independent-probabilities") == "independent-probabilities"
    assert kind(torch.randn(20, 4) * 5, "independent-probabilities") == "logits"
    assert not any("wrong" in key for key in shown(softmax, "independent-probabilities"))
