"""Whole AutoAttacks of robeval and of pyautoattack on the same digits: verdicts and CPU time.

    python -m benchmarks.peers [--images 1000] [--norm linf] [--runtime file] [--batch 250]

On the robust quickstart network, eps 0.3 (linf) or 1.0 (l2), "standard" on both sides, in batches
that take turns, one thread, process CPU time. robeval attacks the ONNX file ("file") or the torch
module that pyautoattack gets ("torch"). Either side's point counts if it lies in box and ball and
the torch module misclassifies it.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch

from benchmarks import rivals
from benchmarks.quickstart import EPS, Mask, Runtime, keep_freed_memory, machine, subject
from robustbench_lite import Norm
from robustbench_lite.builtin.attacks import autoattack


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """Which of n digits each side broke, and the CPU seconds that each side took."""

    clean: Mask
    ours: Mask
    theirs: Mask
    seconds: tuple[float, float]

    def robust(self) -> tuple[float, float]:
        """Robust accuracy of both: right on the clean digit and not broken."""
        return float((self.clean & ~self.ours).mean()), float((self.clean & ~self.theirs).mean())

    def disagreements(self) -> str:
        """The digits, by position, that one side alone broke."""
        ours = np.flatnonzero(self.clean & self.ours & ~self.theirs).tolist()
        theirs = np.flatnonzero(self.clean & self.theirs & ~self.ours).tolist()
        return f"broken by robeval alone: {ours}; by pyautoattack alone: {theirs}"


def compared(
    norm: Norm, images: int, *, runtime: Runtime = "torch", batch: int = 250, seed: int = 0
) -> Verdicts:
    """Both cascades on the first digits, one batch after the other."""
    eps, everything = EPS[norm], subject("robust", images, runtime=runtime)
    clean, ours, theirs = [], [], []
    seconds = np.zeros(2)
    for start in range(0, images, batch):
        part = everything.rows(torch.arange(start, min(start + batch, images)))
        begin = time.process_time()
        mine = part.attacked(autoattack.SPEC, norm, eps, seed=seed)
        middle = time.process_time()
        other = rivals.pyautoattack(part.net, part.x, part.y, norm, eps, batch=batch, seed=seed)
        seconds += middle - begin, time.process_time() - middle
        clean.append((part.predicted(part.x) == part.y).numpy())
        ours.append(part.broken(mine, norm, eps))
        theirs.append(part.broken(other, norm, eps))
    return Verdicts(
        clean=np.concatenate(clean),
        ours=np.concatenate(ours),
        theirs=np.concatenate(theirs),
        seconds=cast("tuple[float, float]", tuple(seconds.tolist())),
    )


def main() -> None:
    """Print a line for a norm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--norm", choices=list(EPS), default="linf")
    parser.add_argument("--runtime", choices=["file", "torch"], default="file")
    parser.add_argument("--batch", type=int, default=250)
    chosen = parser.parse_args()
    if rivals.missing("pyautoattack"):
        parser.error(rivals.missing("pyautoattack"))
    torch.set_num_threads(1)
    kept = keep_freed_memory()
    print(f"{machine('torch', 'onnxruntime-gpu', 'pyautoattack')}, {kept}", end="\n\n")
    found = compared(chosen.norm, chosen.images, runtime=chosen.runtime, batch=chosen.batch)
    robust, seconds = found.robust(), found.seconds
    print("| norm | eps | images | clean | robeval | pyautoattack | CPU s | CPU s | ratio |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    cells = [
        f"{chosen.norm}, {chosen.runtime}",
        f"{EPS[chosen.norm]}",
        f"{chosen.images}",
        *(f"{rate:.1%}" for rate in (found.clean.mean(), *robust)),
        *(f"{spent:.0f}" for spent in seconds),
        f"{seconds[0] / seconds[1]:.2f}",
    ]
    print(f"| {' | '.join(cells)} |\n\n{found.disagreements()}")


if __name__ == "__main__":
    main()
