"""Operators of ai.onnx.ml that linear models, scalers and neural networks of scikit-learn emit."""

from __future__ import annotations

import torch
from torch import Tensor

from .table import Kernel, Node, op, widened

ML = "ai.onnx.ml"


def _constants(node: Node, name: str) -> list[float]:
    return node.numbers(name) or []


def _as(x: Tensor, values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=x.dtype, device=x.device)


@op("LinearClassifier", domain=ML)
def linear_classifier(node: Node) -> Kernel:
    """Labels and scores of a linear classifier; one row of coefficients means two classes."""
    transform = node.text("post_transform", "NONE")
    if transform not in ("NONE", "SOFTMAX", "LOGISTIC"):
        raise node.refuse(f"post_transform {transform} is not supported")
    weights, offsets = _constants(node, "coefficients"), _constants(node, "intercepts")
    labels = node.integers("classlabels_ints")
    count = len(labels) if labels is not None else len(node.texts("classlabels_strings") or [])
    kept = _Kept()

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        x = widened(x)
        w, b = kept.of(x, weights), kept.of(x, offsets)
        rows = max(len(offsets), 1)
        scores = torch.matmul(x, w.reshape(rows, -1).T)
        scores = scores + b if offsets else scores
        if scores.shape[-1] == 1 and count == 2:
            scores = torch.cat([-scores, scores], -1)
        place = scores.argmax(-1)
        names = kept.labels(x, labels) if labels else None
        found = place if names is None else names[place]
        if transform == "SOFTMAX":
            scores = torch.softmax(scores, -1)
        elif transform == "LOGISTIC":
            scores = torch.sigmoid(scores)
        return found, scores

    return run


class _Kept:
    """Coefficients as tensors of the type and device of the input, made once for each."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, torch.dtype, torch.device], Tensor] = {}

    def of(self, x: Tensor, values: list[float]) -> Tensor:
        key = (id(values), x.dtype, x.device)
        if key not in self._made:
            with torch.inference_mode(mode=False):
                self._made[key] = _as(x, values)
        return self._made[key]

    def labels(self, x: Tensor, values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=x.device)


@op("LinearRegressor", domain=ML)
def linear_regressor(node: Node) -> Kernel:
    """A linear map with an offset."""
    if node.text("post_transform", "NONE") != "NONE":
        raise node.refuse("post_transform is not supported")
    weights, offsets = _constants(node, "coefficients"), _constants(node, "intercepts")
    targets = node.integer("targets", 1)
    kept = _Kept()

    def run(x: Tensor) -> Tensor:
        x = widened(x)
        made = torch.matmul(x, kept.of(x, weights).reshape(targets, -1).T)
        return made + kept.of(x, offsets) if offsets else made

    return run


@op("Scaler", domain=ML)
def scaler(node: Node) -> Kernel:
    """(x - offset) scale, per feature."""
    offset, scale = _constants(node, "offset"), _constants(node, "scale")
    kept = _Kept()

    def run(x: Tensor) -> Tensor:
        x = widened(x)
        moved = x - kept.of(x, offset) if offset else x
        return moved * kept.of(x, scale) if scale else moved

    return run


@op("Normalizer", domain=ML)
def normalizer(node: Node) -> Kernel:
    """Each row divided by its norm: MAX, L1 or L2; a row of zeros stays."""
    kind = node.text("norm", "MAX")

    def run(x: Tensor) -> Tensor:
        x = widened(x)
        if kind == "MAX":
            size = x.amax(-1, keepdim=True)
        else:
            order = 1 if kind == "L1" else 2
            size = torch.linalg.vector_norm(x, order, -1, keepdim=True)
        return x / torch.where(size == 0, torch.ones_like(size), size)

    return run


@op("Binarizer", domain=ML)
def binarizer(node: Node) -> Kernel:
    """1 where x is larger than the threshold, else 0."""
    threshold = node.number("threshold")
    return lambda x: (x > threshold).to(x.dtype)


@op("Imputer", domain=ML)
def imputer(node: Node) -> Kernel:
    """Missing values (NaN, or one number) replaced by one value per feature."""
    values = _constants(node, "imputed_value_floats")
    missing = node.number("replaced_value_float")
    if not values:
        raise node.refuse("integer features are not supported")
    kept = _Kept()

    def run(x: Tensor) -> Tensor:
        empty = torch.isnan(x) if missing != missing else x == missing  # noqa: PLR0124  (NaN)
        return torch.where(empty, kept.of(x, values), x)

    return run


@op("ArrayFeatureExtractor", domain=ML)
def array_feature_extractor(node: Node) -> Kernel:
    """Columns of x."""
    del node
    return lambda x, index: x.index_select(-1, index.reshape(-1).long())


@op("FeatureVectorizer", domain=ML)
def feature_vectorizer(node: Node) -> Kernel:
    """Features side by side."""
    del node
    return lambda *values: torch.cat([widened(value) for value in values], -1)


@op("ZipMap", domain=ML)
def zip_map(node: Node) -> Kernel:
    """The probabilities themselves; the names of the classes are left out."""
    del node
    return lambda x: x
