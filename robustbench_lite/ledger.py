"""What a group of cells has finished so far, and when each of them may end."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

import numpy as np

from . import sequential
from .candidates import concat as concat_candidates
from .errors import DataError
from .group import GALLERY, Chunk, Failure, rows
from .records import concat
from .types import Batch, Cell, Examples, Gate, Part, PartStore, Samples


@dataclass(slots=True)
class Clock:
    """Seconds that an attack may still take."""

    left: float


class Tables:
    """What a group has finished so far: stored parts, the rows of the running part, failures.

    Samples are counted in the order in which they are run, which `ids` gives.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        store: PartStore,
        todo: Collection[str],
        ids: Sequence[str],
        stops: Mapping[str, Sequence[Gate]] = MappingProxyType({}),
    ) -> None:
        """`stops`: cell id -> sequential gates, as in `Terms`."""
        self._cells = cells
        self._store = store
        self._todo = todo  # the others are run again only for what they carry into these
        self._n = len(ids)
        self._stops = stops
        self.parts: dict[str, list[Part]] = {
            cell.id: _usable(store.parts(cell.id), ids) for cell in cells
        }
        self.failures: dict[str, Failure] = {}
        self.stopped: dict[str, int] = {}
        self.clock = Clock(cells[0].time_limit or float("inf")) if cells else Clock(float("inf"))
        self._chunks: dict[str, list[Chunk]] = {}
        self._span = (0, 0)

    def spans(self, shard: int) -> list[tuple[int, int]]:
        """Consecutive ranges of samples: shards, looks, and the ends of parts that are stored."""
        ends = {*range(shard, self._n, shard), self._n}
        ends |= {part.stop for parts in self.parts.values() for part in parts}
        ends |= {part.start for parts in self.parts.values() for part in parts} - {0}
        if any(cell.id in self._stops for cell in self._cells):
            ends |= set(sequential.looks(self._n))
        return list(pairwise([0, *sorted(ends)]))

    def missing(self, start: int, stop: int) -> list[Cell]:
        """Cells to run on samples `start` to `stop`, with those that carry into them."""
        self._span = (start, stop)
        alive = [cell for cell in self._cells if cell.id not in self.failures]
        lacking = [
            cell
            for cell in alive
            if cell.id in self._todo
            and cell.id not in self.stopped
            and not self._has(cell.id, start, stop)
        ]
        return [cell for cell in alive if any(_leads_to(cell, other) for other in lacking)]

    def _has(self, cell_id: str, start: int, stop: int) -> bool:
        return any(part.start <= start and stop <= part.stop for part in self.parts[cell_id])

    def ended(self, cell: Cell) -> bool:
        """Whether the cell has failed, was stopped, or has all its samples."""
        if cell.id in self.failures or cell.id in self.stopped:
            return True
        return sum(part.stop - part.start for part in self.parts[cell.id]) == self._n

    def look(self, at: int) -> None:
        """Stop every cell that its sequential gates are sure of, if this is the time to look."""
        if at not in sequential.looks(self._n):
            return
        for cell in self._cells:
            over = cell.id in self.failures or cell.id in self.stopped
            if over or cell.id not in self._stops:
                continue
            seen = [part for part in self.parts[cell.id] if part.stop <= at]
            if sum(part.stop - part.start for part in seen) < at:
                continue
            table = concat([part.samples for part in seen])
            if all(sequential.decided(gate, table) for gate in self._stops[cell.id]):
                self.stopped[cell.id] = at

    def kept(self, cell: Cell) -> list[Part]:
        """The parts of a cell that has ended, in order, up to where it was stopped."""
        stop = self.stopped.get(cell.id, self._n)
        parts = sorted(self.parts[cell.id], key=lambda part: part.start)
        return [part for part in parts if part.stop <= stop]

    def add(self, cell: Cell, chunk: Chunk | Failure) -> None:
        """One more batch of the running part, or the end of the cell."""
        if isinstance(chunk, Failure):
            self._fail(cell, chunk)
        elif cell.id not in self.failures:
            self._chunks.setdefault(cell.id, []).append(chunk)

    def _fail(self, cell: Cell, failure: Failure) -> None:
        self.failures[cell.id] = failure
        self._chunks.pop(cell.id, None)
        for other in self._cells:
            starts_here = cell.eps in other.carried and other.model == cell.model
            if starts_here and other.id not in self.failures:
                eps = cell.eps.text if cell.eps else ""
                reason = f"it starts from eps {eps}, which failed: {failure.reason}"
                self._fail(other, dataclasses.replace(failure, reason=reason))

    @property
    def begun(self) -> bool:
        """Whether the running part has rows."""
        return bool(self._chunks)

    def close(self, start: int, stop: int, batch_size: int, noticed: Mapping[str, float]) -> None:
        """Store the running part of every cell that has one and lacks it."""
        for cell_id, chunks in self._chunks.items():
            if cell_id not in self._todo or cell_id in self.stopped:
                continue
            if self._has(cell_id, start, stop):
                continue
            observed = dict(noticed)
            for chunk in chunks:
                for key, value in chunk.observed.items():
                    observed[key] = observed.get(key, 0) + value
            part = Part(
                start=start,
                stop=stop,
                samples=concat([chunk.samples for chunk in chunks]),
                examples=_gallery([chunk.examples for chunk in chunks]),
                observed=observed,
                seconds=sum(chunk.seconds for chunk in chunks),
                batch_size=batch_size,
                candidates=concat_candidates([chunk.candidates for chunk in chunks]),
            )
            self._store.save_part(cell_id, part)
            self.parts[cell_id].append(dataclasses.replace(part, candidates=None))
        self._chunks.clear()

    def progress(self, cell: Cell) -> tuple[int, int]:
        """Samples judged so far, and how many of them are correct and unbroken."""
        tables = [part.samples for part in self.parts[cell.id]]
        if not self._has(cell.id, *self._span):
            tables += [chunk.samples for chunk in self._chunks.get(cell.id, [])]
        robust = sum(int((table.clean_correct & ~table.success).sum()) for table in tables)
        return sum(len(table.label) for table in tables), robust


def _leads_to(cell: Cell, other: Cell) -> bool:
    """Whether `other` is the cell, or starts from what the cell breaks."""
    return cell.id == other.id or (cell.eps in other.carried and cell.model == other.model)


def _usable(parts: Iterable[Part], ids: Sequence[str]) -> list[Part]:
    """Parts on these samples in this order, none on samples of another."""
    usable: list[Part] = []
    end = 0
    for part in sorted(parts, key=lambda part: (part.start, -part.stop)):
        same = tuple(part.samples.sample_id) == tuple(ids[part.start : part.stop])
        if part.start >= end and same:
            usable.append(part)
            end = part.stop
    return usable


def _gallery(examples: Sequence[Examples]) -> Examples:
    return Examples(
        positions=np.concatenate([part.positions for part in examples])[:GALLERY],
        x=np.concatenate([part.x for part in examples])[:GALLERY],
        x_adv=np.concatenate([part.x_adv for part in examples])[:GALLERY],
    )


def aligned(samples: Samples, ids: Sequence[str]) -> Samples:
    """The rows of these samples, in their order."""
    place = {name: row for row, name in enumerate(samples.sample_id)}
    return rows(samples, np.array([place[name] for name in ids], dtype=np.int64))


def same_data(dataset: str, batch: Batch, clean: Samples) -> None:
    """Raise DataError if a sample of the batch is not what it was in the clean pass (`aligned`)."""
    other = np.flatnonzero(clean.sample_hash != np.array(batch.hashes, dtype=object))
    if len(other):
        raise DataError(
            f"dataset '{dataset}': sample '{batch.ids[other[0]]}' has another input or label than"
            f" in the clean pass ({len(other)} of {len(batch.ids)} here): a dataset must give the"
            " same at every reading; take random steps out of it, or give them a seed per sample"
        )


def in_order(samples: Samples, examples: Examples, ids: Sequence[str]) -> tuple[Samples, Examples]:
    """A table in the order of the dataset, in whatever order its samples were run."""
    place = {name: row for row, name in enumerate(ids)}
    order = np.argsort([place[name] for name in samples.sample_id], kind="stable")
    row = np.empty_like(order)
    row[order] = np.arange(len(order))
    positions = row[examples.positions].astype(np.int64)
    return rows(samples, order), dataclasses.replace(examples, positions=positions)
