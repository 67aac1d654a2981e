"""Adversarial points on disk, bit for bit, and small: what `robeval replay` judges again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .types import Candidates

CELL_BYTES = 64 * 2**20  # of adversarial points kept for one cell, before compression
LEVEL = 1  # of compression; higher ones save nothing here
RUN_BYTES = 512 * 2**20  # the same for a whole run, shared by its cells


def room(cells: int, shape: Sequence[int]) -> int:
    """Of how many samples, the first ones, each of the `cells` of a run keeps its points."""
    sample = 4 * int(np.prod(shape, dtype=np.int64))
    return int(min(CELL_BYTES, RUN_BYTES // max(cells, 1)) // max(sample, 1))


def write(candidates: Candidates, path: Path) -> None:
    """Write points for a replay: x, and the bits in which x_adv differs from it, byte by byte.

    Bits that agree are zero, and bytes of the same weight lie together: both are what a general
    compressor is good at. Zstandard packs them as small as zlib in a tenth of the time. Nothing is
    rounded.
    """
    x, x_adv = (_bits(each) for each in (candidates.x, candidates.x_adv))
    with path.open("wb") as stream:
        np.savez(
            stream,
            sample_id=np.asarray(candidates.sample_id, dtype=np.str_),
            shape=np.asarray(candidates.x.shape, dtype=np.int64),
            x=_packed(x),
            changed=_packed(x ^ x_adv),
        )


def read(path: Path) -> Candidates:
    """Inverse of `write`, bit for bit."""
    with np.load(path, allow_pickle=False) as archive:
        shape = tuple(archive["shape"].tolist())
        x = _unpacked(archive["x"], shape)
        x_adv = x ^ _unpacked(archive["changed"], shape)
        ids = archive["sample_id"]
    return Candidates(
        sample_id=ids,
        x=x.view("<f4").astype(np.float32).reshape(shape),
        x_adv=x_adv.view("<f4").astype(np.float32).reshape(shape),
    )


def _bits(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    return values.astype("<f4").reshape(-1).view("<u4")


def _packed(bits: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """First the lowest byte of every number, last the highest, as one Zstandard frame."""
    import pyarrow as pa

    planes = np.ascontiguousarray(bits.view("u1").reshape(-1, 4).T)
    codec = pa.Codec("zstd", compression_level=LEVEL)
    return np.frombuffer(codec.compress(planes.tobytes()), dtype=np.uint8)


def _unpacked(packed: NDArray[np.uint8], shape: Sequence[int]) -> NDArray[np.uint32]:
    import pyarrow as pa

    size = 4 * int(np.prod(shape, dtype=np.int64))
    plain = pa.Codec("zstd").decompress(packed.tobytes(), decompressed_size=size)
    planes = np.frombuffer(plain, dtype=np.uint8).reshape(4, -1)
    return np.ascontiguousarray(planes.T).reshape(-1).view("<u4")


def concat(parts: Sequence[Candidates | None]) -> Candidates | None:
    """Candidates one below the other; None where there are none."""
    some = [part for part in parts if part is not None and len(part.sample_id)]
    if not some:
        return None
    return Candidates(
        sample_id=np.concatenate([part.sample_id for part in some]),
        x=np.concatenate([part.x for part in some]),
        x_adv=np.concatenate([part.x_adv for part in some]),
    )
