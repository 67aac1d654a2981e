"""What a loaded model does on uniform noise: its outputs, its twin, its gradient, its faults."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from . import preflight
from .checkup import GradientReport, Report, TwinReport
from .errors import FOREIGN, RobevalError
from .losses import margin
from .rng import SampleRng, sample_keys
from .types import Access, Box, Finding, LoadedModel, Severity

SAMPLES = 8
SEED = 0
REPEATS = 3
"""The fastest of so many passes is the time of a gradient."""
BOX = Box(0.0, 1.0)


def probe(report: Report, model: LoadedModel, shape: tuple[int, ...]) -> Report:
    """The report with all that `SAMPLES` uniform inputs of `shape` show; no error leaves it."""
    x = _noise(shape).to(model.device)
    report = _run(report, model, x)
    return _attacked(report, model, x) if report.runs else report


def _noise(shape: tuple[int, ...]) -> Tensor:
    keys = sample_keys([f"doctor-{position}" for position in range(SAMPLES)])
    return SampleRng(SEED, "doctor", keys).uniform(shape, BOX.low, BOX.high)


def _run(report: Report, model: LoadedModel, x: Tensor) -> Report:
    try:
        first = model.predict(x).cpu()
        begin = time.perf_counter()
        model.predict(x).cpu()
        seconds = (time.perf_counter() - begin) / SAMPLES
        observed = preflight.unlabelled(model, x, BOX, seed=SEED)
    except FOREIGN as problem:  # whatever a model raises on noise
        asked = f"inputs of shape {list(x.shape)}"
        return replace(report, problem=f"it does not run on {asked}: {cause(problem)}")
    steady = not preflight.keys.randomised(observed)
    return replace(
        report,
        runs=True,
        inputs=report.inputs or ({"name": "x", "type": "float32", "shape": ["n", *x.shape[1:]]},),
        outputs=report.outputs
        or ({"name": "y", "type": "float32", "shape": ["n", *first.shape[1:]]},),
        output_kind=preflight.kind(first, model.output),
        deterministic=steady,
        batch_dependent=preflight.keys.mixing(observed) if steady else None,
        seconds_per_sample=seconds,
        batch=SAMPLES,
        observed=observed,
        findings=_bytes_wanted(report),
    )


def cause(problem: BaseException) -> str:
    """What went wrong, with its kind where the message was not written for a user."""
    named = isinstance(problem, RobevalError)
    return str(problem) if named else f"{type(problem).__name__}: {problem}"


# ---------------------------------------------------------------- attacking


def _attacked(report: Report, model: LoadedModel, x: Tensor) -> Report:
    """The report with the twin, the gradient and what an attack can use."""
    twin = _twin(model, x)
    found = list(report.findings)
    gradient = None
    if model.differentiable is not None and (twin is None or twin.status == "ok"):
        try:
            gradient = _gradient(model.differentiable, x)
        except FOREIGN as problem:  # whatever a model raises on noise
            message = f"its gradient cannot be computed: {cause(problem)}"
            advice = "gradient attacks will fail; use attacks that need scores, such as square"
            found.append(_finding("no-gradient", "error", message, advice))
        else:
            found += _of_gradient(gradient)
    elif twin is not None:
        message = f"gradient attacks are skipped: {twin.reason}"
        advice = "the suite runs its gradient-free `fallback:` instead (square, or what you name)"
        found.append(_finding(f"twin-{twin.status}", "warning", message, advice))
    needs: tuple[Access, ...] = ("score", "decision")
    return replace(
        report,
        twin=twin,
        gradient=gradient,
        attacks=("gradient", *needs) if gradient is not None else needs,
        findings=tuple(found),
    )


def _twin(model: LoadedModel, x: Tensor) -> TwinReport | None:
    """Why the stand-in may be used or not; None for a model that is its own gradient."""
    facts = model.facts.get("twin")
    operators, head = {}, None
    if isinstance(facts, Mapping):
        head = facts.get("head")
        counts = facts.get("operators")
        if isinstance(counts, Mapping):
            operators = {kind: n for kind, n in counts.items() if isinstance(n, int)}
    if model.differentiable is None:
        refused = TwinReport(status="refused", reason=model.no_gradient, operators={})
        return refused if model.no_gradient else None
    if model.verify is None:
        return None
    head = head if isinstance(head, str) else None
    try:
        parity = model.verify(x)
    except FOREIGN as problem:  # whatever a loader's check raises on noise
        reason = f"it cannot be compared with the file: {cause(problem)}"
        return TwinReport(status="parity-failed", reason=reason, operators=operators, head=head)
    return TwinReport(
        status="parity-failed" if parity.reason else "ok",
        reason=parity.reason,
        operators=operators,
        head=head,
        difference=parity.difference,
        tolerance=parity.tolerance,
        agreement=parity.agreement,
        samples=len(x),
    )


def _gradient(differentiable: Callable[[Tensor], Tensor], x: Tensor) -> GradientReport:
    gradient = _input_gradient(differentiable, x).flatten(1).double()
    seconds = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        _input_gradient(differentiable, x).cpu()
        seconds.append(time.perf_counter() - begin)
    return GradientReport(
        norm=float(gradient.norm(dim=1).median()),
        seconds_per_sample=min(seconds) / len(x),
        broken=int((~gradient.isfinite()).any(dim=1).sum()),
        zero=int((gradient == 0).all(dim=1).sum()),
        samples=len(x),
    )


def _input_gradient(differentiable: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The gradient of the margin of the decided class, which no softmax can flatten."""
    x = x.clone().requires_grad_()
    logits = differentiable(x)
    (gradient,) = torch.autograd.grad(margin(logits, logits.argmax(dim=1)).sum(), x)
    return gradient


# ---------------------------------------------------------------- findings


def _of_gradient(gradient: GradientReport) -> list[Finding]:
    """The faults that would make a gradient attack see nothing."""
    found: list[Finding] = []
    if gradient.broken:
        message = f"{gradient.broken} of {gradient.samples} gradients hold NaN or infinity"
        advice = "look for a division by zero, sqrt or log at 0 in the model"
        found.append(_finding("broken-gradient", "error", message, advice))
    if gradient.zero:
        message = f"{gradient.zero} of {gradient.samples} gradients on noise are exactly zero"
        advice = "run an attack that needs no gradient, such as square, beside gradient attacks"
        found.append(_finding("zero-gradient", "warning", message, advice))
    return found


def _bytes_wanted(report: Report) -> tuple[Finding, ...]:
    if all(port.get("type") != "uint8" for port in report.inputs):
        return ()
    message = "the input is uint8: data in [0, 1] would be rounded to 0 and 1"
    return (_finding("byte-input", "note", message, "declare scale: 255 in the suite"),)


def _finding(name: str, severity: Severity, message: str, advice: str) -> Finding:
    return Finding(id=name, severity=severity, message=message, advice=advice, cells=())
