"""Broken attacks: each keeps the form of the contract and breaks one thing that it promises.

A plug-in registers them by returning `ATTACKS` from its hook `robeval_attacks`. Two of them
remember earlier calls in this process; `forget()` makes them new.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType, MappingProxyType, ModuleType

import torch
from pydantic import Field
from torch import Tensor, nn

from robustbench_lite import AttackSpec, Budget, Classifier, NoParams, Params, SampleRng, norms

STEPS = 10
TINY = 0.01  # of eps
WRONG_CLASS = 0
EXCESS = 1.01


class _Calls:
    """How often the two attacks with a memory were called."""

    def __init__(self) -> None:
        self.crashing = 0
        self.counting = 0


_CALLS = _Calls()


class SleepParams(Params):
    """`seconds`: how long one call sleeps."""

    seconds: float = Field(default=60.0, ge=0, description="how long one call sleeps")


def forget() -> None:
    """Take every call so far as not made, as in a new process."""
    _CALLS.crashing = _CALLS.counting = 0


def overshoots(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    budget: Budget,
    rng: SampleRng,  # noqa: ARG001  (the contract)
) -> Tensor:
    """Reaches adversarial points, steps from there across x to the other side, and returns that."""
    x_adv = _climb(model, x, y, budget)
    model.logits(x_adv)
    return norms.clip(2 * x - x_adv, x, budget)


def tiny_steps(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    budget: Budget,
    rng: SampleRng,  # noqa: ARG001  (the contract)
) -> Tensor:
    """Ten steps of eps / 100: a tenth of the budget is never left."""
    return _climb(model, x, y, budget, length=TINY)


def ignores_labels(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    budget: Budget,
    rng: SampleRng,  # noqa: ARG001  (the contract)
) -> Tensor:
    """Raises the loss of class 0, whatever the sample is."""
    return _climb(model, x, torch.full_like(y, WRONG_CLASS), budget)


def minimises(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    budget: Budget,
    rng: SampleRng,  # noqa: ARG001  (the contract)
) -> Tensor:
    """A sign error: goes down the loss, and makes every sample safer."""
    return _climb(model, x, y, budget, direction=-1)


def crashes(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    budget: Budget,
    rng: SampleRng,  # noqa: ARG001  (the contract)
) -> Tensor:
    """Works once; the second call and every later one raises, until `forget()`."""
    _CALLS.crashing += 1
    if _CALLS.crashing > 1:
        raise IndexError("index 1 is out of range: the second batch was not expected")
    return _climb(model, x, y, budget)


def nan_images(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    budget: Budget,
    rng: SampleRng,  # noqa: ARG001  (the contract)
) -> Tensor:
    """Divides the gradient by what is 0, and returns NaN."""
    gradient = model.gradient(x, y)
    return x + budget.eps * gradient * float("nan")


def outside(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    budget: Budget,
    rng: SampleRng,  # noqa: ARG001  (the contract)
) -> Tensor:
    """Adversarial points 1 % beyond the ball, inside the box."""
    x_adv = _climb(model, x, y, budget)
    return (x + EXCESS * (x_adv - x)).clamp(budget.box.low, budget.box.high)


def mutates(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    budget: Budget,
    rng: SampleRng,  # noqa: ARG001  (the contract)
) -> Tensor:
    """Sets to zero the weights of every network it can reach, the private copy included."""
    x_adv = _climb(model, x, y, budget)
    with torch.no_grad():
        for network in (model.module(), *reachable_modules(model)):
            for weight in network.parameters():
                weight.zero_()
    return x_adv


def swaps(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    budget: Budget,
    rng: SampleRng,  # noqa: ARG001  (the contract)
) -> Tensor:
    """Returns every sample's adversarial point in its neighbour's place."""
    return _climb(model, x, y, budget).roll(1, dims=0)


def sleeps(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    budget: Budget,
    rng: SampleRng,  # noqa: ARG001  (the contract)
    seconds: float = 60.0,
) -> Tensor:
    """A sound attack that first sleeps, longer than a time limit allows."""
    time.sleep(seconds)
    return _climb(model, x, y, budget)


def global_numbers(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    budget: Budget,
    rng: SampleRng,  # noqa: ARG001  (the contract)
) -> Tensor:
    """Starts at a random point drawn from torch's global state instead of `rng`."""
    start = norms.clip(x + budget.eps * (2 * torch.rand_like(x) - 1), x, budget)
    return _climb(model, x, y, budget, start=start)


def counted_numbers(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    budget: Budget,
    rng: SampleRng,  # noqa: ARG001  (the contract)
) -> Tensor:
    """Starts at a random point seeded by a counter of the module: no run is like the one before."""
    _CALLS.counting += 1
    generator = torch.Generator().manual_seed(_CALLS.counting)
    noise = torch.rand(x.shape, generator=generator).to(x.device)
    start = norms.clip(x + budget.eps * (2 * noise - 1), x, budget)
    return _climb(model, x, y, budget, start=start)


def reachable_modules(start: object) -> Iterator[nn.Module]:
    """Every network that attributes, containers and closures lead to from an object.

    The way a careless or a dishonest plug-in takes: classes, Python modules and the globals of
    functions are not followed, so nothing outside the object's own world is reached.
    """
    waiting, known = [start], {id(start)}
    while waiting:
        found = waiting.pop()
        if isinstance(found, nn.Module):
            yield found
            continue
        inside = found.__closure__ or () if isinstance(found, FunctionType) else [found]
        for each in gc.get_referents(*inside):
            if id(each) not in known and not isinstance(each, type | ModuleType | Tensor):
                known.add(id(each))
                waiting.append(each)


def _climb(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    budget: Budget,
    *,
    start: Tensor | None = None,
    length: float = 0.25,
    direction: float = 1.0,
) -> Tensor:
    """The last of ten gradient steps, each `length` of eps: what the attacks above are built on."""
    point = x if start is None else start
    for _ in range(STEPS):
        step = norms.steepest(model.gradient(point, y), budget.norm)
        point = norms.clip(point + direction * length * budget.eps * step, x, budget)
    return point


def _spec(
    name: str,
    implementation: Callable[..., Tensor],
    summary: str,
    params: type[Params] = NoParams,
) -> AttackSpec:
    return AttackSpec(
        name=name,
        implementation=implementation,
        summary=summary,
        norms=("linf", "l2"),
        access="gradient",
        params=params,
    )


ATTACKS: tuple[AttackSpec, ...] = (
    _spec("zoo-overshoots", overshoots, "returns its last point, beyond the adversarial ones"),
    _spec("zoo-tiny-steps", tiny_steps, "takes ten steps of eps / 100"),
    _spec("zoo-ignores-labels", ignores_labels, "leads every sample away from class 0"),
    _spec("zoo-minimises", minimises, "lowers the loss that it should raise"),
    _spec("zoo-crashes", crashes, "raises an error on its second call"),
    _spec("zoo-nan-images", nan_images, "returns images of NaN"),
    _spec("zoo-outside", outside, "leaves the ball by 1 %"),
    _spec("zoo-mutates", mutates, "sets the model's weights to zero"),
    _spec("zoo-swaps", swaps, "returns the samples in another order"),
    _spec("zoo-sleeps", sleeps, "sleeps before it works", SleepParams),
    _spec("zoo-global-numbers", global_numbers, "draws from the global random state"),
    _spec("zoo-counted-numbers", counted_numbers, "draws other numbers at every call"),
)

ATTACK_FINDINGS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "zoo-overshoots": ("silent-success",),
        "zoo-tiny-steps": ("budget-not-used", "incomplete-optimisation", "self-test-failed"),
        "zoo-ignores-labels": ("self-test-failed",),
        "zoo-minimises": ("self-test-failed",),
        "zoo-crashes": ("attack-failed",),
        "zoo-nan-images": ("illegal-candidate",),
        "zoo-outside": ("illegal-candidate",),
        "zoo-mutates": ("changed-model",),
        "zoo-swaps": ("illegal-candidate",),
        "zoo-sleeps": ("timeout",),
        "zoo-global-numbers": ("touched-global-rng",),
        "zoo-counted-numbers": ("not-reproducible",),
    }
)
"""What each broken attack must be found out by; "attack-failed" and "timeout" are cell states."""
