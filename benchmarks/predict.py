"""What `predict` of a loaded ONNX file costs beyond the bare `session.run` that it stands for.

    python -m benchmarks.predict [--rounds 200]

Process CPU time with one thread, both sides in turns, medians of all rounds but the first two.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import onnxruntime as ort
import torch

from benchmarks.networks import export, images
from robustbench_lite import Places
from robustbench_lite.builtin.models.onnx_file import load
from robustbench_lite.builtin.models.parameters import OnnxParams

WARM_UP = 2
BATCHES = (1, 8, 64, 250)


def bare(path: Path) -> ort.InferenceSession:
    """A session as `predict` opens it."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def seconds(run: Callable[[], object]) -> float:
    """CPU seconds of this process."""
    begin = time.process_time()
    run()
    return time.process_time() - begin


def main() -> None:
    """Print a table: microseconds per call."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print("| file, batch | session.run, us | predict, us | more, us | ratio |")
    print("|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in ("CNN", "ResNet"):
            path = export(kind, folder / f"{kind}.onnx")
            places = Places(suite=folder, data=None, cache=folder)
            model = load(OnnxParams(path=path), places=places, device="cpu", threads=1)
            session = bare(path)
            for batch in BATCHES:
                x = images(kind, batch)
                array = x.numpy()
                times = [
                    (
                        seconds(lambda: session.run(["y"], {"x": array})),  # noqa: B023
                        seconds(lambda: model.predict(x)),  # noqa: B023
                    )
                    for _ in range(max(rounds // batch, 15) + WARM_UP)
                ][WARM_UP:]
                base = 1e6 * statistics.median(a for a, _ in times)
                ours = 1e6 * statistics.median(b for _, b in times)
                cells = f"{base:.0f} | {ours:.0f} | {ours - base:.0f} | {ours / base:.2f}"
                print(f"| {kind}, {batch} | {cells} |")


if __name__ == "__main__":
    main()
