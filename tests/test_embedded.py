"""The embedded files are small, are those of the card, and still do what the card says."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from robustbench_lite.embedded import nets

FOLDER = Path(nets.__file__).parent
CARD = json.loads((FOLDER / "card.json").read_text(encoding="utf-8"))
ONNX_FILES = ["mnist_cnn.onnx", "mnist_cnn_robust.onnx"]


@pytest.fixture(scope="module")
def sample() -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    with np.load(FOLDER / "mnist_sample.npz", allow_pickle=False) as npz:
        x, y = npz["x"], npz["y"]
    return (x.astype(np.float32) / np.float32(255))[:, None], y


def logits_of(name: str, x: NDArray[np.float32]) -> NDArray[np.float32]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(FOLDER / name, options, providers=["CPUExecutionProvider"])
    logits: NDArray[np.float32] = session.run(["logits"], {"image": x})[0]
    return logits


def test_all_files_together_stay_within_4_mb() -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir() if file.is_file()) <= 4_000_000


def test_every_binary_file_is_on_the_card_with_its_hash_and_size() -> None:
    found = {
        file.name: (hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_size)
        for file in FOLDER.iterdir()
        if file.suffix in {".npz", ".onnx", ".safetensors"}
    }
    assert found == {name: (entry["sha256"], entry["bytes"]) for name, entry in CARD.items()}


def test_the_readme_quotes_the_card() -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    for name, entry in CARD.items():
        row = next(line for line in readme.splitlines() if entry["sha256"] in line)
        rates = [attack["robust_accuracy"] for attack in entry.get("attacks", {}).values()]
        rates = [entry["clean_accuracy"], *rates] if rates else []
        assert f"`{name}`" in row
        assert [cell.strip() for cell in row.split("|") if "%" in cell] == [
            f"{rate:.2%}" for rate in rates
        ]


def test_sample_has_1000_images_of_every_digit() -> None:
    with np.load(FOLDER / "mnist_sample.npz", allow_pickle=False) as npz:
        assert set(npz.files) == {"x", "y"}
        x, y = npz["x"], npz["y"]
    assert (x.shape, x.dtype) == ((1000, 28, 28), np.uint8)
    assert (y.shape, y.dtype) == ((1000,), np.uint8)
    assert set(y.tolist()) == set(range(10))


@pytest.mark.fulldata
def test_sample_is_the_start_of_the_test_set(full_data: Path) -> None:
    def idx(name: str, header: int) -> NDArray[np.uint8]:
        plain, packed = full_data / "mnist" / name, full_data / "mnist" / f"{name}.gz"
        raw = plain.read_bytes() if plain.exists() else gzip.decompress(packed.read_bytes())
        return np.frombuffer(raw, np.uint8, offset=header)

    with np.load(FOLDER / "mnist_sample.npz", allow_pickle=False) as npz:
        x, y = npz["x"], npz["y"]
    assert np.array_equal(x.ravel(), idx("t10k-images-idx3-ubyte", 16)[: x.size])
    assert np.array_equal(y, idx("t10k-labels-idx1-ubyte", 8)[: y.size])


@pytest.mark.parametrize("name", ONNX_FILES)
@pytest.mark.parametrize("n", [1, 5])
def test_onnx_runs_at_any_batch_size(
    name: str, n: int, sample: tuple[NDArray[np.float32], NDArray[np.uint8]]
) -> None:
    logits = logits_of(name, sample[0][:n])
    assert logits.shape == (n, 10)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("name", ONNX_FILES)
def test_onnx_is_self_contained_and_carries_no_trace_of_its_maker(name: str) -> None:
    model = onnx.load(FOLDER / name, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
    assert not model.metadata_props
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "n"
    assert b"site-packages" not in (FOLDER / name).read_bytes()


@pytest.mark.parametrize(
    ("name", "floor"), [("mnist_cnn.onnx", 0.985), ("mnist_cnn_robust.onnx", 0.97)]
)
def test_onnx_clean_accuracy_on_the_sample(
    name: str, floor: float, sample: tuple[NDArray[np.float32], NDArray[np.uint8]]
) -> None:
    x, y = sample
    assert (logits_of(name, x).argmax(1) == y).mean() >= floor


def test_mlp_clean_accuracy_on_the_sample(
    sample: tuple[NDArray[np.float32], NDArray[np.uint8]],
) -> None:
    net = nets.mlp()
    net.load_state_dict(load_file(FOLDER / "mnist_mlp.safetensors"))
    logits = net.eval()(torch.from_numpy(sample[0]))
    assert logits.shape == (1000, 10)
    assert (logits.argmax(1).numpy() == sample[1]).mean() >= 0.97


@pytest.mark.parametrize("name", ONNX_FILES)
def test_onnx_weights_have_the_shapes_of_the_cnn(name: str) -> None:
    stored = {t.name: tuple(t.dims) for t in onnx.load(FOLDER / name).graph.initializer}
    assert stored == {key: tuple(p.shape) for key, p in nets.cnn().state_dict().items()}
