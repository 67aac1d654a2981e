"""Pre-flight: what can be known of a model on a dataset before any attack, as plain numbers.

`observe` measures; what its numbers mean is said by `diagnose.preflight`, from the record alone.
It costs 280 forward and 64 backward passes of one sample, whatever the size of the dataset, and 5
to 10 times 64 forward passes more where the model is right on less than 90 % of the samples: these
look for another input scaling. A healthy one is spared them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from ..group import out_of_memory
from ..samples import Selected
from ..types import Batch, Box, LoadedModel, Samples
from . import keys
from .gradients import gradients
from .outputs import kind as kind
from .outputs import shown
from .scalings import tried
from .steady import steadiness
from .training import in_training

ROWS = 64
"""Samples of a dataset that are looked at."""
BOX_SLACK = 1e-6  # of the box's width


def chosen(selected: Selected, device: torch.device) -> Batch:
    """Up to 64 samples from all over the selection, whatever its order, freshly read."""
    rows = np.arange(selected.n)
    if selected.n > ROWS:
        drawn = np.random.default_rng(selected.n).choice(selected.n, ROWS, replace=False)
        rows = np.sort(drawn)
    few = dataclasses.replace(
        selected,
        positions=selected.positions[rows],
        ids=tuple(selected.ids[row] for row in rows.tolist()),
        labels=selected.labels[torch.from_numpy(rows)],
    )
    return few.batch(0, few.n, device)


def observe(
    model: LoadedModel, batch: Batch, *, classes: tuple[str, ...], seed: int
) -> dict[str, float]:
    """The numbers of all checks on the first 64 samples of a batch, fewer if memory is short.

    `classes`: of the dataset. `seed`: of the random numbers that the model may draw; the global
    generator, the model's buffers and its mode are left as found.
    """
    n = min(ROWS, len(batch.ids))
    while True:
        try:
            with _as_found(model.differentiable, batch.x.device, seed):
                return _told(_observed(model, batch, n, len(classes)))
        except Exception as problem:
            if not out_of_memory(problem) or n == 1:
                raise
            n //= 2


def counts(samples: Samples) -> dict[str, float]:
    """Right answers of a clean pass, or of a part of it: these numbers may be added up."""
    return {
        keys.CLEAN_SAMPLES: len(samples.label),
        keys.CLEAN_CORRECT: int(samples.clean_correct.sum()),
    }


def unlabelled(model: LoadedModel, x: Tensor, box: Box, *, seed: int) -> dict[str, float]:
    """The numbers of the checks that need no label: x [n, *shape] in `box` may be noise."""
    with _as_found(model.differentiable, x.device, seed):
        meter = _Meter(model)
        observed = _unlabelled(meter, x, meter(x), box)
        return _told(observed | {keys.PASSES: meter.passes})


def _told(observed: Mapping[str, float]) -> dict[str, float]:
    return {key: float(value) for key, value in observed.items() if value}


class _Meter:
    """The artefact's own output, float32 [n, k], with its passes counted."""

    def __init__(self, model: LoadedModel) -> None:
        self.model = model
        self.passes = 0

    def __call__(self, x: Tensor) -> Tensor:
        self.count(len(x))
        # a network may work in place, and may give the same tensor again
        return self.model.predict(x.clone()).detach().float().clone()

    def count(self, passes: int) -> None:
        self.passes += passes


def _unlabelled(meter: _Meter, x: Tensor, whole: Tensor, box: Box) -> dict[str, float]:
    observed: dict[str, float] = {keys.SAMPLES: len(x)}
    observed |= shown(whole, meter.model.output)
    observed |= steadiness(meter, x, whole, box)
    return observed | in_training(meter.model.differentiable)


def _observed(model: LoadedModel, batch: Batch, n: int, classes: int) -> dict[str, float]:
    x, y = batch.x[:n], batch.y[:n]
    meter = _Meter(model)
    whole = meter(x)
    known = (y >= 0) & (y < model.num_classes)
    observed = _declared(model, batch, x, y, known, classes)
    observed |= _unlabelled(meter, x, whole, batch.box)
    decided = torch.where(whole.isfinite().all(dim=1), whole.argmax(dim=1), -1)
    right = decided == y
    observed[keys.CORRECT] = int(right.sum())
    passes = 0
    if bool(known.any()):
        # a label beyond the scores is an index error, on a GPU one that ends the process
        seen = gradients(model, x[known], y[known], whole[known])
        passes = int(seen[keys.GRADIENT_PASSES])  # each with a forward pass of its own
        observed |= seen
        observed |= tried(model, x[known], y[known], batch.box, right[known], meter.count)
    return observed | {keys.PASSES: meter.passes + passes}


def _declared(
    model: LoadedModel, batch: Batch, x: Tensor, y: Tensor, known: Tensor, classes: int
) -> dict[str, float]:
    """What data and model say of themselves, and whether it is so."""
    slack = BOX_SLACK * batch.box.width
    inside = ((x >= batch.box.low - slack) & (x <= batch.box.high + slack)).flatten(1)
    labels = torch.unique(y, return_counts=True)[1]
    elsewhere = x.device.type == "cuda" and (
        torch.device(model.device).type == "cpu" or model.provider.startswith("CPU")
    )
    return {
        keys.OUTPUTS: model.num_classes,
        keys.CLASSES: classes,
        keys.LABELS: len(labels),
        keys.DIFFERENT: len(set(batch.hashes[: len(x)])),
        keys.MAJORITY: int(labels.max()),
        keys.UNKNOWN_LABELS: int((~known).sum()),
        keys.OUT_OF_BOX: int((~inside.all(dim=1)).sum()),
        keys.SPAN: float(x.amax() - x.amin()) / batch.box.width,
        keys.ON_CPU: int(elsewhere),
    }


@contextmanager
def _as_found(module: nn.Module | None, device: torch.device, seed: int) -> Iterator[None]:
    """Random numbers from `seed`; afterwards generator, buffers and modes are as before."""
    parts = [] if module is None else [(part, part.training) for part in module.modules()]
    kept = {} if module is None else {name: b.clone() for name, b in module.named_buffers()}
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        try:
            yield
        finally:
            for part, training in parts:
                if part.training != training:
                    part.training = training
            if module is not None:
                _put_back(module, kept)


@torch.no_grad()
def _put_back(module: nn.Module, kept: Mapping[str, Tensor]) -> None:
    for name, buffer in module.named_buffers():
        if name in kept and kept[name].shape == buffer.shape:
            buffer.copy_(kept[name])
