"""Wall time of a suite in one process with all cores as threads, and in as many processes.

    python -m benchmarks.jobs [--suite suites/quickstart.yaml] [--cores N] [--rounds 3] [--set A=B]

Both sides in turns, from the start of the command to its end, every cell computed; the median of
the ratios of all rounds. Only a machine that does nothing else gives a number worth keeping.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.quickstart import machine

SUITE = Path(__file__).parent.parent / "suites" / "quickstart.yaml"


def seconds(suite: Path, overrides: list[str], *options: str) -> float:
    """Wall seconds of one run; its exit code is the suite's business."""
    changed = [part for override in overrides for part in ("--set", override)]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "robustbench_lite", "run", str(suite), *changed, *options]
        begin = time.perf_counter()
        ended = subprocess.run(
            [*command, "-q", "-o", str(Path(folder) / "run")],
            stdout=subprocess.DEVNULL,
            check=False,
        )
        spent = time.perf_counter() - begin
    if ended.returncode in {2, 3, 7}:
        raise SystemExit(f"the run ended with exit code {ended.returncode}")
    return spent


def main() -> None:
    """Print a table of one row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", type=Path, default=SUITE)
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    chosen = parser.parse_args()
    cores, rounds = str(chosen.cores), []
    for number in range(chosen.rounds):
        sides = {
            "threads": ("--threads", cores),
            "jobs": ("--threads", "1", "--jobs", cores),
        }
        order = list(sides) if number % 2 else list(reversed(sides))
        rounds.append(
            {side: seconds(chosen.suite, chosen.overrides, *sides[side]) for side in order}
        )
    ratios = sorted(each["jobs"] / each["threads"] for each in rounds)
    threads, jobs = (
        statistics.median(each[side] for each in rounds) for side in ("threads", "jobs")
    )
    print(f"{machine('torch', 'onnxruntime-gpu')}\n")
    print(
        "| suite | cores | threads, s | jobs, s | ratio | from to |\n|---|---:|---:|---:|---:|---|"
    )
    print(
        f"| {chosen.suite.name} | {cores} | {threads:.1f} | {jobs:.1f} |"
        f" {statistics.median(ratios):.2f} | {ratios[0]:.2f} to {ratios[-1]:.2f} |"
    )


if __name__ == "__main__":
    main()
