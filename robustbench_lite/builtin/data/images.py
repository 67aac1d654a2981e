"""Images in files: a folder with one folder for each class, or a CSV of path,label."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from robustbench_lite import DataError, DatasetSpec, DataSource, Params, Places, SuitePath

from .levels import UNIT, scaled

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
Mode = Literal["RGB", "L"]
Size = tuple[int, int]  # height, width


class ImagesParams(Params):
    """Where the images are, and the size and mode they are brought to.

    `root`: folder of class folders, or the folder to which the paths of `csv` are relative (the
    CSV's own folder if it is not given). `csv`: with the columns path and label; a label is a
    class name or a number. `size`: of what a model sees, one number for a square or [height,
    width]; the image is resized (bilinear) until it just covers that size, then cut at its centre.
    Without it, all images must have one size. `mode`: "RGB" or "L" (grey). `class_names`: the
    classes in label order, otherwise sorted by name.
    """

    root: SuitePath | None = None
    csv: SuitePath | None = None
    size: PositiveInt | tuple[PositiveInt, PositiveInt] | None = None
    mode: Mode = "RGB"
    class_names: tuple[str, ...] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _some_source(self) -> Self:
        if self.root is None and self.csv is None:
            raise ValueError("give root (a folder of class folders) or csv (path,label)")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Every image with its id (its path below the root) and the text of its class, in order."""

    ids: tuple[str, ...]
    paths: tuple[Path, ...]
    classes: tuple[str, ...]


def load(params: ImagesParams, *, places: Places) -> DataSource:  # noqa: ARG001  (the loaders' form)
    """Images [channels, height, width] in [0, 1], listed now and decoded when they are read.

    Pixels are taken as stored: neither the EXIF orientation nor a colour profile is applied, and
    transparency is dropped. Raises `DataError` that names the file.
    """
    from .pictures import decoded, size_of

    listing = listed(params)
    classes = params.class_names or _sorted_classes(listing.classes)
    number = {name: label for label, name in enumerate(classes)}
    labels = [
        _label(params, sample, text, classes, number)
        for sample, text in zip(listing.ids, listing.classes, strict=True)
    ]
    size: Size = (
        (params.size, params.size)
        if isinstance(params.size, int)
        else params.size or (size_of(listing.paths[0]))
    )

    def read(positions: Sequence[int]) -> Tensor:
        shape = (len(positions), *size, len(params.mode))
        pixels = np.empty(shape, dtype=np.uint8)
        for row, position in enumerate(positions):
            pixels[row] = decoded(
                listing.paths[position], params.mode, size, resize=params.size is not None
            )
        return scaled(pixels).movedim(-1, 1).contiguous()

    return DataSource(
        ids=listing.ids,
        labels=torch.tensor(labels, dtype=torch.int64),
        read=read,
        shape=(len(params.mode), *size),
        box=UNIT,
        classes=classes,
    )


def listed(params: ImagesParams) -> Listing:
    """The images of the CSV, or of the folder. Raises `DataError` if there are none."""
    listing = _from_csv(params) if params.csv is not None else _from_folders(params)
    if not listing.ids:
        raise DataError(f"{params.csv or params.root}: lists no image ({', '.join(SUFFIXES)})")
    return listing


def _from_folders(params: ImagesParams) -> Listing:
    """Sorted by class folder, then by path; hidden files and other endings are passed over."""
    root = params.root
    assert root is not None
    if not root.is_dir():
        raise DataError(f"{root}: is not a folder; expected one with a folder for each class")
    folders = sorted(folder for folder in root.iterdir() if folder.is_dir() and not _hidden(folder))
    found = [
        (folder.name, path)
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES and not _hidden(path) and path.is_file()
    ]
    return Listing(
        ids=tuple(path.relative_to(root).as_posix() for _, path in found),
        paths=tuple(path for _, path in found),
        classes=tuple(name for name, _ in found),
    )


def _hidden(path: Path) -> bool:
    return path.name.startswith(".")


def _from_csv(params: ImagesParams) -> Listing:
    """In the order of the CSV's rows."""
    table = params.csv
    assert table is not None
    root = params.root or table.parent
    base = root.resolve()
    ids, paths, classes = [], [], []
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            rows = csv.DictReader(stream, strict=True)
            if not {"path", "label"} <= set(rows.fieldnames or ()):
                raise DataError(
                    f"{table}: the first line names {rows.fieldnames}; expected path,label"
                )
            for row in rows:
                name, label = row["path"], row["label"]
                if not name or not label:
                    raise DataError(f"{table}:{rows.line_num}: a path or label is missing")
                path = root / name
                if not path.resolve().is_relative_to(base):
                    raise DataError(
                        f"{table}:{rows.line_num}: '{name}' lies outside {root}; expected a path "
                        "below it"
                    )
                ids.append(path.relative_to(root).as_posix())
                paths.append(path)
                classes.append(label)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: cannot be read as CSV: {error}") from error
    return Listing(ids=tuple(ids), paths=tuple(paths), classes=tuple(classes))


def _sorted_classes(texts: Sequence[str]) -> tuple[str, ...]:
    """0 to the largest number where every label is one, else the names, sorted."""
    names = set(texts)
    if all(name.isdecimal() for name in names):
        return tuple(str(label) for label in range(max(map(int, names)) + 1))
    return tuple(sorted(names))


def _label(
    params: ImagesParams,
    sample: str,
    text: str,
    classes: tuple[str, ...],
    number: Mapping[str, int],
) -> int:
    if text in number:
        return number[text]
    if params.csv is not None and text.isdecimal() and int(text) < len(classes):
        return int(text)
    near = get_close_matches(text, classes, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    raise DataError(
        f"{params.csv or params.root}: '{sample}' is of class '{text}', which is not one of "
        f"{', '.join(classes)}{hint}"
    )


def content(params: Params, places: Places) -> Mapping[str, Path]:  # noqa: ARG001
    """Every image that is listed, and the CSV. The images are not opened."""
    assert isinstance(params, ImagesParams)
    listing = listed(params)
    files = dict(zip(listing.ids, listing.paths, strict=True))
    return files if params.csv is None else {**files, "csv": params.csv}


SPEC = DatasetSpec(
    name="images",
    implementation=load,
    summary="image files: a folder of class folders, or a CSV of path,label",
    params=ImagesParams,
    content=content,
)
