"""What each library says of the broken models of the zoo, beside what robeval says.

python -m benchmarks.never_fooled             write docs/never-fooled.md
python -m benchmarks.never_fooled --images 20  with more images per model

The peers get the module as it is and their own documented call; what they return is measured on
that module. They are installed with `pip install -c constraints.txt --no-deps --group peers`.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import rivals
from robustbench_lite.cli import invoke
from robustbench_lite.testing import zoo

PAGE = Path(__file__).parent.parent / "docs" / "never-fooled.md"
EPS = 0.3
HEAD = """# Never fooled

Written by `python -m benchmarks.never_fooled`, which needs the other libraries: `pip install
-c constraints.txt --no-deps --group peers`. Each row is a model that is broken, around a network
whose true robust accuracy at linf 0.3 is about 0; `constant-logits` and `bytes-input` are right by
chance alone. The columns of the peers give the robust accuracy that they report for {images}
digits: PGD with 40 steps (foolbox, torchattacks, ART) and the AutoAttack cascade (pyautoattack),
called as their documentation shows. *raised* is an exception. robeval runs `attack: standard` at
linf 0.3 with the gate `robust_accuracy >= 0.5`; its columns give the exit code, the number that it
prints ("-": none, the measurement is invalid) and its error findings. No broken model leaves with
exit code 0.
"""

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]


def peers() -> dict[str, Attack]:
    """Column -> attack of that library."""

    def by_foolbox(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        from foolbox.attacks import LinfPGD

        return rivals.foolbox(LinfPGD(steps=40), net, x, y, EPS)

    return {
        "foolbox PGD": by_foolbox,
        "torchattacks PGD": lambda net, x, y: rivals.torchattacks(
            "PGD", net, x, y, eps=EPS, alpha=EPS / 15, steps=40
        ),
        "ART PGD": lambda net, x, y: rivals.art(
            "ProjectedGradientDescent", net, x, y, eps=EPS, eps_step=EPS / 15, max_iter=40
        ),
        "pyautoattack": lambda net, x, y: rivals.pyautoattack(net, x, y, "linf", EPS, batch=len(x)),
    }


def digits(member: zoo.Member, images: int) -> tuple[Tensor, Tensor]:
    """The first digits of the member's classes, with labels from 0."""
    x, y = zoo.digits()
    known = torch.tensor(member.classes)
    kept = torch.isin(y, known).nonzero()[:images, 0]
    return x[kept].reshape(-1, *member.shape), torch.searchsorted(known, y[kept])


def reported(attack: Attack, member: zoo.Member, x: Tensor, y: Tensor) -> str:
    """The share still right on what a library returned, or that it raised."""
    net = member.factory().eval()
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    try:
        x_adv = attack(net, x.clone(), y.clone())
        with torch.no_grad():
            correct = (net(x).argmax(dim=1) == y) & (net(x_adv).argmax(dim=1) == y)
    except Exception:  # noqa: BLE001  (whatever a library raises is its answer)
        return "raised"
    return f"{100 * correct.double().mean():.0f} %"


def judged(member: zoo.Member, x: Tensor, y: Tensor, folder: Path) -> tuple[str, str, str]:
    """robeval's exit code, its number and its errors."""
    np.savez(folder / "digits.npz", x=x.numpy(), y=y.numpy())
    suite = {
        "schema": 1,
        "name": member.name,
        "models": {
            "net": {
                "load": "torch",
                "factory": member.reference,
                "num_classes": len(member.classes),
            }
        },
        "datasets": {"digits": {"load": "arrays", "path": "digits.npz"}},
        "attacks": {"std": {"attack": "standard", "norm": "linf", "eps": EPS}},
        "gates": {"floor": {"metric": "robust_accuracy", "attack": "std", "min": 0.5}},
        "reports": ["csv"],
    }
    path = folder / f"{member.name}.yaml"
    path.write_text(json.dumps(suite), encoding="utf-8")
    out = folder / member.name
    code = invoke(["run", str(path), "-o", str(out), "-q", "--threads", "1"])
    with (out / "tables" / "cells.csv").open(encoding="utf-8") as file:
        row = next(row for row in csv.DictReader(file) if row["attack"] == "std")
    findings = json.loads((out / "findings.json").read_text(encoding="utf-8"))
    errors = dict.fromkeys(each["id"] for each in findings if each["severity"] == "error")
    value = f"{100 * float(row['robust_accuracy']):.0f} %" if row["robust_accuracy"] else "-"
    return str(code), value, ", ".join(errors) or "none"


def page(images: int, members: Sequence[zoo.Member]) -> str:
    """The whole page."""
    columns = [*peers(), "robeval exit", "robeval", "errors found"]
    lines = [HEAD.format(images=images), "| model | " + " | ".join(columns) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    with tempfile.TemporaryDirectory() as folder:
        for member in members:
            x, y = digits(member, images)
            cells = [reported(attack, member, x, y) for attack in peers().values()]
            cells += judged(member, x, y, Path(folder))
            lines.append(f"| {member.name} | " + " | ".join(cells) + " |")
            print(lines[-1], flush=True)
    lines += ["", "What is wrong with each:", ""]
    lines += [f"- `{member.name}`: {member.flaw}" for member in members]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write docs/never-fooled.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=6)
    images = parser.parse_args().images
    torch.set_num_threads(1)
    broken = [member for member in zoo.MEMBERS if member.kind == "broken"]
    PAGE.write_text(page(images, broken), encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
