"""Which samples are selected, and what a dataset plug-in can get wrong."""

from __future__ import annotations

import dataclasses
import hashlib
import struct
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from robustbench_lite.errors import DataError, NothingSelected
from robustbench_lite.rng import sample_keys
from robustbench_lite.samples import Selected, select
from robustbench_lite.types import Box, DataSource, Selection

CPU = torch.device("cpu")
CLASSES = ("cat", "dog", "3")


def values(total: int, shape: tuple[int, ...] = (2, 3)) -> Tensor:
    """Distinct inputs [total, *shape] in [0, 1]."""
    count = total * int(np.prod(shape, dtype=np.int64))
    return torch.linspace(0, 1, count, dtype=torch.float32).reshape(total, *shape)


def source_of(x: Tensor, labels: Sequence[int], /, **changes: object) -> DataSource:
    source = DataSource(
        ids=[f"s{row}" for row in range(len(labels))],
        labels=torch.tensor(labels, dtype=torch.int64),
        read=lambda positions: x[list(positions)],
        shape=tuple(x.shape[1:]),
        box=Box(),
        classes=CLASSES,
    )
    return dataclasses.replace(source, **changes)  # type: ignore[arg-type]


def small(labels: Sequence[int] = (0, 1, 2, 0, 1, 2, 0, 0), /, **changes: object) -> DataSource:
    return source_of(values(len(labels)), labels, **changes)


def chosen(source: DataSource, **selection: object) -> list[int]:
    wanted = Selection(**selection)  # type: ignore[arg-type]
    return [int(position) for position in select("d", source, wanted).positions]


# what is selected


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({}, [0, 1, 2, 3, 4, 5, 6, 7]),
        ({"take": 3}, [0, 1, 2]),
        ({"take": 100}, [0, 1, 2, 3, 4, 5, 6, 7]),
        ({"skip": 2, "take": 3}, [2, 3, 4]),
        ({"indices": (6, 0, 3)}, [0, 3, 6]),
        ({"indices": (6, 0, 3), "skip": 1}, [3, 6]),
        ({"classes": ("dog",)}, [1, 4]),
        ({"classes": ("3", "dog"), "take": 3}, [1, 2, 4]),
        ({"classes": ("1",)}, [1, 4]),
        ({"classes": ("cat",), "indices": (1, 3, 7)}, [3, 7]),
    ],
)
def test_selection_in_source_order(selection: dict[str, object], expected: list[int]) -> None:
    assert chosen(small(), **selection) == expected


def test_a_class_name_wins_over_a_label_number() -> None:
    source = small([0, 1, 2, 1], classes=("zero", "2", "1"))
    assert chosen(source, classes=("2",)) == [1, 3]


labellings = st.lists(st.integers(0, 2), min_size=1, max_size=40)


@given(labels=labellings, seed=st.integers(0, 5), take=st.integers(1, 45))
@settings(deadline=None)
def test_stratified_shares_are_equal_as_far_as_classes_last(
    labels: list[int], seed: int, take: int
) -> None:
    got = chosen(small(labels), stratified=True, seed=seed, take=take)
    there, dealt = Counter(labels), Counter(labels[i] for i in got)
    assert len(got) == len(set(got)) == min(take, len(labels))
    for a in range(3):
        for b in range(3):
            if dealt[b] < there[b]:  # b has samples left: a may be ahead by the leftover only
                assert dealt[a] <= dealt[b] + (1 if a < b else 0)


@given(labels=labellings, seed=st.integers(0, 5), cut=st.integers(1, 44))
@settings(deadline=None)
def test_stratified_prefixes_agree_and_skip_is_disjoint(
    labels: list[int], seed: int, cut: int
) -> None:
    source = small(labels)
    whole = chosen(source, stratified=True, seed=seed)
    assert sorted(whole) == list(range(len(labels)))
    assert chosen(source, stratified=True, seed=seed, take=cut) == whole[:cut]
    if cut < len(labels):
        assert chosen(source, stratified=True, seed=seed, skip=cut) == whole[cut:]


def test_stratified_is_a_shuffle_by_seed_and_the_same_every_time() -> None:
    source = small([0, 1, 2] * 30)
    draws = [tuple(chosen(source, stratified=True, seed=seed, take=30)) for seed in range(10)]
    assert len(set(draws)) == 10
    assert draws[3] == tuple(chosen(source, stratified=True, seed=3, take=30))
    first = Counter(position for draw in draws for position in draw)
    assert len(first) > 60, "every seed picks from the same corner of the dataset"


def test_stratified_depends_on_ids_not_on_places() -> None:
    labels = [0, 1, 2] * 10
    turned = small(labels[::-1], ids=[f"s{row}" for row in range(30)][::-1])
    a = select("d", small(labels), Selection(stratified=True, take=9))
    b = select("d", turned, Selection(stratified=True, take=9))
    assert a.ids == b.ids


@pytest.mark.parametrize(
    ("selection", "why"),
    [
        ({"take": 0}, "8 in the dataset, 0 after take: 0"),
        ({"skip": 8}, "0 after skip: 8"),
        ({"indices": ()}, "0 after indices"),
        ({"classes": ("dog",), "indices": (0,)}, "2 after classes: [dog], 0 after indices"),
    ],
)
def test_nothing_left_is_said_with_every_step(selection: dict[str, object], why: str) -> None:
    with pytest.raises(NothingSelected) as raised:
        chosen(small(), **selection)
    assert "datasets.d: no sample is left" in str(raised.value)
    assert why in str(raised.value)


def test_an_empty_dataset_selects_nothing() -> None:
    with pytest.raises(NothingSelected, match="0 in the dataset"):
        chosen(small([]))


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"classes": ("dgo",)}, "'dgo' is neither a class .* did you mean 'dog'"),
        ({"classes": ("7",)}, "'7' is neither a class .* nor a label from 0 to 2"),
        ({"indices": (0, 8)}, "8 is not a position in the dataset; expected 0 to 7"),
        ({"indices": (-1,)}, "-1 is not a position"),
        ({"indices": (2, 2)}, "2 is listed more than once"),
    ],
)
def test_selections_that_mean_nothing(selection: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=f"datasets.d: .*{message}"):
        chosen(small(), **selection)


# what a source may not be


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": torch.zeros(8)}, "torch.float32 on cpu; expected torch.int64"),
        ({"labels": torch.zeros(8, 1, dtype=torch.int64)}, r"8 ids and labels \[8, 1\]"),
        ({"labels": np.zeros(8, dtype=np.int64)}, "numpy.ndarray.*; expected torch.int64"),
        ({"labels": torch.zeros(7, dtype=torch.int64)}, r"8 ids and labels \[7\]"),
        (
            {"labels": torch.tensor([0, 0, 3, 0, 0, 3, 0, 0])},
            "sample 's2': label 3; expected 0 to 2 .*2 of 8",
        ),
        ({"labels": torch.tensor([0, 0, 0, -1, 0, 0, 0, 0])}, "sample 's3': label -1"),
        ({"ids": ["a", "b", "c", "d", "e", "f", "b", "h"]}, "'b' occurs 2 times"),
        ({"ids": ["a", "b", "c", "d", "e", 5, "b", "h"]}, "position 5 is 5; expected text"),
        ({"classes": ()}, "expected at least one"),
        ({"classes": ("a", "a", "b")}, "no name twice"),
        ({"box": Box(1.0, 1.0)}, "expected finite low < high"),
        ({"box": Box(0.0, float("inf"))}, "expected finite low < high"),
    ],
)
def test_a_source_that_breaks_its_contract(changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=f"datasets.d: .*{message}"):
        chosen(small(**changes))


def test_a_loader_that_gives_something_else() -> None:
    with pytest.raises(DataError, match="the loader gave a dict; expected a DataSource"):
        select("d", {"x": 1}, Selection())  # type: ignore[arg-type]


# batches


def whole(selected: Selected, size: int, device: torch.device = CPU) -> tuple[Tensor, list[str]]:
    """All inputs and hashes, read in batches of `size`."""
    batches = [selected.batch(i, i + size, device) for i in range(0, selected.n, size)]
    return torch.cat([b.x for b in batches]), [h for b in batches for h in b.hashes]


@given(labels=labellings, size=st.integers(1, 41), stratified=st.booleans())
@settings(deadline=None)
def test_any_batch_size_reads_the_same_rows(labels: list[int], size: int, stratified: bool) -> None:
    x = values(len(labels))
    selected = select("d", source_of(x, labels), Selection(stratified=stratified))
    got, hashes = whole(selected, size)
    assert torch.equal(got, x[torch.from_numpy(selected.positions)])
    assert hashes == whole(selected, len(labels))[1]


def test_a_batch_says_everything_of_its_samples(device: torch.device) -> None:
    x = values(8)
    selected = select("d", source_of(x, [0, 1, 2, 0, 1, 2, 0, 0]), Selection(skip=2))
    assert (selected.n, selected.shape, selected.classes) == (6, (2, 3), CLASSES)
    batch = selected.batch(1, 3, device)
    assert (batch.start, batch.ids, batch.box) == (1, ("s3", "s4"), Box())
    assert {t.device.type for t in (batch.x, batch.y, batch.keys)} == {device.type}
    assert batch.y.tolist() == [0, 1]
    assert torch.equal(batch.keys.cpu(), sample_keys(["s3", "s4"], CPU))
    bytes_of_s3 = struct.pack("<6f", *x[3].flatten().tolist()) + struct.pack("<q", 0)
    assert batch.hashes[0] == hashlib.sha256(bytes_of_s3).hexdigest()[:32]


def test_a_batch_ends_with_the_samples() -> None:
    assert len(select("d", small(), Selection()).batch(5, 100, CPU).ids) == 3


def test_the_hash_is_of_input_and_label_and_of_nothing_else() -> None:
    x = values(4)
    base = select("d", source_of(x, [0, 1, 2, 0]), Selection()).batch(0, 4, CPU).hashes
    assert len(set(base)) == 4
    named = source_of(x, [0, 1, 2, 0], ids=list("abcd"))
    assert select("other", named, Selection()).batch(0, 4, CPU).hashes == base
    relabelled = select("d", source_of(x, [1, 1, 2, 0]), Selection()).batch(0, 4, CPU).hashes
    assert [a == b for a, b in zip(base, relabelled, strict=True)] == [False, True, True, True]
    moved = x.clone()
    moved[2, 0, 0] = torch.nextafter(moved[2, 0, 0], torch.tensor(1.0))
    changed = select("d", source_of(moved, [0, 1, 2, 0]), Selection()).batch(0, 4, CPU).hashes
    assert [a == b for a, b in zip(base, changed, strict=True)] == [True, True, False, True]


def test_only_the_rows_of_the_batch_are_read() -> None:
    asked: list[list[int]] = []
    x = values(8)

    def read(positions: Sequence[int]) -> Tensor:
        asked.append(list(positions))
        return x[list(positions)]

    select("d", small(read=read), Selection(skip=3)).batch(1, 3, CPU)
    assert asked == [[4, 5]]


def test_an_attack_cannot_write_into_the_dataset() -> None:
    x = values(8)
    kept = x.clone()
    source = small(read=lambda positions: x[positions[0] : positions[-1] + 1])
    batch = select("d", source, Selection()).batch(0, 8, CPU)
    batch.x.zero_()
    batch.y.zero_()
    assert torch.equal(x, kept)
    assert source.labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 0]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (float("nan"), "nan at .* is not a finite number"),
        (float("inf"), "inf at .* is not a finite number"),
        (float("-inf"), "-inf at .* is not a finite number"),
        (1.1, "1.1.* is outside the declared box; expected values in .0, 1."),
        (-3e-6, "-3.*e-06 at .* is outside the declared box"),
    ],
)
def test_a_bad_value_is_named_with_its_sample(bad: float, message: str) -> None:
    x = values(8)
    x[5, 1, 2] = bad
    with pytest.raises(DataError, match=rf"datasets.d: sample 's5': {message}") as raised:
        select("d", source_of(x, [0] * 8), Selection(skip=1)).batch(2, 7, CPU)
    assert "[1, 2]" in str(raised.value)
    assert "1 of 5" in str(raised.value)


def test_a_bad_value_elsewhere_does_not_matter() -> None:
    x = values(8)
    x[5] = float("nan")
    assert select("d", source_of(x, [0] * 8), Selection()).batch(0, 5, CPU).x.isfinite().all()


@pytest.mark.parametrize("box", [Box(), Box(-1.0, 3.0), Box(0.1, 0.3), Box(999.9, 1000.1)])
def test_rounding_over_the_box_is_clamped(box: Box) -> None:
    x = torch.tensor([[box.low], [box.high]], dtype=torch.float32)
    inside = x.clone()
    x += torch.tensor([[-0.5e-6], [0.5e-6]]) * box.width
    read = select("d", source_of(x, [0, 1], box=box), Selection()).batch(0, 2, CPU).x
    assert torch.equal(read, inside)


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (
            lambda p: values(8)[list(p)].double(),
            "gave torch.float64 on cpu; expected torch.float32",
        ),
        (lambda p: values(8)[list(p)].numpy(), "gave a ndarray; expected a torch tensor"),
        (lambda p: values(8)[list(p)].flatten(1), r"gave shape \[3, 6\]; expected \[3, 2, 3\]"),
        (lambda p: values(8)[list(p)][1:], r"gave shape \[2, 2, 3\]; expected \[3, 2, 3\]"),
    ],
)
def test_a_read_that_breaks_its_contract(
    read: Callable[[Sequence[int]], Tensor], message: str
) -> None:
    selected = select("d", small(read=read), Selection())
    with pytest.raises(DataError, match=f"datasets.d: samples 's1' to 's3': read {message}"):
        selected.batch(1, 4, CPU)


def test_samples_that_are_single_numbers() -> None:
    x = torch.tensor([0.0, 0.5, 2.0])
    selected = select("d", source_of(x, [0, 1, 2]), Selection())
    assert selected.batch(0, 2, CPU).x.tolist() == [0.0, 0.5]
    with pytest.raises(DataError, match="sample 's2': 2 at"):
        selected.batch(0, 3, CPU)
