"""docs/findings.md, from the catalogue of findings.

python tools/finding_table.py            write docs/findings.md
python tools/finding_table.py --check    exit 1 if it is out of date
"""

from __future__ import annotations

import sys
from pathlib import Path

from robustbench_lite.catalogue import FINDINGS

PAGE = Path(__file__).parent.parent / "docs" / "findings.md"
HEAD = """# Findings about the measurement

Written by `python tools/finding_table.py`. A finding says something about the measurement, never
about the model's robustness; it stands in `findings.json`, the terminal and the report, with its
numbers and with what to do. The severity is the gravest that it can have:

- **error**: the number would be wrong. The cells that it touches become invalid, they have no rate,
  and every gate that needs them fails closed (exit 8).
- **warning**: the number is right and says less than it seems.
- **note**: worth knowing.

A gate on `worst_case_robust_accuracy` passes only where a valid iterative, exhaustive or
minimal-norm attack and a valid gradient-free one spent that very eps on the model itself; else it
is INCONCLUSIVE (exit 6) and names the line to add. `attack: standard` brings both.

Two checks run an attack beside its work: one sample of forty (at least one, at most eight) is
attacked twice with the same seed, and the [self-test](self-test.md) lets every iterative attack
look for adversarial examples that were planted for it (`self_test: off` ends that; the manifest
records it). Before any attack, at most 64 samples look at the model itself; after every group of
attacks the model is asked 16 inputs again that a freshly loaded copy of it has answered, so that
caches, counters and detectors with a memory show. [What other libraries say of broken
models](never-fooled.md) stands beside what robeval says. Two commands measure the findings
themselves: `python -m benchmarks.findings_cost` (passes and seconds that they cost) and
`python -m benchmarks.false_alarms` (how often a healthy model is accused).

## Waivers

Where a finding is known and accepted, a suite says so, with a reason, an owner and a last day:

```yaml
waivers:
  masked-l2:
    finding: black-box-beats-white-box
    model: candidate
    reason: the gradient masks in l2, square is the attack that we rely on
    owner: maria
    expires: 2027-01-31
```

Its cells count again, the report shows the finding with the waiver, and after the last day the
waiver itself is an error.
"""


def page() -> str:
    """The whole page."""
    lines = [HEAD, "## Every finding", "", "| id | severity | what it says |", "|---|---|---|"]
    lines += [
        f"| `{name}` | {entry.severity} | {entry.meaning} |" for name, entry in FINDINGS.items()
    ]
    return "\n".join(lines) + "\n"


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
