"""What `robeval doctor` found out about a model file: the record, its JSON and its words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .types import Access, Finding, Json, Output

Ports = Sequence[Mapping[str, Json]]
TwinStatus = Literal["ok", "refused", "parity-failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TwinReport:
    """The differentiable stand-in of a file: whether it may be used for gradients, and why not.

    `operators`: count by type. `head`: what stood behind the logits and was taken out.
    `difference`, `tolerance`: largest difference to the file's output on `samples` uniform inputs
    and what is allowed; `agreement`: share of equal decisions. None where there is no twin.
    """

    status: TwinStatus
    reason: str = ""
    operators: Mapping[str, int]
    head: str | None = None
    difference: float | None = None
    tolerance: float | None = None
    agreement: float | None = None
    samples: int = 0

    def as_json(self) -> dict[str, Json]:
        """The twin as plain values; a figure that is not finite is None."""
        return {
            "status": self.status,
            "reason": self.reason,
            "operators": dict(self.operators),
            "head": self.head,
            "difference": _finite(self.difference),
            "tolerance": _finite(self.tolerance),
            "agreement": _finite(self.agreement),
            "samples": self.samples,
        }

    def facts(self) -> dict[str, str | None]:
        """Its lines for a human."""
        counts = [f"{count} {name}" for name, count in self.operators.items()]
        return {
            "twin": f"{self.status}: {self.reason}" if self.reason else self.status,
            "twin operators": f"{sum(self.operators.values())}: {', '.join(counts)}"
            if counts
            else None,
            "twin without": None if self.head in (None, "logits") else f"the final {self.head}",
            "twin parity": self._parity(),
        }

    def _parity(self) -> str | None:
        if self.difference is None or self.tolerance is None or self.agreement is None:
            return None
        return (
            f"difference {self.difference:.2g} (allowed {self.tolerance:.2g}), "
            f"{100 * self.agreement:.1f} % equal decisions on {self.samples} uniform inputs"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientReport:
    """The gradient of the margin between the two largest logits at `samples` uniform inputs.

    `norm`: median l2 norm. `seconds_per_sample`: one forward and one backward pass. `broken`,
    `zero`: inputs whose gradient holds NaN or infinity, or is exactly zero.
    """

    norm: float
    seconds_per_sample: float
    broken: int
    zero: int
    samples: int

    def as_json(self) -> dict[str, Json]:
        """The gradient as plain values; a norm that is not finite is None."""
        return {
            "norm": _finite(self.norm),
            "seconds_per_sample": self.seconds_per_sample,
            "broken": self.broken,
            "zero": self.zero,
            "samples": self.samples,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class DataReport:
    """The pre-flight checks on `samples` of a dataset: `correct` answers, passes they took.

    `observed`: every number of the checks that is not 0.
    """

    name: str
    samples: int
    correct: int
    forward_passes: int
    backward_passes: int
    observed: Mapping[str, float]

    def as_json(self) -> dict[str, Json]:
        """The checks as plain values."""
        return {
            "name": self.name,
            "samples": self.samples,
            "correct": self.correct,
            "forward_passes": self.forward_passes,
            "backward_passes": self.backward_passes,
            "observed": {key: _finite(value) for key, value in self.observed.items()},
        }

    def facts(self) -> dict[str, str | None]:
        """Its lines for a human."""
        right = f"{self.correct} of {self.samples} right"
        return {
            "clean accuracy": (
                f"{100 * self.correct / self.samples:.1f} % ({right}) on '{self.name}'"
            ),
            "pre-flight": f"{self.forward_passes} forward, {self.backward_passes} backward passes",
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What is known of a model file; a field is None where it could not be found out.

    `size`: bytes. `loadable`: its loader accepts it. `runs`: it gave an output for uniform
    inputs; `problem` says why not. `inputs`, `outputs`: name, type and shape of each.
    `output_kind`: what its numbers look like. `deterministic`: twice the same. `batch_dependent`:
    a sample's output depends on which samples are beside it. `seconds_per_sample`: one forward
    pass in a batch of `batch`. `twin`: None for a file that needs none. `attacks`: which families
    of attacks can be run on it. `observed`: the numbers of the pre-flight checks on uniform
    inputs. `data`: the checks on real samples, None where no dataset was given.
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
    batch: int = 0
    twin: TwinReport | None = None
    gradient: GradientReport | None = None
    attacks: tuple[Access, ...] = ()
    observed: Mapping[str, float] = field(default_factory=dict)
    data: DataReport | None = None
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
            "twin": None if self.twin is None else self.twin.as_json(),
            "gradient": None if self.gradient is None else self.gradient.as_json(),
            "attacks": list(self.attacks),
            "data": None if self.data is None else self.data.as_json(),
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
            "time per sample": _milliseconds(self.seconds_per_sample, self.batch),
            **({} if self.twin is None else self.twin.facts()),
            **({} if self.gradient is None else _gradient(self.gradient)),
            "attacks": _families(self.attacks),
            **({} if self.data is None else self.data.facts()),
            "problem": self.problem,
        }
        lines = [
            f"{name + ':':19}{' '.join(text.split())}"
            for name, text in facts.items()
            if text is not None
        ]
        for finding in self.findings:
            lines.append(f"{finding.severity}: {finding.id}: {finding.message}")
            lines.append(f"  help: {finding.advice}")
        return lines


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _gradient(found: GradientReport) -> dict[str, str | None]:
    return {
        "gradient norm": f"{found.norm:.3g} (l2, median)",
        "gradient time": _milliseconds(found.seconds_per_sample, found.samples),
    }


def _families(attacks: Sequence[Access]) -> str | None:
    """Families by what they need, and what that leaves out."""
    if not attacks:
        return None
    missing = "" if "gradient" in attacks else " (not gradient)"
    return ", ".join(attacks) + missing


def _yes(value: bool | None) -> str | None:
    return None if value is None else ("yes" if value else "no")


def _milliseconds(seconds: float | None, batch: int) -> str | None:
    return None if seconds is None else f"{1000 * seconds:.3g} ms (batch of {batch})"


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
