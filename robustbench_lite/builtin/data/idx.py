"""IDX files known by the hash of their uncompressed bytes: found in folders, or fetched.

Mirrors compress the same bytes with different gzip headers, so what is checked, whatever the
source, is the content.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robustbench_lite import DataError

TIMEOUT = 30.0  # seconds without an answer
UNSIGNED_BYTES = 0x08  # the third byte of an IDX file says its type


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinned:
    """An IDX file of unsigned bytes: its name without `.gz`, its shape, the hash of its bytes."""

    name: str
    shape: tuple[int, ...]
    sha256: str

    @property
    def header(self) -> bytes:
        """The bytes before the values: the type, the number of axes, the axes."""
        axes = np.array(self.shape, dtype=">u4").tobytes()
        return bytes((0, 0, UNSIGNED_BYTES, len(self.shape))) + axes

    @property
    def size(self) -> int:
        """Length of the uncompressed file in bytes."""
        return len(self.header) + math.prod(self.shape)


def array_of(file: Pinned, content: bytes) -> NDArray[np.uint8]:
    """The values of checked bytes, read-only, in the file's shape."""
    return np.frombuffer(content, np.uint8, offset=len(file.header)).reshape(file.shape)


def obtain(file: Pinned, folders: Sequence[Path], mirrors: Sequence[str]) -> bytes:
    """The uncompressed bytes: from the first folder that has the file, else fetched into the last.

    A file that is there but is not the original is an error, never passed over. Raises `DataError`.
    """
    for folder in folders:
        for path in (folder / file.name, folder / f"{file.name}.gz"):
            if path.is_file():
                content, problem = _checked(file, path)
                if problem:
                    raise DataError(f"{path}: {problem}. Delete it, or put the original there")
                return content
    return _fetched(file, folders, mirrors)


def _fetched(file: Pinned, folders: Sequence[Path], mirrors: Sequence[str]) -> bytes:
    cache = folders[-1]
    problems = []
    for mirror in mirrors:
        url = f"{mirror}{file.name}.gz"
        try:
            content, problem = _download(file, url, cache)
        except OSError as error:  # the errors of requests are OSErrors too
            problem, content = f"{type(error).__name__}: {error}", b""
        if not problem:
            return content
        problems.append(f"  {url}: {problem}")
    looked = "\n".join(f"  {folder}" for folder in folders)
    raise DataError(
        f"{file.name}: found neither plain nor as .gz in\n{looked}\nand not to be fetched:\n"
        + "\n".join(problems)
        + f"\nPut {file.name}.gz into one of these folders, or give the dataset's root:"
    )


def _download(file: Pinned, url: str, cache: Path) -> tuple[bytes, str]:
    """Bytes and what is wrong with them; they are kept in the cache only if nothing is."""
    import pooch

    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        aside = Path(folder) / f"{file.name}.gz"
        pooch.HTTPDownloader(timeout=TIMEOUT)(url, str(aside), None)
        content, problem = _checked(file, aside)
        if not problem:
            aside.replace(cache / aside.name)
    return content, problem


def _checked(file: Pinned, path: Path) -> tuple[bytes, str]:
    """The uncompressed bytes of a file and what is wrong with them ("" if nothing)."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            content = stream.read(file.size + 1)
    except (OSError, EOFError, zlib.error) as error:
        return b"", f"cannot be read ({error}); expected {file.size} bytes of IDX in gzip"
    if len(content) != file.size:
        found = f"more than {file.size}" if len(content) > file.size else str(len(content))
        return b"", f"holds {found} bytes uncompressed; expected {file.size}"
    digest = hashlib.sha256(content).hexdigest()
    if digest != file.sha256:
        return b"", f"sha256 of the uncompressed bytes is {digest}; expected {file.sha256}"
    return content, ""
