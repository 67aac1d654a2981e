"""Datasets made of datasets: whitening against its covariance, classes numbered anew."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from stored import Table, source

from robeval_train import relabelled, whitened
from robustbench_lite import DataError, Places

PLACES = Places(suite=Path(), data=None, cache=Path())


def correlated(n: int = 4000) -> torch.Tensor:
    """Images [n, 1, 3, 3] whose pixels go together."""
    rng = torch.Generator().manual_seed(0)
    mix = torch.randn(9, 9, generator=rng) / 3
    return ((torch.randn(n, 9, generator=rng) @ mix).sigmoid()).view(n, 1, 3, 3)


def test_the_whitened_covariance_is_what_the_ridge_leaves_of_one() -> None:
    x = correlated()
    bench = Table(datasets={"d": source(x, torch.zeros(len(x), dtype=torch.int64), 2)})
    params = whitened.WhitenedParams(of="d", fitted_on="d", ridge=0.1)
    made = whitened.load(params, places=PLACES, bench=bench)
    white = made.read(range(len(x))).flatten(1).double()
    before = whitened.normalised(x, params.bias)
    values, vectors = torch.linalg.eigh(torch.cov(before.T, correction=0))
    expected = vectors @ torch.diag(values / (values + 0.1)) @ vectors.T
    assert torch.allclose(torch.cov(white.T, correction=0), expected, atol=1e-5)
    assert torch.allclose(white.mean(dim=0), torch.zeros(9, dtype=torch.float64), atol=1e-6)
    assert (made.box.low, made.box.high) == (-20.0, 20.0)
    assert torch.equal(made.read([7, 3]), made.read(range(10))[[7, 3]])


def test_contrast_normalisation_gives_every_image_mean_zero_and_nearly_variance_one() -> None:
    flat = whitened.normalised(correlated(50), 10.0)
    assert float(flat.mean(dim=1).abs().max()) < 1e-12
    assert float((flat * flat).mean(dim=1).min()) > 0.9
    for bias in (10.0, 0.0):
        assert not whitened.normalised(torch.full((1, 1, 3, 3), 0.5), bias).any()


def test_shapes_must_agree() -> None:
    y = torch.zeros(3, dtype=torch.int64)
    bench = Table(
        datasets={"a": source(torch.rand(3, 4), y, 2), "b": source(torch.rand(3, 5), y, 2)}
    )
    params = whitened.WhitenedParams(of="a", fitted_on="b")
    with pytest.raises(DataError, match=r"'a' has samples \[4\] and 'b' \[5\]"):
        whitened.load(params, places=PLACES, bench=bench)


def test_kept_classes_are_numbered_in_the_order_that_they_are_named_in() -> None:
    x, y = torch.arange(8.0).view(8, 1), torch.tensor([0, 1, 2, 3, 3, 2, 1, 0])
    bench = Table(datasets={"d": source(x, y, 4)})
    params = relabelled.ClassesOfParams(of="d", keep=("3", "1"))
    made = relabelled.load(params, places=PLACES, bench=bench)
    assert list(made.ids) == ["s1", "s3", "s4", "s6"]
    assert made.labels.tolist() == [1, 0, 0, 1]
    assert made.classes == ("3", "1")
    assert made.read([3, 0]).flatten().tolist() == [6.0, 1.0]
