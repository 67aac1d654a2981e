"""Folders and CSVs of image files: what is listed, how it is decoded, what is refused."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from robustbench_lite import DataError, DataSource, Places
from robustbench_lite.builtin.data import images, pictures
from robustbench_lite.builtin.data.images import ImagesParams
from robustbench_lite.samples import select
from robustbench_lite.types import Selection

Pixels = np.typing.NDArray[np.uint8]

rng = np.random.default_rng(8)


def pixels(height: int = 6, width: int = 8, channels: int = 3) -> Pixels:
    return rng.integers(0, 256, (height, width, channels), dtype=np.uint8)


def save(path: Path, image: Pixels) -> Pixels:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(path)
    return image


def places(tmp_path: Path) -> Places:
    return Places(suite=tmp_path, data=None, cache=tmp_path)


def load(tmp_path: Path, **params: object) -> DataSource:
    return images.load(
        ImagesParams(**params),  # type: ignore[arg-type]
        places=places(tmp_path),
    )


def table(path: Path, *rows: str, header: str = "path,label") -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def as_floats(*stored: Pixels) -> np.typing.NDArray[np.float32]:
    return np.stack(stored).transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)


# folders


def test_a_folder_of_class_folders(tmp_path: Path) -> None:
    dog = save(tmp_path / "dog" / "a.png", pixels())
    inner = save(tmp_path / "cat" / "more" / "b.PNG", pixels())
    cat = save(tmp_path / "cat" / "a.bmp", pixels())
    save(tmp_path / "cat" / ".hidden.png", pixels())
    save(tmp_path / ".cache" / "c.png", pixels())
    save(tmp_path / "stray.png", pixels())
    (tmp_path / "dog" / "notes.txt").write_text("no image")
    source = load(tmp_path, root=tmp_path)
    assert source.ids == ("cat/a.bmp", "cat/more/b.PNG", "dog/a.png")
    assert (source.classes, source.labels.tolist()) == (("cat", "dog"), [0, 0, 1])
    assert source.shape == (3, 6, 8)
    x = source.read([2, 0, 1])
    assert x.dtype == torch.float32
    assert x.is_contiguous()
    assert np.array_equal(x.numpy(), as_floats(dog, cat, inner))
    content = images.content(ImagesParams(root=tmp_path), places(tmp_path))
    assert content == {name: tmp_path / name for name in source.ids}


def test_class_names_give_the_order(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        save(tmp_path / name / "a.png", pixels())
    source = load(tmp_path, root=tmp_path, class_names=("dog", "bird", "cat"))
    assert source.labels.tolist() == [2, 0]
    with pytest.raises(DataError, match="of class 'dog', which is not one of cat, dogs; did you"):
        load(tmp_path, root=tmp_path, class_names=("cat", "dogs"))


def test_folders_named_by_numbers_are_in_the_order_of_the_numbers(tmp_path: Path) -> None:
    for name in ("10", "2", "0"):
        save(tmp_path / name / "a.png", pixels())
    source = load(tmp_path, root=tmp_path)
    labels = dict(zip(source.ids, source.labels.tolist(), strict=True))
    assert labels == {"0/a.png": 0, "10/a.png": 10, "2/a.png": 2}
    assert len(source.classes) == 11


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "gif", "webp", "ppm"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_formats_and_modes(tmp_path: Path, suffix: str, mode: str) -> None:
    grey = np.full((4, 5, 1), 200, dtype=np.uint8)
    save(tmp_path / "a" / f"x.{suffix}", np.repeat(grey, 3, axis=2))
    source = load(tmp_path, root=tmp_path, mode=mode)
    assert source.shape == (3 if mode == "RGB" else 1, 4, 5)
    assert np.allclose(source.read([0]).numpy(), 200 / 255, atol=2 / 255)


def test_grey_files_in_mode_l_are_exact(tmp_path: Path) -> None:
    image = save(tmp_path / "a" / "x.png", pixels(channels=1))
    assert np.array_equal(load(tmp_path, root=tmp_path, mode="L").read([0]), as_floats(image))


def test_files_are_opened_when_they_are_read(tmp_path: Path) -> None:
    save(tmp_path / "a" / "0.png", pixels())
    (tmp_path / "a" / "1.png").write_text("broken")
    selected = select("d", load(tmp_path, root=tmp_path), Selection())
    assert selected.batch(0, 1, torch.device("cpu")).ids == ("a/0.png",)
    with pytest.raises(DataError, match=r"1.png: is not a readable image"):
        selected.batch(0, 2, torch.device("cpu"))


# sizes


def test_a_size_is_a_scale_and_a_cut(tmp_path: Path) -> None:
    wide = save(tmp_path / "a" / "0.png", pixels(4, 10))
    high = save(tmp_path / "a" / "1.png", pixels(9, 4))
    x = load(tmp_path, root=tmp_path, size=4).read([0, 1])
    assert np.array_equal(x, as_floats(wide[:, 3:7], high[2:6]))


@pytest.mark.parametrize("stored", [(4, 10), (10, 4), (3, 3), (33, 5), (1, 50)])
@pytest.mark.parametrize("size", [1, 5, (3, 7), (8, 2)])
def test_any_file_comes_to_any_size(
    tmp_path: Path, stored: tuple[int, int], size: int | tuple[int, int]
) -> None:
    save(tmp_path / "a" / "0.png", np.full((*stored, 3), 77, dtype=np.uint8))
    source = load(tmp_path, root=tmp_path, size=size)
    height, width = (size, size) if isinstance(size, int) else size
    assert source.read([0]).shape == (1, 3, height, width) == (1, *source.shape)
    assert np.array_equal(source.read([0]), np.full((1, 3, height, width), np.float32(77 / 255)))


def test_a_whole_factor_averages_nothing_away(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 250, 64).astype(np.uint8)[None, :, None], (64, 1, 3))
    save(tmp_path / "a" / "0.png", ramp)
    x = load(tmp_path, root=tmp_path, size=16).read([0])[0, 0]
    assert torch.all(x.diff(dim=1) > 0)
    assert float(x.mean()) == pytest.approx(float(ramp.mean()) / 255, abs=2 / 255)


def test_files_of_several_sizes_need_a_size(tmp_path: Path) -> None:
    save(tmp_path / "a" / "0.png", pixels(6, 8))
    save(tmp_path / "a" / "1.png", pixels(6, 9))
    source = load(tmp_path, root=tmp_path)
    with pytest.raises(DataError, match=r"1.png: 6 x 9 pixels, the first image has 6 x 8"):
        source.read([0, 1])


# CSVs


def test_a_csv_with_class_names(tmp_path: Path) -> None:
    a, b = (save(tmp_path / "pics" / f"{name}.png", pixels()) for name in "ab")
    path = table(
        tmp_path / "list.csv", "pics/b.png,frog,x", "pics/a.png,emu,y", header="path,label,note"
    )
    source = load(tmp_path, csv=path)
    assert source.ids == ("pics/b.png", "pics/a.png")
    assert (source.classes, source.labels.tolist()) == (("emu", "frog"), [1, 0])
    assert np.array_equal(source.read([0, 1]), as_floats(b, a))
    assert images.content(ImagesParams(csv=path), places(tmp_path)) == {
        "pics/b.png": tmp_path / "pics/b.png",
        "pics/a.png": tmp_path / "pics/a.png",
        "csv": path,
    }


def test_a_csv_with_numbers_and_a_root(tmp_path: Path) -> None:
    for name in "ab":
        save(tmp_path / "pics" / f"{name}.png", pixels())
    path = table(tmp_path / "list.csv", "a.png,2", "b.png,0")
    source = load(tmp_path, csv=path, root=tmp_path / "pics")
    assert (source.classes, source.labels.tolist()) == (("0", "1", "2"), [2, 0])
    named = load(tmp_path, csv=path, root=tmp_path / "pics", class_names=("x", "y", "z"))
    assert (named.classes, named.labels.tolist()) == (("x", "y", "z"), [2, 0])
    with pytest.raises(DataError, match=r"'a.png' is of class '2', which is not one of x, y"):
        load(tmp_path, csv=path, root=tmp_path / "pics", class_names=("x", "y"))


def test_a_csv_from_a_spreadsheet(tmp_path: Path) -> None:
    save(tmp_path / "a, b.png", pixels())
    (tmp_path / "l.csv").write_bytes('\ufeffpath,label\r\n"a, b.png",é\r\n'.encode())
    source = load(tmp_path, csv=tmp_path / "l.csv")
    assert (source.ids, source.classes) == (("a, b.png",), ("é",))


@pytest.mark.parametrize(
    "name", ["../secret.png", "pics/../../secret.png", "{outside}", "link.png"]
)
def test_no_path_leaves_the_root(tmp_path: Path, name: str) -> None:
    outside = tmp_path / "secret.png"
    save(outside, pixels())
    root = tmp_path / "root"
    save(root / "pics" / "a.png", pixels())
    (root / "link.png").symlink_to(outside)
    path = table(root / "list.csv", "pics/a.png,0", f"{name.format(outside=outside)},0")
    with pytest.raises(DataError, match=r"list.csv:3: .* lies outside"):
        load(tmp_path, csv=path)
    with pytest.raises(DataError, match="lies outside"):
        images.content(ImagesParams(csv=path), places(tmp_path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.png,0\n", r"names \['file', 'label'\]; expected path,label"),
        ("", "expected path,label"),
        ("path,label\n", "lists no image"),
        ("path,label\na.png\n", r"list.csv:2: a path or label is missing"),
        ("path,label\na.png,\n", r"list.csv:2: a path or label is missing"),
        ("path,label\n\xff\n", "cannot be read as CSV"),
        ('path,label\n"a.png,0\n', "cannot be read as CSV"),
    ],
)
def test_csvs_that_are_not(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "list.csv").write_bytes(text.encode("latin1"))
    with pytest.raises(DataError, match=message):
        load(tmp_path, csv=tmp_path / "list.csv", size=3)


def test_a_csv_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"list.csv: cannot be read as CSV: .*No such file"):
        load(tmp_path, csv=tmp_path / "list.csv")


def test_an_image_twice_is_a_sample_twice(tmp_path: Path) -> None:
    save(tmp_path / "a.png", pixels())
    path = table(tmp_path / "list.csv", "a.png,0", "./a.png,1")
    with pytest.raises(DataError, match=r"'a.png' occurs 2 times"):
        select("d", load(tmp_path, csv=path), Selection())


# parameters and broken files


def test_some_source_is_needed() -> None:
    with pytest.raises(ValidationError, match=r"give root .* or csv"):
        ImagesParams()
    for size in (0, (3, 0), (3, 4, 5)):
        with pytest.raises(ValidationError):
            ImagesParams(root=Path(), size=size)  # type: ignore[arg-type]


def test_empty_and_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is not a folder; expected one with a folder for each"):
        load(tmp_path, root=tmp_path / "nowhere")
    (tmp_path / "cat").mkdir()
    with pytest.raises(DataError, match=r"lists no image \(.png, .jpg"):
        load(tmp_path, root=tmp_path)


def png(width: int, height: int) -> bytes:
    """A PNG that promises these pixels and holds none."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    empty = chunk(b"IDAT", zlib.compress(b""))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + empty + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8_193, 10_000, 20_000])
def test_decompression_bombs(tmp_path: Path, side: int) -> None:
    """Over our limit, over Pillow's warning, over Pillow's error."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "bomb.png").write_bytes(png(side, side))
    with pytest.raises(DataError, match=rf"bomb.png: .*expected at most {pictures.MAX_PIXELS}"):
        load(tmp_path, root=tmp_path, size=4).read([0])


def truncated() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels(64, 64)).save(buffer, "JPEG")
    return buffer.getvalue()[:-300]


@pytest.mark.parametrize(
    "content", [b"", b"<html></html>", truncated(), png(3, 3), png(3, 3)[:40], b"\x89PNG\r\n\x1a\n"]
)
def test_broken_images(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(content)
    with pytest.raises(DataError, match=r"a/x.png: is not a readable image"):
        load(tmp_path, root=tmp_path, size=3).read([0])
    if not content:
        with pytest.raises(DataError, match=r"a/x.png: is not a readable image"):
            load(tmp_path, root=tmp_path)


def test_formats_that_are_programs_are_not_opened(tmp_path: Path) -> None:
    """EPS would be handed to Ghostscript, whatever the file is called."""
    (tmp_path / "a").mkdir()
    Image.fromarray(pixels()).save(tmp_path / "x.eps")
    (tmp_path / "x.eps").rename(tmp_path / "a" / "x.png")
    with pytest.raises(DataError, match=r"a/x.png: is not a readable image"):
        load(tmp_path, root=tmp_path)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_deep_images_are_not_clipped_in_silence(tmp_path: Path, dtype: type) -> None:
    (tmp_path / "a").mkdir()
    Image.fromarray(np.full((3, 3), 1000, dtype=dtype)).save(tmp_path / "a" / "x.tiff")
    with pytest.raises(DataError, match=r"x.tiff: has more than 8 bits for a channel"):
        load(tmp_path, root=tmp_path).read([0])
