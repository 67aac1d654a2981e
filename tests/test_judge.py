"""Legality to the last float32 step, and the decision of the artefact, from x, y and x_adv alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from robustbench_lite import Box, Budget, LoadedModel, Norm
from robustbench_lite.judge import decide, judge, to_logits
from robustbench_lite.types import NORMS, Outcome, Output
from tests.small_world import UNIT, Linear, batch, loaded, points, random_linear

WIDE = Box(-1.5, 2.0)
BYTES = Box(0.0, 255.0)
FREE = Box(-math.inf, math.inf)
BOXES = (UNIT, WIDE, BYTES)


def with_norm(direction: Tensor, norm: Norm, size: float) -> Tensor:
    """float64 rows scaled to the given norm; l0: the first `size` components."""
    if norm == "l0":
        kept = torch.arange(direction.shape[1]) < size
        return 0.1 * direction * kept
    order = {"linf": math.inf, "l2": 2, "l1": 1}[norm]
    scaled: Tensor = direction * (
        size / torch.linalg.vector_norm(direction, ord=order, dim=1, keepdim=True)
    )
    return scaled


def directions(n: int, size: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    sign = torch.randint(0, 2, (n, size), generator=generator) * 2.0 - 1
    return (sign * (0.2 + torch.rand((n, size), generator=generator))).double()


def verdict(
    x: Tensor,
    x_adv: object,
    norm: Norm = "linf",
    eps: float = 10.0,
    *,
    box: Box = UNIT,
    limits: Box | None = None,
    model: LoadedModel | None = None,
    y: Tensor | None = None,
    goal: Tensor | None = None,
) -> Outcome:
    model = loaded(random_linear(0, size=x[0].numel()).to(x.device), 3) if model is None else model
    y = torch.zeros(len(x), dtype=torch.int64, device=x.device) if y is None else y
    budget = Budget(norm=norm, eps=eps, box=box if limits is None else limits)
    return judge(model, batch(x, y, box=box), x_adv, budget, goal=goal)


# ---------------------------------------------------------------- ball and box


@pytest.mark.parametrize("answer", [np.zeros((2, 3)), (torch.zeros(2, 3),), None])
def test_a_model_that_answers_with_no_tensor_is_told_so(answer: object) -> None:
    model = loaded(random_linear(0), 3, predict=lambda x: answer)  # type: ignore[arg-type,return-value]
    with pytest.raises(
        TypeError, match=rf"returned {type(answer).__name__}; expected a tensor \[n, 3\]"
    ):
        decide(model, torch.zeros(2, 6))


def test_an_output_that_is_no_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="output 'probs' is not one of logits, probabilities, log"):
        loaded(random_linear(0), 3, output="probs")  # type: ignore[arg-type]


@pytest.mark.parametrize("box", BOXES, ids=str)
@pytest.mark.parametrize("norm", NORMS)
def test_on_the_edge_of_the_ball_is_legal_and_one_percent_out_is_not(
    norm: Norm, box: Box, device: torch.device
) -> None:
    x = points(16, 12, box=box)
    eps = 3.0 if norm == "l0" else 0.1 * box.width
    out = 4.0 if norm == "l0" else 1.01 * eps
    on = (x.double() + with_norm(directions(16, 12), norm, eps)).float()
    beyond = (x.double() + with_norm(directions(16, 12), norm, out)).float()
    legal = verdict(x.to(device), on.to(device), norm, eps, box=box)
    assert legal.legal.all()
    assert legal.problems == {}
    illegal = verdict(x.to(device), beyond.to(device), norm, eps, box=box)
    assert not illegal.legal.any()
    assert illegal.problems == {f"outside the {norm} ball": 16}


@pytest.mark.parametrize("box", BOXES, ids=str)
def test_on_the_face_of_the_box_is_legal_and_one_percent_out_is_not(box: Box) -> None:
    x = points(4, 5, box=box)
    x_adv = x.clone()
    x_adv[0, 0], x_adv[1, 4] = box.low, box.high
    x_adv[2, 0], x_adv[3, 4] = box.low - 0.01 * box.width, box.high + 0.01 * box.width
    outcome = verdict(x, x_adv, eps=10 * box.width, box=box)
    assert outcome.legal.tolist() == [True, True, False, False]
    assert outcome.problems == {"outside the box": 2}


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**31),
    eps=st.one_of(
        st.sampled_from([1 / 255, 2 / 255, 8 / 255, 16 / 255, 0.1, 0.3, 1.0, 8.0]),
        st.floats(1e-3, 20.0),
    ),
    box=st.sampled_from(BOXES),
    norm=st.sampled_from(["linf", "l2", "l1"]),
)
def test_rounding_of_a_float32_sum_is_never_a_violation(
    seed: int, eps: float, box: Box, norm: Norm
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = box.low + box.width * torch.rand((8, 30), generator=generator)
    delta = with_norm(directions(8, 30, seed), norm, eps).float()
    free = x + delta
    assert verdict(x, free, norm, eps, box=box, limits=FREE).legal.all()
    assert verdict(x, free.clamp(box.low, box.high), norm, eps, box=box).legal.all()


def test_rounding_into_the_box_is_judged_inside_it() -> None:
    x = torch.full((1, 3), 0.9)
    x_adv = torch.tensor([[1 + 4e-7, 0.9, 0.9]])
    outcome = verdict(x, x_adv, eps=0.2)
    assert outcome.legal.all()
    assert outcome.linf[0] == float(torch.tensor(1.0).double() - torch.tensor(0.9).double())


@pytest.mark.parametrize("norm", NORMS)
def test_zero_eps_allows_the_clean_input_and_nothing_else(norm: Norm) -> None:
    x = points(2, 5)
    moved = x.clone()
    moved[1, 2] += 1e-3
    assert verdict(x, moved, norm, 0.0).legal.tolist() == [True, False]


def test_without_a_box_only_the_ball_counts() -> None:
    x = torch.full((3, 4), 0.95)
    x_adv = x + torch.tensor([0.3, 0.2, -0.3]).view(3, 1)
    assert verdict(x, x_adv, eps=0.3).legal.tolist() == [False, False, True]
    outcome = verdict(x, x_adv, eps=0.3, limits=FREE)
    assert outcome.legal.all()
    np.testing.assert_allclose(outcome.linf, [0.3, 0.2, 0.3], atol=1e-6)  # not clipped to the box
    assert verdict(x, x_adv, eps=0.25, limits=FREE).legal.tolist() == [False, True, False]


def test_distances_are_measured_in_float64_for_every_norm() -> None:
    x = points(6, 3 * 4 * 5).reshape(6, 3, 4, 5)
    x_adv = (x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    x_adv[:, :, :2] = x[:, :, :2]
    outcome = verdict(x, x_adv)
    delta = x_adv.numpy().astype(np.float64) - x.numpy().astype(np.float64)
    flat = np.abs(delta.reshape(6, -1))
    np.testing.assert_array_equal(outcome.linf, flat.max(axis=1))
    np.testing.assert_allclose(outcome.l2, np.sqrt((flat**2).sum(axis=1)), rtol=1e-12)
    np.testing.assert_allclose(outcome.l1, flat.sum(axis=1), rtol=1e-12)
    np.testing.assert_array_equal(outcome.l0, (delta != 0).any(axis=1).reshape(6, -1).sum(axis=1))


# ---------------------------------------------------------------- what is no candidate


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_makes_its_row_illegal(value: float) -> None:
    x = points(3, 4)
    y = random_linear(0, size=4)(x).argmax(dim=1)
    x_adv = x.clone()
    x_adv[1, 2] = value
    outcome = verdict(x, x_adv, y=y, limits=FREE)
    assert outcome.legal.tolist() == [True, False, True]
    assert outcome.adv_correct.tolist() == [True, False, True]
    assert not outcome.success.any()
    assert outcome.adv_pred[1] == -1
    assert outcome.problems == {"not finite": 1}


@pytest.mark.parametrize(
    ("candidate", "found"),
    [
        (None, "returned NoneType, expected a tensor"),
        (np.zeros((3, 4), dtype=np.float32), "returned ndarray, expected a tensor"),
        ([torch.zeros(4)] * 3, "returned list, expected a tensor"),
        ((torch.zeros(3, 4), torch.ones(3)), "returned tuple, expected a tensor"),
        (torch.zeros(4), "returned shape [4], expected [3, 4]"),
        (torch.zeros(2, 4), "returned shape [2, 4], expected [3, 4]"),
        (torch.zeros(3, 4, 1), "returned shape [3, 4, 1], expected [3, 4]"),
        (torch.zeros(3, 4, dtype=torch.int64), "returned dtype torch.int64, expected torch.float32"),
        (torch.zeros(3, 4, dtype=torch.bool), "returned dtype torch.bool, expected torch.float32"),
        (torch.zeros(3, 4, dtype=torch.complex64), "returned dtype torch.complex64, expected torch.float32"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_not_a_float_tensor_of_the_shape_is_illegal_as_a_whole(
    candidate: object, found: str
) -> None:
    x = points(3, 4)
    wrong = 1 - random_linear(0, size=4)(x).argmax(dim=1).clamp_max(1)
    outcome = verdict(x, candidate, y=wrong)
    assert outcome.problems == {found: 3}
    assert not (outcome.legal | outcome.success | outcome.adv_correct).any()
    assert (outcome.adv_pred == -1).all()
    assert np.isnan([outcome.l0, outcome.l1, outcome.l2, outcome.linf]).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_another_float_type_is_judged_as_float32(dtype: torch.dtype) -> None:
    x = torch.tensor([[0.25, 0.5], [0.5, 0.75]])
    x_adv = torch.tensor([[0.5, 0.5], [0.5, 0.5]])
    expected = verdict(x, x_adv, eps=0.25)
    outcome = verdict(x, x_adv.to(dtype).requires_grad_(), eps=0.25)
    assert outcome.legal.all()
    assert outcome.adv_pred.tolist() == expected.adv_pred.tolist()
    assert outcome.linf.tolist() == [0.25, 0.25]


def test_a_float64_candidate_beyond_float32_is_not_finite() -> None:
    x = points(1, 2)
    huge = torch.tensor([[1e300, 0.0]], dtype=torch.float64)
    assert verdict(x, huge, limits=FREE).problems == {"not finite": 1}


def test_an_empty_batch_has_an_empty_outcome() -> None:
    outcome = verdict(
        points(0, 4).reshape(0, 4), torch.zeros(0, 4), model=loaded(random_linear(0, size=4), 3)
    )
    assert outcome.legal.shape == outcome.success.shape == outcome.l2.shape == (0,)


def test_an_illegal_candidate_is_no_success_even_where_it_would_fool_the_model() -> None:
    model = loaded(Linear(torch.tensor([[-1.0], [1.0]]), torch.tensor([0.0, -1.0])), 2)
    x, y = torch.tensor([[0.2], [0.2]]), torch.tensor([0, 0])
    x_adv = torch.tensor([[0.9], [0.9]])
    assert verdict(x, x_adv, eps=0.7, model=model, y=y).success.all()
    outcome = verdict(x, x_adv, eps=0.6, model=model, y=y)
    assert not (outcome.success | outcome.adv_correct | outcome.survives_uint8).any()


# ---------------------------------------------------------------- the decision


def test_untargeted_success_is_any_wrong_class_and_targeted_success_the_target() -> None:
    net = Linear(torch.eye(3))
    x = torch.full((6, 3), 0.5)
    x_adv = x + 0.4 * torch.eye(3)[[0, 1, 2, 0, 1, 2]]
    y = torch.tensor([0, 0, 0, 1, 1, 1])
    model = loaded(net, 3)
    free = verdict(x, x_adv, model=model, y=y)
    assert free.adv_pred.tolist() == [0, 1, 2, 0, 1, 2]
    assert free.adv_correct.tolist() == [True, False, False, False, True, False]
    assert free.success.tolist() == [False, True, True, True, False, True]
    goal = torch.tensor([0, 1, 1, 2, 1, 2])
    aimed = verdict(x, x_adv, model=model, y=y, goal=goal)
    assert aimed.success.tolist() == [False, True, False, False, False, True]
    assert aimed.survives_uint8.tolist() == aimed.success.tolist()
    assert aimed.adv_correct.tolist() == free.adv_correct.tolist()


def test_an_output_that_is_not_finite_decides_nothing() -> None:
    def predict(x: Tensor) -> Tensor:
        return torch.log(x - 0.5) * torch.tensor([1.0, 1.0, -1.0])

    model = loaded(Linear(torch.eye(3)), 3, predict=predict)
    x = torch.tensor([[0.6, 0.7, 0.8], [0.6, 0.7, 0.4], [0.5, 0.7, 0.8], [0.9, 0.8, 0.7]])
    decision = decide(model, x)
    assert decision.finite.tolist() == [True, False, False, True]
    assert decision.pred[1:3].tolist() == [-1, -1]
    for y in range(3):
        outcome = verdict(x, x, model=model, y=torch.full((4,), y))
        assert not (outcome.success | outcome.adv_correct)[1:3].any()
        assert outcome.adv_pred[1:3].tolist() == [-1, -1]
        assert outcome.problems == {"model output not finite": 2}


def fixed(output: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda x: output


def test_the_three_kinds_of_output_give_one_decision_and_confidence(device: torch.device) -> None:
    net = random_linear(3, classes=5, size=8)
    x = points(50, 8)
    logits = 4 * net(x)
    outputs: dict[Output, Tensor] = {
        "logits": logits,
        "probabilities": logits.softmax(dim=1),
        "log-probabilities": logits.log_softmax(dim=1),
    }
    expected = np.exp(logits.double().numpy())
    expected /= expected.sum(axis=1, keepdims=True)
    for kind, output in outputs.items():
        model = loaded(net, 5, output=kind, predict=fixed(output.to(device)))
        decision = decide(model, x.to(device))
        assert np.array_equal(decision.pred.cpu().numpy(), expected.argmax(axis=1)), kind
        np.testing.assert_allclose(decision.confidence.cpu(), expected.max(axis=1), rtol=1e-5)
        scores = to_logits(output, kind)
        np.testing.assert_allclose(scores.softmax(dim=1), expected, rtol=1e-4, atol=1e-7)


def test_the_logit_of_a_zero_probability_is_finite() -> None:
    scores = to_logits(torch.tensor([[1.0, 0.0]]), "probabilities")
    assert scores.isfinite().all()
    assert scores[0, 1] < -80


@pytest.mark.parametrize("shape", [(4,), (4, 3, 1), (5, 3), (1, 3)])
def test_an_output_of_another_shape_is_refused_in_words(shape: tuple[int, ...]) -> None:
    model = loaded(Linear(torch.eye(3)), 3, predict=lambda _: torch.zeros(shape))
    with pytest.raises(ValueError, match=r"returned shape \[.*\] for 4 inputs; expected \[4, 3\]"):
        decide(model, points(4, 3))


@pytest.mark.parametrize("columns", [0, 1, 2, 4])
def test_an_output_with_another_number_of_classes_is_refused(columns: int) -> None:
    model = loaded(Linear(torch.eye(3)), 3, predict=lambda _: torch.ones(4, columns))
    with pytest.raises(ValueError, match=r"expected \[4, 3\]"):
        decide(model, points(4, 3))


def test_a_model_that_changes_its_input_in_place_changes_no_distance_and_no_batch() -> None:
    def predict(x: Tensor) -> Tensor:
        return x.mul_(0.5)

    model = loaded(Linear(torch.eye(3)), 3, predict=predict)
    x = points(4, 3)
    kept, x_adv = x.clone(), (x + 0.125).clone()
    candidate = x_adv.clone()
    decide(model, x)
    assert torch.equal(x, kept)
    outcome = verdict(x, candidate, eps=0.2, model=model)
    assert torch.equal(candidate, x_adv)
    np.testing.assert_allclose(outcome.linf, 0.125, atol=1e-6)


# ---------------------------------------------------------------- 8-bit storage, single pixels


def stored_as_uint8(x: Tensor, box: Box) -> Tensor:
    """An independent road through real uint8 storage."""
    levels = (x.double().numpy() - box.low) / box.width * 255
    stored = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return torch.from_numpy(box.low + stored.astype(np.float64) / 255 * box.width).float()


@pytest.mark.parametrize("box", BOXES, ids=str)
@pytest.mark.parametrize("aimed", [False, True], ids=["untargeted", "targeted"])
def test_survival_of_8_bit_storage_is_that_of_real_storage(box: Box, aimed: bool) -> None:
    net = random_linear(5, size=20)
    net.bias.copy_(-net.weight.sum(dim=1) * (box.low + box.width / 2))
    x_adv = points(4000, 20, box=box)
    logits = net(x_adv)
    near = logits.topk(2, dim=1).values.diff(dim=1)[:, 0].abs() < 0.004 * box.width
    x_adv, pred = x_adv[near], logits[near].argmax(dim=1)
    y = (pred + 1) % 3
    goal = pred if aimed else None
    x = x_adv.clone()
    outcome = verdict(x, x_adv, box=box, model=loaded(net, 3), y=y, goal=goal)
    stored = net(stored_as_uint8(x_adv, box)).argmax(dim=1)
    expected = stored == pred if aimed else stored != y
    assert outcome.success.all()
    assert outcome.survives_uint8.tolist() == expected.tolist()
    assert 0.05 < expected.double().mean() < 1


def test_8_bit_storage_has_no_levels_outside_the_box() -> None:
    model = loaded(Linear(torch.tensor([[-1.0], [1.0]]), torch.tensor([0.0, -2.2])), 2)
    x, x_adv = torch.tensor([[0.9]]), torch.tensor([[1.2]])
    outcome = verdict(x, x_adv, eps=0.3, limits=FREE, model=model, y=torch.tensor([0]))
    assert outcome.success.all()
    assert model.predict(stored_as_uint8(x_adv, UNIT)).argmax(dim=1).tolist() == [0]
    assert not outcome.survives_uint8.any()


def test_the_only_changed_pixel_is_named_by_its_flat_position() -> None:
    image = points(5, 2 * 3 * 4).reshape(5, 2, 3, 4)
    x_adv = image.clone()
    x_adv[0, 1, 2, 1] = 0.0  # one channel
    x_adv[1, :, 0, 3] = 1.0  # all channels of one pixel
    x_adv[2, 0, 0, 0] = x_adv[2, 1, 0, 1] = 1.0  # two pixels
    x_adv[3] = 0.0
    assert verdict(image, x_adv).pixel.tolist() == [9, 3, -1, -1, -1]
    vector = points(3, 6)
    x_adv = vector.clone()
    x_adv[0, 5] = x_adv[1, 0] = x_adv[1, 1] = 0.0
    assert verdict(vector, x_adv).pixel.tolist() == [5, -1, -1]
    matrix = vector.reshape(3, 2, 3)
    assert verdict(matrix, x_adv.reshape(3, 2, 3)).pixel.tolist() == [5, -1, -1]
