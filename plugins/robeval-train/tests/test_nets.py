"""Architectures: shapes, initialisation, norm constraints, dropout, and export."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from robeval_train import nets
from robeval_train.nets import options
from robeval_train.nets.layers import Bounded, Kept, MaxPieces, constrain
from robeval_train.nets.rbf import Bumps
from robeval_train.training.load import as_model
from robustbench_lite.train import export

SMALL: list[options.Net] = [
    options.Softmax(),
    options.Mlp(widths=(8, 8), drop=0.5),
    options.Maxout(units=8),
    options.ConvMaxout(channels=(4, 4, 4), dense=8),
    options.Rbf(),
    options.Cnn(channels=(4, 8), hidden=8),
    options.LeNet(),
    options.ResNet18(width=4),
]


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)], ids=["mnist", "cifar"])
@pytest.mark.parametrize("net", SMALL, ids=lambda net: net.name)
def test_every_network_maps_images_to_scores_and_exports_to_onnx(
    net: options.Net, shape: tuple[int, ...], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    built = nets.build(net, shape, 10)
    if isinstance(built, Bumps):
        built.start(torch.rand(20, *shape), torch.arange(20) % 10)
    own = options.independent(net)
    model = as_model(built, shape, 10, "cpu", own=own, facts={})
    x = torch.rand(3, *shape)
    scores = model.predict(x)
    assert scores.shape == (3, 10)
    assert bool(scores.isfinite().all())
    assert torch.allclose(scores[:1], model.predict(x[:1]), atol=1e-5)
    export(model, tmp_path / "net.onnx")
    export(model, tmp_path / "net.safetensors")
    assert (tmp_path / "net.onnx").stat().st_size > 0


def test_names_and_files_cover_every_architecture() -> None:
    for name, kind in options.NETS.items():
        found = nets.files(kind(name=name))  # type: ignore[arg-type]
        assert all(path.is_file() for path in found.values())


def test_the_maxout_recipe_has_the_sizes_and_the_start_of_the_paper() -> None:
    torch.manual_seed(0)
    net = nets.build(options.Maxout(), (1, 28, 28), 10)
    linear = [layer for layer in net.modules() if isinstance(layer, Bounded)]
    assert [tuple(layer.weight.shape) for layer in linear] == [(1200, 784), (1200, 240), (10, 240)]
    for layer in linear:
        assert float(layer.weight.detach().abs().max()) <= 0.005
        assert float(layer.weight.detach().abs().max()) > 0.0045
        assert not layer.bias.detach().any()
        assert layer.max_norm == 1.9365
    kept = [(layer.keep, layer.rescale) for layer in net.modules() if isinstance(layer, Kept)]
    assert kept == [(0.8, False), (0.5, True), (0.5, True)]


def test_the_cifar_network_has_the_maps_of_the_recipe() -> None:
    """`partial_sum` must divide the places of a map: 33 of the first, 15 of the second."""
    net = nets.build(options.ConvMaxout(), (3, 32, 32), 10)
    seen: list[tuple[int, ...]] = []
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda _, __, out: seen.append(tuple(out.shape[1:])))
    net.eval()(torch.zeros(1, 3, 32, 32))
    assert seen == [(192, 33, 33), (384, 15, 15), (384, 9, 9)]


def test_max_pieces_takes_the_largest_piece_of_each_unit() -> None:
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0, 0.0, 9.0]])  # 3 pieces of 2 units
    assert torch.equal(MaxPieces(3)(x), torch.tensor([[3.0, 9.0]]))


def test_constrain_shortens_long_rows_in_place_and_leaves_short_ones() -> None:
    layer = Bounded(4, 3, init=0.1, max_norm=1.0)
    with torch.no_grad():
        layer.weight[0] = 5.0
    before = layer.weight.detach().clone()
    constrain(nn.Sequential(layer, nn.Linear(3, 2)))
    after = layer.weight.detach()
    assert float(after[0].norm()) == pytest.approx(1.0)
    assert torch.allclose(after[0] / after[0].norm(), before[0] / before[0].norm())
    assert torch.equal(after[1:], before[1:])


def test_constrain_bounds_every_kernel_of_a_convolution_by_itself() -> None:
    net = nets.build(options.ConvMaxout(channels=(4, 4, 4), dense=8), (2, 28, 28), 3)
    kernels = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    with torch.no_grad():
        for layer in kernels:
            layer.weight.mul_(1e4)
            layer.weight[0].mul_(1e-5)
    short = [layer.weight[0].detach().clone() for layer in kernels]
    constrain(net)
    for layer, limit, kept in zip(kernels, (0.9, 1.9365, 1.9365), short, strict=True):
        norms = layer.weight.detach().flatten(1).norm(dim=1)
        assert torch.allclose(norms[1:], torch.full_like(norms[1:], limit))
        assert torch.equal(layer.weight[0].detach(), kept)


@pytest.mark.parametrize("rescale", [False, True])
def test_dropout_keeps_its_share_and_rescales_only_if_told(rescale: bool) -> None:
    torch.manual_seed(0)
    layer = Kept(0.8, rescale=rescale).train()
    out = layer(torch.ones(20_000))
    kept = out[out != 0]
    assert float((out != 0).float().mean()) == pytest.approx(0.8, abs=0.02)
    assert float(kept.unique()[0]) == pytest.approx(1.25 if rescale else 1.0)
    assert torch.equal(layer.eval()(torch.ones(5)), torch.ones(5))


@pytest.mark.parametrize("width", ["diagonal", "scalar"])
def test_the_rbf_network_has_the_probabilities_of_its_formula(width: str) -> None:
    torch.manual_seed(0)
    net = nets.build(options.Rbf(width=width), (1, 4, 4), 3)  # type: ignore[arg-type]
    assert isinstance(net, Bumps)
    x, y = torch.rand(30, 1, 4, 4), torch.arange(30) % 3
    net.start(x, y)
    a = nn.functional.softplus(net.raw)
    mu = torch.stack([x[y == k].mean(dim=0).flatten() for k in range(3)])
    assert torch.allclose(net.mu, mu)
    square = (a * (x.flatten(1)[:, None] - mu) ** 2).sum(dim=2)
    assert torch.allclose(net(x).sigmoid(), torch.exp(-square), atol=1e-5)


def test_logistic_regression_refuses_more_than_two_classes() -> None:
    with pytest.raises(ValueError, match="two classes"):
        nets.build(options.Logistic(), (1, 4, 4), 3)


def test_independent_networks_say_so() -> None:
    shape = (1, 4, 4)
    net = nets.build(options.Maxout(units=4, top="sigmoids"), shape, 3)
    model = as_model(net, shape, 3, "cpu", own=True, facts={})
    assert model.output == "independent-probabilities"
    x = torch.rand(5, *shape)
    assert model.differentiable is not None
    assert torch.equal(model.predict(x), model.differentiable(x).sigmoid())
