"""What the findings cost in a suite, beside the work that it asks for.

python -m benchmarks.findings_cost                       the quickstart
python -m benchmarks.findings_cost --suite suites/x.yaml

Passes (forward and backward, of one sample each) are those that the run recorded; an attack that is
run twice on a few samples is counted with its own mean. Seconds are CPU seconds of this process
with the self-test and without it (`self_test: off`).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from robustbench_lite import StoredRun, load_run, selftest
from robustbench_lite.cli import invoke
from robustbench_lite.group import ASKED_AGAIN, REPEATED
from robustbench_lite.preflight import keys

OWN = "the suite itself"
SUITE = Path(__file__).parent.parent / "suites" / "quickstart.yaml"
FRESH = 2  # times that a fresh copy is asked what the worn one is asked


def passes(run: StoredRun) -> Mapping[str, float]:
    """Passes of the suite's own cells, and of each kind of look."""
    spent = dict.fromkeys((OWN, "pre-flight", "run twice", "self-test", "fresh copies"), 0.0)
    copies: dict[str, float] = {}
    for result in run.results.values():
        samples, seen = run.samples(result.cell.id), result.observed
        if samples is None:
            continue
        own = samples.queries + samples.gradients
        spent[OWN] += float(own.sum())
        spent["pre-flight"] += seen.get(keys.PASSES, 0) + seen.get(keys.GRADIENT_PASSES, 0)
        if not _first(run, result.cell.id):
            continue
        spent["run twice"] += 2 * seen.get(REPEATED, 0) * float(own.mean())
        spent["self-test"] += seen.get(selftest.QUERIES, 0) + seen.get(selftest.GRADIENTS, 0)
        spent["fresh copies"] += seen.get(ASKED_AGAIN, 0)
        copies[result.cell.model] = FRESH * seen.get(ASKED_AGAIN, 0)
    spent["fresh copies"] += sum(copies.values())
    return spent


def _first(run: StoredRun, cell_id: str) -> bool:
    """Whether the cell is the largest eps of its entry: a look counts in every cell of a grid."""
    cell = run.results[cell_id].cell
    group = [
        each.cell
        for each in run.results.values()
        if (each.cell.entry, each.cell.model, each.cell.dataset)
        == (cell.entry, cell.model, cell.dataset)
    ]
    return max(group, key=lambda each: each.eps.value if each.eps else 0).id == cell_id


def measured(suite: Path, *more: str) -> tuple[Mapping[str, float], float]:
    """Passes of a run and its CPU seconds."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        out, begin = Path(folder) / "run", time.process_time()
        invoke(["run", str(suite), "-o", str(out), "-q", "--threads", "1", *more])
        return passes(load_run(out).stored), time.process_time() - begin


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", type=Path, default=SUITE)
    suite = parser.parse_args().suite
    spent, seconds = measured(suite)
    _, without = measured(suite, "--set", "self_test=off")
    print("| what | passes | of the suite's own |\n|---|---:|---:|")
    for name, count in spent.items():
        print(f"| {name} | {count:,.0f} | {count / spent[OWN]:.2%} |")
    looks = sum(spent.values()) - spent[OWN]
    print(f"| all looks together | {looks:,.0f} | {looks / spent[OWN]:.2%} |")
    print(f"\nCPU seconds: {seconds:.1f}, with `self_test: off` {without:.1f}.")


if __name__ == "__main__":
    main()
