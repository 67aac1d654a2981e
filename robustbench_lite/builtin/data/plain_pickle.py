"""Pickles of plain values: numbers, text, lists, dictionaries and numpy arrays of bytes.

A pickle is a program. This reader resolves none of the names it asks for: for the few that numpy
writes into an array it substitutes classes that only keep what they are given, and it refuses all
others. Nothing of numpy, and nothing else, is called with values from the file.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robustbench_lite import DataError


class _StoredType:
    """What a pickle says of a numpy type."""

    def __init__(self, code: object, *_: object) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        """Byte order and fields, which a type of single bytes does not have."""


class Stored:
    """What a pickle says of a numpy array; made into one only by `array`, which checks it."""

    def __init__(self) -> None:
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state

    def array(self, path: Path) -> NDArray[np.uint8]:
        """The array of unsigned bytes, in C order. Raises `DataError` if it is none."""
        match self.state:
            case (
                _,
                tuple(shape),
                _StoredType(code="u1" | b"u1" | "uint8" | b"uint8"),
                bool() | int() as fortran,
                bytes(content),
            ):
                whole = all(type(axis) is int and axis >= 0 for axis in shape)
                if whole and not fortran and math.prod(shape) == len(content):
                    return np.frombuffer(content, np.uint8).reshape(shape)
        raise DataError(f"{path}: the array is not one of unsigned bytes in C order")


def _reconstruct(*_: object) -> Stored:
    return Stored()


def _encode(text: object, codec: object = "latin1") -> bytes:
    """Bytes as Python 3 writes them with protocol 2."""
    if not isinstance(text, str) or codec != "latin1":
        raise pickle.UnpicklingError(f"bytes in {codec!r}")
    return text.encode("latin1")


_SUBSTITUTES: Mapping[tuple[str, str], Callable[..., object]] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): Stored,
    ("numpy", "dtype"): _StoredType,
    ("_codecs", "encode"): _encode,
}


class _PlainUnpickler(pickle.Unpickler):
    """Resolves no name at all: substitutes stand for the known ones, others are refused."""

    def find_class(self, module_name: str, global_name: str, /) -> object:
        substitute = _SUBSTITUTES.get((module_name, global_name))
        if substitute is None:
            raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}")
        # a fresh function each time: the BUILD instruction sets attributes of what it is given
        return lambda *given: substitute(*given)  # noqa: PLW0108


def load_plain(path: Path) -> object:
    """The value in a pickle file, arrays as `Stored`, Python 2 text as bytes.

    Raises `DataError` for a broken pickle and for one that asks for anything else.
    """
    try:
        with path.open("rb") as stream:
            return _PlainUnpickler(stream, encoding="bytes").load()
    except Exception as error:  # a hostile stream can raise anything
        raise DataError(
            f"{path}: refused as a pickle of plain values ({type(error).__name__}: {error}). Use "
            "the original file, or the binary batches"
        ) from error
