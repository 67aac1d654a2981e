"""The samples that a suite selects from a dataset, read and checked one batch at a time.

A dataset plug-in is believed in nothing: labels and ids are checked when samples are selected,
inputs whenever they are read. Memory is bounded by the batch.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .errors import DataError, NothingSelected
from .rng import sample_keys
from .types import Batch, Box, DataSource, Selection
from .words import nearest

TOLERANCE = 1e-6  # of the box's width: rounding of a linear map to float32, never a real excess
HASH_CHARACTERS = 32
SHOWN = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """The n samples of one dataset entry, in the order in which they are evaluated.

    `name`: the entry in the suite. `positions`: int64 [n], where each sample stands in `source`.
    `ids`: n unique names. `labels`: int64 [n] on the CPU.
    """

    name: str
    source: DataSource
    positions: NDArray[np.int64]
    ids: tuple[str, ...]
    labels: Tensor

    @property
    def n(self) -> int:
        """How many samples are selected, at least 1."""
        return len(self.ids)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.source.shape

    @property
    def box(self) -> Box:
        """Declared range of every input component."""
        return self.source.box

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the source's classes in label order, whichever of them are selected."""
        return self.source.classes

    def reordered(self, index: NDArray[np.int64]) -> Selected:
        """The same samples in another order: `index` is a permutation of 0 to n - 1."""
        return replace(
            self,
            positions=self.positions[index],
            ids=tuple(self.ids[i] for i in index.tolist()),
            labels=self.labels[torch.from_numpy(index)],
        )

    def batch(self, start: int, stop: int, device: torch.device) -> Batch:
        """Samples `start` to `stop` (exclusive, cut at n), freshly read and checked, on `device`.

        Rounding excess over the box (up to 1e-6 of its width) is clamped. Raises `DataError` that
        names dataset, sample, what was found and what was expected.
        """
        stop = min(stop, self.n)
        assert 0 <= start < stop, (start, stop, self.n)
        ids, y = self.ids[start:stop], self.labels[start:stop]
        x = _read(self, start, stop)
        return Batch(
            start=start,
            ids=ids,
            hashes=content_hashes(x, y),
            keys=sample_keys(ids, device),
            x=x.to(device, copy=True),  # a plug-in's own storage never reaches an attack
            y=y.to(device, copy=True),
            box=self.box,
        )


def select(name: str, source: DataSource, selection: Selection) -> Selected:
    """The samples of `source` that `selection` names: classes, indices, order, skip, take.

    `classes` (names, or label numbers as text) and `indices` (positions in the source) keep what
    both allow, in source order. `stratified` deals the classes round: the first sample of each
    class in label order, then the second of each, and so on, each class shuffled by the seed; so
    every prefix is balanced, a leftover goes to the first classes, a class that has run out is
    passed over, and `skip` makes disjoint sets. `take` is an upper limit.

    Raises `DataError` for labels, ids, classes or indices that are not as declared, and
    `NothingSelected` where no sample is left.
    """
    _check(name, source)
    positions = _positions(name, source, selection)
    return Selected(
        name=name,
        source=source,
        positions=positions,
        ids=tuple(source.ids[i] for i in positions.tolist()),
        labels=source.labels[torch.from_numpy(positions)],
    )


def _positions(name: str, source: DataSource, selection: Selection) -> NDArray[np.int64]:
    assert selection.skip >= 0, selection
    assert selection.take is None or selection.take >= 0, selection
    labels = source.labels.numpy()
    positions = np.arange(len(labels), dtype=np.int64)
    steps = [f"{len(positions)} in the dataset"]
    if selection.classes is not None:
        wanted = [_label(name, source.classes, text) for text in selection.classes]
        positions = positions[np.isin(labels, wanted)]
        steps.append(f"{len(positions)} after classes: [{', '.join(selection.classes)}]")
    if selection.indices is not None:
        _check_indices(name, selection.indices, len(labels))
        positions = np.intersect1d(positions, np.asarray(selection.indices, dtype=np.int64))
        steps.append(f"{len(positions)} after indices")
    if selection.stratified:
        positions = _dealt(positions, labels, source.ids, selection.seed)
    if selection.skip:
        positions = positions[selection.skip :]
        steps.append(f"{len(positions)} after skip: {selection.skip}")
    if selection.take is not None:
        positions = positions[: selection.take]
        steps.append(f"{len(positions)} after take: {selection.take}")
    if not len(positions):
        raise NothingSelected(f"datasets.{name}: no sample is left: {', '.join(steps)}")
    return positions


def _dealt(
    positions: NDArray[np.int64], labels: NDArray[np.int64], ids: Sequence[str], seed: int
) -> NDArray[np.int64]:
    """The positions in stratified order; a sample's rank in its class is a hash of (seed, id)."""
    drawn = [hashlib.sha256(f"{seed}\0{ids[i]}".encode()).digest() for i in positions.tolist()]
    shuffled = positions[sorted(range(len(drawn)), key=drawn.__getitem__)]
    dealt: Counter[int] = Counter()
    rounds = np.empty(len(shuffled), dtype=np.int64)
    for row, label in enumerate(labels[shuffled].tolist()):
        rounds[row] = dealt[label]
        dealt[label] += 1
    return shuffled[np.lexsort((labels[shuffled], rounds))]


def _label(name: str, classes: tuple[str, ...], text: str) -> int:
    if text in classes:
        return classes.index(text)
    if text.isdecimal() and int(text) < len(classes):
        return int(text)
    near = nearest(text, classes)
    shown = ", ".join(classes[:SHOWN]) + (", ..." if len(classes) > SHOWN else "")
    hint = f"; did you mean '{near}'?" if near else ""
    raise DataError(
        f"datasets.{name}: classes: '{text}' is neither a class ({shown}) nor a label from 0 to "
        f"{len(classes) - 1}{hint}"
    )


def _check_indices(name: str, indices: tuple[int, ...], total: int) -> None:
    for index in indices:
        if not 0 <= index < total:
            raise DataError(
                f"datasets.{name}: indices: {index} is not a position in the dataset; expected 0 "
                f"to {total - 1}"
            )
    twice = [index for index, count in Counter(indices).items() if count > 1]
    if twice:
        raise DataError(f"datasets.{name}: indices: {twice[0]} is listed more than once")


def _check(name: str, source: object) -> None:
    """Refuse what breaks the contract of `DataSource`, whatever a plug-in's annotations say."""
    if not isinstance(source, DataSource):
        raise DataError(
            f"datasets.{name}: the loader gave a {type(source).__name__}; expected a DataSource"
        )
    low, high = source.box.low, source.box.high
    if not (np.isfinite([low, high]).all() and low < high):
        raise DataError(
            f"datasets.{name}: the declared box is [{low}, {high}]; expected finite low < high"
        )
    if not source.classes or len(set(source.classes)) != len(source.classes):
        raise DataError(
            f"datasets.{name}: class names {list(source.classes[:SHOWN])}; expected at least one, "
            "and no name twice"
        )
    _check_ids(name, source.ids, source.labels)
    _check_labels(name, source)


def _check_ids(name: str, ids: Sequence[object], labels: object) -> None:
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.device.type != "cpu":
        kind = f"{labels.dtype} on {labels.device}" if isinstance(labels, Tensor) else type(labels)
        raise DataError(f"datasets.{name}: labels are {kind}; expected torch.int64 on the CPU")
    if labels.ndim != 1 or len(ids) != len(labels):
        raise DataError(
            f"datasets.{name}: {len(ids)} ids and labels {list(labels.shape)}; expected one label "
            "for each id"
        )
    strange = next((row for row, sample in enumerate(ids) if not isinstance(sample, str)), None)
    if strange is not None:
        raise DataError(
            f"datasets.{name}: the id at position {strange} is {ids[strange]!r}; expected text"
        )
    if len(set(ids)) != len(ids):
        twice, count = Counter(ids).most_common(1)[0]
        raise DataError(
            f"datasets.{name}: the sample id '{twice}' occurs {count} times; expected unique ids"
        )


def _check_labels(name: str, source: DataSource) -> None:
    labels, total = source.labels, len(source.classes)
    wrong = torch.nonzero((labels < 0) | (labels >= total))
    if len(wrong):
        first = int(wrong[0])
        raise DataError(
            f"datasets.{name}: sample '{source.ids[first]}': label {int(labels[first])}; expected "
            f"0 to {total - 1} ({total} classes); {len(wrong)} of {len(labels)} labels are out of "
            "range"
        )


def _read(selected: Selected, start: int, stop: int) -> Tensor:
    """Inputs [stop - start, *shape] float32 on the CPU, contiguous, finite and in the box."""
    x = selected.source.read(selected.positions[start:stop].tolist())
    expected = (stop - start, *selected.shape)
    where = f"datasets.{selected.name}: samples '{selected.ids[start]}'"
    where += f" to '{selected.ids[stop - 1]}'" if stop - start > 1 else ""
    if not isinstance(x, Tensor):
        raise DataError(f"{where}: read gave a {type(x).__name__}; expected a torch tensor")
    if x.dtype != torch.float32 or x.device.type != "cpu":
        raise DataError(
            f"{where}: read gave {x.dtype} on {x.device}; expected torch.float32 on cpu"
        )
    if tuple(x.shape) != expected:
        raise DataError(
            f"{where}: read gave shape {list(x.shape)}; expected {list(expected)} "
            f"({stop - start} samples of the declared shape {list(selected.shape)})"
        )
    x = x.detach().contiguous()
    if not x.numel():
        return x
    low, high, slack = _limits(selected.box)
    least, most = (float(value) for value in x.aminmax())
    if not (least >= low - slack and most <= high + slack):  # not: NaN fails every comparison
        raise _bad_value(selected, start, x)
    return x if least >= low and most <= high else x.clamp(low, high)


def _limits(box: Box) -> tuple[float, float, float]:
    """The box's low and high as float32 holds them, and the slack beyond them."""
    return float(np.float32(box.low)), float(np.float32(box.high)), TOLERANCE * box.width


def _bad_value(selected: Selected, start: int, x: Tensor) -> DataError:
    """The first row of x that is not finite or not in the box, in words."""
    low, high, slack = _limits(selected.box)
    flat = x.double().reshape(len(x), -1)
    bad = ~torch.isfinite(flat) | (flat < low - slack) | (flat > high + slack)
    rows = torch.nonzero(bad.any(1)).flatten().tolist()
    row = rows[0]
    component = int(torch.nonzero(bad[row])[0])
    value = float(flat[row, component])
    place = [int(i) for i in np.unravel_index(component, selected.shape)] if selected.shape else []
    kind = "outside the declared box" if np.isfinite(value) else "not a finite number"
    return DataError(
        f"datasets.{selected.name}: sample '{selected.ids[start + row]}': {value:.9g} at {place} "
        f"is {kind}; expected values in [{low:g}, {high:g}] ({len(rows)} of {len(x)} "
        "samples of this batch are concerned). Repair the data, or declare its true range"
    )


def content_hashes(x: Tensor, y: Tensor) -> tuple[str, ...]:
    """Content hash of each row: sha256 of its little-endian float32 bytes, then the int64 label."""
    rows = x.numpy().astype("<f4", copy=False)
    labels = y.numpy().astype("<i8", copy=False)
    digests = (
        hashlib.sha256(row.tobytes() + label.tobytes())
        for row, label in zip(rows, labels, strict=True)
    )
    return tuple(digest.hexdigest()[:HASH_CHARACTERS] for digest in digests)
