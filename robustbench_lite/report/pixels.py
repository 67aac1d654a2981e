"""Which positions break when a single pixel changes: a heat map per model and attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from .svg import tag
from .tallies import Tally
from .words import attack_name, budget

MOST_SIDE = 32  # blocks along a side; larger images are counted in blocks of pixels
DARKEST = 5  # classes of colour
TOP = 3  # positions that are named


@dataclass(frozen=True, slots=True)
class HeatMap:
    """How many samples a change of one pixel broke, by position, in blocks of `block` pixels.

    `counts`: (row, column) of a block -> samples; rows and columns of the whole map are `side`.
    `broken`: all of them; `of`: the clean-correct samples.
    """

    model: str
    dataset: str
    attack: str
    budget: str
    entry: str
    side: tuple[int, int]
    block: int
    counts: Mapping[tuple[int, int], int]
    broken: int
    of: int

    @property
    def top(self) -> list[tuple[tuple[int, int], int]]:
        """The blocks that break most often."""
        ordered = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        return ordered[:TOP]


def heat_maps(found: Mapping[str, Tally]) -> list[HeatMap]:
    """One per cell that broke samples by one pixel of an image, in the order of the plan."""
    shapes = {tally.row.dataset: tally.shape for tally in found.values() if tally.shape}
    maps = (_heat_map(tally, shapes.get(tally.row.dataset)) for tally in found.values())
    return [each for each in maps if each is not None]


def _heat_map(tally: Tally, shape: Sequence[int] | None) -> HeatMap | None:
    size = _image(shape)
    row = tally.row
    if size is None or not tally.pixels or row.norm != "l0" or row.attack_success_rate is None:
        return None
    height, width = size
    if max(tally.pixels) >= height * width:
        return None
    block = -(-max(height, width) // MOST_SIDE)
    counts: dict[tuple[int, int], int] = {}
    for position, count in tally.pixels.items():
        spot = (position // width // block, position % width // block)
        counts[spot] = counts.get(spot, 0) + count
    return HeatMap(
        row.model,
        row.dataset,
        attack_name(row),
        budget(row),
        row.attack,
        (-(-height // block), -(-width // block)),
        block,
        counts,
        sum(counts.values()),
        row.attack_success_rate.n,
    )


def _image(shape: Sequence[int] | None) -> tuple[int, int] | None:
    """Height and width of a sample [h, w] or [c, h, w], None for any other shape."""
    if shape is None or len(shape) not in (2, 3) or min(shape[-2:]) < 2:
        return None
    return shape[-2], shape[-1]


def picture(heat: HeatMap) -> Markup:
    """The map: a square per block that broke something, darker where it broke more."""
    height, width = heat.side
    most = max(heat.counts.values())
    squares = [
        tag(
            "rect",
            tag("title", f"{place(heat, spot)}: broke {count:,} of {heat.of:,}"),
            x=spot[1],
            y=spot[0],
            width=1,
            height=1,
            class_=f"q{-(-DARKEST * count // most)} pt",
        )
        for spot, count in sorted(heat.counts.items())
    ]
    title = f"{heat.model} on {heat.dataset}, {heat.attack}: samples broken by position"
    return tag(
        "svg",
        tag("title", title),
        tag("rect", x=0, y=0, width=width, height=height, class_="field"),
        *squares,
        viewBox=f"0 0 {width} {height}",
        role="img",
        class_="heat",
    )


def place(heat: HeatMap, spot: tuple[int, int]) -> str:
    """A block in words: `row 12, column 3`, from 0."""
    row, column = (each * heat.block for each in spot)
    if heat.block == 1:
        return f"row {row}, column {column}"
    last = heat.block - 1
    return f"rows {row} to {row + last}, columns {column} to {column + last}"
