"""How often a healthy model of the zoo is accused: errors and warnings over several seeds.

python -m benchmarks.false_alarms             print a table, five seeds
python -m benchmarks.false_alarms --seeds 20

Each run judges 60 digits with FGSM, PGD and Square at linf 0.1, and gates the worst case.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
from pathlib import Path

from robustbench_lite import stats
from robustbench_lite.cli import invoke
from robustbench_lite.testing import zoo

SEEDS = 5
IMAGES = 60
BUDGET = {"norm": "linf", "eps": 0.1}
ATTACKS = {
    "fgsm": {"attack": "fgsm", **BUDGET},
    "pgd": {"attack": "pgd", **BUDGET},
    "square": {"attack": "square", "queries": 300, **BUDGET},
}
GATE = {"metric": "worst_case_robust_accuracy", "min": 0.5, **BUDGET}


def alarms(member: zoo.Member, seed: int) -> dict[str, str]:
    """Errors and warnings of one run: id -> message."""
    suite = {
        "schema": 1,
        "name": "healthy",
        "models": {"net": {"load": "torch", "factory": member.reference, "num_classes": 10}},
        "datasets": {"digits": {"load": "mnist-sample", "take": IMAGES}},
        "attacks": ATTACKS,
        "gates": {"floor": GATE},
        "reports": ["csv"],
    }
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path, out = Path(folder) / "suite.yaml", Path(folder) / "out"
        path.write_text(json.dumps(suite), encoding="utf-8")
        invoke(["run", str(path), "-o", str(out), "-q", "--seed", str(seed), "--threads", "1"])
        found = json.loads((out / "findings.json").read_text(encoding="utf-8"))
    return {each["id"]: each["message"] for each in found if each["severity"] != "note"}


def main() -> None:
    """Print who was accused of what, and the rate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    seeds = parser.parse_args().seeds
    accused = runs = 0
    print("| healthy model | runs | with an error or a warning | which |\n|---|---:|---:|---|")
    for member in zoo.MEMBERS:
        if member.kind != "healthy":
            continue
        told = [alarms(member, seed) for seed in range(seeds)]
        wrong = [each for each in told if each]
        names = ", ".join(sorted({name for each in wrong for name in each})) or "-"
        print(f"| {member.name} | {seeds} | {len(wrong)} | {names} |", flush=True)
        accused, runs = accused + len(wrong), runs + seeds
    low, high = stats.wilson(accused, runs)
    print(f"\nFalse alarms: {accused} of {runs} runs (95 % interval {low:.1%} to {high:.1%}).")


if __name__ == "__main__":
    main()
