"""Start-up time of the command line, each command in fresh processes, as a ratio to bare Python.

python benchmarks/startup.py [--repeats 5]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

SUITE = str(Path(__file__).parent.parent / "suites" / "quickstart.yaml")
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "robeval --version": [sys.executable, "-m", "robustbench_lite", "--version"],
    "robeval --help": [sys.executable, "-m", "robustbench_lite", "--help"],
    "robeval plugins": [sys.executable, "-m", "robustbench_lite", "plugins"],
    "robeval validate": [sys.executable, "-m", "robustbench_lite", "validate", SUITE],
    "robeval plan": [sys.executable, "-m", "robustbench_lite", "plan", SUITE],
}


def seconds(command: list[str]) -> float:
    """Wall seconds of one run."""
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def main() -> None:
    """Print a table: median seconds, and the ratio to starting Python."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    rounds = [
        {name: seconds(command) for name, command in COMMANDS.items()} for _ in range(repeats)
    ]
    bare = statistics.median(times["python -c pass"] for times in rounds)
    print("| command | seconds (median) | ratio to python |\n|---|---|---|")
    for name in COMMANDS:
        median = statistics.median(times[name] for times in rounds)
        print(f"| {name} | {median:.2f} | {median / bare:.1f} |")


if __name__ == "__main__":
    main()
