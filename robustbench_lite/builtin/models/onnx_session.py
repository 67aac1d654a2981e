"""One onnxruntime session on exactly the provider that was asked for: torch in, torch out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state
from torch import Tensor

from robustbench_lite import EnvironmentProblem, ModelError

from .onnx_proto import Port

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
PROBLEMS: tuple[type[Exception], ...] = (
    ort_state.Fail,
    ort_state.InvalidArgument,
    ort_state.InvalidGraph,
    ort_state.InvalidProtobuf,
    ort_state.NoSuchFile,
    ort_state.NotImplemented,
    ort_state.RuntimeException,
    ort_state.EPFail,
)
INPUT_DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "float64": torch.float64,
    "uint8": torch.uint8,
}
OUTPUT_TYPES = ("float32", "float16", "float64")
_NUMPY = {
    torch.float32: np.float32,
    torch.float16: np.float16,
    torch.float64: np.float64,
    torch.uint8: np.uint8,
}
_MAX_BYTE = 255
_NOISE = (
    re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : "),
    re.compile(r"^Load model from .*? failed: ?"),
    re.compile(r"/\S+\.(h|cc|cpp):\d+ .*?\) (?=[A-Z])"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A graph in onnxruntime with the one input it is fed and the one output that is read."""

    raw: ort.InferenceSession
    input: Port
    output: Port
    device: str
    provider: str
    stream: torch.cuda.Stream | None = None

    def run(self, x: Tensor) -> Tensor:
        """Raw output float32 [n, ...] on x's device; x: float32 [n, ...] in graph layout, n > 0.

        x is cast to the graph's type (rounded for uint8). A graph with a fixed batch size is fed
        slices of that size, the last one padded with its last row.
        """
        fed = self._cast(x.detach()).contiguous()
        fixed = self.input.batch
        if fixed is None:
            return self._once(fed).to(x.device)
        starts = range(0, len(fed), fixed)
        parts = [self._padded(fed[start : start + fixed], fixed) for start in starts]
        return torch.cat(parts).to(x.device)

    def _padded(self, part: Tensor, size: int) -> Tensor:
        n = len(part)
        if n < size:
            part = torch.cat([part, part[-1:].expand(size - n, *part.shape[1:])])
        return self._once(part)[:n]

    def _once(self, fed: Tensor) -> Tensor:
        try:
            output = self._on_cpu(fed) if self.provider == CPU else self._on_cuda(fed)
        except PROBLEMS as problem:
            raise _refusal(self.input, fed, problem) from problem
        if output.ndim == 0 or len(output) != len(fed):
            raise ModelError(
                f"output '{self.output.name}' has shape {list(output.shape)} for {len(fed)} "
                "inputs; expected one row per input, the batch first"
            )
        return output.float()

    def _on_cpu(self, fed: Tensor) -> Tensor:
        # a contiguous array is not copied by onnxruntime, neither in nor out
        (array,) = self.raw.run([self.output.name], {self.input.name: fed.cpu().numpy()})
        return torch.from_numpy(array)

    def _on_cuda(self, fed: Tensor) -> Tensor:
        """Input and output stay on the device; torch and onnxruntime share one stream of their own.

        onnxruntime ignores the default stream, so the session has another, which waits for what
        made the input and which torch's work on the output waits for.
        """
        device, stream = torch.device(self.device), self.stream
        assert stream is not None
        index = device.index or 0
        fed = fed.to(device)
        binding = self.raw.io_binding()
        binding.bind_input(
            self.input.name, "cuda", index, _NUMPY[fed.dtype], tuple(fed.shape), fed.data_ptr()
        )
        made = self._room(len(fed), device)
        if made is None:
            binding.bind_output(self.output.name, "cpu")
        else:
            binding.bind_output(
                self.output.name,
                "cuda",
                index,
                _NUMPY[made.dtype],
                tuple(made.shape),
                made.data_ptr(),
            )
        current = torch.cuda.current_stream(device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            self.raw.run_with_iobinding(binding)
        current.wait_stream(stream)
        if made is None:
            (array,) = binding.copy_outputs_to_cpu()
            return torch.from_numpy(array)
        fed.record_stream(stream)  # their memory is not handed on while the stream may use it
        made.record_stream(stream)
        return made

    def _room(self, n: int, device: torch.device) -> Tensor | None:
        """A tensor for n rows of output, None where the file does not say how wide they are."""
        shape = self.output.shape
        if not shape or not all(isinstance(size, int) and size > 0 for size in shape[1:]):
            return None
        widths = [int(size) for size in shape[1:] if size is not None]
        return torch.empty((n, *widths), dtype=INPUT_DTYPES[self.output.type], device=device)

    def _cast(self, x: Tensor) -> Tensor:
        dtype = INPUT_DTYPES[self.input.type]
        if dtype == torch.uint8:
            x = x.round().clamp(0, _MAX_BYTE)
        return x.to(dtype)


def open_session(
    path: Path, *, input_: Port, output: Port, device: str, threads: int, optimise: bool = True
) -> Session:
    """A session for the file on `device` ("cpu" or "cuda:i").

    Raises ModelError if onnxruntime refuses the file, EnvironmentProblem if it does not run on the
    provider that was asked for: it falls back to the CPU without an error of its own.
    """
    wanted = CUDA if device.startswith("cuda") else CPU
    if wanted == CUDA:
        require_cuda(ort.get_available_providers())
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        stream = torch.cuda.Stream(device) if wanted == CUDA else None  # type: ignore[no-untyped-call]
        provider = _provider(wanted, device, stream)
        raw = ort.InferenceSession(str(path), options, providers=[provider])
    except PROBLEMS as problem:
        raise ModelError(
            f"{path}: onnxruntime {ort.__version__} refuses it: {_short(problem)}"
        ) from problem
    require_provider(raw.get_providers()[0], wanted)
    return Session(
        raw=raw, input=input_, output=output, device=device, provider=wanted, stream=stream
    )


def unoptimised(session: Session, path: Path, threads: int) -> Session:
    """The same graph with every optimisation of the runtime off: how much these change."""
    return open_session(
        path,
        input_=session.input,
        output=session.output,
        device=session.device,
        threads=threads,
        optimise=False,
    )


def _provider(
    wanted: str, device: str, stream: torch.cuda.Stream | None
) -> str | tuple[str, dict[str, str]]:
    if stream is None:
        return wanted
    return wanted, {
        "device_id": str(torch.device(device).index or 0),
        "user_compute_stream": str(stream.cuda_stream),
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": "0",  # float32 as declared: the device must not change a verdict
    }


def require_cuda(available: list[str]) -> None:
    """EnvironmentProblem, with its cause, unless onnxruntime and torch both offer CUDA."""
    if CUDA not in available:
        raise EnvironmentProblem(
            f"CUDA was asked for and the installed onnxruntime {ort.__version__} has only "
            f"{', '.join(available)}. {_installed()}"
        )
    if not torch.cuda.is_available():
        raise EnvironmentProblem(
            f"CUDA was asked for and torch {torch.__version__} finds no CUDA device (a CPU build, "
            "no driver, or no GPU). Run with --device cpu, or install a CUDA build of torch"
        )


def require_provider(got: str, wanted: str) -> None:
    """EnvironmentProblem if the session runs on another provider than the one asked for."""
    if got != wanted:
        raise EnvironmentProblem(
            f"{wanted} was asked for and onnxruntime {ort.__version__} runs on {got}: its CUDA or "
            f"cuDNN libraries do not load (onnxruntime-gpu 1.27 and later needs CUDA 13 and cuDNN "
            f"9, here torch has CUDA {torch.version.cuda}). Install matching builds, or run with "
            "--device cpu"
        )


def _installed() -> str:
    found = {name: _version(name) for name in ("onnxruntime", "onnxruntime-gpu")}
    if all(found.values()):
        return (
            f"Both onnxruntime {found['onnxruntime']} and onnxruntime-gpu "
            f"{found['onnxruntime-gpu']} are installed and overwrite each other: uninstall both, "
            "then install onnxruntime-gpu"
        )
    if found["onnxruntime-gpu"] is None:
        return "Uninstall onnxruntime and install onnxruntime-gpu"
    return "Run with --device cpu, or repair onnxruntime-gpu"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _refusal(port: Port, fed: Tensor, problem: Exception) -> Exception:
    text = _short(problem)
    if "allocate" in text.lower() or "out of memory" in text.lower():
        return torch.OutOfMemoryError(text)  # the caller halves its batch
    return ModelError(
        f"onnxruntime refuses inputs of shape {list(fed.shape)}; the graph declares {port}: {text}"
    )


def _short(problem: Exception) -> str:
    """The sentence of an onnxruntime error, without its codes, paths and C++ signature."""
    text = " ".join(str(problem).split())
    for noise in _NOISE:
        text = noise.sub("", text)
    return text[:500]
