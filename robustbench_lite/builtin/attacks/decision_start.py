"""Starts for attacks that see decisions alone: random points, and several runs to choose from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import Field, dataclass, fields, replace
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

from .decision_task import BISECTIONS, LAST_QUERY, Task, at_once
from .minimal_search import indices
from .square_windows import image_shape

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lite import SampleRng

LARGEST_ROUND = 64  # points of one sample that are tried together
SIDES = (3, 1, 4, 2, 7, 5, 0)
"""Blocks along each side of a painted image, one number after the other; 0: each pixel is one."""
TRIES_AGAIN = 63  # for a second start and those that follow: six rounds


class Seeking(Protocol):
    """What an attack knows of l samples while it searches; each of its fields has l rows.

    `index`: int64 [l]. `best`: [l, *shape]. `distance`: float64 [l]. `left`: int64 [l].
    """

    __dataclass_fields__: ClassVar[dict[str, Field[object]]]

    @property
    def index(self) -> Tensor:
        """Places in the task."""
        ...

    @property
    def best(self) -> Tensor:
        """The nearest broken point of each."""
        ...

    @property
    def distance(self) -> Tensor:
        """Of `best`."""
        ...

    @property
    def left(self) -> Tensor:
        """Queries that may still be spent."""
        ...


S = TypeVar("S", bound=Seeking)


def best_of_runs(
    task: Task,
    *,
    queries: int,
    starts: int,
    runs: int,
    begin: Callable[[Task, Tensor, Tensor, Tensor], S],
    advance: Callable[[Task, S, bool], S],
) -> Tensor:
    """Search from several starts for a while and from the best of them on: points [m, *shape].

    Where a start lies decides more than what is spent on it: on MNIST, queries alike, four runs
    end 5 to 10 % nearer than one. `begin(task, rows, points, left)`: what is known of the samples
    `rows` with these broken points; it costs `BISECTIONS`. `advance(task, known, to the end)`:
    after a while, or after all queries that are left; `left` is then 0 where the next step could
    not be paid for. So more queries continue what fewer would do. A sample without a start in
    `starts` tries gets x.
    """
    import torch

    m = task.x.shape[0]
    purse = torch.full((m,), queries - LAST_QUERY, device=task.x.device)
    answer, lead = task.x, None
    for run in range(runs):
        own = replace(task, rng=task.rng.fork(f"run-{run}"))
        start = first_broken(own, purse, TRIES_AGAIN if run else starts, run)
        purse = purse - start.spent
        if not run:
            answer, purse = start.point, purse * start.found
        rows = indices(start.found & (purse >= BISECTIONS))
        known = begin(own, rows, start.point[rows], purse[rows] - BISECTIONS)
        known = advance(own, known, False)
        purse = purse.index_copy(0, known.index, known.left)
        lead = known if lead is None else _nearer(lead, known)
    assert lead is not None
    lead = advance(task, replace(lead, left=purse[lead.index]), True)
    return answer.index_copy(0, lead.index, lead.best)


def taken(known: S, kept: Tensor) -> S:
    """What is known of some rows (int64 [k])."""
    columns = {field.name: getattr(known, field.name)[kept] for field in fields(known)}
    return replace(known, **columns)


def joined(one: S, two: S) -> S:
    """The rows of both, those of `one` first."""
    import torch

    columns = {
        field.name: torch.cat((getattr(one, field.name), getattr(two, field.name)))
        for field in fields(one)
    }
    return replace(one, **columns)


def _nearer(one: S, two: S) -> S:
    """Of a sample in both the row with the nearer point."""
    import torch

    both = joined(one, two)
    order = both.distance.argsort(stable=True)
    order = order[both.index[order].argsort(stable=True)]
    index = both.index[order]
    first = torch.ones_like(index, dtype=torch.bool)
    first[1:] = index[1:] != index[:-1]
    return taken(both, order[first])


@dataclass(frozen=True, slots=True)
class Start:
    """`point`: [m, *shape], x where nothing was found. `found`: bool [m]. `spent`: int64 [m]."""

    point: Tensor
    found: Tensor
    spent: Tensor


def first_broken(task: Task, purse: Tensor, tries: int, run: int = 0) -> Start:
    """A random point of the box with the wanted decision, for each of the m samples.

    Uniform noise and random corners of the box in turn, a corner being painted in blocks of a few
    sizes (one block is a constant colour); every other pair is blended with x in a random share.
    They are tried 1, 2, 4, ... at once, and of those that hold the nearest is taken; each run
    begins with another kind. A sample spends at most its `purse` (int64 [m]). No sample sees
    another: its start does not depend on the batch.
    """
    import torch

    from robustbench_lite import norms

    everyone = torch.arange(task.x.shape[0], device=task.x.device)
    point, distance = task.x, torch.full_like(everyone, torch.inf, dtype=torch.float64)
    spent = torch.zeros_like(everyone)
    first, count = 0, 1
    while first < tries:
        count = min(count, tries - first)
        rows = indices(distance.isinf() & (purse >= first + count))
        if not rows.shape[0]:
            break
        spent.index_add_(0, rows, torch.full_like(rows, count))
        for some in torch.split(rows, max(1, at_once(task.x) // count)):
            drawn = task.rng.rows(some).fork(f"start-{first}")
            points = _drawn(drawn, task, some, range(run + first, run + first + count))
            broken = task.broken(some.repeat_interleave(count), points.flatten(0, 1))
            delta = (points - task.x[some].unsqueeze(1)).flatten(0, 1)
            far = norms.distance(delta, task.norm).where(broken, torch.inf)
            far, best = far.view(-1, count).min(dim=1)
            chosen = points[torch.arange(some.shape[0], device=best.device), best]
            hit = indices(~far.isinf())
            point = point.index_copy(0, some[hit], chosen[hit])
            distance = distance.index_copy(0, some, far)
        first, count = first + count, min(2 * count, LARGEST_ROUND)
    return Start(point, ~distance.isinf(), spent)


def _drawn(rng: SampleRng, task: Task, rows: Tensor, numbers: range) -> Tensor:
    """The points `numbers` (from 0) of the samples `rows`: [l, count, *shape]."""
    import torch

    shape = tuple(task.x.shape[1:])
    share = rng.uniform((len(numbers),))
    noise = rng.uniform((len(numbers), *shape))
    points = []
    for place, number in enumerate(numbers):
        unit = noise[:, place]
        if number % 2:
            unit = _blocks(unit, SIDES[number // 2 % len(SIDES)])
        painted = task.box.low + task.box.width * unit
        if number % 4 > 1:
            weight = share[:, place].view(-1, *[1] * len(shape))
            painted = task.x[rows].lerp(painted, weight)
        points.append(painted)
    return task.clamped(torch.stack(points, dim=1))


def _blocks(chance: Tensor, side: int) -> Tensor:
    """0 or 1 in blocks, `side` of them along height and width: [l, *shape] from chances alike."""
    import torch

    channels, height, width = image_shape(tuple(chance.shape[1:]))
    image = chance.reshape(-1, channels, height, width)
    for dim, length in ((2, height), (3, width)):
        blocks = min(side or length, length)
        place = torch.arange(length, device=chance.device)
        block = place * blocks // length
        image = image.index_select(dim, (block * length + blocks - 1) // blocks)  # its first pixel
    return (image < 1 / 2).to(chance.dtype).reshape(chance.shape)
