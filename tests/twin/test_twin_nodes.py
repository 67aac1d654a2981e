"""onnx's own node tests, forward: every supported operator, every opset that the package ships."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from onnx.backend.test.case.test_case import TestCase
from torch import Tensor

from robustbench_lite.builtin.models.twin import ModelError, Program, program_of, supported
from robustbench_lite.builtin.models.twin.precision import Precision, tensor_of
from robustbench_lite.builtin.models.twin.reader import read

UNSUPPORTED = {
    "training is not judged": ("Adagrad", "Adam", "Momentum"),
    "random by definition": ("Bernoulli",),
    "preview domain": ("FlexAttention",),
    "a loop over a subgraph": ("Loop", "Scan", "SequenceMap"),
    "sequences and optional values": (
        *("OptionalGetElement", "OptionalHasElement", "SequenceInsert", "SplitToSequence"),
    ),
    "text": (
        *("RegexFullMatch", "StringConcat", "StringSplit", "StringNormalizer", "TfIdfVectorizer"),
        "LabelEncoder",
    ),
    "decodes files": ("ImageDecoder",),
    "trees have no gradient": ("TreeEnsemble",),
    "no use in image classifiers": (
        *("CausalConvWithState", "LinearAttention", "MelWeightMatrix", "NonMaxSuppression"),
    ),
}
"""Operators with node tests that are refused, by reason."""

PARTLY = {
    "runs in training mode": ("test_batchnorm_*_training_mode", "test_training_dropout*"),
    "bits of unsigned types, which are held in wider ones": ("test_bitcast_uint*",),
    "four-bit floats and bare exponents": (
        *("*FLOAT4E2M1*", "test_*quantizelinear_float4e2m1", "test_cast_e8m0_*"),
    ),
    "compares text": ("test_equal_string*",),
    "the branch depends on an input": ("test_if*", "test_affine_grid_?d*_expanded"),
    "opset 1": ("test_not_?d",),
    "written out with an operator that is not supported": (
        *("test_bernoulli*_expanded", "test_linear_attention_*_expanded"),
        *("test_range_*_expanded", "test_sequence_map_*_expanded"),
    ),
}
"""Tests of supported operators that are refused: patterns of their names, by reason."""

DIFFERENT = {
    "test_dft_inverse": "round-off of 2e-7 against 0 with atol 1e-7",
    "test_dft_inverse_opset19": "round-off of 2e-7 against 0 with atol 1e-7",
    "test_resize_downsample_scales_linear_align_corners": "onnxruntime differs in the same way",
    "test_resize_downsample_scales_cubic_align_corners": "onnxruntime differs in the same way",
}
"""Tests that run and give another result, with the reason."""

HALF = {"float16": 2e-3, "bfloat16": 2e-2}
"""Half types run as float32 on the CPU: the reference is rounded, the twin is not."""


def listed(name: str) -> bool:
    patterns = [pattern for patterns in PARTLY.values() for pattern in patterns]
    return name in DIFFERENT or any(fnmatchcase(name, pattern) for pattern in patterns)


def model_of(case: TestCase) -> onnx.ModelProto:
    assert case.model is not None
    return case.model


def tensor(value: object) -> Tensor:
    proto = value if isinstance(value, TensorProto) else numpy_helper.from_array(np.asarray(value))
    return tensor_of(proto, Precision())


def array(value: object) -> tuple[NDArray[np.float64], float]:
    made = numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value)
    half = HALF.get(made.dtype.name, 0.0)
    # a narrower or integer type survives: the annotation stands for any number
    plain: NDArray[np.float64] = made if made.dtype.isbuiltin == 1 else made.astype(np.float32)
    return plain, half


def fed(program: Program, case: TestCase, inputs: Sequence[object]) -> list[Tensor]:
    known = {value.name for value in model_of(case).graph.initializer}
    names = [value.name for value in model_of(case).graph.input]
    values = [tensor(v) for n, v in zip(names, inputs, strict=False) if n not in known]
    return [x.to(program.precision.float_type(x.dtype)) for x in values]


def run(case: TestCase) -> None:
    graph = read(model_of(case))
    program, _ = program_of(graph, list(graph.outputs))
    for inputs, outputs in case.data_sets or ():
        made = program(*fed(program, case, inputs))
        assert len(made) == len(outputs)
        for got, value in zip(made, outputs, strict=True):
            wanted, half = array(value)
            got = got.float() if got.dtype == torch.bfloat16 else got
            assert tuple(got.shape) == wanted.shape
            np.testing.assert_allclose(
                got.numpy().astype(wanted.dtype),
                wanted,
                rtol=max(case.rtol, half),
                atol=max(case.atol, half / 2),
            )


def failures(cases: Sequence[TestCase]) -> dict[str, str]:
    found = {}
    for case in cases:
        try:
            run(case)
        except (ModelError, AssertionError, TypeError) as problem:
            found[case.name] = f"{type(problem).__name__}: {problem}"
    return found


OPERATORS = [name for domain in ("", "ai.onnx.ml") for name in supported()[domain]]


@pytest.mark.parametrize("operator", [*OPERATORS, "expanded"])
def test_node_tests_of_every_supported_operator_pass(
    operator: str, cases: dict[str, list[TestCase]]
) -> None:
    mine = cases.get(operator, [])
    failed = failures(mine)
    assert {name: why for name, why in failed.items() if not listed(name)} == {}
    assert {case.name for case in mine if listed(case.name)} == set(failed)


def test_operators_without_support_are_listed_and_refused_by_name(
    cases: dict[str, list[TestCase]],
) -> None:
    refused = {name for names in UNSUPPORTED.values() for name in names}
    assert refused == set(cases) - {*OPERATORS, "expanded"}
    for operator in refused:
        for case in cases[operator]:
            with pytest.raises(ModelError, match=operator):
                run(case)


def test_at_least_130_operators() -> None:
    own = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    assert len(own.intersection(supported()[""])) >= 130


def test_operators_without_a_node_test_are_known(cases: dict[str, list[TestCase]]) -> None:
    assert set(supported()[""]) - set(cases) == {"GlobalLpPool", "MaxRoiPool"}
