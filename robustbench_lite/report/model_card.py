"""model-card.yaml and model-cards/: the results as Hugging Face's `model-index`.

Only cells that are `ok` give a number: clean accuracy, and the worst case over attacks per norm
and eps with its 95 % interval, its n and the attacks that it stands on. No number of an invalid
cell leaves the run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import cast

from .._version import __version__
from ..types import CLEAN, NO_NORM, WORST_CASE, Json, Rate, Row
from .markdown import escaped
from .view import FinishedRun, summary_of, write_text
from .words import budget, plain, rate_text

_DIGITS = 6
_METHOD = (
    "Worst-case robust accuracy counts a sample if it is correct on the clean input and no attack"
    " or control of that norm up to that eps changed it. It is an upper bound of the true robust"
    " accuracy: a stronger attack can only lower it. Intervals are 95 % Wilson intervals."
)


def write(run: FinishedRun) -> None:
    """Write model-card.yaml (every model) and model-cards/<model>.md (one card each)."""
    models = list(dict.fromkeys(row.model for row in summary_of(run).rows))
    write_text(run.path / "model-card.yaml", front_matter(run, models))
    for name, model in zip(_file_names(models), models, strict=True):
        write_text(run.path / "model-cards" / name, card(run, model))


def _file_names(models: Sequence[str]) -> list[str]:
    """A file name per model, all different."""
    found: list[str] = []
    for model in models:
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", model).strip("-.") or "model"
        taken = sum(other.casefold() == f"{name}.md".casefold() for other in found)
        found.append(f"{name}-{len(found)}.md" if taken else f"{name}.md")
    return found


def front_matter(run: FinishedRun, models: Sequence[str]) -> str:
    """The `model-index` alone, as YAML."""
    import yaml

    return yaml.safe_dump(model_index(run, models), sort_keys=False, allow_unicode=True, width=100)


def card(run: FinishedRun, model: str) -> str:
    """A model's card: front matter, and the same numbers as a table."""
    head = "| dataset | measured | value | attacks |\n| --- | --- | ---: | --- |"
    lines = [_line(run, row) for row in _rows(run, model)]
    left = _left_out(run, model)
    origin = f"robeval {escaped(_version(run))}, suite {escaped(run.plan.suite)}"
    parts = [
        f"---\n{front_matter(run, [model])}---",
        "## Adversarial robustness",
        *(["**Partial run**: only a part of the suite was measured."] if _partial(run) else []),
        "\n".join([head, *lines]) if lines else "No cell of this model has a valid number.",
        _METHOD,
        *([f"Left out, because there is no valid number: {'; '.join(left)}."] if left else []),
        f"Measured by {origin} (sha256 {escaped(_suite_hash(run))}).",
    ]
    return "\n\n".join(parts) + "\n"


def model_index(run: FinishedRun, models: Sequence[str]) -> dict[str, Json]:
    """`{"model-index": [...]}`: one entry per model, one result per dataset of it."""
    entries: list[Json] = []
    for model in models:
        datasets: dict[str, list[Row]] = {}
        for row in _rows(run, model):
            datasets.setdefault(row.dataset, []).append(row)
        results = [_result(run, dataset, rows) for dataset, rows in datasets.items()]
        if results:
            entries.append({"name": plain(model), "results": results})
    return {"model-index": entries}


def _partial(run: FinishedRun) -> bool:
    return summary_of(run).partial


def _rows(run: FinishedRun, model: str) -> list[Row]:
    """Clean passes and worst cases of a model that have a valid number."""
    return [row for row in _headlines(run, model) if _rate(row) is not None]


def _headlines(run: FinishedRun, model: str) -> list[Row]:
    rows = summary_of(run).rows
    return [r for r in rows if r.model == model and r.attack in (CLEAN, WORST_CASE)]


def _rate(row: Row) -> Rate | None:
    rate = row.robust_accuracy
    return rate if row.status == "ok" and rate is not None and rate.n else None


def _result(run: FinishedRun, dataset: str, rows: Sequence[Row]) -> dict[str, Json]:
    part = run.plan.datasets.get(dataset)
    task = _task(run, rows)
    return {
        "task": {"type": task, "name": f"{task.replace('-', ' ').capitalize()} under attack"},
        "dataset": {
            "type": plain(part.loader) if part else plain(dataset),
            "name": plain(dataset),
            "args": {"content": part.content if part else None},
        },
        "metrics": [_metric(run, row) for row in rows],
    }


def _task(run: FinishedRun, rows: Sequence[Row]) -> str:
    """Images have rows and columns; anything else is a table."""
    cells = [cell for row in rows for cell in (row.cell_id, *row.members)]
    for cell in cells:
        examples = run.examples(cell)
        if examples is not None:
            return "image-classification" if examples.x.ndim >= 3 else "tabular-classification"
    return "image-classification"


def _metric(run: FinishedRun, row: Row) -> dict[str, Json]:
    rate = cast("Rate", _rate(row))
    args: dict[str, Json] = {
        "n": rate.n,
        "interval": [round(rate.low, _DIGITS), round(rate.high, _DIGITS)],
        "confidence": 0.95,
    }
    if row.norm is not None and row.eps is not None:
        args |= {"norm": row.norm, "eps": float(row.eps), "eps_text": row.eps.text}
        args["attacks"] = [plain(name) for name in _attacks(run, row)]
    args |= {"suite_sha256": _suite_hash(run), "robeval": _version(run)}
    if _partial(run):
        args["partial"] = True
    return {
        "type": "accuracy" if row.attack == CLEAN else "robust_accuracy",
        "name": _name(row),
        "value": round(rate.value, _DIGITS),
        "args": args,
    }


def _name(row: Row) -> str:
    if row.attack == CLEAN:
        return "Clean accuracy"
    apart = "" if row.norm == NO_NORM else " eps"
    return f"Worst-case robust accuracy, {budget(row).replace(' ', f'{apart} ', 1)}"


def _attacks(run: FinishedRun, row: Row) -> list[str]:
    """The attacks of a worst case, without controls."""
    members = set(row.members)
    cells = [cell for cell in run.plan.cells if cell.id in members and cell.role == "attack"]
    return list(dict.fromkeys(cell.attack for cell in cells))


def _line(run: FinishedRun, row: Row) -> str:
    attacks = ", ".join(_attacks(run, row)) or "none"
    cells = (row.dataset, _name(row), rate_text(_rate(row)), attacks)
    return f"| {' | '.join(escaped(cell) for cell in cells)} |"


def _left_out(run: FinishedRun, model: str) -> list[str]:
    return [
        f"{escaped(row.dataset)}, {escaped(_name(row))} ({row.status})"
        for row in _headlines(run, model)
        if _rate(row) is None
    ]


def _suite_hash(run: FinishedRun) -> str:
    return plain(str(run.manifest.get("suite_sha256", "")))


def _version(run: FinishedRun) -> str:
    versions = run.manifest.get("versions")
    known = versions.get("robustbench-lite") if isinstance(versions, Mapping) else None
    return plain(str(known or __version__))
