"""The dataset `whitened`: contrast-normalised and ZCA-whitened images, fitted on a training set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, FiniteFloat

from robustbench_lite import Box, DataError, DatasetRef, DatasetSpec, DataSource, Params, Places

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from robustbench_lite import Bench

LEVELS = 255.0  # the original's pixels; the constants below are in their unit
TINY = 1e-8
CHUNK = 5000


class WhitenedParams(Params):
    """`of`: what is whitened. `fitted_on`: whose mean and covariance are used.

    `bias`: added to an image's variance, in 8-bit levels squared. `ridge`: added to every
    eigenvalue of the covariance. `reach`: the declared box is [-reach, reach]; values are cut.
    """

    of: DatasetRef
    fitted_on: DatasetRef
    bias: FiniteFloat = Field(default=10.0, ge=0)
    ridge: FiniteFloat = Field(default=0.1, gt=0)
    reach: FiniteFloat = Field(default=20.0, gt=0)


def load(params: WhitenedParams, *, places: Places, bench: Bench) -> DataSource:  # noqa: ARG001
    """The images of `of` as the CIFAR-10 recipe of the maxout paper has them: same labels and ids.

    Every image: minus its mean, over sqrt(bias + its variance). Then (x - m) V (L + ridge)^-1/2 V',
    m, V, L being mean, eigenvectors and eigenvalues of `fitted_on`. Raises DataError where the two
    datasets have different shapes.
    """
    import torch

    source, base = bench.dataset(params.of), bench.dataset(params.fitted_on)
    if source.shape != base.shape:
        raise DataError(
            f"whitened: '{params.of}' has samples {list(source.shape)} and '{params.fitted_on}'"
            f" {list(base.shape)}"
        )
    mean, matrix = _fitted(base, params.bias, params.ridge)

    def read(positions: Sequence[int]) -> Tensor:
        flat = normalised(source.read(positions), params.bias)
        white = ((flat - mean) @ matrix).clamp(-params.reach, params.reach)
        return white.to(torch.float32).reshape(len(positions), *source.shape)

    return DataSource(
        ids=source.ids,
        labels=source.labels,
        read=read,
        shape=source.shape,
        box=Box(-params.reach, params.reach),
        classes=source.classes,
    )


def normalised(x: Tensor, bias: float) -> Tensor:
    """Global contrast normalisation of x [n, *shape] in [0, 1]: [n, features] float64.

    An image of one level is 0 everywhere, with and without a bias.
    """
    flat = x.flatten(1).double() * LEVELS
    flat = flat - flat.mean(dim=1, keepdim=True)
    return flat / (bias + (flat * flat).mean(dim=1, keepdim=True)).sqrt().clamp_min(TINY)


def _fitted(base: DataSource, bias: float, ridge: float) -> tuple[Tensor, Tensor]:
    """Mean [features] and whitening matrix [features, features] of a dataset, in chunks."""
    import torch

    n, features = len(base.ids), base.read([0])[0].numel()
    total = torch.zeros(features, dtype=torch.float64)
    square = torch.zeros(features, features, dtype=torch.float64)
    for begin in range(0, n, CHUNK):
        flat = normalised(base.read(range(begin, min(begin + CHUNK, n))), bias)
        total += flat.sum(dim=0)
        square += flat.T @ flat
    mean = total / n
    values, vectors = torch.linalg.eigh(square / n - torch.outer(mean, mean))
    return mean, (vectors * (values.clamp_min(0) + ridge).rsqrt()) @ vectors.T


SPEC = DatasetSpec(
    name="whitened",
    implementation=load,
    summary="another dataset of the suite, contrast-normalised and ZCA-whitened",
    params=WhitenedParams,
)
