"""The table of docs/attacks.md, from the specs that are installed.

python tools/attack_table.py                write docs/attacks.md
python tools/attack_table.py --check        exit 1 if it is out of date
python tools/attack_table.py --found RUN    take the last columns from a run of
                                            suites/every-attack.yaml
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping
from pathlib import Path

from robustbench_lite import AttackSpec, plugins

PAGE = Path(__file__).parent.parent / "docs" / "attacks.md"
FOUND = PAGE.with_name("attacks-found.csv")
COLUMNS = ("attack", "model", "norm", "eps_text", "n", "clean_accuracy", "robust_accuracy")
HEADINGS = (
    "name", "norms", "access", "kind", "effort", "targeted", "carries", "cost", "what it does",
    "leaves: standard, robust",
)  # fmt: skip
SUMS = ("clean", "worst-case")
MNIST = ((1, 28, 28), 10)
HEAD = """# Attacks and controls

Written by `python tools/attack_table.py`. *Cost* is the upper bound of forward + backward passes
per sample with the default parameters, on a 28 x 28 image of one channel and ten classes.
*Carries*: a sample broken at a smaller eps of the grid counts as broken at a larger one. Parameters
are those of the suite language; `robeval schema` has them with their bounds.

*Leaves*: what the standard and the robust quickstart model still get right of 20 digits under the
attack with its defaults, at this norm and eps, by `robeval run suites/every-attack.yaml`. So few
digits do not rank attacks; [the comparisons](../benchmarks/README.md) use many. *Not valid*:
no number is given, because an attack without gradients broke many digits that this one left.
"""


def page() -> str:
    """The whole page."""
    registry = plugins.load(no_plugins=True)
    specs = [entry.spec for entry in registry.attacks.values()]
    attacks = [spec for spec in specs if spec.role == "attack"]
    controls = [spec for spec in specs if spec.role == "control"]
    found = _found()
    tables = [_table(attacks, found), "## Controls", _table(controls, found), "## Parameters"]
    return "\n\n".join([HEAD.rstrip(), *tables, *(_details(spec) for spec in specs)]) + "\n"


def _table(specs: list[AttackSpec], found: Mapping[str, str]) -> str:
    lines = ["| " + " | ".join(HEADINGS) + " |", "|---" * len(HEADINGS) + "|"]
    for spec in sorted(specs, key=lambda spec: (spec.kind, spec.name)):
        cost = spec.cost(spec.params(), *MNIST) if spec.cost else None
        passes = "" if cost is None else f"{cost.queries:g} + {cost.gradients:g}"
        name = f"[{spec.name}]({spec.paper})" if spec.paper.startswith("http") else spec.name
        cells = [
            name,
            ", ".join(spec.norms),
            spec.access,
            spec.kind,
            spec.effort,
            "yes" if spec.targeted else "no",
            "yes" if spec.carries else "no",
            passes,
            spec.summary,
            found.get(spec.name, ""),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _found() -> dict[str, str]:
    """Attack -> what it left of the two models, as the table says it."""
    with FOUND.open(encoding="utf-8", newline="") as stream:
        rows = {(row["attack"], row["model"]): row for row in csv.DictReader(stream)}
    found = {}
    for (attack, model), row in rows.items():
        if model == "standard":
            left = [_percent(rows[attack, name]) for name in ("standard", "robust")]
            measure = "strength" if row["norm"] == "none" else row["norm"]
            budget = f"{measure} {row['eps_text']}"
            found[attack] = f"{budget}: {', '.join(left)}"
    return found


def _percent(row: Mapping[str, str]) -> str:
    return f"{float(row['robust_accuracy']):.0%}" if row["robust_accuracy"] else "not valid"


def _keep(run: Path) -> None:
    """Copy what the table needs from a run's cells.csv."""
    with (run / "tables" / "cells.csv").open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["attack"] not in SUMS]
    with FOUND.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _details(spec: AttackSpec) -> str:
    lines = [f"### {spec.name}", "", spec.summary[0].upper() + spec.summary[1:] + "."]
    fields = spec.params.model_fields
    if fields:
        lines += ["", "| parameter | default | meaning |", "|---|---|---|"]
        lines += [
            f"| `{name}` | `{field.default}` | {field.description or ''} |"
            for name, field in fields.items()
        ]
    return "\n".join(lines)


def main() -> int:
    """Write or check the page."""
    if "--found" in sys.argv[1:]:
        _keep(Path(sys.argv[sys.argv.index("--found") + 1]))
    text = page()
    if "--check" in sys.argv[1:]:
        return 0 if PAGE.read_text(encoding="utf-8") == text else 1
    PAGE.write_text(text, encoding="utf-8")
    print(f"wrote {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
