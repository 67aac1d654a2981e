"""What attacks cost beside bare passes and beside other libraries' attacks: ratios of CPU time.

    python -m benchmarks.attacks [--images 250] [--rounds 5] [--cascade 40] [--only TEXT]
        [--allocator system]

Process CPU time with one thread, both sides in turns, the median of the ratios of all rounds; one
round more warms up. Both sides get the same digits, budget, steps and batch. A peer attacks the
torch module, robeval the same module; "file": robeval attacks the ONNX file that ships, with
gradients from its twin and scores from onnxruntime. What is freed stays with the process, on both
sides, as in a run (`quickstart.keep_freed_memory`); `--allocator system` leaves the C library as it
is, which a peer's user has.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks import rivals
from benchmarks.quickstart import (
    EPS,
    Runtime,
    Subject,
    keep_freed_memory,
    machine,
    subject,
)
from robustbench_lite import Norm
from robustbench_lite.builtin.attacks import apgd, autoattack, pgd, square

STEPS = 40
STEP_SIZE = 0.01
QUERIES = 1000
Attack = Callable[[], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Two attacks on the same digits, and the ratio of their times that is asked for."""

    what: str
    beside: str
    subject: Subject
    norm: Norm
    ours: Attack
    theirs: Attack
    limit: float
    runtime: Runtime = "torch"

    @property
    def name(self) -> str:
        """What `--only` looks in."""
        file = ", file" if self.runtime == "file" else ""
        return f"{self.what} {self.norm}{file} | {self.beside}"


def bare(net: torch.nn.Module, x: Tensor, y: Tensor, forwards: int, backwards: int) -> Tensor:
    """The passes of an attack on all digits and nothing else."""
    return passes_of(net, x, y, [len(x)] * backwards, [len(x)] * (forwards - backwards))


def passes_of(
    net: torch.nn.Module, x: Tensor, y: Tensor, both: Sequence[int], forwards: Sequence[int]
) -> Tensor:
    """Passes and nothing else: so many digits forwards and backwards, then so many forwards."""
    for m in both:
        leaf = x[:m].clone().requires_grad_()
        torch.autograd.grad(functional.cross_entropy(net(leaf), y[:m], reduction="sum"), leaf)
    with torch.no_grad():
        for m in forwards:
            net(x[:m])
    return x


def passes(images: int) -> Iterator[Row]:
    """PGD-40 beside its own passes: as a run makes them, and with no digit leaving."""
    one = subject("robust", images)
    attack = partial(one.attacked, pgd.SPEC, "linf", EPS["linf"], steps=STEPS, step_size=STEP_SIZE)
    sizes: list[int] = []
    hook = one.net.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    attack()
    hook.remove()
    assert len(sizes) == STEPS + 2, "the digits as they come, every step, and the last point"
    yield Row(
        what="PGD-40",
        beside="bare loop of the same passes",
        subject=one,
        norm="linf",
        ours=attack,
        theirs=lambda: passes_of(one.net, one.x, one.y, sizes[1:-1], [sizes[0], sizes[-1]]),
        limit=1.05,
    )
    yield Row(
        what="PGD-40, none leaves",
        beside="bare loop, 41 forward and 40 backward passes",
        subject=one,
        norm="linf",
        ours=partial(attack, stop_when_broken=False),
        theirs=lambda: bare(one.net, one.x, one.y, STEPS + 1, STEPS),
        limit=1.05,
    )


def ascents(images: int) -> Iterator[Row]:
    """APGD-CE-100 beside pyautoattack's."""
    one = subject("robust", images)
    norms: tuple[Norm, ...] = ("linf", "l2")
    for norm in norms:
        yield Row(
            what="APGD-CE-100",
            beside="pyautoattack",
            subject=one,
            norm=norm,
            ours=partial(one.attacked, apgd.SPEC, norm, EPS[norm], steps=100),
            theirs=partial(rivals.pyautoattack_apgd, one.net, one.x, one.y, norm, EPS[norm]),
            limit=1.0,
        )


def cascades(images: int) -> Iterator[Row]:
    """The whole of AutoAttack "standard" beside pyautoattack's."""
    cases: tuple[tuple[Norm, Runtime], ...] = (
        ("linf", "torch"),
        ("l2", "torch"),
        ("linf", "file"),
        ("l2", "file"),
    )
    for norm, runtime in cases:
        one = subject("robust", images, runtime=runtime)
        yield Row(
            what="AutoAttack",
            beside="pyautoattack",
            subject=one,
            norm=norm,
            ours=partial(one.attacked, autoattack.SPEC, norm, EPS[norm]),
            theirs=partial(
                rivals.pyautoattack, one.net, one.x, one.y, norm, EPS[norm], batch=images
            ),
            limit=0.8,
            runtime=runtime,
        )


def searches(network: str, images: int, limit: float) -> Iterator[Row]:
    """Square-1000 beside every peer's, and beside its passes for all digits to the end."""
    eps = EPS["linf"]
    runtimes: tuple[Runtime, ...] = ("torch", "file")
    for runtime in runtimes:
        one = subject(network, images, runtime=runtime)
        peers: dict[str, Attack] = {
            "bare loop, 1,000 forward passes": partial(bare, one.net, one.x, one.y, QUERIES, 0),
            "torchattacks": partial(
                rivals.torchattacks,
                "Square",
                one.net,
                one.x,
                one.y,
                norm="Linf",
                eps=eps,
                n_queries=QUERIES,
            ),
        }
        if network == "undefended" and runtime == "torch":
            peers["pyautoattack"] = partial(
                rivals.pyautoattack_square, one.net, one.x, one.y, "linf", eps, queries=QUERIES
            )
            peers["ART"] = partial(
                rivals.art,
                "SquareAttack",
                one.net,
                one.x,
                one.y,
                norm=np.inf,
                eps=eps,
                max_iter=QUERIES,
                batch_size=images,
                verbose=False,
            )
        for peer, theirs in peers.items():
            yield Row(
                what=f"Square-{QUERIES}, {network}",
                beside=peer,
                subject=one,
                norm="linf",
                ours=partial(one.attacked, square.SPEC, "linf", eps, queries=QUERIES),
                theirs=theirs,
                limit=limit,
                runtime=runtime,
            )


def steps(images: int) -> Iterator[Row]:
    """PGD-40 on a network whose digits all break early, beside every peer's."""
    one, eps = subject("undefended", images), EPS["linf"]
    theirs: dict[str, Attack] = {
        "foolbox": partial(
            rivals.foolbox,
            "LinfPGD",
            one.net,
            one.x,
            one.y,
            eps,
            abs_stepsize=0.01,
            steps=40,
            random_start=True,
        ),
        "torchattacks": partial(
            rivals.torchattacks,
            "PGD",
            one.net,
            one.x,
            one.y,
            eps=eps,
            alpha=0.01,
            steps=40,
            random_start=True,
        ),
        "ART": partial(
            rivals.art,
            "ProjectedGradientDescent",
            one.net,
            one.x,
            one.y,
            norm=np.inf,
            eps=eps,
            eps_step=0.01,
            max_iter=40,
            num_random_init=1,
            batch_size=images,
            verbose=False,
        ),
    }
    for peer, attack in theirs.items():
        yield Row(
            what="PGD-40, undefended",
            beside=peer,
            subject=one,
            norm="linf",
            ours=partial(one.attacked, pgd.SPEC, "linf", eps, steps=STEPS, step_size=STEP_SIZE),
            theirs=attack,
            limit=0.25,
        )


def timed(attack: Attack) -> tuple[float, Tensor]:
    """CPU seconds of this process, and what the attack returned."""
    begin = time.process_time()
    x_adv = attack()
    return time.process_time() - begin, x_adv


def measured(row: Row, rounds: int) -> str:
    """A line of the table; the sides take turns in going first."""
    times = []
    found = {"ours": 0, "theirs": 0}
    for number in range(rounds + 1):
        both = {"ours": row.ours, "theirs": row.theirs}
        spent = {}
        for side in ("ours", "theirs") if number % 2 else ("theirs", "ours"):
            spent[side], x_adv = timed(both[side])
            found[side] = int(row.subject.broken(x_adv, row.norm, EPS[row.norm]).sum())
        times.append((spent["ours"], spent["theirs"]))
    times = times[1:] or times
    ratios = sorted(ours / theirs for ours, theirs in times)
    ours, theirs = (statistics.median(column) for column in zip(*times, strict=True))
    spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
    verdicts = "" if "bare" in row.beside else f"{found['ours']} and {found['theirs']}"
    cells = f"{len(row.subject.x)} | {ours:.2f} | {theirs:.2f} | {statistics.median(ratios):.2f}"
    return f"| {row.name} | {cells} | {spread} | {row.limit} | {verdicts} |"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=250)
    parser.add_argument("--cascade", type=int, default=40, help="images of whole AutoAttacks")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="rows with this text in their name")
    parser.add_argument("--allocator", choices=["kept", "system"], default="kept")
    chosen = parser.parse_args()
    for module in rivals.PACKAGES:
        if rivals.missing(module):
            parser.error(rivals.missing(module))
    torch.set_num_threads(1)
    kept = keep_freed_memory() if chosen.allocator == "kept" else "allocator as it is"
    print(f"{machine('torch', 'onnxruntime-gpu', *rivals.PACKAGES.values())}, {kept}", end="\n\n")
    print("| attack | beside | images | ours, s | theirs, s | ratio | from to | limit | broken |")
    print("|---|---|---:|---:|---:|---:|---|---:|---|")
    rows = [
        *passes(chosen.images),
        *ascents(chosen.images),
        *searches("robust", chosen.images, 0.7),
        *steps(chosen.images),
        *searches("undefended", chosen.images, 0.05),
        *cascades(chosen.cascade),
    ]
    for row in rows:
        if chosen.only in row.name:
            print(measured(row, chosen.rounds), flush=True)


if __name__ == "__main__":
    main()
