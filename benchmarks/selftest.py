"""What the self-test says of sound and of broken attacks on healthy models.

python -m benchmarks.selftest            write the tables of docs/self-test.md
python -m benchmarks.selftest --seeds 1  each row with one seed only

It takes a while, because every row attacks every model.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from robustbench_lite import (
    AttackSpec,
    Box,
    Budget,
    Classifier,
    LoadedModel,
    Norm,
    SampleRng,
    norms,
)
from robustbench_lite.builtin import attacks as builtin
from robustbench_lite.rng import sample_keys
from robustbench_lite.selftest import BROKEN, PLANTED, self_test, starved
from robustbench_lite.testing import zoo
from robustbench_lite.types import Batch

PAGE = Path(__file__).parent.parent / "docs" / "self-test.md"
IMAGES = 100  # of which the first 64 that are classified correctly are planted
EPS: Mapping[Norm, float] = {"linf": 0.3, "l2": 2.0, "l1": 10.0, "l0": 10.0}
MANY = 3
FALSE_ALARM_SEEDS = 5  # as many as `benchmarks.false_alarms` runs
HEADING = "## Which attacks pass"
TABLES = """{heading}

Written by `python -m benchmarks.selftest`: the share of the planted samples that an attack breaks
on healthy models of the zoo, the lowest of its seeds; "of n" where fewer than 64 could be planted.
The first {images} digits, linf 0.3, l2 2, l1 10, l0 10. Passed: 95 %, or one miss.

Sound attacks:

{sound}

Sound attacks with far fewer steps or queries than their default; where they do not pass, the test
says so. "Passes" stands where a search without gradients lacked queries and nothing else:

{starved}

Broken attacks, which must not pass:

{unsound}
"""
SPECS = {spec.name: spec for spec in builtin.robeval_attacks()}
HEALTHY = ("standard", "robust", "surrogate", "linear", "lipschitz", "vit")


@dataclass(frozen=True)
class Row:
    """An attack with its parameters; run with `seeds` seeds, of which the worst is shown.

    `eps`: where it is not that of the page.
    """

    attack: str
    norm: Norm
    params: Mapping[str, object] = field(default_factory=dict)
    seeds: int = 1
    eps: float | None = None

    @property
    def label(self) -> str:
        """As the table names it."""
        own = ", ".join(f"{key} {value}" for key, value in self.params.items())
        at = "" if self.eps is None else f" at {self.eps}"
        return f"{self.attack}{f' ({own})' if own else ''}{at}"


SOUND = (
    Row("pgd", "linf", seeds=MANY),
    Row("pgd", "linf", {"steps": 10}),
    Row("pgd", "l2", seeds=MANY),
    Row("apgd", "linf", seeds=MANY),
    Row("apgd", "linf", {"loss": "dlr"}),
    Row("apgd", "l1"),
    Row("autoattack", "linf"),
    Row("autoattack", "l2"),
    Row("ddn", "l2", {"steps": 100}),
    Row("fab", "linf", {"steps": 30}),
    Row("deepfool", "l2"),
    Row("square", "linf", {"queries": 1000}, seeds=MANY),
    Row("square", "l2", {"queries": 1000}),
    Row("sparse-rs", "l0", {"queries": 1000}),
    Row("square", "linf", {"queries": 1000}, seeds=FALSE_ALARM_SEEDS, eps=0.1),
)
STARVED = (
    Row("fmn", "linf", {"steps": 100}),
    Row("fmn", "l0", {"steps": 100}),
    Row("square", "linf", {"queries": 300}, seeds=FALSE_ALARM_SEEDS, eps=0.1),
    Row("square", "linf", {"queries": 30}, eps=0.1),
)
UNSOUND = (
    Row("returns its input", "linf"),
    Row("zoo-tiny-steps", "linf"),
    Row("zoo-tiny-steps", "l2"),
    Row("40 steps of eps / 100", "linf"),
    Row("40 steps of eps / 100", "l2"),
    Row("zoo-minimises", "linf"),
    Row("zoo-minimises", "l2"),
    Row("zoo-ignores-labels", "linf"),
    Row("zoo-ignores-labels", "l2"),
    Row("100 random points", "linf"),
    Row("100 random points", "l2"),
)


def returns_input(model: Classifier, x: Tensor, y: Tensor, **own: object) -> Tensor:  # noqa: ARG001
    """Does nothing."""
    return x


def tiny(model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng) -> Tensor:
    """PGD from a random start that gets two fifths of the way."""
    point = x
    if budget.norm == "linf":
        noise = budget.eps * rng.uniform(tuple(x.shape[1:]), -1.0, 1.0)
        point = norms.clip(x + noise, x, budget)
    for _ in range(40):
        step = norms.steepest(model.gradient(point, y), budget.norm)
        point = norms.clip(point + 0.01 * budget.eps * step, x, budget)
    return point


def luck(model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng) -> Tensor:  # noqa: ARG001
    """Extreme points of the ball at random; what breaks is seen."""
    for _ in range(100):
        far = norms.linear_maximum(rng.uniform(tuple(x.shape[1:]), -1.0, 1.0), x, budget)
        model.logits(norms.clip(x + far, x, budget))
    return x


OWN: Mapping[str, Callable[..., Tensor]] = {
    "returns its input": returns_input,
    "40 steps of eps / 100": tiny,
    "100 random points": luck,
}
SPECS |= {each.name: each for each in zoo.ATTACKS}
SPECS |= {
    name: AttackSpec(
        name=name, implementation=call, summary="", norms=("linf", "l2"), access="gradient"
    )
    for name, call in OWN.items()
}


def loaded(network: nn.Module, classes: int) -> LoadedModel:
    """What a loader returns for a torch module."""

    @torch.no_grad()
    def predict(x: Tensor) -> Tensor:
        logits: Tensor = network(x)
        return logits

    return LoadedModel(
        predict=predict,
        differentiable=network,
        num_classes=classes,
        input_shape=None,
        output="logits",
        device="cpu",
        provider="torch",
    )


@cache
def world(name: str) -> tuple[LoadedModel, Batch]:
    """A member of the zoo on the digits."""
    x, y = (part[:IMAGES] for part in zoo.digits())
    model = loaded(zoo.member(name).factory(), 10)
    ids = tuple(f"sample-{i}" for i in range(len(x)))
    keys = sample_keys(ids)
    return model, Batch(start=0, ids=ids, hashes=ids, keys=keys, x=x, y=y, box=Box())


def worst(row: Row, name: str, seeds: int) -> str:
    """The lowest share over seeds, with the number of planted samples."""
    spec = SPECS[row.attack]
    model, batch = world(name)
    eps = EPS[row.norm] if row.eps is None else row.eps
    values = spec.params(**row.params)
    shares = []
    for seed in range(min(row.seeds, seeds)):
        counts = self_test(
            spec,
            spec.implementation,  # type: ignore[arg-type]
            {key: getattr(values, key) for key in type(values).model_fields},
            model,
            batch,
            Budget(norm=row.norm, eps=eps, box=batch.box),
            SampleRng(seed, spec.name, batch.keys),
        )
        passes = ", passes" if starved(counts) else ""
        shares.append((counts[BROKEN] / max(counts[PLANTED], 1), counts[PLANTED], passes))
    share, planted, passes = min(shares)
    if not planted:
        return "no plant"
    return f"{share:.0%}" + ("" if planted == 64 else f" of {planted:.0f}") + passes


def table(rows: Sequence[Row], names: Sequence[str], seeds: int) -> Iterator[str]:
    """Markdown: attacks down, models across."""
    yield f"| attack | norm | seeds | {' | '.join(names)} |"
    yield "|---|---|---:|" + "---:|" * len(names)
    for row in rows:
        cells = [worst(row, name, seeds) for name in names]
        line = f"| {row.label} | {row.norm} | {min(row.seeds, seeds)} | {' | '.join(cells)} |"
        print(line, flush=True)
        yield line


def main() -> None:
    """Write the tables of the page, after all that stands above their heading."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=FALSE_ALARM_SEEDS, help="at most")
    seeds = parser.parse_args().seeds
    torch.set_num_threads(1)
    sound = "\n".join(table(SOUND, HEALTHY, seeds))
    starved = "\n".join(table(STARVED, HEALTHY, seeds))
    unsound = "\n".join(table(UNSOUND, HEALTHY, seeds))
    above = PAGE.read_text(encoding="utf-8").partition(HEADING)[0].rstrip()
    text = TABLES.format(
        heading=HEADING, sound=sound, starved=starved, unsound=unsound, images=IMAGES
    )
    PAGE.write_text(f"{above}\n\n{text}", encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
