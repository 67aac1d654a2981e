"""What a file really is, from its first bytes, whatever its name says."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal

from robustbench_lite import ModelError

Format = Literal[
    "safetensors",
    "torch-zip",
    "torchscript",
    "pt2",
    "npz",
    "zip",
    "broken-zip",
    "pickle",
    "html",
    "lfs",
    "tflite",
    "ort",
    "hdf5",
    "npy",
    "gzip",
    "json",
    "unknown",
]

DESCRIPTION: dict[Format, str] = {
    "safetensors": "a safetensors file (weights only)",
    "torch-zip": "a file of torch.save (a state dict or a pickled module)",
    "torchscript": "a TorchScript archive",
    "pt2": "a torch.export archive (.pt2)",
    "npz": "a NumPy .npz archive",
    "zip": "a zip archive",
    "broken-zip": "a zip archive (torch.save, TorchScript or .pt2) that is truncated",
    "pickle": "a Python pickle",
    "html": "an HTML page: the download was an error or log-in page, not the model",
    "lfs": "a Git LFS pointer: run 'git lfs pull' to fetch the file itself",
    "tflite": "a TensorFlow Lite file: convert it to ONNX, for example with tf2onnx",
    "ort": "an onnxruntime .ort file: give the .onnx file it was made from",
    "hdf5": "an HDF5 file (Keras): export it to ONNX, for example with tf2onnx",
    "npy": "a NumPy .npy array",
    "gzip": "a gzip file: unpack it first",
    "json": "a JSON text",
    "unknown": "of no format known here",
}

_HEAD = 512
_PICKLE_PROTOCOLS = (2, 3, 4, 5)
_MAGIC: tuple[tuple[int, bytes, Format], ...] = (
    (0, b"version https://git-lfs", "lfs"),
    (4, b"TFL3", "tflite"),
    (4, b"ORTM", "ort"),
    (0, b"\x89HDF\r\n", "hdf5"),
    (0, b"\x93NUMPY", "npy"),
    (0, b"\x1f\x8b", "gzip"),
)


def existing_file(path: Path) -> int:
    """Size of the file in bytes; ModelError if it is missing, no file, unreadable or empty."""
    try:
        if path.is_dir():
            raise ModelError(f"{path} is a folder; expected a model file")
        size = path.stat().st_size
        with path.open("rb"):
            pass
    except FileNotFoundError as problem:
        raise ModelError(_missing(path)) from problem
    except OSError as problem:
        raise ModelError(f"{path} cannot be read: {problem.strerror or problem}") from problem
    if size == 0:
        raise ModelError(f"{path} is empty (0 bytes): fetch or export the model again")
    return size


def _missing(path: Path) -> str:
    from difflib import get_close_matches

    folder = path.parent
    if not folder.is_dir():
        return f"{path} does not exist: there is no folder {folder}"
    names = [entry.name for entry in folder.iterdir() if entry.is_file()]
    near = get_close_matches(path.name, names, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return f"{path} does not exist{hint}"


def sniff(path: Path) -> Format:
    """Format by content. A protobuf has no magic number, so a sound ONNX file is "unknown"."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    for offset, magic, found in _MAGIC:
        if head[offset:].startswith(magic):
            return found
    if head.startswith(b"PK"):
        return _kind_of_zip(path)
    if int.from_bytes(head[:8], "little") < 1 << 40 and head[8:9] == b"{":
        return "safetensors"
    if head[:1] == b"\x80" and len(head) > 1 and head[1] in _PICKLE_PROTOCOLS:
        return "pickle"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<!--", b"<?xml")):
        return "html"
    return "json" if text.startswith((b"{", b"[")) else "unknown"


def _kind_of_zip(path: Path) -> Format:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return "broken-zip"
    inside = {name.partition("/")[2] for name in names}
    if "archive_format" in inside or "serialized_exported_program.json" in names:
        return "pt2"
    if "constants.pkl" in inside and any(name.startswith("code/") for name in inside):
        return "torchscript"
    if "data.pkl" in inside:
        return "torch-zip"
    return "npz" if names and all(name.endswith(".npy") for name in names) else "zip"
