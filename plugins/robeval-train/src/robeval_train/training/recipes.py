"""Recipes: what is minimised on one batch, a scalar with a graph to the weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_lite import Box

from . import perturb
from .costs import Cost, gradient, no_class
from .draws import Draws
from .options import (
    FgsmAdversarial,
    Noise,
    PgdAdversarial,
    Recipe,
    Rubbish,
    Standard,
    Trades,
    WorstCaseLogistic,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One batch: x [n, *shape] in `box`, y [n], the network in train mode, its cost and draws."""

    net: nn.Module
    x: Tensor
    y: Tensor
    cost: Cost
    independent: bool
    box: Box
    draws: Draws

    def mean_cost(self, x: Tensor) -> Tensor:
        """Mean cost at inputs x under the step's dropout masks."""
        return self.cost(self.draws.passed(self.net, x), self.y).mean()


def loss(options: Recipe, step: Step) -> Tensor:
    """The recipe's loss on one batch."""
    return _RECIPES[type(options)](options, step)


def standard(_: Recipe, step: Step) -> Tensor:
    """The mean cost."""
    return step.mean_cost(step.x)


def fgsm_adversarial(options: Recipe, step: Step) -> Tensor:
    """alpha J(x) + (1 - alpha) J(x~): the example x~ is a constant, made under the same masks."""
    assert isinstance(options, FgsmAdversarial)
    if step.draws.epoch <= options.clean_epochs:
        return step.mean_cost(step.x)
    x = step.x.detach().clone().requires_grad_(True)
    clean = step.cost(step.draws.passed(step.net, x), step.y)
    grad = gradient(clean, x, keep=True)
    x_adv = perturb.signed(step.x, grad, options.eps, step.box if options.clip else None)
    return options.alpha * clean.mean() + (1 - options.alpha) * step.mean_cost(x_adv)


def pgd_adversarial(options: Recipe, step: Step) -> Tensor:
    """The mean cost at what PGD finds."""
    assert isinstance(options, PgdAdversarial)
    x_adv = perturb.pgd(
        step.net,
        step.x,
        lambda scores: step.cost(scores, step.y),
        norm=options.norm,
        eps=options.eps,
        steps=options.steps,
        step_size=options.step_size,
        box=step.box,
        rng=step.draws.generator("start"),
    )
    return step.mean_cost(x_adv)


def trades(options: Recipe, step: Step) -> Tensor:
    """J(x) + beta KL(p(x) || p(x')), both terms with a graph."""
    assert isinstance(options, Trades)
    with perturb.evaluating(step.net), torch.no_grad():
        calm = step.net(step.x).log_softmax(dim=1)
    x_adv = perturb.pgd(
        step.net,
        step.x,
        partial(_divergence, calm),
        norm=options.norm,
        eps=options.eps,
        steps=options.steps,
        step_size=options.step_size,
        box=step.box,
        rng=step.draws.generator("start"),
    )
    scores = step.draws.passed(step.net, step.x)
    moved = step.draws.passed(step.net, x_adv)
    apart = _divergence(scores.log_softmax(dim=1), moved).mean()
    return step.cost(scores, step.y).mean() + options.beta * apart


def _divergence(log_p: Tensor, scores: Tensor) -> Tensor:
    """KL(p || softmax(scores)) of each sample, [n]."""
    log_q = functional.log_softmax(scores, dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)


def noise(options: Recipe, step: Step) -> Tensor:
    """The mean cost at x + noise alone, without a clean half."""
    assert isinstance(options, Noise)
    rng = step.draws.generator("noise")
    if options.kind == "sign":
        eta = torch.empty(step.x.shape).bernoulli_(0.5, generator=rng) * 2 - 1
    else:
        eta = torch.empty(step.x.shape).uniform_(-1, 1, generator=rng)
    return step.mean_cost(step.x + options.eps * eta.to(step.x.device))


def rubbish(options: Recipe, step: Step) -> Tensor:
    """The mean cost, and that of Gaussian samples which belong to no class."""
    assert isinstance(options, Rubbish)
    z = torch.randn(step.x.shape, generator=step.draws.generator("rubbish")).to(step.x.device)
    fooled = no_class(step.draws.passed(step.net, z), independent=step.independent).mean()
    return step.mean_cost(step.x) + options.weight * fooled


def worst_case_logistic(options: Recipe, step: Step) -> Tensor:
    """Mean of softplus(eps |w|_1 - y (w.x + b)), y = -1 for class 0 and +1 for class 1."""
    assert isinstance(options, WorstCaseLogistic)
    (linear,) = (layer for layer in step.net.modules() if isinstance(layer, nn.Linear))
    scores = step.draws.passed(step.net, step.x)
    margin = (scores[:, 1] - scores[:, 0]) * (2 * step.y - 1)
    return functional.softplus(options.eps * linear.weight.abs().sum() - margin).mean()


_RECIPES: Mapping[type[Recipe], Callable[[Recipe, Step], Tensor]] = {
    Standard: standard,
    FgsmAdversarial: fgsm_adversarial,
    PgdAdversarial: pgd_adversarial,
    Trades: trades,
    Noise: noise,
    Rubbish: rubbish,
    WorstCaseLogistic: worst_case_logistic,
}
