"""Array files of every format: the same samples from each, and every way to be wrong."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from robustbench_lite import Box, DataError, DataSource, Params, Places
from robustbench_lite.builtin.data import arrays
from robustbench_lite.builtin.data.arrays import ArraysParams
from robustbench_lite.builtin.data.levels import scaled
from robustbench_lite.errors import NothingSelected
from robustbench_lite.samples import select
from robustbench_lite.types import Selection

Array = np.typing.NDArray[np.generic]

rng = np.random.default_rng(5)
N = 11
FLOATS = rng.random((N, 6)).astype(np.float32)
BYTES = rng.integers(0, 256, (N, 6), dtype=np.uint8)
Y = rng.integers(0, 4, N)


def load(path: Path, **params: object) -> DataSource:
    return arrays.load(
        ArraysParams(path=path, **params),  # type: ignore[arg-type]
        places=Places(suite=path.parent, data=None, cache=path.parent),
    )


def npz(path: Path, x: Array, y: Array) -> dict[str, object]:
    np.savez(path, x=x, y=y)
    return {}


def packed(path: Path, x: Array, y: Array) -> dict[str, object]:
    np.savez_compressed(path, x=x, y=y)
    return {}


def npy(path: Path, x: Array, y: Array) -> dict[str, object]:
    np.save(path, x)
    np.save(path.with_name("y.npy"), y)
    return {"labels": path.with_name("y.npy")}


def fortran(path: Path, x: Array, y: Array) -> dict[str, object]:
    return npy(path, np.asfortranarray(x), y)


def safetensors(path: Path, x: Array, y: Array) -> dict[str, object]:
    save_file({"x": x, "y": y}, path)
    return {}


def features(path: Path, x: Array, y: Array) -> dict[str, object]:
    names = [f"f{i}" for i in range(x.shape[1])]
    columns = {name: pa.array(x[:, i]) for i, name in enumerate(names)}
    pq.write_table(pa.table(columns | {"y": pa.array(y)}), path, row_group_size=4)
    return {"x": names}


def lists(path: Path, x: Array, y: Array) -> dict[str, object]:
    pq.write_table(pa.table({"x": list(x), "y": y}), path, row_group_size=4)
    return {}


def fixed_lists(path: Path, x: Array, y: Array) -> dict[str, object]:
    cells = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), x.shape[1])
    pq.write_table(pa.table({"x": cells, "y": y}), path, row_group_size=3)
    return {}


def binary(path: Path, x: Array, y: Array) -> dict[str, object]:
    pq.write_table(pa.table({"x": [row.tobytes() for row in x], "y": y}), path, row_group_size=5)
    return {}


Writer = Callable[[Path, Array, Array], dict[str, object]]
WRITERS: Mapping[str, tuple[str, Writer]] = {
    "npz": (".npz", npz),
    "compressed npz": (".npz", packed),
    "npy": (".npy", npy),
    "npy in Fortran order": (".npy", fortran),
    "safetensors": (".safetensors", safetensors),
    "parquet, a column for each feature": (".parquet", features),
    "parquet, lists": (".parquet", lists),
    "parquet, lists of fixed size": (".parquet", fixed_lists),
}


def written(folder: Path, kind: str, x: Array, y: Array = Y, /, **params: object) -> DataSource:
    suffix, write = WRITERS[kind]
    path = folder / f"x{suffix}"
    return load(path, **(write(path, x, y) | params))


def all_of(source: DataSource) -> Array:
    return source.read(range(len(source.ids))).numpy()


# the same samples from every format


@pytest.mark.parametrize("kind", WRITERS)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20, deadline=None
)
@given(positions=st.lists(st.integers(0, N - 1), min_size=1, max_size=2 * N))
def test_floats_from_every_format(tmp_path: Path, kind: str, positions: list[int]) -> None:
    source = written(tmp_path, kind, FLOATS)
    x = source.read(positions)
    assert x.dtype == torch.float32
    assert np.array_equal(x.numpy(), FLOATS[positions])
    assert source.labels.dtype == torch.int64
    assert source.labels.tolist() == Y.tolist()
    assert (source.shape, source.box, source.classes) == ((6,), Box(0.0, 1.0), tuple("0123"))
    assert list(source.ids) == [str(row) for row in range(N)]


@pytest.mark.parametrize("kind", WRITERS)
def test_bytes_from_every_format(tmp_path: Path, kind: str) -> None:
    x = all_of(written(tmp_path, kind, BYTES))
    assert np.array_equal(x, BYTES.astype(np.float32) / np.float32(255))


def test_byte_strings_are_bytes(tmp_path: Path) -> None:
    source = load(tmp_path / "x.parquet", **binary(tmp_path / "x.parquet", BYTES, Y))
    assert np.array_equal(all_of(source), BYTES.astype(np.float32) / np.float32(255))


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("stored", [FLOATS, BYTES])
def test_what_is_read_is_fresh(tmp_path: Path, kind: str, stored: Array) -> None:
    source = written(tmp_path, kind, stored)
    before = all_of(source).copy()
    source.read(range(N)).fill_(-5)
    assert np.array_equal(all_of(source), before)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", "i4", "i8", "u2", "?"])
@pytest.mark.parametrize("kind", ["npz", "compressed npz", "npy"])
def test_number_types(tmp_path: Path, kind: str, dtype: str) -> None:
    stored = (FLOATS * 3).astype(dtype)
    source = written(tmp_path, kind, stored, range=(0, 3))
    assert np.array_equal(all_of(source), stored.astype(np.float32))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int16])
def test_safetensors_types(tmp_path: Path, dtype: torch.dtype) -> None:
    stored = (torch.from_numpy(FLOATS) * 3).to(dtype)
    save_torch({"x": stored, "y": torch.from_numpy(Y)}, tmp_path / "x.safetensors")
    source = load(tmp_path / "x.safetensors", range=(0, 3))
    assert torch.equal(source.read(range(N)), stored.float())


def test_lists_in_lists_have_a_shape(tmp_path: Path) -> None:
    x = FLOATS.reshape(N, 2, 3)
    pq.write_table(pa.table({"x": x.tolist(), "y": Y}), tmp_path / "x.parquet", row_group_size=4)
    source = load(tmp_path / "x.parquet")
    assert source.shape == (2, 3)
    assert np.array_equal(all_of(source), x)


def test_columns_of_several_types(tmp_path: Path) -> None:
    table = {"a": BYTES[:, 0], "b": FLOATS[:, 0].astype(np.float64), "c": BYTES[:, 1] > 9, "y": Y}
    pq.write_table(pa.table(table), tmp_path / "x.parquet")
    source = load(tmp_path / "x.parquet", x=["a", "b", "c"], range=(0, 255))
    expected = np.stack([BYTES[:, 0], FLOATS[:, 0], BYTES[:, 1] > 9], axis=1)
    assert np.array_equal(all_of(source), expected.astype(np.float32))


@pytest.mark.parametrize("kind", ["npz", "parquet, lists", "parquet, a column for each feature"])
def test_truth_values_are_0_and_1(tmp_path: Path, kind: str) -> None:
    source = written(tmp_path, kind, BYTES > 99)
    assert np.array_equal(all_of(source), (BYTES > 99).astype(np.float32))


def test_one_number_for_each_sample(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=FLOATS[:, 0], y=Y)
    source = load(tmp_path / "x.npz")
    assert source.shape == (1,)
    assert np.array_equal(all_of(source), FLOATS[:, :1])


# what the parameters do


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.0, 255.0), (-1.0, 1.0), (-2.5, 0.5)])
def test_bytes_are_spread_over_the_range(tmp_path: Path, low: float, high: float) -> None:
    source = written(tmp_path, "npz", BYTES, range=(low, high))
    assert source.box == Box(low, high)
    expected = low + BYTES.astype(np.float64) * (high - low) / 255
    assert np.allclose(all_of(source), expected, rtol=0, atol=1e-6 * (high - low))
    if (low, high) == (0.0, 255.0):
        assert np.array_equal(all_of(source), BYTES.astype(np.float32))


def test_levels_are_those_of_a_float32_division() -> None:
    every = np.arange(256, dtype=np.uint8)
    assert np.array_equal(scaled(every).numpy(), every.astype(np.float32) / np.float32(255))


def test_shape_and_layout(tmp_path: Path) -> None:
    pixels = rng.integers(0, 256, (N, 4, 5, 3), dtype=np.uint8)
    expected = pixels.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    hwc = written(tmp_path, "npz", pixels, layout="hwc")
    assert hwc.shape == (3, 4, 5)
    assert np.array_equal(all_of(hwc), expected)
    assert hwc.read([0]).is_contiguous()
    flat = written(tmp_path, "npy", pixels.reshape(N, -1), layout="hwc", shape=(4, 5, 3))
    assert np.array_equal(all_of(flat), expected)
    chw = written(tmp_path, "safetensors", pixels.reshape(N, -1), shape=(1, 12, 5))
    assert chw.shape == (1, 12, 5)
    assert np.array_equal(all_of(chw).reshape(N, -1), scaled(pixels.reshape(N, -1)).numpy())


def test_keys_of_other_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", images=FLOATS, answers=Y)
    np.savez(tmp_path / "labels.npz", right=Y[::-1])
    source = load(tmp_path / "d.npz", x="images", y="answers")
    assert source.labels.tolist() == Y.tolist()
    other = load(tmp_path / "d.npz", x="images", labels=tmp_path / "labels.npz", y="right")
    assert other.labels.tolist() == Y[::-1].tolist()


@pytest.mark.parametrize("texts", [True, False])
def test_ids(tmp_path: Path, texts: bool) -> None:
    names = [f"né-{10**row}" if texts else str(row * 7) for row in range(N)]
    column = np.array(names) if texts else np.array(names, dtype=np.int64)
    np.savez(tmp_path / "x.npz", x=FLOATS, y=Y, name=column)
    table = pa.table({"x": list(FLOATS), "y": Y, "name": column})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=2)
    for suffix in ("npz", "parquet"):
        assert list(load(tmp_path / f"x.{suffix}", ids="name").ids) == names


def test_class_names_and_numbers(tmp_path: Path) -> None:
    assert written(tmp_path, "npz", FLOATS, num_classes=7).classes == tuple("0123456")
    assert written(tmp_path, "npz", FLOATS, class_names=tuple("abcd")).classes == tuple("abcd")
    column = written(tmp_path, "npz", FLOATS, Y[:, None])
    assert column.labels.tolist() == Y.tolist()
    truth = written(tmp_path, "npz", FLOATS, Y > 1)
    assert (truth.labels.tolist(), truth.classes) == ((Y > 1).tolist(), ("0", "1"))


def test_content_names_both_files(tmp_path: Path) -> None:
    places = Places(suite=tmp_path, data=None, cache=tmp_path)
    one = ArraysParams(path=tmp_path / "a.npz")
    two = ArraysParams(path=tmp_path / "a.npy", labels=tmp_path / "b.npy")
    assert arrays.content(one, places) == {"x": tmp_path / "a.npz"}
    assert arrays.content(two, places) == {"x": tmp_path / "a.npy", "y": tmp_path / "b.npy"}
    relative = ArraysParams.model_validate({"path": "a.npz"}, context={"base": tmp_path})
    assert arrays.content(relative, places) == {"x": tmp_path / "a.npz"}


def test_a_list_from_yaml_is_a_range(tmp_path: Path) -> None:
    params = ArraysParams.model_validate({"path": "a.npz", "range": [-1, 1], "shape": [1, 2]})
    assert isinstance(params, Params)
    assert (params.range, params.shape) == ((-1.0, 1.0), (1, 2))
    with pytest.raises(ValidationError):
        ArraysParams.model_validate({"path": "a.npz", "rang": [-1, 1]})


# numbers that are found when they are read


@pytest.mark.parametrize("kind", WRITERS)
def test_nan_is_found_with_its_sample(tmp_path: Path, kind: str) -> None:
    x = FLOATS.copy()
    x[7, 2] = np.nan
    selected = select("d", written(tmp_path, kind, x), Selection())
    with pytest.raises(DataError, match=r"sample '7': nan at \[2\] is not a finite number"):
        selected.batch(0, N, torch.device("cpu"))


def test_a_missing_cell_is_nan(tmp_path: Path) -> None:
    x = [[1.0, None], [0.5, 0.5]]
    pq.write_table(pa.table({"x": x, "y": [0, 1]}), tmp_path / "x.parquet")
    selected = select("d", load(tmp_path / "x.parquet"), Selection())
    with pytest.raises(DataError, match=r"sample '0': nan at \[1\]"):
        selected.batch(0, 2, torch.device("cpu"))


@pytest.mark.parametrize("largest", [1e300, 2.0])
def test_numbers_beyond_the_box_are_found(tmp_path: Path, largest: float) -> None:
    x = FLOATS.astype(np.float64)
    x[3, 0] = largest
    selected = select("d", written(tmp_path, "npy", x), Selection())
    with pytest.raises(DataError, match=r"sample '3': (inf|2) at .*declare its true range"):
        selected.batch(0, N, torch.device("cpu"))


# files that are not what they are called


def raw_npy(header: str, content: bytes = b"") -> bytes:
    """A .npy of version 1.0 with any header."""
    text = header.encode() + b" " * (117 - len(header)) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content


def zipped(content: bytes, method: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("x.npy", content)
        archive.writestr(
            "y.npy", raw_npy("{'descr': '<i8', 'fortran_order': False, 'shape': (0,)}")
        )
    return buffer.getvalue()


HUGE = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 4)}"
OBJECTS = "{'descr': '|O', 'fortran_order': False, 'shape': (2,)}"
NEGATIVE = "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 4)}"
SCALAR = "{'descr': '<f4', 'fortran_order': False, 'shape': ()}"


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (raw_npy(HUGE, b"\0" * 64), "its header .* asks for 16000000000128"),
        (raw_npy(OBJECTS, b"\0" * 64), "holds object; expected numbers. Arrays of Python objects"),
        (raw_npy(NEGATIVE, b"\0" * 64), "its header|not one of a .npy array"),
        (raw_npy(SCALAR, b"\0" * 4), "is a single number; expected one row for each sample"),
        (raw_npy("{'descr': '<f4'}"), "its header is not one of a .npy array"),
        (b"\x93NUMPY\x09\x00", "format version"),
        (b"", "its header is not one of a .npy array"),
    ],
)
def test_broken_arrays(tmp_path: Path, content: bytes, message: str, method: int) -> None:
    (tmp_path / "x.npz").write_bytes(zipped(content, method))
    with pytest.raises(DataError, match=message):
        load(tmp_path / "x.npz")
    if content:
        (tmp_path / "x.npy").write_bytes(content)
        with pytest.raises(DataError, match=message):
            load(tmp_path / "x.npy", labels=tmp_path / "y.npy")


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".safetensors", ".parquet"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html>not found</html>", "a web page saved under this name"),
        (b"\n  <html>", "a web page saved under this name"),
        (b"version https://git-lfs.github.com/spec/v1", r"is no|not a usable"),
        (b"", r"is no|not a usable"),
    ],
)
def test_other_files_under_this_name(
    tmp_path: Path, suffix: str, content: bytes, message: str
) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as raised:
        load(path, labels=path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("kind", WRITERS)
def test_truncated_files(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"x{WRITERS[kind][0]}"
    params = WRITERS[kind][1](path, FLOATS, Y)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match="x\\."):
        load(path, **params)


def test_a_damaged_row_group(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    x = rng.random((200, 6)).astype(np.float32)
    lists(path, x, np.zeros(200, dtype=np.int64))
    raw = bytearray(path.read_bytes())
    raw[4:4000] = bytes(3996)
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"x\.parquet: (column 'x' cannot be read|is not a usable)"):
        load(path).read(range(200))


def test_a_damaged_compressed_member(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    packed(path, FLOATS, Y)
    raw = bytearray(path.read_bytes())
    raw[200:210] = bytes(10)
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"is not a usable .npz file|not one of a .npy array"):
        load(path)


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".safetensors", ".parquet"])
def test_missing_files(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(DataError, match=r"cannot be read: No such file"):
        load(tmp_path / f"x{suffix}", labels=tmp_path / "y.npy")


def test_other_suffixes(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("1,2")
    with pytest.raises(DataError, match=r"'.csv' is not one of .npz, .npy, .safetensors, .parquet"):
        load(tmp_path / "x.csv")


def test_a_compressed_member_within_the_limit_only(tmp_path: Path) -> None:
    packed(tmp_path / "x.npz", np.zeros((1000, 100)), np.zeros(1000, dtype=np.int64))
    assert len(load(tmp_path / "x.npz", max_bytes=900_000).ids) == 1000
    with pytest.raises(DataError, match="808256 bytes after decompression; max_bytes is 800000"):
        load(tmp_path / "x.npz", max_bytes=800_000)
    npz(tmp_path / "x.npz", np.zeros((1000, 100)), np.zeros(1000, dtype=np.int64))
    assert len(load(tmp_path / "x.npz", max_bytes=1).ids) == 1000


# contents that are not as declared


@pytest.mark.parametrize("kind", ["npz", "safetensors", "parquet, lists"])
def test_a_missing_key_lists_those_there_are(tmp_path: Path, kind: str) -> None:
    with pytest.raises(DataError, match=r"has no 'xs'; it has x, y; did you mean 'x'\?"):
        written(tmp_path, kind, FLOATS, x="xs")


@pytest.mark.parametrize(
    ("y", "params", "message"),
    [
        (Y[:-1], {}, "11 inputs and 10 labels; expected as many"),
        (Y - 1, {}, "sample .* has the label -1; expected 0 to 2"),
        (Y, {"num_classes": 3}, "has the label 3; expected 0 to 2"),
        (Y, {"class_names": ("a", "b")}, "expected 0 to 1"),
        (Y, {"class_names": ("a", "b", "c", "d"), "num_classes": 5}, "num_classes: 5, but 4"),
        (Y.astype(np.float32), {}, "the labels are float32 .* expected whole numbers"),
        (np.eye(4)[Y], {}, r"the labels are float64 of shape \[11, 4\]"),
        (np.array([str(y) for y in Y]), {}, "the labels are <U1"),
        (Y, {"range": (1.0, 0.0)}, "expected finite low < high"),
        (Y, {"range": (0.0, float("nan"))}, "expected finite low < high"),
        (Y, {"shape": (7,)}, r"\[7\] does not hold the 6 values of a sample.*stored as \[6\]"),
        (Y, {"shape": (-2, -3)}, r"does not hold"),
        (Y, {"layout": "hwc"}, r"hwc needs samples of three axes .*; found \[6\]"),
        (Y, {"x": ()}, "x: names no column"),
        (Y, {"x": ("y", "x")}, "'x' has shape .* expected one number for each of 11 samples"),
        (Y, {"ids": "nine"}, "has no 'nine'"),
    ],
)
def test_contents_that_are_not_as_declared(
    tmp_path: Path, y: Array, params: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        written(tmp_path, "npz", FLOATS, y, **params)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "labels: is missing"),
        ({"labels": "y.npy", "x": ("a", "b")}, "an .npy is one array"),
        ({"labels": "y.npy", "ids": "a"}, "an .npy is one array"),
        ({"labels": "y.npz"}, "y.npz: cannot be read"),
    ],
)
def test_npy_has_no_keys(tmp_path: Path, params: dict[str, object], message: str) -> None:
    npy(tmp_path / "x.npy", FLOATS, Y)
    given = {key: tmp_path / str(v) if key == "labels" else v for key, v in params.items()}
    with pytest.raises(DataError, match=message):
        load(tmp_path / "x.npy", **given)


@pytest.mark.parametrize("kind", ["npz", "compressed npz", "npy", "safetensors"])
def test_no_samples_at_all(tmp_path: Path, kind: str) -> None:
    source = written(tmp_path, kind, FLOATS[:0], Y[:0])
    with pytest.raises(NothingSelected, match="0 in the dataset"):
        select("d", source, Selection())


def test_inputs_that_are_text(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.array(["a", "b"]), y=[0, 1])
    with pytest.raises(DataError, match="the inputs are <U1; expected numbers"):
        load(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([[1.0], [1.0, 0.5]], "cells of lengths 1, 2; expected one length"),
        ([[1.0], None], "cells of lengths 1, none"),
        ([b"ab", b"abc"], "cells of lengths 2, 3"),
        ([1, None], "1 of its int64 cells are missing"),
        ([[1], [None]], "1 of its int64 cells are missing"),
        (["a", None], "1 of its string cells are missing"),
        ([{"a": 1}, {"a": 2}], "holds struct<a: int64>; expected numbers"),
        (["a", "b"], "the inputs are <U1; expected numbers"),
    ],
)
def test_parquet_cells(tmp_path: Path, x: Sequence[object], message: str) -> None:
    pq.write_table(pa.table({"x": x, "y": [0, 1]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=message):
        load(tmp_path / "x.parquet")


def test_parquet_rows_that_change_their_length(tmp_path: Path) -> None:
    x = [[0.5], [0.5, 0.5]]
    pq.write_table(pa.table({"x": x, "y": [0, 1]}), tmp_path / "x.parquet", row_group_size=1)
    source = load(tmp_path / "x.parquet")
    with pytest.raises(DataError, match="rows of shape"):
        source.read([0, 1])


def test_a_parquet_without_rows(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"x": pa.array([], pa.float32()), "y": pa.array([], pa.int64())}),
        tmp_path / "x.parquet",
    )
    with pytest.raises(DataError, match="has no rows"):
        load(tmp_path / "x.parquet")
