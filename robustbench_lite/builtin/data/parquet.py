"""Columns of a .parquet file, one row group in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from robustbench_lite import DataError

from .columns import Array, Column, missing


@dataclass(slots=True, kw_only=True)
class _Reader:
    """An open file and, of each column, the row group that was read last."""

    path: Path
    opened: pq.ParquetFile
    ends: NDArray[np.int64]
    held: dict[str, tuple[int, Array]] = field(default_factory=dict)

    def group(self, name: str, number: int) -> Array:
        """Values of one row group of a column."""
        last = self.held.get(name)
        if last is None or last[0] != number:
            try:
                table = self.opened.read_row_group(number, columns=[name])
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{self.path}: column '{name}' cannot be read: {error}") from error
            values = _values(f"{self.path}: column '{name}'", table.column(0).combine_chunks())
            self.held[name] = last = (number, values)
        return last[1]

    def rows(self, name: str, positions: Sequence[int]) -> Array:
        """Values of a column at these positions, in their order."""
        wanted = np.asarray(positions, dtype=np.int64)
        owner = np.searchsorted(self.ends, wanted, side="right")
        starts = np.concatenate([[0], self.ends])
        parts = [
            (owner == number, self.group(name, number)[wanted[owner == number] - starts[number]])
            for number in np.unique(owner).tolist()
        ]
        shapes = {part.shape[1:] for _, part in parts}
        if len(shapes) > 1:
            raise DataError(
                f"{self.path}: column '{name}': rows of shapes {sorted(map(list, shapes))}; "
                "expected one shape"
            )
        # texts of two row groups may differ in their width
        dtype = np.result_type(*(part.dtype for _, part in parts))
        found = np.empty((len(wanted), *shapes.pop()), dtype=dtype)
        for mine, part in parts:
            found[mine] = part
        return found


def parquet_columns(path: Path, names: Iterable[str]) -> Mapping[str, Column]:
    """The named columns: numbers, text, lists of numbers of one length, or byte strings of one."""
    try:
        opened = pq.ParquetFile(path, memory_map=True)
        there = opened.schema_arrow.names
        groups = [opened.metadata.row_group(i).num_rows for i in range(opened.num_row_groups)]
        if not sum(groups):
            raise DataError(f"{path}: has no rows")
        reader = _Reader(path=path, opened=opened, ends=np.cumsum(groups))
        columns = {}
        for name in names:
            if name not in there:
                raise missing(path, name, there)
            sample = reader.rows(name, [0])
            columns[name] = Column(
                shape=(sum(groups), *sample.shape[1:]),
                dtype=sample.dtype,
                rows=partial(reader.rows, name),
            )
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: is not a usable .parquet file: {error}") from error
    return columns


def _values(where: str, cells: pa.Array) -> Array:
    """Rows [n, ...]; a missing number becomes NaN, which no sample may have."""
    axes = [len(cells)]
    while _is_list(cells.type):
        axes.append(_one_length(where, pc.list_value_length(cells)))
        cells = cells.flatten()
    kind = cells.type
    if cells.null_count and not pa.types.is_floating(kind):
        raise DataError(f"{where}: {cells.null_count} of its {kind} cells are missing")
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        axes.append(_one_length(where, pc.binary_length(cells)))
        return np.frombuffer(b"".join(cells.to_pylist()), np.uint8).reshape(axes)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return np.asarray(cells.to_pylist(), dtype=np.str_).reshape(axes)
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise DataError(f"{where}: holds {kind}; expected numbers, lists of numbers or bytes")
    found: Array = cells.to_numpy(zero_copy_only=False)
    return found.reshape(axes)


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _one_length(where: str, lengths: pa.Array) -> int:
    """The length that all cells share."""
    found = lengths.unique().to_pylist()
    if len(found) != 1 or found[0] is None:
        some = ", ".join("none" if length is None else str(length) for length in found[:6])
        raise DataError(f"{where}: cells of lengths {some}; expected one length for all samples")
    return int(found[0])
