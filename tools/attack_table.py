"""The table of docs/attacks.md, from the specs that are installed.

python tools/attack_table.py            write docs/attacks.md
python tools/attack_table.py --check    exit 1 if it is out of date
"""

from __future__ import annotations

import sys
from pathlib import Path

from robustbench_lite import AttackSpec, plugins

PAGE = Path(__file__).parent.parent / "docs" / "attacks.md"
MNIST = ((1, 28, 28), 10)
HEAD = """# Attacks and controls

Written by `python tools/attack_table.py`. *Cost* is the upper bound of forward + backward passes
per sample with the default parameters, on a 28 x 28 image of one channel and ten classes.
*Carries*: a sample broken at a smaller eps of the grid counts as broken at a larger one. Parameters
are those of the suite language; `robeval schema` has them with their bounds.
"""


def page() -> str:
    """The whole page."""
    registry = plugins.load(no_plugins=True)
    specs = [entry.spec for entry in registry.attacks.values()]
    attacks = [spec for spec in specs if spec.role == "attack"]
    controls = [spec for spec in specs if spec.role == "control"]
    parts = [HEAD.rstrip(), _table(attacks), "## Controls", _table(controls), "## Parameters"]
    return "\n\n".join([*parts, *(_details(spec) for spec in specs)]) + "\n"


def _table(specs: list[AttackSpec]) -> str:
    lines = [
        "| name | norms | access | kind | effort | targeted | carries | cost | what it does |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
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
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


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
    text = page()
    if "--check" in sys.argv[1:]:
        return 0 if PAGE.read_text(encoding="utf-8") == text else 1
    PAGE.write_text(text, encoding="utf-8")
    print(f"wrote {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
