"""What each library says of the broken models of the zoo, beside what robeval says.

python -m benchmarks.never_fooled              write docs/never-fooled.md
python -m benchmarks.never_fooled --images 20  with more images per model
python -m benchmarks.never_fooled --only memoriser  these rows alone, the others as they stand

The peers get the module as it is and their own documented call; what they return is measured on
that module. They are installed with `pip install -c constraints.txt --no-deps --group peers`.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import rivals
from robustbench_lite.cli import invoke
from robustbench_lite.testing import zoo

PAGE = Path(__file__).parent.parent / "docs" / "never-fooled.md"
ALARMS = Path(__file__).parent / "results" / "false-alarms.md"
EPS = 0.3
FLOOR = 0.5
IMAGES = 10
SLOW = 60  # CPU seconds; who takes more has them beside the number
LIBRARIES = ("foolbox", "torchattacks", "adversarial-robustness-toolbox", "pyautoattack")
COLUMNS = (
    "foolbox PGD",
    "torchattacks PGD",
    "ART PGD",
    "pyautoattack",
    "robeval exit",
    "robeval",
    "errors found",
)
HEAD = """# Never fooled

Written by `python -m benchmarks.never_fooled --images {images}`, with {versions}; it needs
`pip install -c constraints.txt --no-deps --group peers`.

Each row is a model of `robustbench_lite.testing.zoo` that is broken, around a network whose true
robust accuracy at linf 0.3 is about 0; `constant-logits` and `bytes-input` are right by chance
alone. The columns of the peers give the robust accuracy that they report for the first {images}
digits: PGD with 40 steps (foolbox, torchattacks, ART) and the AutoAttack cascade (pyautoattack),
called as their documentation shows. *raised* names an exception; seconds stand beside what took
more than {slow} of them. robeval runs `attack: standard` at linf 0.3 with the gate
`robust_accuracy >= {floor}`; its columns give the exit code (1: the gate failed, 8: the measurement
is invalid), the number that it prints ("-": none) and its error findings. No broken model leaves
with exit code 0. Left out, as every attack would go all its way: {left_out} (each is in
`tests/test_never_fooled.py`).
"""
HEALTHY = """
Two healthy controls of the zoo, for comparison: one undefended, one adversarially trained.

How often a healthy model is accused is counted by `python -m benchmarks.false_alarms`
([its table](../benchmarks/results/false-alarms.md)). {alarms}
"""
LIMITS = """
## What a run does not see

- **A model that is weak only nearer by.** An attack spends its whole budget. A step that acts on
  strong noise alone (a purifier, a detector) can hide what breaks at a third of it. The part of
  `attack: standard` that looks for near points may find it, and need not. Give a grid of radii,
  such as `eps: [0.075, 0.15, 0.3]`: the worst case at an eps counts what a smaller one breaks.
- **Known test images.** A network that answers for the nearest image it knows is right in the whole
  ball around the images that it knows. Judge it on others.
- **A memory outside of the network.** The copy that is asked for comparison lives in the same
  process: what a module keeps in a global variable, or on a disk, they share. It is found where no
  score moves any more (`scores-stand-still`), not in every case.
- **Scores that stand still, without gradients.** A forest may well give the same scores in a small
  ball, so that it is a note if nothing could be planted for Square alone.
- **What a suite asks for.** `eps: 0`, `min: 0`, a floor on noise, one label, `self_test: off`,
  `allow_partial: true` and waivers are kept as written; the report names what follows from most of
  them.
- **Code that means harm.** Plug-ins and factories run in the process of robeval, with its rights. A
  `sys.exit()` is no verdict; against `os._exit(0)` let `--jobs 2` keep models and attacks in other
  processes, and ask for `gates.json`, which only a judged run has.
"""
CONTROLS = ("surrogate", "robust")
LEFT_OUT = ("cached-answers", "cached-places", "counted-calls", "two-faced")
"""Nothing breaks them while they are judged: every library would go all its way, for minutes."""

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]


def peers() -> dict[str, Attack]:
    """Column -> attack of that library."""

    return {
        "foolbox PGD": lambda net, x, y: rivals.foolbox("LinfPGD", net, x, y, EPS, steps=40),
        "torchattacks PGD": lambda net, x, y: rivals.torchattacks(
            "PGD", net, x, y, eps=EPS, alpha=EPS / 15, steps=40
        ),
        "ART PGD": lambda net, x, y: rivals.art(
            "ProjectedGradientDescent",
            net,
            x,
            y,
            eps=EPS,
            eps_step=EPS / 15,
            max_iter=40,
            verbose=False,
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
    begin = time.process_time()
    try:
        x_adv = attack(net, x.clone(), y.clone())
        with torch.no_grad():
            correct = (net(x).argmax(dim=1) == y) & (net(x_adv).argmax(dim=1) == y)
    except Exception as problem:  # noqa: BLE001  (whatever a library raises is its answer)
        return f"raised {type(problem).__name__}"
    seconds = time.process_time() - begin
    late = f" ({seconds:.0f} s)" if seconds > SLOW else ""
    return f"{100 * correct.double().mean():.0f} %{late}"


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
        "gates": {"floor": {"metric": "robust_accuracy", "attack": "std", "min": FLOOR}},
        "reports": ["csv"],
    }
    path = folder / f"{member.name}.yaml"
    path.write_text(json.dumps(suite), encoding="utf-8")
    out = folder / member.name
    with contextlib.redirect_stdout(io.StringIO()):
        code = invoke(["run", str(path), "-o", str(out), "-q", "--threads", "1"])
    with (out / "tables" / "cells.csv").open(encoding="utf-8") as file:
        row = next(row for row in csv.DictReader(file) if row["attack"] == "std")
    findings = json.loads((out / "findings.json").read_text(encoding="utf-8"))
    errors = dict.fromkeys(each["id"] for each in findings if each["severity"] == "error")
    value = f"{100 * float(row['robust_accuracy']):.0f} %" if row["robust_accuracy"] else "-"
    return str(code), value, ", ".join(errors) or "none"


def row(member: zoo.Member, images: int) -> str:
    """One line of the table."""
    x, y = digits(member, images)
    cells = [reported(attack, member, x, y) for attack in peers().values()]
    with tempfile.TemporaryDirectory() as folder:
        cells += judged(member, x, y, Path(folder))
    return f"| {member.name} | {' | '.join(cells)} |"


def head(images: int) -> str:
    """What stands above the table."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", *LIBRARIES))
    left_out = ", ".join(f"`{name}`" for name in LEFT_OUT)
    return HEAD.format(images=images, versions=versions, slow=SLOW, floor=FLOOR, left_out=left_out)


def page(images: int, broken: Sequence[str], healthy: Sequence[str]) -> str:
    """The whole page around the rows of the two tables."""
    titles = [f"| model | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    flaws = [f"- `{member.name}`: {member.flaw}" for member in members()]
    alarms = ALARMS.read_text(encoding="utf-8").splitlines()[-1]
    controls = HEALTHY.format(alarms=alarms)
    lines = [head(images), *titles, *broken, controls, *titles, *healthy]
    return "\n".join([*lines, "", "What is wrong with each:", "", *flaws, LIMITS])


def standing() -> dict[str, str]:
    """The rows of the page as it is, by name."""
    lines = PAGE.read_text(encoding="utf-8").splitlines() if PAGE.exists() else []
    return {
        line.split(" | ")[0].removeprefix("| "): line for line in lines if line.startswith("| ")
    }


def members() -> list[zoo.Member]:
    """The broken ones that have a row."""
    broken = [member for member in zoo.MEMBERS if member.kind == "broken"]
    return [member for member in broken if member.name not in LEFT_OUT]


def main() -> None:
    """Write docs/never-fooled.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--only", nargs="+", default=[], help="the rows to measure again")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    kept = standing() if asked.only else {}
    tables: list[list[str]] = []
    for group in (members(), [zoo.member(name) for name in CONTROLS]):
        tables.append([])
        for member in group:
            if member.name in asked.only or member.name not in kept:
                kept[member.name] = row(member, asked.images)
                print(kept[member.name], flush=True)
            tables[-1].append(kept[member.name])
    PAGE.write_text(page(asked.images, *tables), encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
