"""Losses against their formulas in numpy and against what misclassified means."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from robustbench_lite import losses
from robustbench_lite.errors import PluginError


def logits_and_labels(classes: int, n: int = 200, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, classes, generator=generator)
    return logits, torch.randint(classes, (n,), generator=generator)


def by_hand(name: str, logits: Tensor, y: Tensor) -> list[float]:
    values = []
    for row, label in zip(logits.double().numpy(), y.tolist(), strict=True):
        others = np.delete(row, label)
        if name == "cross-entropy":
            values.append(np.log(np.exp(row).sum()) - row[label])
        elif name == "margin" or len(row) < 3:
            values.append(others.max() - row[label])
        else:
            falling = np.sort(row)[::-1]
            values.append(-(row[label] - others.max()) / (falling[0] - falling[2]))
    return values


@pytest.mark.parametrize("name", losses.LOSSES)
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_values_are_the_papers(name: str, classes: int, device: torch.device) -> None:
    logits, y = logits_and_labels(classes)
    found = losses.LOSSES[name](logits.to(device), y.to(device))
    assert found.shape == (200,)
    np.testing.assert_allclose(found.cpu(), by_hand(name, logits, y), rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("name", losses.LOSSES)
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_it_grows_as_the_sample_gets_more_wrong(name: str, classes: int) -> None:
    logits, y = logits_and_labels(classes)
    worse = logits.scatter_add(1, y[:, None], torch.full((200, 1), -0.05))
    change = losses.LOSSES[name](worse, y) - losses.LOSSES[name](logits, y)
    third = classes > 2 and name == "dlr"  # its own scale moves with the third logit
    ends = logits.topk(min(3, classes), dim=1).indices
    counted = ~(ends == y[:, None]).any(dim=1) | (ends[:, 0] == y) if third else change == change
    assert int(counted.sum()) >= 60
    assert bool((change[counted] > 0).all())


@pytest.mark.parametrize("name", ["margin", "dlr"])
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_positive_means_misclassified(name: str, classes: int) -> None:
    logits, y = logits_and_labels(classes)
    wrong = logits.argmax(dim=1) != y
    assert torch.equal(losses.LOSSES[name](logits, y) > 0, wrong)
    assert 0 < int(wrong.sum()) < 200


def test_the_margin_of_negative_logits_is_a_margin() -> None:
    logits = torch.tensor([[-5.0, -3.0, -8.0]])
    assert losses.margin(logits, torch.tensor([1])).tolist() == [-2.0]


def test_dlr_knows_neither_scale_nor_shift_and_keeps_its_gradient_where_cross_entropy_dies() -> (
    None
):
    logits, y = logits_and_labels(10)
    y = logits.argmax(dim=1)
    moved = (logits * 1e4 + 5.0).requires_grad_(True)
    assert torch.allclose(losses.dlr(moved, y), losses.dlr(logits, y), rtol=1e-4)
    (dlr,) = torch.autograd.grad(losses.dlr(moved, y).sum(), moved)
    (entropy,) = torch.autograd.grad(losses.cross_entropy(moved, y).sum(), moved)
    assert bool((dlr.abs().sum(dim=1) > 0).all())
    assert int((entropy.abs().sum(dim=1) == 0).sum()) > 190


@pytest.mark.parametrize("name", losses.LOSSES)
@pytest.mark.parametrize("scale", [0.0, 1e4, 1e30])
def test_value_and_gradient_stay_finite(name: str, scale: float) -> None:
    logits, y = logits_and_labels(10)
    logits = (logits * scale).requires_grad_(True)
    value = losses.LOSSES[name](logits, y)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert bool(value.isfinite().all())
    assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("name", losses.LOSSES)
def test_a_sample_does_not_see_its_batch(name: str) -> None:
    logits, y = logits_and_labels(10)
    alone = torch.cat([losses.LOSSES[name](logits[i : i + 1], y[i : i + 1]) for i in range(200)])
    assert torch.equal(losses.LOSSES[name](logits, y), alone)


def test_targeted_losses() -> None:
    logits, target = logits_and_labels(10)
    log_softmax = logits.log_softmax(dim=1).gather(1, target[:, None])[:, 0]
    assert torch.allclose(losses.targeted("cross-entropy")(logits, target), log_softmax)
    reached = logits.argmax(dim=1) == target
    for name in ("margin", "dlr"):
        assert torch.equal(losses.targeted(name)(logits, target) > 0, reached)
    own, others = logits.gather(1, target[:, None])[:, 0], by_hand("margin", logits, target)
    assert torch.allclose(losses.targeted("margin")(logits, target), -torch.tensor(others).float())
    assert torch.equal(losses.targeted(lambda z, t: z[:, 0] * 0 + t)(logits, target), -target)
    assert own.shape == (200,)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_log_odds_rise_with_cross_entropy_in_its_direction(classes: int) -> None:
    logits, y = logits_and_labels(classes)
    leaf = logits.double().requires_grad_(True)
    odds, entropy = losses.log_odds(leaf, y), losses.cross_entropy(leaf, y)
    torch.testing.assert_close(odds.sigmoid(), 1 - (-entropy).exp())
    (found,) = torch.autograd.grad(odds.sum(), leaf)
    (paper,) = torch.autograd.grad(entropy.sum(), leaf)
    same = functional.cosine_similarity(found, paper, dim=1)
    torch.testing.assert_close(same, torch.ones_like(same))


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_rescaled_cross_entropy_knows_no_scale_and_is_the_papers_at_a_gap_of_8(
    classes: int,
) -> None:
    clean, y = logits_and_labels(classes)
    now, _ = logits_and_labels(classes, seed=1)
    expected = losses.rescaled_cross_entropy(clean)(now, y)
    for scale in (2.0**13, 2.0**-3):
        scaled = losses.rescaled_cross_entropy(clean * scale)(now * scale, y)
        assert torch.equal(scaled, expected)
    saturated = (1e4 * now).requires_grad_(True)
    value = losses.rescaled_cross_entropy(1e4 * clean)(saturated, y)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-4)
    (grad,) = torch.autograd.grad(value.sum(), saturated)
    assert bool((grad.abs().sum(dim=1) > 0).all())

    gap = clean.topk(min(3, classes), dim=1).values
    unit = 8 / (gap[:, :1] - gap[:, -1:])
    torch.testing.assert_close(losses.log_odds(now * unit, y), expected, rtol=1e-5, atol=1e-4)


def test_rescaled_cross_entropy_of_equal_logits_is_finite() -> None:
    clean, y = logits_and_labels(10)
    logits = clean.clone().requires_grad_(True)
    value = losses.rescaled_cross_entropy(torch.zeros_like(clean))(logits, y)
    (grad,) = torch.autograd.grad(value.sum(), logits)
    assert bool(value.isfinite().all())
    assert bool(grad.isfinite().all())


@pytest.mark.parametrize("classes", [2, 3, 4, 10])
def test_targeted_dlr_is_the_papers_from_four_classes_and_the_margin_below(classes: int) -> None:
    logits, target = logits_and_labels(classes)
    y = logits.argmax(dim=1)
    target = torch.where(target == y, (target + 1) % classes, target)
    values = []
    for row, t in zip(logits.double().numpy(), target.tolist(), strict=True):
        falling = np.sort(row)[::-1]
        width = falling[0] - (falling[2] + falling[3]) / 2 if classes >= 4 else 1.0
        values.append((row[t] - falling[0]) / width)
    found = losses.targeted("dlr")(logits, target)
    np.testing.assert_allclose(found, values, rtol=2e-5, atol=1e-6)
    leaf = logits.requires_grad_(True)
    (grad,) = torch.autograd.grad(losses.targeted_dlr(leaf, target).sum(), leaf)
    assert bool((grad.abs().sum(dim=1) > 0).all())  # three classes: a ratio would be flat


def test_resolve_takes_a_name_or_a_function() -> None:
    assert losses.resolve("margin") is losses.margin
    assert losses.resolve(losses.dlr) is losses.dlr


def test_an_unknown_loss_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(PluginError, match=r"'margins' is not one of .*; did you mean 'margin'\?"):
        losses.resolve("margins")
    with pytest.raises(PluginError, match="'zzz' is not one of cross-entropy, margin, dlr\n"):
        losses.targeted("zzz")
