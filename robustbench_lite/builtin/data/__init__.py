"""Dataset loaders that ship with robeval, an ordinary plug-in."""

from __future__ import annotations

from collections.abc import Iterable

from robustbench_lite import DatasetSpec, hookimpl

from . import arrays, cifar10, images, mnist, mnist_sample


@hookimpl
def robeval_datasets() -> Iterable[DatasetSpec]:
    """Arrays in files, folders of images, MNIST, Fashion-MNIST, CIFAR-10, the embedded sample."""
    return (arrays.SPEC, cifar10.SPEC, images.SPEC, *mnist.SPECS, mnist_sample.SPEC)
