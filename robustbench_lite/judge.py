"""Legality and decision of every candidate, re-measured on the artefact from x, y and x_adv."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import norms
from .types import NO_NORM, NORMS, Batch, Box, Budget, LoadedModel, Outcome, Output

BOX_SLACK = 1e-6  # of the box width: rounding of float32 arithmetic at the edge is not a violation
LEVELS = 255  # steps of 8-bit storage over the box
SMALLEST_PROBABILITY = 1e-38  # log of a float32 zero probability stays finite
SMALLEST_REST = 1e-8  # what float32 leaves below a probability of 1
UNIT = frozenset({"probabilities", "independent-probabilities"})


class Decision(NamedTuple):
    """What the artefact says of n inputs: class (-1 if its output is not finite), confidence."""

    pred: Tensor
    confidence: Tensor
    finite: Tensor


def to_logits(output: Tensor, kind: Output) -> Tensor:
    """Scores a loss can work with: the artefact's own logits, or the log of its probabilities.

    Of independent probabilities p it is log p - log(1 - p), what a sigmoid makes p of.
    """
    if kind == "probabilities":
        return output.clamp_min(SMALLEST_PROBABILITY).log()
    if kind == "independent-probabilities":
        p = output.double()
        odds = p.clamp_min(SMALLEST_PROBABILITY).log() - (1 - p).clamp_min(SMALLEST_REST).log()
        return odds.to(output.dtype)
    return output


def decide(model: LoadedModel, x: Tensor) -> Decision:
    """Class and confidence (probability of that class) of x [n, *shape] on the artefact."""
    answer: object = model.predict(x.clone())  # a network may work in place
    if not isinstance(answer, Tensor):
        kind = type(answer).__name__
        raise TypeError(f"the model returned {kind}; expected a tensor [n, {model.num_classes}]")
    output = answer.detach().float()
    wanted = (x.shape[0], model.num_classes)
    if output.shape != wanted:
        raise ValueError(
            f"the model returned shape {list(output.shape)} for {x.shape[0]} inputs;"
            f" expected {list(wanted)}, one score for each class"
        )
    finite = output.isfinite().all(dim=1)
    output = torch.where(finite[:, None], output, torch.zeros_like(output))
    pred = output.argmax(dim=1)
    probabilities = output if model.output in UNIT else output.softmax(dim=1)
    confidence = probabilities.gather(1, pred[:, None])[:, 0]
    return Decision(torch.where(finite, pred, -1), confidence, finite)


def judge(
    model: LoadedModel,
    batch: Batch,
    candidate: object,
    budget: Budget,
    *,
    goal: Tensor | None = None,
) -> Outcome:
    """Judge what an attack returned for a batch.

    `candidate`: whatever the attack returned; anything but a finite float tensor of x's shape, in
    the budget's box and ball, is illegal: never a success and never robustness.
    `goal`: int64 [n], the target class of a targeted attack; success then means reaching it.
    """
    x_adv, refusal = _as_tensor(candidate, batch.x)
    n = batch.x.shape[0]
    if x_adv is None:
        return _all_illegal(n, refusal)
    finite = x_adv.flatten(1).isfinite().all(dim=1) if n else torch.ones(0, dtype=torch.bool)
    finite = finite.to(batch.x.device)
    safe = torch.where(norms.per_sample(finite, x_adv), x_adv, batch.x)
    slack = BOX_SLACK * budget.box.width
    in_box = ((safe >= budget.box.low - slack) & (safe <= budget.box.high + slack)).flatten(1)
    in_box = in_box.all(dim=1)
    in_ball = _in_ball(batch, safe, budget)
    legal = finite & in_box & in_ball
    problems = _count(
        {
            "not finite": ~finite,
            "outside the box": finite & ~in_box,
            f"outside the {budget.norm} ball": finite & in_box & ~in_ball,
        }
    )
    shown = torch.where(norms.per_sample(legal, safe), safe, batch.x)
    shown = shown.clamp(budget.box.low, budget.box.high)
    return _decided(model, batch, shown, legal, goal, problems)


def _in_ball(batch: Batch, x_adv: Tensor, budget: Budget) -> Tensor:
    """Whether each candidate is near enough; a set without a norm is the attack's to keep."""
    if budget.norm == NO_NORM:
        return torch.ones(batch.x.shape[0], dtype=torch.bool, device=batch.x.device)
    slack = norms.tolerance(budget.norm, budget.eps, batch.box, tuple(batch.x.shape[1:]))
    return norms.distance(x_adv.double() - batch.x.double(), budget.norm) <= budget.eps + slack


def _decided(
    model: LoadedModel,
    batch: Batch,
    x_adv: Tensor,
    legal: Tensor,
    goal: Tensor | None,
    problems: dict[str, int],
) -> Outcome:
    decision = decide(model, x_adv)
    problems |= _count({"model output not finite": legal & ~decision.finite})
    counted = legal & decision.finite
    adv_correct = counted & (decision.pred == batch.y)
    wrong = counted & (decision.pred != batch.y)
    success = wrong if goal is None else wrong & (decision.pred == goal)
    survives = success.clone()
    if bool(success.any()):
        stored = decide(model, to_uint8_and_back(x_adv[success], batch.box)).pred
        kept = stored != batch.y[success] if goal is None else stored == goal[success]
        survives[success] = kept & (stored >= 0)
    measured = norms.distances(batch.x, x_adv)
    return Outcome(
        legal=_array(legal),
        adv_pred=_array(torch.where(counted, decision.pred, -1)).astype(np.int64),
        adv_confidence=_array(decision.confidence).astype(np.float32),
        adv_correct=_array(adv_correct),
        success=_array(success),
        survives_uint8=_array(survives),
        **{norm: _array(getattr(measured, norm)).astype(np.float64) for norm in NORMS},
        pixel=_array(_only_pixel(batch.x, x_adv)),
        problems=problems,
    )


def to_uint8_and_back(x: Tensor, box: Box) -> Tensor:
    """x rounded to the 256 levels of the box, as 8-bit storage would keep it."""
    x = x.clamp(box.low, box.high)
    return box.low + ((x - box.low) / box.width * LEVELS).round() / LEVELS * box.width


def _only_pixel(x: Tensor, x_adv: Tensor) -> Tensor:
    changed = x_adv != x
    flat = changed.any(dim=1).flatten(1) if x.ndim == 4 else changed.flatten(1)
    if flat.shape[1] == 0 or flat.shape[0] == 0:
        return torch.full((x.shape[0],), -1, dtype=torch.int64)
    return torch.where(flat.sum(dim=1) == 1, flat.int().argmax(dim=1), -1)


def _as_tensor(candidate: object, x: Tensor) -> tuple[Tensor | None, str]:
    if not isinstance(candidate, Tensor):
        return None, f"returned {type(candidate).__name__}, expected a tensor"
    if candidate.shape != x.shape:
        return None, f"returned shape {list(candidate.shape)}, expected {list(x.shape)}"
    if not candidate.is_floating_point():
        return None, f"returned dtype {candidate.dtype}, expected torch.float32"
    return candidate.detach().to(device=x.device, dtype=x.dtype), ""


def _all_illegal(n: int, refusal: str) -> Outcome:
    no = np.zeros(n, dtype=bool)
    nan = np.full(n, np.nan)
    return Outcome(
        legal=no,
        adv_pred=np.full(n, -1, dtype=np.int64),
        adv_confidence=np.full(n, np.nan, dtype=np.float32),
        adv_correct=no,
        success=no,
        survives_uint8=no,
        l0=nan,
        l1=nan,
        l2=nan,
        linf=nan,
        pixel=np.full(n, -1, dtype=np.int64),
        problems={refusal: n},
    )


def _count(masks: dict[str, Tensor]) -> dict[str, int]:
    counts = {problem: int(mask.sum()) for problem, mask in masks.items()}
    return {problem: count for problem, count in counts.items() if count}


def _array(values: Tensor) -> NDArray[Any]:
    return values.cpu().numpy()
