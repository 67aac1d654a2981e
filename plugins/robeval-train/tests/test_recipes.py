"""Recipes against closed forms: what the paper derives must hold to rounding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from blobs import blobs, job, same
from torch import Tensor, nn
from torch.nn import functional

from robeval_train import nets
from robeval_train.nets.options import Logistic, Maxout, Mlp
from robeval_train.training import costs, loop, perturb, recipes
from robeval_train.training.costs import Cost
from robeval_train.training.draws import Draws
from robeval_train.training.options import (
    FgsmAdversarial,
    Noise,
    PgdAdversarial,
    Recipe,
    Rubbish,
    Standard,
    Trades,
    WorstCaseLogistic,
)
from robustbench_lite import Box

EPS = 0.25


def logistic(seed: int) -> tuple[nn.Module, Tensor, Tensor]:
    """A logistic regression with random weights, in float64, and data of both classes."""
    rng = torch.Generator().manual_seed(seed)
    net = nets.build(Logistic(), (1, 4, 4), 2).double()
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_(torch.randn(weight.shape, generator=rng, dtype=torch.float64))
    x = torch.rand(40, 1, 4, 4, generator=rng, dtype=torch.float64)
    return net, x, torch.arange(40) % 2


def a_step(
    net: nn.Module, x: Tensor, y: Tensor, cost: Cost = costs.cross_entropy, own: bool = False
) -> recipes.Step:
    return recipes.Step(
        net=net, x=x, y=y, cost=cost, independent=own, box=Box(), draws=Draws(0, 1, 0)
    )


def gradients(net: nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(net.parameters())))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("label", [0, 1])
def test_the_corrected_worst_case_is_the_fgsm_loss_for_both_labels(seed: int, label: int) -> None:
    net, x, y = logistic(seed)
    mine = a_step(net, x[y == label], y[y == label])
    exact = recipes.loss(WorstCaseLogistic(eps=EPS), mine)
    fgsm = recipes.loss(FgsmAdversarial(alpha=0.0, eps=EPS), mine)
    assert abs(float(exact.detach()) - float(fgsm.detach())) < 1e-6
    for a, b in zip(gradients(net, exact), gradients(net, fgsm), strict=True):
        assert torch.allclose(a, b, atol=1e-9)


def test_the_formula_as_printed_is_the_worst_case_of_one_label_only() -> None:
    """softplus(y (eps |w|_1 - w.x - b)) is exact for y = +1 and too small for y = -1."""
    net, x, y = logistic(0)
    (linear,) = (layer for layer in net.modules() if isinstance(layer, nn.Linear))
    z = net(x)[:, 1].detach()
    sign = 2.0 * y - 1
    size = EPS * linear.weight.detach().abs().sum()
    printed = functional.softplus(sign * (size - z))
    correct = functional.softplus(size - sign * z)
    assert torch.allclose(printed[y == 1], correct[y == 1])
    assert bool((printed[y == 0] < correct[y == 0]).all())


def test_fgsm_on_a_linear_model_is_the_closed_form_and_no_corner_is_worse() -> None:
    net, x, y = logistic(1)
    (linear,) = (layer for layer in net.modules() if isinstance(layer, nn.Linear))
    leaf = x.clone().requires_grad_(True)
    grad = costs.gradient(costs.cross_entropy(net(leaf), y), leaf)
    found = perturb.signed(x, grad, EPS, None)
    label = (2.0 * y - 1).view(-1, 1, 1, 1)
    closed = x - EPS * label * linear.weight.detach().sign().view(1, 1, 4, 4)
    assert torch.equal(found, closed)
    worst = costs.cross_entropy(net(found), y)
    rng = torch.Generator().manual_seed(2)
    for _ in range(50):
        corner = torch.empty(x.shape, dtype=x.dtype).bernoulli_(0.5, generator=rng) * 2 - 1
        assert bool((costs.cross_entropy(net(x + EPS * corner), y) <= worst + 1e-12).all())


def test_alpha_one_is_standard_training_bit_for_bit(tmp_path: Path) -> None:
    arch = {"name": "maxout", "units": 8, "init": 0.1}
    plain, _ = loop.train(job(tmp_path / "a", {"arch": arch}))
    recipe = {"name": "fgsm-adversarial", "alpha": 1.0}
    alpha, _ = loop.train(job(tmp_path / "b", {"arch": arch, "recipe": recipe}))
    half, _ = loop.train(job(tmp_path / "c", {"arch": arch, "recipe": "fgsm-adversarial"}))
    assert same(plain, alpha)
    assert not same(plain, half)


def test_clean_epochs_are_standard_training_and_the_next_one_is_not(tmp_path: Path) -> None:
    arch = {"name": "maxout", "units": 8, "init": 0.1}
    for epochs, alike in ((2, True), (3, False)):
        recipe = {"name": "fgsm-adversarial", "clean_epochs": 2}
        late = {"arch": arch, "epochs": epochs, "recipe": recipe}
        weights, _ = loop.train(job(tmp_path / f"late {epochs}", late))
        plain, _ = loop.train(job(tmp_path / f"plain {epochs}", {"arch": arch, "epochs": epochs}))
        assert same(weights, plain) == alike


def test_no_gradient_flows_through_the_sign_or_the_example() -> None:
    torch.manual_seed(0)
    net = nets.build(Mlp(widths=(8,)), (1, 4, 4), 3)
    data = blobs(30)
    step = a_step(net, data.x, data.y)
    leaf = data.x.clone().requires_grad_(True)
    grad = costs.gradient(costs.cross_entropy(net(leaf), data.y), leaf)
    frozen = (data.x + EPS * grad.sign()).detach()
    by_hand = 0.3 * costs.cross_entropy(net(data.x), data.y).mean()
    by_hand = by_hand + 0.7 * costs.cross_entropy(net(frozen), data.y).mean()
    loss = recipes.loss(FgsmAdversarial(alpha=0.3, eps=EPS), step)
    for a, b in zip(gradients(net, loss), gradients(net, by_hand), strict=True):
        assert torch.allclose(a, b, atol=1e-7)
    assert not perturb.signed(leaf, grad, EPS, None).requires_grad


def test_both_passes_of_a_step_see_the_same_masks_and_the_next_step_others() -> None:
    net = nets.build(Maxout(units=6, init=0.1), (1, 4, 4), 3).train()
    x = blobs(10).x
    before = torch.random.get_rng_state()
    first = Draws(0, 1, 0).passed(net, x)
    assert torch.equal(first, Draws(0, 1, 0).passed(net, x))
    assert not torch.equal(first, Draws(0, 1, 1).passed(net, x))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_stays_in_the_ball_and_the_box_and_is_worse_than_a_random_point(norm: str) -> None:
    torch.manual_seed(0)
    net = nets.build(Mlp(widths=(16,)), (1, 4, 4), 3).train()
    data = blobs(60)
    options = PgdAdversarial(norm=norm, eps=0.3, steps=10)  # type: ignore[arg-type]
    found = perturb.pgd(
        net,
        data.x,
        lambda scores: costs.cross_entropy(scores, data.y),
        norm=options.norm,
        eps=options.eps,
        steps=options.steps,
        step_size=None,
        box=Box(),
        rng=torch.Generator().manual_seed(0),
    )
    delta = (found - data.x).flatten(1)
    size = delta.abs().amax(dim=1) if norm == "linf" else delta.norm(dim=1)
    assert float(size.max()) <= 0.3 + 1e-6
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    assert net.training
    start = perturb.start(data.x, options.norm, 0.3, Box(), torch.Generator().manual_seed(0))
    with torch.no_grad():
        at = [float(costs.cross_entropy(net(z), data.y).mean()) for z in (start, found)]
    assert at[1] > at[0]


def test_trades_at_eps_zero_is_standard_and_grows_with_beta() -> None:
    torch.manual_seed(1)
    net = nets.build(Mlp(widths=(16,)), (1, 4, 4), 3).train()
    data = blobs(30)
    step = a_step(net, data.x, data.y)
    plain = float(recipes.loss(Standard(), step).detach())
    none = float(recipes.loss(Trades(eps=0.0), step).detach())
    some = [float(recipes.loss(Trades(eps=0.3, beta=b), step).detach()) for b in (1.0, 6.0)]
    assert abs(none - plain) < 1e-6
    assert plain < some[0] < some[1]


@pytest.mark.parametrize("kind", ["sign", "uniform"])
def test_noise_is_of_its_size_fresh_every_step_and_has_no_clean_half(kind: str) -> None:
    seen: list[Tensor] = []

    class Recorder(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return x.flatten(1)[:, :3]

    x = torch.full((200, 1, 4, 4), 0.5)
    y = torch.zeros(200, dtype=torch.int64)
    for step in (0, 1):
        one = recipes.Step(
            net=Recorder(),
            x=x,
            y=y,
            cost=costs.cross_entropy,
            independent=False,
            box=Box(),
            draws=Draws(0, 1, step),
        )
        recipes.loss(Noise(kind=kind, eps=EPS), one)  # type: ignore[arg-type]
    assert len(seen) == 2
    eta = seen[0] - x
    assert not torch.equal(seen[0], seen[1])
    assert abs(float(eta.mean())) < 0.02
    if kind == "sign":
        assert torch.equal(eta.abs(), torch.full_like(eta, EPS))
    else:
        assert 0.24 < float(eta.abs().max()) <= EPS
        assert abs(float(eta.abs().mean()) - EPS / 2) < 0.01


@pytest.mark.parametrize("own", [False, True])
def test_a_sample_of_no_class_costs_nothing_only_where_no_class_is_named(own: bool) -> None:
    calm = torch.full((1, 4), -30.0)
    sure = torch.tensor([[9.0, -9.0, -9.0, -9.0]])
    assert abs(float(costs.no_class(calm, independent=own))) < 1e-6
    assert float(costs.no_class(sure, independent=own)) > 1


def test_training_on_rubbish_makes_a_network_unsure_of_rubbish(tmp_path: Path) -> None:
    arch = {"name": "mlp", "widths": [32]}
    sgd = {"name": "sgd", "lr": 0.3, "momentum": 0.9}
    z = torch.randn(200, 1, 4, 4, generator=torch.Generator().manual_seed(9))
    sure: list[float] = []
    for name, recipe in (("a", "standard"), ("b", "rubbish")):
        one = job(tmp_path / name, {"arch": arch, "recipe": recipe, "optimiser": sgd, "epochs": 60})
        weights, _ = loop.train(one)
        net = one.build()
        net.load_state_dict(weights)
        sure.append(float((net(z).softmax(dim=1).amax(dim=1) > 0.5).float().mean()))
    assert sure[1] < 0.2 < sure[0]


def test_per_class_cost_is_the_sum_of_binary_cross_entropies() -> None:
    scores = torch.tensor([[2.0, -1.0, 0.5]])
    p = scores.sigmoid()[0]
    by_hand = -(p[0].log() + (1 - p[1]).log() + (1 - p[2]).log())
    assert torch.allclose(costs.per_class(scores, torch.tensor([0])), by_hand[None])


@pytest.mark.parametrize(
    "options",
    [Standard(), FgsmAdversarial(), PgdAdversarial(), Trades(), Noise(), Rubbish()],
    ids=lambda options: options.name,
)
def test_every_recipe_gives_every_weight_a_gradient_and_leaves_the_mode(options: Recipe) -> None:
    torch.manual_seed(0)
    net = nets.build(Mlp(widths=(8,)), (1, 4, 4), 3).train()
    data = blobs(12)
    loss = recipes.loss(options, a_step(net, data.x, data.y))
    assert loss.shape == ()
    assert all(float(grad.abs().sum()) > 0 for grad in gradients(net, loss))
    assert net.training
