"""Named arrays in .npz, .npy, .safetensors and .parquet files, read by rows where possible.

A column knows its shape before its values are read. `.npy`, members of `.npz` that are stored
without compression and `.safetensors` are mapped or sliced; a compressed member is held whole,
within a limit; of `.parquet` the row group in use is held.
"""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import IO, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustbench_lite import DataError

Array = NDArray[np.generic]
NUMBERS = "biuf"  # numpy's kinds: bool, int, unsigned, float
TEXTS = "SU"

SIGNATURES = {".npz": b"PK", ".npy": b"\x93NUMPY", ".safetensors": b"", ".parquet": b"PAR1"}
LOCAL_HEADER = struct.Struct("<26xHH")  # of a zip member: lengths of its name and extra field


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """N rows: `shape` is [N, ...], `rows(positions)` the values at these positions, fresh."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    rows: Callable[[Sequence[int]], Array]

    def everything(self) -> Array:
        """All rows."""
        return self.rows(range(self.shape[0]))


def open_columns(path: Path, names: Iterable[str], max_bytes: int) -> Mapping[str, Column]:
    """The named arrays of a file (a `.npy` holds one, whatever its name). Raises `DataError`."""
    signature = SIGNATURES.get(path.suffix)
    if signature is None:
        raise DataError(f"{path}: '{path.suffix}' is not one of {', '.join(SIGNATURES)}")
    try:
        with path.open("rb") as stream:
            start = stream.read(64)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not start.startswith(signature) or start.lstrip()[:1] == b"<":
        page = " (a web page saved under this name?)" if start.lstrip()[:1] == b"<" else ""
        raise DataError(f"{path}: is no {path.suffix} file: it begins with {start[:16]!r}{page}")
    match path.suffix:
        case ".npz":
            return _npz(path, names, max_bytes)
        case ".npy":
            column = _indexed(_mapped(path, 0, path.stat().st_size))
            return dict.fromkeys(names, column)
        case ".safetensors":
            return _safetensors(path, names)
        case _:
            from .parquet import parquet_columns

            return parquet_columns(path, names)


def missing(path: Path, name: str, there: Sequence[str]) -> DataError:
    """The error for a key or column that the file does not have."""
    near = get_close_matches(name, there, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return DataError(f"{path}: has no '{name}'; it has {', '.join(there) or 'nothing'}{hint}")


def _indexed(values: Array) -> Column:
    return Column(
        shape=values.shape, dtype=values.dtype, rows=lambda positions: values[_index(positions)]
    )


def _index(positions: Sequence[int]) -> NDArray[np.int64]:
    return np.asarray(positions, dtype=np.int64)


def _mapped(path: Path, offset: int, size: int) -> Array:
    """The array whose `.npy` bytes stand at `offset` of a file, mapped, not read."""
    with path.open("rb") as stream:
        stream.seek(offset)
        shape, fortran, dtype, header = _npy_header(path, stream, size)
    if not math.prod(shape):
        return np.empty(shape, dtype)
    order: Literal["F", "C"] = "F" if fortran else "C"
    start = offset + header
    mapped: Array = np.memmap(path, dtype=dtype, mode="r", offset=start, shape=shape, order=order)
    return mapped


def _npy_header(
    where: Path | str, stream: IO[bytes], size: int
) -> tuple[tuple[int, ...], bool, np.dtype[np.generic], int]:
    """Shape, order, type and header length, once they agree with the `size` in bytes."""
    begin = stream.tell()
    try:
        version = np.lib.format.read_magic(stream)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read is None:
            raise ValueError(f"format version {version}")
        shape, fortran, dtype = read(stream)
    except (ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(f"{where}: its header is not one of a .npy array: {error}") from error
    if dtype.kind not in NUMBERS + TEXTS:
        raise DataError(
            f"{where}: holds {dtype}; expected numbers. Arrays of Python objects are pickles and "
            "are not read; save it again with a number type"
        )
    header = stream.tell() - begin
    needed = header + dtype.itemsize * math.prod(shape)
    if needed > size or min(shape, default=0) < 0:
        raise DataError(
            f"{where}: {size} bytes; its header {list(shape)} {dtype} asks for {needed}"
        )
    if not shape:
        raise DataError(f"{where}: is a single number; expected one row for each sample")
    return shape, fortran, dtype, header


def _npz(path: Path, names: Iterable[str], max_bytes: int) -> Mapping[str, Column]:
    try:
        with zipfile.ZipFile(path) as archive:
            there = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            wanted = {}
            for name in names:
                if name not in there:
                    raise missing(path, name, sorted(there))
                wanted[name] = there[name]
            unpacked = [m for m in wanted.values() if m.compress_type != zipfile.ZIP_STORED]
            total = sum(member.file_size for member in unpacked)
            if total > max_bytes:
                raise DataError(
                    f"{path}: {total} bytes after decompression; max_bytes is {max_bytes}. Save "
                    "it without compression (numpy.savez, numpy.save), it is then not held whole"
                )
            return {name: _member(path, archive, member) for name, member in wanted.items()}
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path}: is not a usable .npz file: {error}") from error


def _member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Column:
    where = f"{path}: '{member.filename}'"
    if member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1:
        with path.open("rb") as stream:
            stream.seek(member.header_offset)
            lengths = LOCAL_HEADER.unpack(stream.read(LOCAL_HEADER.size))
        offset = member.header_offset + LOCAL_HEADER.size + sum(lengths)
        return _indexed(_mapped(path, offset, member.file_size))
    with archive.open(member) as stream:
        shape, fortran, dtype, header = _npy_header(where, stream, member.file_size)
    with archive.open(member) as stream:
        stream.seek(header)
        flat = np.frombuffer(stream.read(), dtype, count=math.prod(shape))
    return _indexed(flat.reshape(shape, order="F" if fortran else "C"))


class _Slice(Protocol):
    """A tensor of a safetensors file that is read by slices."""

    def get_shape(self) -> list[int]: ...
    def __getitem__(self, rows: slice) -> Tensor: ...


class _Opened(Protocol):
    """A safetensors file."""

    def keys(self) -> list[str]: ...
    def get_slice(self, name: str) -> _Slice: ...


def _safetensors(path: Path, names: Iterable[str]) -> Mapping[str, Column]:
    from safetensors import SafetensorError, safe_open

    try:
        opened: _Opened = safe_open(path, framework="pt")
        there = sorted(opened.keys())
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: is not a usable .safetensors file: {error}") from error
    columns = {}
    for name in names:
        if name not in there:
            raise missing(path, name, there)
        columns[name] = _sliced(f"{path}: '{name}'", opened.get_slice(name))
    return columns


def _sliced(where: str, stored: _Slice) -> Column:
    shape = tuple(stored.get_shape())
    if not shape:
        raise DataError(f"{where} is a single number; expected one row for each sample")
    return Column(
        shape=shape,
        dtype=_plain(stored[0:0]).dtype,
        rows=lambda positions: np.concatenate(
            [_plain(stored[start:stop]) for start, stop in ((0, 0), *_runs(positions))]
        ),
    )


def _plain(values: Tensor) -> Array:
    """As numpy; bfloat16, which numpy does not know, as float32 (exact)."""
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def _runs(positions: Sequence[int]) -> list[tuple[int, int]]:
    """The positions as ranges (start, stop) of consecutive ones, in their order."""
    index = _index(positions)
    breaks = np.flatnonzero(np.diff(index) != 1) + 1
    return [(int(run[0]), int(run[-1]) + 1) for run in np.split(index, breaks) if len(run)]
