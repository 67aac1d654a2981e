"""Retrain the embedded models and cut the embedded sample, on one CPU thread with fixed seeds.

    python tools/train_embedded.py --root DIR

DIR (default: $ROBEVAL_DATA) holds a folder `mnist` with the four IDX files, plain or gzipped. The
same torch build on the same kind of CPU writes the same bytes again.
"""

import argparse
import gzip
import hashlib
import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from robustbench_lite.embedded import nets

FOLDER = Path(nets.__file__).parent
SEED = 20
SAMPLE = 1_000
OPSET = 17
EXPORT_TOLERANCE = 1e-4

Labelled = tuple[Tensor, Tensor]
Entry = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """Signed gradient steps on the cross-entropy within the linf ball of radius eps."""

    eps: float
    steps: int
    step_size: float
    random_start: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """AdamW under a one-cycle schedule, on clean images or on the examples of an attack.

    The attack's eps and step grow linearly over the first `ramp` of the training: without the ramp,
    training at eps 0.3 tends to stay at the constant classifier for its first epochs.
    """

    net: Callable[[], nn.Module]
    epochs: int
    lr: float
    batch: int = 128
    attack: Attack | None = None
    ramp: float = 0.3

    def words(self) -> str:
        """The recipe in one line, for the card."""
        schedule = f"{self.epochs} epochs, batch {self.batch}, AdamW, one-cycle lr {self.lr}"
        if self.attack is None:
            return f"standard training; {schedule}"
        eps, steps, step_size = self.attack.eps, self.attack.steps, self.attack.step_size
        inner = f"linf PGD-{steps}, eps {eps}, step {step_size}, random start, ramp {self.ramp}"
        return f"adversarial training on {inner}; {schedule}"


RECIPES = {
    "mnist_cnn.onnx": Recipe(net=nets.cnn, epochs=8, lr=4e-3),
    "mnist_cnn_robust.onnx": Recipe(
        net=nets.cnn,
        epochs=20,
        lr=4e-3,
        attack=Attack(eps=0.3, steps=7, step_size=0.1, random_start=True),
    ),
    "mnist_mlp.safetensors": Recipe(net=nets.mlp, epochs=10, lr=2e-3),
}

MEASURED = {
    **{
        f"FGSM {eps}": Attack(eps=eps, steps=1, step_size=eps, random_start=False)
        for eps in (0.1, 0.2, 0.3)
    },
    "PGD-40 0.3": Attack(eps=0.3, steps=40, step_size=0.01, random_start=True),
}


def read_idx(folder: Path, name: str) -> NDArray[np.uint8]:
    """The values of an IDX file of bytes, plain or `.gz`."""
    plain, packed = folder / name, folder / f"{name}.gz"
    if not plain.exists() and not packed.exists():
        raise FileNotFoundError(f"{folder}: found neither {name} nor {name}.gz")
    raw = plain.read_bytes() if plain.exists() else gzip.decompress(packed.read_bytes())
    rank = raw[3]
    shape = np.frombuffer(raw, ">u4", count=rank, offset=4).tolist()
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def read_split(folder: Path, split: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images [n, 28, 28] and labels [n] of the split `train` or `t10k`."""
    images, labels = f"{split}-images-idx3-ubyte", f"{split}-labels-idx1-ubyte"
    return read_idx(folder, images), read_idx(folder, labels)


def tensors(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Labelled:
    """Inputs [n, 1, 28, 28] float32 in [0, 1] and labels [n] int64."""
    x = torch.from_numpy(images.astype(np.float32) / np.float32(255)).unsqueeze(1)
    return x, torch.from_numpy(labels.astype(np.int64))


def start_of(x: Tensor, attack: Attack, rng: torch.Generator) -> Tensor:
    """x itself, or a uniform point of its ball, clipped to the box."""
    if not attack.random_start:
        return x
    delta = torch.empty_like(x).uniform_(-attack.eps, attack.eps, generator=rng)
    return (x + delta).clamp(0, 1)


def step(
    net: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, attack: Attack
) -> tuple[Tensor, Tensor]:
    """Logits [n, 10] at x_adv, and the next iterate, clipped to the ball, then to the box."""
    x_adv = x_adv.detach().requires_grad_(True)
    logits = net(x_adv)
    loss = nn.functional.cross_entropy(logits, y, reduction="sum")
    moved = x_adv.detach() + attack.step_size * torch.autograd.grad(loss, x_adv)[0].sign()
    inside = torch.minimum(torch.maximum(moved, x - attack.eps), x + attack.eps)
    return logits.detach(), inside.clamp(0, 1)


def adversarial(
    net: nn.Module, x: Tensor, y: Tensor, recipe: Recipe, fraction: float, rng: torch.Generator
) -> Tensor:
    """What the network trains on once this fraction of the training is done: [n, 1, 28, 28]."""
    if recipe.attack is None:
        return x
    full, scale = recipe.attack, min(1.0, fraction / recipe.ramp)
    attack = replace(full, eps=full.eps * scale, step_size=full.step_size * scale)
    x_adv = start_of(x, attack, rng)
    for _ in range(attack.steps):
        _, x_adv = step(net, x, y, x_adv, attack)
    return x_adv


def train(recipe: Recipe, x: Tensor, y: Tensor) -> nn.Module:
    """The trained network, frozen. x: [n, 1, 28, 28] float32 in [0, 1], y: [n] int64."""
    torch.manual_seed(SEED)
    rng = torch.Generator().manual_seed(SEED)
    net = recipe.net()
    total = math.ceil(len(x) / recipe.batch) * recipe.epochs
    optimizer = torch.optim.AdamW(net.parameters(), lr=recipe.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, total_steps=total)
    done = 0
    for epoch in range(recipe.epochs):
        order = torch.randperm(len(x), generator=rng)
        hits = 0
        for rows in torch.split(order, recipe.batch):
            logits = net(adversarial(net, x[rows], y[rows], recipe, done / total, rng))
            loss = nn.functional.cross_entropy(logits, y[rows])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            done += 1
            hits += int((logits.argmax(1) == y[rows]).sum())
        print(f"  epoch {epoch + 1}: training accuracy {hits / len(x):.4f}", flush=True)
    return net.eval().requires_grad_(False)


def robust_accuracy(net: nn.Module, x: Tensor, y: Tensor, attack: Attack) -> float:
    """The share of samples right on the clean input, at the start and at every iterate."""
    standing = net(x).argmax(1) == y
    x_adv = start_of(x, attack, torch.Generator().manual_seed(SEED))
    for _ in range(attack.steps):
        logits, x_adv = step(net, x, y, x_adv, attack)
        standing &= logits.argmax(1) == y
    standing &= net(x_adv).argmax(1) == y
    return int(standing.sum()) / len(y)


def export(net: nn.Module, x: Tensor, path: Path) -> None:
    """Write ONNX: `image` [n, 1, 28, 28] float32 to `logits` [n, 10] float32, weights inside.

    Raises RuntimeError when onnxruntime and torch differ by more than EXPORT_TOLERANCE on x.
    """
    # The newer exporter (dynamo=True) writes stack traces with local paths into every node.
    torch.onnx.export(
        net,
        (x[:2],),
        path,
        dynamo=False,
        opset_version=OPSET,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "n"}, "logits": {0: "n"}},
    )
    onnx.checker.check_model(onnx.load(path), full_check=True)
    gap = float((onnx_logits(path, x) - net(x)).abs().max())
    if gap > EXPORT_TOLERANCE:
        raise RuntimeError(
            f"{path.name}: onnxruntime and torch differ by {gap:.1e} in a logit,"
            f" expected at most {EXPORT_TOLERANCE}"
        )


def onnx_logits(path: Path, x: Tensor) -> Tensor:
    """Logits [n, 10] float32 of an ONNX file under onnxruntime."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {"image": x.numpy()})[0])


def identity(path: Path) -> Entry:
    """Hash and size in bytes of a file."""
    content = path.read_bytes()
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def write_sample(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Entry:
    """Write the first SAMPLE images and labels; return their entry of the card."""
    path = FOLDER / "mnist_sample.npz"
    np.savez_compressed(path, x=images[:SAMPLE], y=labels[:SAMPLE])
    return identity(path) | {"n": SAMPLE, "recipe": "the first images of the MNIST test set"}


def write_model(name: str, recipe: Recipe, train_set: Labelled, test_set: Labelled) -> Entry:
    """Train one model and write its file; return its entry of the card.

    Clean accuracy is that of the written file on the whole test set (of an ONNX file under
    onnxruntime), robust accuracies are those of the torch network on the first SAMPLE images.
    """
    print(f"{name}: {recipe.words()}", flush=True)
    path, (x, y) = FOLDER / name, test_set
    net = train(recipe, *train_set)
    if path.suffix == ".onnx":
        export(net, x, path)
        logits = onnx_logits(path, x)
    else:
        save_file(net.state_dict(), path)
        logits = net(x)
    attacked = {
        title: {
            **asdict(attack),
            "robust_accuracy": robust_accuracy(net, x[:SAMPLE], y[:SAMPLE], attack),
        }
        for title, attack in MEASURED.items()
    }
    return identity(path) | {
        "clean_accuracy": int((logits.argmax(1) == y).sum()) / len(y),
        "clean_n": len(y),
        "attacks": attacked,
        "attacks_n": SAMPLE,
        "recipe": recipe.words(),
        "seed": SEED,
        "torch": torch.__version__,
    }


def table(card_path: Path) -> str:
    """The card as rows for the folder's README."""
    titles = ["clean", *MEASURED]
    head = ["file", "bytes", *titles, "sha256"]
    lines = [head, ["---"] * len(head)]
    for name, entry in json.loads(card_path.read_text()).items():
        rates = {"clean": entry.get("clean_accuracy")}
        rates |= {k: v["robust_accuracy"] for k, v in entry.get("attacks", {}).items()}
        cells = [f"{rates[t]:.2%}" if rates.get(t) is not None else "-" for t in titles]
        lines.append([f"`{name}`", f"{entry['bytes']:,}", *cells, f"`{entry['sha256']}`"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Read MNIST, write the four files and `card.json`, print the table."""
    parser = argparse.ArgumentParser(description="Retrain the embedded models, cut the sample.")
    default = os.environ.get("ROBEVAL_DATA")
    parser.add_argument("--root", type=Path, default=default, help="the folder of mnist/")
    root = parser.parse_args().root
    if root is None:
        parser.error("no data folder: pass --root DIR or set ROBEVAL_DATA")
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    test_arrays = read_split(root / "mnist", "t10k")
    train_set, test_set = tensors(*read_split(root / "mnist", "train")), tensors(*test_arrays)
    card = {"mnist_sample.npz": write_sample(*test_arrays)}
    for name, recipe in RECIPES.items():
        card[name] = write_model(name, recipe, train_set, test_set)
    card_path = FOLDER / "card.json"
    card_path.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    print(table(card_path))


if __name__ == "__main__":
    main()
