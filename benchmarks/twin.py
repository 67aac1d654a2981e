"""The price of the twin: forward and input gradient against the original module, and loading.

    python -m benchmarks.twin [--rounds 15] [--batch 32]

Process CPU time with one thread, both sides in turns, medians of all rounds but the first two.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import onnx
import torch
from torch import Tensor

from benchmarks.networks import export, images, network, quantise
from robustbench_lite.builtin.models.twin import convert

FLOAT, QUANTISED = 1.25, 2.5
WARM_UP = 2


def seconds(run: Callable[[], object]) -> float:
    """CPU seconds of this process."""
    begin = time.process_time()
    run()
    return time.process_time() - begin


def gradient(net: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Forward and input gradient."""
    x = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(net(x).square().sum(), x)
    return found


def compared(
    ours: Callable[[Tensor], Tensor], theirs: Callable[[Tensor], Tensor], x: Tensor, rounds: int
) -> tuple[float, float]:
    """Median CPU seconds of both, measured in turns."""
    times = [
        (seconds(lambda: gradient(ours, x)), seconds(lambda: gradient(theirs, x)))
        for _ in range(rounds + WARM_UP)
    ][WARM_UP:]
    return statistics.median(a for a, _ in times), statistics.median(b for _, b in times)


def main() -> None:
    """Print two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=32)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        _gradients(Path(folder), chosen.rounds, chosen.batch)
        _loading(Path(folder), chosen.rounds)


def _gradients(folder: Path, rounds: int, batch: int) -> None:
    print(f"| file, batch {batch} | original, ms | twin, ms | ratio | limit |")
    print("|---|---:|---:|---:|---:|")
    for name in ("CNN", "ResNet", "ViT"):
        path = export(name, folder / f"{name}.onnx")
        native, x = network(name), images(name, batch)
        quick = quantise(name, path, folder / f"{name}-qdq.onnx")
        for label, file, limit in ((name, path, FLOAT), (f"{name}, QDQ", quick, QUANTISED)):
            ours, theirs = compared(convert(onnx.load(file)), native, x, rounds)
            line = f"{1e3 * theirs:.1f} | {1e3 * ours:.1f} | {ours / theirs:.2f} | {limit}"
            print(f"| {label} | {line} |")


def _loading(folder: Path, rounds: int) -> None:
    model = onnx.load(export("DenseNet", folder / "dense.onnx"))
    times = [seconds(lambda: convert(model)) for _ in range(rounds)]
    size = f"{len(model.graph.node)} nodes, {model.ByteSize() / 1e6:.0f} MB"
    print("\n| graph of the size of DenseNet-121 | CPU seconds to convert | limit |")
    print("|---|---:|---:|")
    print(f"| {size} | {statistics.median(times):.2f} | 1 |")


if __name__ == "__main__":
    main()
