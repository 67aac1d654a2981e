"""The loop: epochs over the training data until the recipe's end, each one kept.

On the CPU, with the same number of threads, the weights depend on the options, the data and the
seed alone, bit for bit, whether or not the training was interrupted.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import cast

import torch
from torch import Tensor, nn

from robustbench_lite import Box, Json, ModelError

from ..nets.layers import constrain
from . import costs, optimisers, perturb, recipes
from .augment import augmented
from .costs import Cost, gradient
from .draws import Draws
from .kept import Folder
from .options import Augment, Stop, TrainedParams

log = logging.getLogger("robustbench_lite.progress")

EVALUATED = 1000  # samples in one pass without a graph
Weights = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Labelled:
    """Inputs [n, *shape] float32 and labels [n] int64, on one device."""

    x: Tensor
    y: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One training: what to build, on which data, at which cost. `name` is for messages."""

    name: str
    options: TrainedParams
    build: Callable[[], nn.Module]
    data: Labelled
    box: Box
    cost: Cost
    independent: bool
    folder: Folder


@dataclass(slots=True)
class Course:
    """Where a training stands: plain values and tensors, so that it can be kept and gone on from.

    `phase`: "first", or "again" on all data. `best`: of the first phase, by the held-out error.
    """

    phase: str = "first"
    epoch: int = 0
    steps: int = 0
    net: Weights = field(default_factory=dict)
    optimiser: dict[str, object] = field(default_factory=dict)
    best: Weights = field(default_factory=dict)
    best_epoch: int = 0
    best_error: float = math.inf
    best_cost: float = math.nan
    best_steps: int = 0
    history: list[dict[str, float | int | str]] = field(default_factory=list)


def train(job: Job) -> tuple[Weights, dict[str, Json]]:
    """The weights and the record of a training, from its last kept epoch if there is one.

    Raises ModelError naming epoch and step where the loss is not finite.
    """
    course = _course(job.folder.state())
    if course.epoch:
        log.info("%s: goes on after epoch %d (%s)", job.name, course.epoch, course.phase)
    if course.phase == "first":
        course = _first(job, course)
        if job.options.retrain != "no":
            course = _second_start(job, course)
            _keep(job, course)
    if course.phase == "again":
        course = _again(job, course)
    use_best = job.options.stop is not None and course.phase == "first"
    return (course.best if use_best else course.net), _record(course)


def _first(job: Job, course: Course) -> Course:
    """Up to the last epoch, or until the held-out error has not improved for long enough."""
    stop, hold_out = job.options.stop, job.options.hold_out
    data = _cut(job.data, 0, len(job.data.y) - hold_out)
    held = _cut(job.data, len(data.y), len(job.data.y)) if hold_out else None
    trainee = _Trainee(job, data, course)
    while course.epoch < job.options.epochs:
        if stop is not None and course.epoch - course.best_epoch >= stop.patience:
            break
        trainee.epoch(held)
        if stop is not None:
            _note_best(job, course, trainee, data)
        _keep(job, course)
    return course


def _second_start(job: Job, course: Course) -> Course:
    """The course of the second phase: nothing yet, or the best weights of the first."""
    fresh = replace(course, phase="again", epoch=0, steps=0, net={}, optimiser={})
    if job.options.retrain == "on":
        fresh = replace(fresh, net=course.best, steps=course.best_steps)
    return fresh


def _again(job: Job, course: Course) -> Course:
    """All data: as many epochs as were best, or on until the held-out cost is low enough."""
    on = job.options.retrain == "on"
    held = _cut(job.data, len(job.data.y) - job.options.hold_out, len(job.data.y))
    trainee = _Trainee(job, job.data, course)
    while course.epoch < (job.options.epochs if on else course.best_epoch):
        if on and course.epoch and float(course.history[-1]["held_out_cost"]) <= course.best_cost:
            break
        trainee.epoch(held if on else None)
        _keep(job, course)
    return course


class _Trainee:
    """A network in training, its optimiser and its course."""

    def __init__(self, job: Job, data: Labelled, course: Course) -> None:
        self.job, self.data, self.course = job, data, course
        device = data.x.device
        draws = Draws(job.options.seed, 0)
        net = draws.built(job.build)
        if hasattr(net, "start"):
            cast("Callable[[Tensor, Tensor], None]", net.start)(data.x.cpu(), data.y.cpu())
        if course.net:
            net.load_state_dict(course.net)
        self.net = net.to(device)
        self.optimiser = optimisers.make(job.options.optimiser, self.net)
        if course.optimiser:
            self.optimiser.load_state_dict(course.optimiser)

    def epoch(self, held: Labelled | None) -> None:
        """One pass over the data in a new order, then the held-out error."""
        course, options = self.course, self.job.options
        began = time.perf_counter()
        course.epoch += 1
        on = course.phase == "again" and options.retrain == "on"  # rates stay as at the best epoch
        draws = Draws(options.seed, course.epoch + (options.epochs if on else 0))
        order = torch.randperm(len(self.data.y), generator=draws.generator("order"))
        self.net.train()
        losses: list[Tensor] = []
        for number, rows in enumerate(torch.split(order.to(self.data.y.device), options.batch)):
            optimisers.schedule(
                options.optimiser,
                self.optimiser,
                steps=course.best_steps if on else course.steps,
                epoch=course.best_epoch if on else course.epoch,
            )
            losses.append(self._step(rows, replace(draws, step=number)))
            course.steps += 1
        self._close(torch.stack(losses), held, began)

    def _step(self, rows: Tensor, draws: Draws) -> Tensor:
        job, x = self.job, self.data.x[rows]
        if job.options.augment != Augment():
            x = augmented(job.options.augment, x, job.box, draws.generator("augment"))
        step = recipes.Step(
            net=self.net,
            x=x,
            y=self.data.y[rows],
            cost=job.cost,
            independent=job.independent,
            box=job.box,
            draws=draws,
        )
        loss = recipes.loss(job.options.recipe, step) + costs.penalty(
            self.net, l1=job.options.l1, decay=job.options.decay
        )
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimiser.step()
        constrain(self.net)
        return loss.detach()

    def _close(self, losses: Tensor, held: Labelled | None, began: float) -> None:
        """Check the epoch's losses, look at the held-out samples, and write it down."""
        course, name = self.course, self.job.name
        self._refuse_divergence(losses)
        line: dict[str, float | int | str] = {
            "phase": course.phase,
            "epoch": course.epoch,
            "loss": float(losses.mean()),
        }
        if held is not None:
            line |= evaluate(self.net, held, self.job.cost, self.job.options.stop)
            if not math.isfinite(float(line["held_out_cost"])):
                raise ModelError(
                    f"{name}: the mean cost of the {len(held.y)} held-out samples is"
                    f" {line['held_out_cost']} after epoch {course.epoch}, where the training's is"
                    f" {line['loss']:.4g}: look for values that are not finite in the last samples"
                    " of the training data, or use a smaller rate (lr)"
                )
        line["seconds"] = round(time.perf_counter() - began, 3)
        course.history.append(line)
        course.net = {k: v.detach().cpu().clone() for k, v in self.net.state_dict().items()}
        course.optimiser = copy.deepcopy(self.optimiser.state_dict())
        numbers = ", ".join(f"{k} {v:.4g}" for k, v in line.items() if isinstance(v, float))
        log.info("%s: epoch %d of at most %d: %s", name, course.epoch, self.limit, numbers)

    def _refuse_divergence(self, losses: Tensor) -> None:
        """Raise ModelError where a loss of the epoch, or a weight after it, is not finite."""
        name, epoch = self.job.name, self.course.epoch
        broken = torch.nonzero(~losses.isfinite()).flatten()
        if len(broken):
            step = int(broken[0])
            raise ModelError(
                f"{name}: the training diverged: the loss is {float(losses[step])} in epoch"
                f" {epoch}, step {step + 1} of {len(losses)}; use a smaller rate (lr)"
            )
        for key, value in self.net.state_dict().items():
            if value.is_floating_point() and not bool(value.isfinite().all()):
                raise ModelError(
                    f"{name}: the training diverged: '{key}' is not finite after epoch {epoch};"
                    " use a smaller rate (lr)"
                )

    @property
    def limit(self) -> int:
        """The most epochs of this phase."""
        anew = self.course.phase == "again" and self.job.options.retrain == "anew"
        return self.course.best_epoch if anew else self.job.options.epochs


def evaluate(net: nn.Module, held: Labelled, cost: Cost, stop: Stop | None) -> dict[str, float]:
    """Error and mean cost in eval mode; also the error on FGSM examples if `stop` looks at it."""
    wrong = 0
    total = 0.0
    fooled = 0
    adversarial = stop is not None and stop.on == "adversarial"
    with perturb.evaluating(net):
        for x, y in zip(
            torch.split(held.x, EVALUATED), torch.split(held.y, EVALUATED), strict=True
        ):
            leaf = x.detach().requires_grad_(adversarial)
            with torch.set_grad_enabled(adversarial):
                scores = net(leaf)
                each = cost(scores, y)
            wrong += int((scores.argmax(dim=1) != y).sum())
            total += float(each.detach().double().sum())
            if adversarial and stop is not None:
                x_adv = perturb.signed(x, gradient(each, leaf), stop.eps, None)
                with torch.no_grad():
                    fooled += int((net(x_adv).argmax(dim=1) != y).sum())
    n = len(held.y)
    found = {"held_out_error": wrong / n, "held_out_cost": total / n}
    return found | ({"held_out_adversarial_error": fooled / n} if adversarial else {})


def _note_best(job: Job, course: Course, trainee: _Trainee, data: Labelled) -> None:
    """Keep the weights if the held-out error is lower than ever; the first of equals stays."""
    stop = job.options.stop
    assert stop is not None
    key = "held_out_error" if stop.on == "clean" else "held_out_adversarial_error"
    error = float(course.history[-1][key])
    if error >= course.best_error:
        return
    course.best_error, course.best_epoch = error, course.epoch
    course.best, course.best_steps = course.net, course.steps
    if job.options.retrain == "on":
        course.best_cost = evaluate(trainee.net, data, job.cost, None)["held_out_cost"]


def _cut(data: Labelled, start: int, stop: int) -> Labelled:
    return Labelled(data.x[start:stop], data.y[start:stop])


def _keep(job: Job, course: Course) -> None:
    job.folder.save_state({name: getattr(course, name) for name in Course.__slots__})


def _course(kept: Mapping[str, object] | None) -> Course:
    return Course(**kept) if kept else Course()  # type: ignore[arg-type]  # its own fields


def _record(course: Course) -> dict[str, Json]:
    return {
        "epochs": course.epoch,
        "best_epoch": course.best_epoch or None,
        "best_error": course.best_error if math.isfinite(course.best_error) else None,
        "seconds": round(sum(float(line["seconds"]) for line in course.history), 1),
        "history": [dict(line) for line in course.history],
    }
