"""`robeval doctor PATH`: what a model file is, found by loading it and running it on noise."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from .errors import ModelError, RobevalError
from .hookspecs import ModelSpec
from .params import Params
from .plugins import Registered, Registry, implementation
from .rng import SampleRng, sample_keys
from .types import Finding, Json, LoadedModel, Output, Places, Severity
from .words import listed

SAMPLES = 8
SEED = 0
TOLERANCE = 1e-4
"""Relative difference of two outputs, and deviation of a row's sum from 1."""
SMALLEST_SCALE = 1e-12

Ports = Sequence[Mapping[str, Json]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What is known of a model file; a field is None where it could not be found out.

    `size`: bytes. `loadable`: its loader accepts it. `runs`: it gave an output for `SAMPLES`
    uniform inputs; `problem` says why not. `inputs`, `outputs`: name, type and shape of each.
    `output_kind`: what its numbers look like. `deterministic`: twice the same. `batch_dependent`:
    a sample's output depends on which samples are beside it.
    """

    path: Path
    format: str | None = None
    sha256: str | None = None
    size: int | None = None
    loadable: bool = False
    runs: bool = False
    inputs: Ports = ()
    outputs: Ports = ()
    opset: Json = None
    providers: Sequence[str] = ()
    output_kind: Output | None = None
    deterministic: bool | None = None
    batch_dependent: bool | None = None
    num_classes: int | None = None
    seconds_per_sample: float | None = None
    findings: tuple[Finding, ...] = ()
    problem: str | None = None

    def as_json(self) -> dict[str, Json]:
        """The report as plain values, ready for `json.dumps`."""
        return {
            "path": str(self.path),
            "format": self.format,
            "sha256": self.sha256,
            "bytes": self.size,
            "loadable": self.loadable,
            "runs": self.runs,
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            "opset": self.opset,
            "providers": list(self.providers),
            "output_kind": self.output_kind,
            "deterministic": self.deterministic,
            "batch_dependent": self.batch_dependent,
            "num_classes": self.num_classes,
            "seconds_per_sample": self.seconds_per_sample,
            "findings": [
                {"id": f.id, "severity": f.severity, "message": f.message, "advice": f.advice}
                for f in self.findings
            ],
            "problem": self.problem,
        }

    def lines(self) -> list[str]:
        """The report for a human: one line per known fact, then findings and what to do."""
        facts = {
            "file": str(self.path),
            "format": self.format,
            "size": None if self.size is None else f"{self.size} bytes",
            "sha256": self.sha256,
            "loads": _yes(self.loadable),
            "runs": _yes(self.runs),
            "inputs": _in_words(self.inputs),
            "outputs": _in_words(self.outputs),
            "opset": _opsets(self.opset),
            "providers": ", ".join(self.providers) or None,
            "classes": None if self.num_classes is None else str(self.num_classes),
            "output looks like": self.output_kind,
            "deterministic": _yes(self.deterministic),
            "depends on batch": _yes(self.batch_dependent),
            "time per sample": _milliseconds(self.seconds_per_sample),
            "problem": self.problem,
        }
        lines = [f"{name + ':':19}{text}" for name, text in facts.items() if text is not None]
        for finding in self.findings:
            lines.append(f"{finding.severity}: {finding.id}: {finding.message}")
            lines.append(f"  help: {finding.advice}")
        return lines


def examine(
    path: Path,
    registry: Registry,
    *,
    device: str,
    threads: int,
    factory: str | None = None,
    input_shape: tuple[int, ...] | None = None,
) -> Report:
    """Load the file with the loader of its suffix and run it; a broken file is a report, no error.

    `device`: "cpu" or "cuda:i". `factory`: "package.module:name" for a file that holds only
    weights. `input_shape`: one sample, for a model that does not declare it (a free dimension is
    otherwise taken as 1).
    """
    report = Report(path=path)
    try:
        report = replace(report, size=path.stat().st_size, sha256=_sha256(path))
    except OSError as problem:
        return replace(report, problem=f"cannot be read: {problem.strerror or problem}")
    try:
        registered = _loader(path, registry)
        params = _params(path, registered.spec, factory, input_shape)
        model = _load(registered, params, path, device, threads)
    except RobevalError as problem:
        return replace(report, problem=str(problem))
    report = _declared(report, model)
    shape = input_shape or _probe_shape(model)
    if shape is None:
        asks = "it does not say what shape its input has: give --input-shape, for example 3,32,32"
        return replace(report, problem=asks)
    return _run(report, model, _noise(shape).to(model.device))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---------------------------------------------------------------- loading


def _loader(path: Path, registry: Registry) -> Registered[ModelSpec]:
    suffix = path.suffix.lower()
    loaders = registry.models.values()
    for registered in loaders:
        if suffix in registered.spec.suffixes and registered.spec.from_path is not None:
            return registered
    known = sorted({ending for each in loaders for ending in each.spec.suffixes})
    raise ModelError(f"no loader opens '{suffix or path.name}' files; known: {listed(known)}")


def _params(
    path: Path, spec: ModelSpec, factory: str | None, input_shape: tuple[int, ...] | None
) -> Params:
    """The loader's parameters for the bare file, with what the user added where it has a place."""
    assert spec.from_path is not None
    given = {"factory": factory, "input_shape": input_shape}
    added = {name: value for name, value in given.items() if value is not None}
    unknown = sorted(set(added) - set(spec.params.model_fields))
    if unknown:
        raise ModelError(f"the loader '{spec.name}' takes no {listed(unknown)}: leave it out")
    try:
        if factory is not None:
            return spec.params.model_validate({"weights": path, **added})
        bare = spec.from_path(path)
        return spec.params.model_validate({**bare.model_dump(), **added})
    except ValidationError as problem:
        reasons = "; ".join(
            error["msg"].removeprefix("Value error, ") for error in problem.errors()
        )
        raise ModelError(reasons) from problem


def _load(
    registered: Registered[ModelSpec], params: Params, path: Path, device: str, threads: int
) -> LoadedModel:
    folder = path.resolve().parent
    places = Places(suite=folder, data=None, cache=folder)
    load = implementation(registered)
    try:
        model = load(params, places=places, device=device, threads=threads)
    except RobevalError:
        raise
    except Exception as problem:
        raise ModelError(f"its loader raised {type(problem).__name__}: {problem}") from problem
    if not isinstance(model, LoadedModel):
        raise ModelError(f"its loader returned {type(model).__name__}; expected a LoadedModel")
    return model


def _declared(report: Report, model: LoadedModel) -> Report:
    facts = model.facts
    kind = facts.get("format")
    return replace(
        report,
        loadable=True,
        format=kind if isinstance(kind, str) else None,
        inputs=_ports(facts.get("inputs")),
        outputs=_ports(facts.get("outputs")),
        opset=facts.get("opset"),
        providers=_texts(facts.get("providers")) or (model.provider,),
        num_classes=model.num_classes,
    )


def _ports(value: Json) -> Ports:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return ()
    return tuple(port for port in value if isinstance(port, Mapping))


def _texts(value: Json) -> tuple[str, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return ()
    return tuple(map(str, value))


def _probe_shape(model: LoadedModel) -> tuple[int, ...] | None:
    if model.input_shape is not None:
        return model.input_shape
    declared = model.facts.get("sample_shape")
    if not isinstance(declared, Sequence) or isinstance(declared, str):
        return None
    return tuple(size if isinstance(size, int) else 1 for size in declared)


# ---------------------------------------------------------------- running


def _noise(shape: tuple[int, ...]) -> Tensor:
    keys = sample_keys([f"doctor-{position}" for position in range(SAMPLES)])
    return SampleRng(SEED, "doctor", keys).uniform(shape)


def _run(report: Report, model: LoadedModel, x: Tensor) -> Report:
    try:
        first = model.predict(x).cpu()
        begin = time.perf_counter()
        second = model.predict(x).cpu()
        seconds = (time.perf_counter() - begin) / SAMPLES
        single = torch.cat([model.predict(row).cpu() for row in x[:, None]])
        shuffled = model.predict(x.flip(0)).cpu().flip(0)
    except Exception as problem:  # noqa: BLE001  (whatever a model raises on noise)
        cause = (
            problem if isinstance(problem, RobevalError) else f"{type(problem).__name__}: {problem}"
        )
        return replace(report, problem=f"it does not run on {_shape_words(x)}: {cause}")
    again = _difference(first, second)
    apart = max(_difference(first, single), _difference(first, shuffled))
    steady = again <= TOLERANCE
    return replace(
        report,
        runs=True,
        inputs=report.inputs or ({"name": "x", "type": "float32", "shape": ["n", *x.shape[1:]]},),
        outputs=report.outputs
        or ({"name": "y", "type": "float32", "shape": ["n", *first.shape[1:]]},),
        output_kind=_kind(first, model.output),
        deterministic=steady,
        batch_dependent=apart > TOLERANCE if steady else None,
        seconds_per_sample=seconds,
        findings=_findings(report, model, first, again=again, apart=apart),
    )


def _difference(a: Tensor, b: Tensor) -> float:
    """Largest difference relative to the largest output; 0 where both are not finite."""
    a, b = a.double().nan_to_num(), b.double().nan_to_num()
    return float((a - b).abs().max() / a.abs().max().clamp_min(SMALLEST_SCALE))


def _sums_to_one(rows: Tensor) -> bool:
    inside = bool(((rows >= -TOLERANCE) & (rows <= 1 + TOLERANCE)).all())
    return inside and float((rows.double().sum(dim=1) - 1).abs().max()) <= TOLERANCE


def _kind(output: Tensor, declared: Output) -> Output:
    if _sums_to_one(output):
        return "probabilities"
    if _sums_to_one(output.exp()):
        return "log-probabilities"
    return "logits" if declared == "log-probabilities" else declared


def _findings(
    report: Report, model: LoadedModel, output: Tensor, *, again: float, apart: float
) -> tuple[Finding, ...]:
    found = [_not_finite(output), _of_another_kind(output, model.output), _bytes_wanted(report)]
    if again > TOLERANCE:
        message = f"the same inputs twice give outputs that differ by {again:.2g} (relative)"
        advice = "take the random part out of the file, or judge it as a randomised defence"
        found.append(_finding("random-output", "error", message, advice))
    elif apart > TOLERANCE:
        message = f"a sample's output changes by {apart:.2g} (relative) with the samples beside it"
        advice = "export in eval mode: batch normalisation must use its stored statistics"
        found.append(_finding("batch-dependent", "error", message, advice))
    return tuple(finding for finding in found if finding is not None)


def _not_finite(output: Tensor) -> Finding | None:
    rows = int((~output.isfinite()).any(dim=1).sum())
    if rows == 0:
        return None
    message = f"{rows} of {len(output)} outputs on uniform noise hold NaN or infinity"
    advice = "look for overflow (float16?), a logarithm of 0, or damaged weights"
    return _finding("output-not-finite", "error", message, advice)


def _of_another_kind(output: Tensor, declared: Output) -> Finding | None:
    measured = _kind(output, declared)
    sums = output.double().sum(dim=1)
    if declared == "probabilities" and not _sums_to_one(output):
        message = f"probabilities are declared and rows sum to {sums.min():.4g} .. {sums.max():.4g}"
        advice = "declare the output as logits, or export one softmax over all classes"
        return _finding("not-probabilities", "warning", message, advice)
    if measured == declared or (declared, measured) == ("logits", "log-probabilities"):
        return None  # a log-softmax is a set of logits
    message = f"the outputs look like {measured} and count as {declared}"
    advice = f"declare {measured} in the suite, or better give the logits"
    return _finding("output-kind", "warning", message, advice)


def _bytes_wanted(report: Report) -> Finding | None:
    if all(port.get("type") != "uint8" for port in report.inputs):
        return None
    message = "the input is uint8: data in [0, 1] would be rounded to 0 and 1"
    return _finding("byte-input", "note", message, "declare scale: 255 in the suite")


def _finding(name: str, severity: Severity, message: str, advice: str) -> Finding:
    return Finding(id=name, severity=severity, message=message, advice=advice, cells=())


# ---------------------------------------------------------------- words


def _yes(value: bool | None) -> str | None:
    return None if value is None else ("yes" if value else "no")


def _milliseconds(seconds: float | None) -> str | None:
    return None if seconds is None else f"{1000 * seconds:.3g} ms (batch of {SAMPLES})"


def _in_words(ports: Ports) -> str | None:
    return (
        "; ".join(f"{p.get('name')} {p.get('type')} {_dims(p.get('shape'))}" for p in ports) or None
    )


def _dims(shape: Json) -> str:
    if not isinstance(shape, Sequence) or isinstance(shape, str):
        return ""
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"


def _opsets(opset: Json) -> str | None:
    if not isinstance(opset, Mapping):
        return None if opset is None else str(opset)
    return ", ".join(f"{domain} {number}" for domain, number in opset.items())


def _shape_words(x: Tensor) -> str:
    return f"inputs of shape {list(x.shape)}"
