"""Element types: which torch type stands for each ONNX type, and tensors read from the proto."""

from __future__ import annotations

import math

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor

from robustbench_lite import ModelError

_TYPES: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.BOOL: torch.bool,
    TensorProto.INT8: torch.int8,
    TensorProto.INT16: torch.int16,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.UINT8: torch.uint8,
    # torch lacks most kernels for the wider unsigned types: the next signed type holds them
    TensorProto.UINT16: torch.int32,
    TensorProto.UINT32: torch.int64,
    TensorProto.UINT64: torch.int64,
    TensorProto.INT4: torch.int8,
    TensorProto.UINT4: torch.uint8,
    TensorProto.INT2: torch.int8,
    TensorProto.UINT2: torch.uint8,
    # eight-bit floats stand as float32 that hold only representable values
    TensorProto.FLOAT8E4M3FN: torch.float32,
    TensorProto.FLOAT8E4M3FNUZ: torch.float32,
    TensorProto.FLOAT8E5M2: torch.float32,
    TensorProto.FLOAT8E5M2FNUZ: torch.float32,
}
_HALVES = (torch.float16, torch.bfloat16)
_FIELDS: dict[int, str] = {
    TensorProto.FLOAT: "float_data",
    TensorProto.DOUBLE: "double_data",
    TensorProto.INT64: "int64_data",
    TensorProto.UINT32: "uint64_data",
    TensorProto.UINT64: "uint64_data",
}
_BITS: dict[int, int] = {
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
    TensorProto.FLOAT4E2M1: 4,
    TensorProto.INT2: 2,
    TensorProto.UINT2: 2,
}


class Precision:
    """Which torch type stands for each ONNX element type.

    `override` replaces every float type (diagnosis in float64). `widen` lets the half types
    stand as float32: CPU kernels for them are slow, and some are missing. `device` is where
    kernels make new tensors.
    """

    def __init__(self, override: torch.dtype | None = None, *, widen: bool = False) -> None:
        self.override = override
        self.widen = widen
        self.device = torch.device("cpu")

    def of(self, elem_type: int) -> torch.dtype:
        """The torch type of an ONNX element type; ModelError where there is none."""
        if elem_type not in _TYPES:
            raise ModelError(
                f"tensors of ONNX type {type_name(elem_type)} are not supported; "
                "export the model with float, half, integer or boolean tensors"
            )
        return self.float_type(_TYPES[elem_type])

    def float_type(self, dtype: torch.dtype) -> torch.dtype:
        """The type that values of `dtype` have on the device the twin stands on."""
        if not dtype.is_floating_point:
            return dtype
        if self.override is not None:
            return self.override
        return torch.float32 if self.widen and dtype in _HALVES else dtype


def type_name(elem_type: int) -> str:
    """The ONNX name of an element type, such as FLOAT16."""
    names: dict[int, str] = {number: name for name, number in TensorProto.DataType.items()}
    return names.get(elem_type, str(elem_type))


def elem_type_of(value: onnx.ValueInfoProto) -> int:
    """The element type of a graph input or output; 0 where it is not a tensor."""
    return int(value.type.tensor_type.elem_type) if value.type.HasField("tensor_type") else 0


def declared_bytes(tensor: TensorProto) -> int:
    """The bytes that the dimensions of `tensor` declare, from the header alone."""
    count = math.prod(tensor.dims)
    if tensor.data_type in _BITS:
        return int(count * _BITS[tensor.data_type] + 7) // 8
    try:
        size = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (KeyError, TypeError):
        size = 1
    return int(count * size)


def check_tensor(tensor: TensorProto) -> None:
    """Refuse a tensor whose data is not inside the proto, or is not as long as it declares.

    Everything is decided from the header and the stored length: nothing is allocated.
    """
    name = tensor.name or "of a Constant node"
    if tensor.data_location == TensorProto.EXTERNAL:
        _refuse_external(tensor)
    if any(size < 0 for size in tensor.dims):
        raise ModelError(f"tensor '{name}' declares a negative size: {list(tensor.dims)}")
    if tensor.data_type == TensorProto.STRING:
        stored, declared = len(tensor.string_data), math.prod(tensor.dims)
    elif tensor.HasField("raw_data"):
        stored, declared = len(tensor.raw_data), declared_bytes(tensor)
    else:
        data = getattr(tensor, _FIELDS.get(tensor.data_type, "int32_data"))
        stored = len(data)
        declared = math.prod(tensor.dims)
        if tensor.data_type in _BITS:
            declared = declared_bytes(tensor)
    if stored != declared:
        raise ModelError(
            f"tensor '{name}' declares the shape {list(tensor.dims)} ({declared_bytes(tensor)} "
            f"bytes) but the file holds {stored} of {declared} stored units; the file is damaged "
            "or truncated: fetch or export it again"
        )


def _refuse_external(tensor: TensorProto) -> None:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    parts = location.replace("\\", "/").split("/")
    if location.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
        raise ModelError(
            f"tensor '{tensor.name}' keeps its data in '{location}', outside the folder of the "
            "model; this is not read. Save the model with its weights inside or beside it"
        )
    raise ModelError(
        f"tensor '{tensor.name}' keeps its data in the file '{location}', which is not loaded; "
        "load the model with onnx.load(path), which reads the files beside it"
    )


def tensor_of(tensor: TensorProto, precision: Precision) -> Tensor:
    """The values of a tensor proto as a CPU tensor of its own memory."""
    dtype = precision.of(tensor.data_type)
    array = numpy_helper.to_array(tensor)
    if array.dtype.isbuiltin != 1:  # numpy has no such type: ml_dtypes holds it
        array = array.astype(np.float32)
    elif array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)
    return torch.from_numpy(np.array(array, order="C", copy=True)).to(dtype)
