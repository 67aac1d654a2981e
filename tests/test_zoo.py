"""The zoo: accurate models with the flaw they claim and the truth they claim, broken attacks."""

from __future__ import annotations

import copy
import gc
import time
import types
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import scipy.fft
import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_lite import AttackSpec, Box, Budget, ModelError, Norm, Places, hookimpl, norms
from robustbench_lite.access import BatchMemory, Granted, Tally
from robustbench_lite.builtin.models.parameters import TorchParams
from robustbench_lite.builtin.models.torch_file import load
from robustbench_lite.contract import collect
from robustbench_lite.testing import zoo
from robustbench_lite.testing.zoo import attacks, gradients, healthy
from robustbench_lite.testing.zoo.registry import Member
from tests.oracles import Problem

EPS = 0.3
N = 200
BROKEN = [each for each in zoo.MEMBERS if each.kind == "broken"]
HEALTHY = [each for each in zoo.MEMBERS if each.kind == "healthy"]
REMEMBERING = {"cached-answers", "cached-places", "counted-calls"}
AT_CHANCE = {"constant-logits", "bytes-input"}
RANDOM = {"dropout-on", "gaussian-noise", "random-resizing"}
MIXING = {"batch-norm-training", "batch-brightness"}
SATURATED = {"scaled-30": 0.7, "scaled-100": 0.85, "scaled-1000": 0.85, "distilled": 0.95}
FLAT = [
    "quantised-input",
    "sign-activations",
    "jpeg-input",
    "votes-head",
    "hard-label",
    "softmax-rounded",
    "memoriser",
]

Net = Callable[[Tensor], Tensor]


def named(members: list[Member]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("member", members, ids=lambda each: each.name)


@cache
def network(name: str) -> nn.Module:
    return zoo.member(name).factory()


def samples(member: Member, n: int = N) -> tuple[Tensor, Tensor]:
    """The first n digits of the member's classes, in its shape."""
    x, y = zoo.digits()
    rows = torch.isin(y, torch.tensor(member.classes)).nonzero()[:n, 0]
    return x[rows].reshape(-1, *member.shape), y[rows]


@torch.no_grad()
def accuracy(net: Net, x: Tensor, y: Tensor) -> float:
    with torch.random.fork_rng():
        torch.manual_seed(0)  # some members draw
        return float((net(x).argmax(dim=1) == y).float().mean())


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(logits, y, reduction="sum")


def margin(logits: Tensor, y: Tensor) -> Tensor:
    others = logits.scatter(1, y[:, None], -torch.inf)
    return (others.amax(dim=1) - logits.gather(1, y[:, None])[:, 0]).sum()


def gradient_of(
    net: Net, x: Tensor, y: Tensor, loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy
) -> Tensor:
    """As an attack sees it: a loss without a graph has the gradient zero."""
    leaf = x.clone().requires_grad_()
    value = loss(net(leaf), y)
    if not value.requires_grad:
        return torch.zeros_like(x)
    return torch.autograd.grad(value, leaf)[0]


def pgd(
    net: Net,
    x: Tensor,
    y: Tensor,
    *,
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
    steps: int = 20,
    limit: Callable[[Tensor], Tensor] | None = None,
    random_start: bool = True,
) -> Tensor:
    """Plain PGD at linf 0.3, steps of eps / 8; `limit` keeps points where the attacker wants."""
    generator = torch.Generator().manual_seed(0)
    noise = (2 * torch.rand(x.shape, generator=generator) - 1) * EPS * random_start
    point = (x + noise).clamp(0, 1)
    for _ in range(steps):
        step = gradient_of(net, point, y, loss).nan_to_num(0).sign() * EPS / 8
        point = (x + (point + step - x).clamp(-EPS, EPS)).clamp(0, 1)
        point = limit(point) if limit else point
    return point


@cache
def adversarials(source: str, n: int = N) -> Tensor:
    """PGD-40 on a healthy network: what breaks every broken member that wraps it."""
    member = zoo.member(source)
    return pgd(network(source), *samples(member, n), steps=40)


# ---------------------------------------------------------------- the registry


def test_every_member_and_attack_has_a_name_of_its_own() -> None:
    names = [each.name for each in zoo.MEMBERS]
    assert len(set(names)) == len(names)
    assert {each.kind for each in zoo.MEMBERS} == {"broken", "healthy"}
    assert all(each.flaw.endswith(".") for each in zoo.MEMBERS)
    assert not [each.name for each in HEALTHY if each.finding or each.remedy]
    assert set(zoo.ATTACK_FINDINGS) == {spec.name for spec in zoo.ATTACKS}


@named(list(zoo.MEMBERS))
def test_a_suite_can_load_every_member(member: Member, tmp_path: Path) -> None:
    fields = {"factory": member.reference, "input_shape": member.shape, **member.declaration}
    places = Places(suite=tmp_path, data=None, cache=tmp_path)
    loaded = load(TorchParams.model_validate(fields), places=places, device="cpu", threads=1)
    assert loaded.num_classes == len(member.classes)
    x, _ = samples(member, 4)
    assert loaded.predict(x).shape == (4, len(member.classes))
    assert loaded.differentiable is not None


def test_an_unknown_member_is_named_with_the_nearest() -> None:
    with pytest.raises(ModelError, match="no member 'nan-gradients'; did you mean 'nan-gradient'"):
        zoo.member("nan-gradients")
    with pytest.raises(ModelError, match=r"no member 'qqqq'$"):
        zoo.member("qqqq")


@named(list(zoo.MEMBERS))
def test_building_draws_no_global_random_number(member: Member) -> None:
    before = torch.get_rng_state()
    with torch.no_grad():
        net = member.factory()
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(weight.requires_grad for weight in net.parameters())


# ---------------------------------------------------------------- accuracy and truth


@named(BROKEN)
def test_a_broken_member_is_accurate_unless_that_is_its_flaw(member: Member) -> None:
    rate = accuracy(network(member.name), *samples(member))
    assert rate <= 0.2 if member.name in AT_CHANCE else rate >= 0.95


def break_by_its_source(member: Member) -> Tensor:
    source = "surrogate"
    if member.name in {"distilled", "random-resizing", "batch-norm-training"}:
        source = "standard"
    return adversarials(source)


def break_directly(member: Member) -> Tensor:
    return pgd(network(member.name), *samples(member), loss=margin)


def break_unnoticed(member: Member) -> Tensor:
    """Perturbations that brighten no image beyond the detector's limit."""
    x, y = samples(member)

    def darker(point: Tensor) -> Tensor:
        delta = point - x
        up, down = delta.clamp_min(0), delta.clamp_max(0)
        room = 0.249 - (x + down).mean(dim=(1, 2, 3))
        share = (room / up.mean(dim=(1, 2, 3)).clamp_min(1e-9)).clamp(0, 1)
        return x + down + up * share[:, None, None, None]

    return pgd(network("surrogate"), x, y, steps=40, limit=darker)


BREAK: dict[str, Callable[[Member], Tensor]] = {
    "mean-detector": break_unnoticed,
    "k-winners": break_directly,
    "two-classes": break_directly,
    "three-classes": break_directly,
    "tabular": break_directly,
    "batch-norm-training": break_directly,
    "linear": break_directly,
    "lipschitz": break_directly,
    "vit": break_directly,
    "standard": break_directly,
    "surrogate": break_directly,
}


@named([each for each in zoo.MEMBERS if each.truth == 0.0])
def test_an_adaptive_attack_breaks_whatever_should_be_broken(member: Member) -> None:
    x, y = samples(member)
    x_adv = BREAK.get(member.name, break_by_its_source)(member)
    assert float((x_adv - x).abs().max()) <= EPS + 1e-6
    assert 0 <= float(x_adv.min()) <= float(x_adv.max()) <= 1
    unit = member.declaration.get("scale", 1)
    assert isinstance(unit, int)
    net = member.factory() if member.name in REMEMBERING else network(member.name)
    assert accuracy(net, x_adv * unit, y) <= 0.05


def test_the_truth_of_the_constant_is_its_class_share() -> None:
    member = zoo.member("constant-logits")
    x, y = zoo.digits()
    assert member.truth == pytest.approx(accuracy(network(member.name), x, y), abs=1e-6)
    assert len(network(member.name)(torch.rand(50, 1, 28, 28)).unique(dim=0)) == 1


# ---------------------------------------------------------------- gradients


def test_nan_gradient_is_nan_everywhere_with_the_logits_of_the_network() -> None:
    x, y = samples(zoo.member("nan-gradient"))
    net = network("nan-gradient")
    assert torch.equal(net(x), zoo.undefended()(x))
    for loss in (cross_entropy, margin):
        assert gradient_of(net, x, y, loss).isnan().all()
    assert accuracy(net, pgd(net, x, y), y) >= 0.9


@pytest.mark.parametrize("name", FLAT)
def test_the_gradient_is_exactly_zero_and_pgd_finds_nothing(name: str) -> None:
    x, y = samples(zoo.member(name))
    net = network(name)
    for loss in (cross_entropy, margin):
        assert not gradient_of(net, x, y, loss).any()
    assert accuracy(net, pgd(net, x, y), y) >= 0.85


@pytest.mark.parametrize("name", SATURATED)
def test_cross_entropy_saturates_and_the_margin_does_not(name: str) -> None:
    x, y = samples(zoo.member(name))
    net = network(name)
    zero = ~gradient_of(net, x, y).flatten(1).any(dim=1)
    assert float(zero.float().mean()) >= SATURATED[name]
    assert accuracy(net, pgd(net, x, y), y) >= SATURATED[name]
    assert accuracy(net, pgd(net, x, y, loss=margin), y) <= 0.02


def test_k_winners_jump_where_the_network_is_continuous() -> None:
    x, _ = samples(zoo.member("k-winners"), 2)
    line = torch.lerp(x[:1], x[1:], torch.linspace(0, 1, 4001)[:, None, None, None])

    def largest_jump(net: nn.Module) -> float:
        return float(net(line).diff(dim=0).abs().max())

    assert largest_jump(network("k-winners")) >= 10 * largest_jump(network("surrogate"))


def test_jpeg_agrees_with_scipys_cosine_transform() -> None:
    x, _ = samples(zoo.member("jpeg-input"), 5)
    made = gradients.Jpeg()(x).numpy()
    levels = np.pad(x[:, 0].double().numpy(), ((0, 0), (2, 2), (2, 2))) * 255 - 128
    steps = np.array(gradients.LUMINANCE, dtype=np.float64)
    for image in levels:
        for top in range(0, 32, 8):
            for left in range(0, 32, 8):
                block = image[top : top + 8, left : left + 8]
                waves = scipy.fft.dctn(block, norm="ortho")
                block[:] = scipy.fft.idctn(np.round(waves / steps) * steps, norm="ortho")
    expected = np.clip((levels + 128) / 255, 0, 1)[:, 2:-2, 2:-2]
    assert np.abs(made[:, 0] - expected).max() <= 1e-4


def test_distillation_is_the_network_at_a_hundred_times_its_logits() -> None:
    x, _ = samples(zoo.member("distilled"), 50)
    student, teacher = network("distilled"), network("standard")
    assert torch.allclose(student(x) / 100, teacher(x), rtol=1e-4, atol=1e-4)
    softened = (student(x) / 100).softmax(dim=1)
    assert torch.allclose(softened, teacher(x).softmax(dim=1), atol=1e-5)


# ---------------------------------------------------------------- outputs, randomness, state


@pytest.mark.parametrize("name", ["softmax-output", "softmax-rounded", "hard-label"])
def test_the_output_is_a_distribution(name: str) -> None:
    made = network(name)(samples(zoo.member(name))[0])
    assert float(made.min()) >= 0
    assert torch.allclose(made.sum(dim=1), torch.ones(N), atol=0.03)
    if name != "softmax-output":
        assert torch.equal(made, (made * 100).round() / 100)


def test_the_log_output_is_the_logarithm_of_a_distribution() -> None:
    made = network("log-softmax-output")(samples(zoo.member("log-softmax-output"))[0])
    assert float(made.max()) <= 0
    assert torch.allclose(made.exp().sum(dim=1), torch.ones(N), atol=1e-5)


@pytest.mark.parametrize("name", sorted(RANDOM))
def test_a_random_member_changes_its_mind_in_eval_mode(name: str) -> None:
    net = network(name)
    x, _ = samples(zoo.member(name), 50)
    assert not any(part.training for part in net.modules())
    with torch.random.fork_rng():
        torch.manual_seed(3)
        first = net(x)
        others = [net(x) for _ in range(4)]
        torch.manual_seed(3)
        again = net(x)
    assert torch.equal(first, again)
    spread = float(first.max() - first.min())
    assert max(float((first - other).abs().max()) for other in others) >= 0.05 * spread


@pytest.mark.parametrize("name", sorted(MIXING))
def test_neighbours_change_the_logits(name: str) -> None:
    net = copy.deepcopy(network(name)).eval()
    x, _ = samples(zoo.member(name), 40)
    alone, among, beside = net(x[:1])[0], net(x)[0], net(torch.cat([x[:1], 1 - x[1:]]))[0]
    spread = float(alone.max() - alone.min())
    assert float((alone - among).abs().max()) >= 0.01 * spread
    assert float((alone - beside).abs().max()) >= 0.05 * spread


def test_batch_norm_stays_in_training_mode_and_hides_an_accurate_network() -> None:
    net = zoo.batch_norm_training().eval()
    stubborn = [part for part in net.modules() if part.training]
    assert [type(part).__name__ for part in stubborn] == ["TrainingBatchNorm"] * 2
    assert not net.training
    for part in stubborn:
        part.training = False
    x, _ = samples(zoo.member("standard"))
    assert torch.allclose(net(x), network("standard")(x), atol=1e-3)


# ---------------------------------------------------------------- inputs


def test_the_memoriser_snaps_near_a_known_image_and_nowhere_else() -> None:
    x, _ = samples(zoo.member("memoriser"), 20)
    net, inner = network("memoriser"), network("surrogate")
    direction = functional.normalize(torch.ones_like(x).flatten(1)).reshape(x.shape)
    own = net(x)
    assert torch.allclose(own, inner(x), atol=1e-4)
    assert torch.equal(net(x + 1.0 * direction), own)
    far = x + 9.0 * direction
    assert torch.allclose(net(far), inner(far), atol=1e-4)


def test_the_detector_refuses_bright_images_without_a_gradient() -> None:
    member = zoo.member("mean-detector")
    x, y = samples(member)
    bright = (x + EPS).clamp(0, 1)
    net = network("mean-detector")
    assert not net(bright).any()
    assert not gradient_of(net, bright, y).any()
    assert net(break_unnoticed(member)).any(dim=1).float().mean() >= 0.95


def test_bytes_are_what_it_expects() -> None:
    x, y = samples(zoo.member("bytes-input"))
    net = network("bytes-input")
    assert accuracy(net, x * 255, y) >= 0.95
    assert len(net(x).argmax(dim=1).unique()) <= 2


@pytest.mark.parametrize("name", sorted(REMEMBERING))
def test_what_was_asked_before_changes_the_answer(name: str) -> None:
    x, y = samples(zoo.member(name), 20)
    x_adv = adversarials("surrogate")[:20]
    fresh, worn = zoo.member(name).factory(), zoo.member(name).factory()
    with torch.no_grad():
        for _ in range(50):
            worn(x)
    assert accuracy(fresh, x_adv, y) == 0
    assert accuracy(worn, x_adv, y) >= 0.95


def test_the_two_faced_one_answers_otherwise_without_gradients() -> None:
    net = network("two-faced")
    _, y = samples(zoo.member("two-faced"), 20)
    x_adv = adversarials("surrogate")[:20]
    assert float((net(x_adv).argmax(dim=1) == y).float().mean()) == 0
    assert accuracy(net, x_adv, y) >= 0.95


# ---------------------------------------------------------------- healthy controls


@named(HEALTHY)
def test_a_healthy_member_is_accurate_steady_and_differentiable(member: Member) -> None:
    net = network(member.name)
    x, y = zoo.digits()
    assert accuracy(net, x, y) >= 0.85
    assert not any(part.training for part in net.modules())
    x, y = x[:50], y[:50]
    assert torch.equal(net(x), net(x))
    assert torch.allclose(net(x)[:1], net(x[:1]), atol=1e-4)
    gradient = gradient_of(net, x, y)
    assert gradient.isfinite().all()
    assert gradient.flatten(1).any(dim=1).all()


@pytest.mark.parametrize(
    ("train", "factory"),
    [(healthy._lipschitz, healthy.lipschitz), (healthy._vit, healthy.vit)],
    ids=["lipschitz", "vit"],
)
def test_training_again_gives_the_same_weights(
    train: Callable[[], nn.Module], factory: Callable[[], nn.Module]
) -> None:
    first, again = factory(), train.__wrapped__()  # type: ignore[attr-defined]  # past the cache
    for one, other in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    with torch.no_grad():
        next(iter(first.parameters())).zero_()
    assert next(iter(factory().parameters())).any()


def test_the_lipschitz_network_keeps_its_certificate() -> None:
    net = network("lipschitz")
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            assert float(torch.linalg.matrix_norm(layer.weight, ord=2)) <= 1 + 1e-5
    x, y = zoo.digits()
    x, y = x[:N], y[:N]
    own = net(x).gather(1, y[:, None])[:, 0]
    radius = (own - net(x).scatter(1, y[:, None], -torch.inf).amax(dim=1)).clamp_min(0) / 2**0.5
    assert float(radius.median()) >= 0.3
    point = x
    for _ in range(20):
        step = norms.steepest(gradient_of(net, point, y, margin), "l2")
        delta = point + 0.2 * step - x
        size = delta.flatten(1).norm(dim=1).clamp_min(1e-9)
        point = x + delta * (0.999 * radius / size).clamp_max(1)[:, None, None, None]
    assert accuracy(net, point[radius > 0], y[radius > 0]) == 1.0


def test_the_robust_member_is_robust() -> None:
    x, y = samples(zoo.member("robust"), 100)
    net = network("robust")
    assert accuracy(net, pgd(net, x, y, loss=margin), y) >= 0.85


# ---------------------------------------------------------------- ONNX


@named([each for each in zoo.MEMBERS if not each.no_onnx])
def test_a_member_is_the_same_in_onnx(member: Member, tmp_path: Path) -> None:
    path = tmp_path / "member.onnx"
    zoo.export(member.name, path)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    net = member.factory()
    for n in (1, 7):
        x, _ = samples(member, n)
        made = torch.from_numpy(session.run(["y"], {"x": x.numpy()})[0])
        expected = net(x)
        unit = float(expected.abs().max())
        if member.name in RANDOM:
            again = torch.from_numpy(session.run(["y"], {"x": x.numpy()})[0])
            assert float((made - again).abs().max()) >= 0.01 * unit
        else:
            assert float((made - expected).abs().max()) <= 1e-5 * max(unit, 1)
    assert b"site-packages" not in path.read_bytes()


@named([each for each in zoo.MEMBERS if each.no_onnx])
def test_what_onnx_cannot_say_is_refused_with_the_reason(member: Member, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        zoo.export(member.name, tmp_path / "member.onnx")
    assert member.name in str(caught.value)
    assert member.no_onnx in str(caught.value)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- attacks


@pytest.fixture(autouse=True)
def _new_process() -> None:
    attacks.forget()


class Recorder(nn.Module):
    """A network that remembers which rows it ever saw misclassified."""

    def __init__(self, net: nn.Module, y: Tensor) -> None:
        super().__init__()
        self.net = net
        self.y = y
        self.broken = torch.zeros_like(y, dtype=torch.bool)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        self.broken |= logits.argmax(dim=1) != self.y
        return logits


def digits_problem(net: nn.Module | None = None, n: int = 100) -> Problem:
    x, y = samples(zoo.member("surrogate"), n)
    return Problem(net=net or network("surrogate"), classes=10, box=Box(), x=x, y=y)


def attacked(
    attack: Callable[..., Tensor], problem: Problem, *, eps: float = EPS, **own: object
) -> Tensor:
    budget = problem.budget("linf", eps)
    return attack(
        problem.model(), problem.x, problem.y, budget=budget, rng=problem.rng(), **own
    ).detach()


def test_the_list_of_attacks_is_a_plugin() -> None:
    plugin = types.ModuleType("zoo_attacks")
    plugin.robeval_attacks = hookimpl(lambda: zoo.ATTACKS)  # type: ignore[attr-defined]
    plugin.robeval_attacks.__name__ = "robeval_attacks"  # type: ignore[attr-defined]
    assert collect(plugin)[1] == zoo.ATTACKS


@pytest.mark.parametrize("spec", zoo.ATTACKS, ids=lambda spec: spec.name)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_broken_attack_keeps_the_form_of_the_contract(spec: AttackSpec, norm: Norm) -> None:
    problem = digits_problem(copy.deepcopy(network("surrogate")), 3)
    given = problem.x.clone()
    own = {"seconds": 0.0} if spec.name == "zoo-sleeps" else {}
    assert callable(spec.implementation)
    with torch.random.fork_rng():
        made = spec.implementation(
            problem.model(),
            problem.x,
            problem.y,
            budget=problem.budget(norm, 0.5),
            rng=problem.rng(),
            **own,
        )
    assert isinstance(made, Tensor)
    assert (made.shape, made.dtype) == (given.shape, given.dtype)
    assert torch.equal(problem.x, given)


def test_the_overshooting_one_saw_what_it_did_not_return() -> None:
    problem = digits_problem()
    recorder = Recorder(network("surrogate"), problem.y)
    x_adv = attacked(
        attacks.overshoots,
        Problem(net=recorder, classes=10, box=Box(), x=problem.x, y=problem.y),
    )
    assert recorder.broken.float().mean() >= 0.98
    assert accuracy(network("surrogate"), x_adv, problem.y) >= 0.9


def test_the_tiny_one_uses_a_tenth_of_its_budget() -> None:
    problem = digits_problem()
    x_adv = attacked(attacks.tiny_steps, problem)
    used = (x_adv - problem.x).abs().amax(dim=(1, 2, 3))
    assert float(used.max()) <= EPS / 10 + 1e-6
    assert float(used.min()) >= EPS / 11
    assert accuracy(network("surrogate"), x_adv, problem.y) >= 0.85


def test_the_one_that_ignores_labels_gives_the_same_points_for_any() -> None:
    problem = digits_problem()
    x_adv = attacked(attacks.ignores_labels, problem)
    other = attacked(attacks.ignores_labels, problem.with_labels((problem.y + 1) % 10))
    assert torch.equal(x_adv, other)
    sound = attacked(partial(attacks.sleeps, seconds=0.0), problem)
    assert accuracy(network("surrogate"), sound, problem.y) <= 0.02
    assert accuracy(network("surrogate"), x_adv, problem.y) >= 0.5


def test_the_minimising_one_makes_samples_safer() -> None:
    problem = digits_problem()
    net = network("surrogate")
    x_adv = attacked(attacks.minimises, problem)
    before = functional.cross_entropy(net(problem.x), problem.y, reduction="none")
    after = functional.cross_entropy(net(x_adv), problem.y, reduction="none")
    assert float((after <= before).float().mean()) >= 0.9
    assert float(after.mean()) <= float(before.mean()) / 10
    assert accuracy(net, x_adv, problem.y) >= accuracy(net, problem.x, problem.y)


def test_the_crashing_one_works_once() -> None:
    problem = digits_problem()
    first = attacked(attacks.crashes, problem)
    assert accuracy(network("surrogate"), first, problem.y) <= 0.02
    for _ in range(2):
        with pytest.raises(IndexError, match="second batch"):
            attacked(attacks.crashes, problem)
    attacks.forget()
    assert torch.equal(attacked(attacks.crashes, problem), first)


def test_the_nan_one_returns_nothing_but_nan() -> None:
    assert attacked(attacks.nan_images, digits_problem()).isnan().all()


def test_the_outside_one_leaves_the_ball_by_a_percent_and_not_the_box() -> None:
    problem = digits_problem()
    x_adv = attacked(attacks.outside, problem)
    distance = (x_adv - problem.x).abs().amax(dim=(1, 2, 3))
    assert torch.allclose(distance, torch.full_like(distance, 1.01 * EPS), atol=1e-5)
    assert 0 <= float(x_adv.min()) <= float(x_adv.max()) <= 1


def test_the_mutating_one_reaches_the_artefact_and_nothing_else(tmp_path: Path) -> None:
    params = TorchParams(factory=zoo.member("surrogate").reference)
    places = Places(suite=tmp_path, data=None, cache=tmp_path)
    loaded = load(params, places=places, device="cpu", threads=1)
    problem = digits_problem(n=5)
    memory = BatchMemory(loaded, problem.x, problem.y)
    model = Granted(memory, Box(), "gradient", Tally(5, torch.device("cpu")))
    bystander = zoo.undefended()
    budget = Budget(norm="linf", eps=EPS, box=Box())
    attacks.mutates(model, problem.x, problem.y, budget=budget, rng=problem.rng())
    assert loaded.differentiable is not None
    assert not any(weight.any() for weight in loaded.differentiable.parameters())
    assert not loaded.predict(problem.x).any()
    assert all(weight.any() for weight in bystander.parameters())
    assert any(part is bystander for part in gc.get_objects())


def test_the_swapping_one_shifts_rows_by_one() -> None:
    problem = digits_problem()
    x_adv = attacked(attacks.swaps, problem)
    back = x_adv.roll(-1, dims=0)
    assert float((back - problem.x).abs().max()) <= EPS + 1e-6
    assert accuracy(network("surrogate"), back, problem.y) <= 0.02
    moved = (x_adv - problem.x).abs().amax(dim=(1, 2, 3))
    assert float((moved > EPS + 0.01).float().mean()) == 1.0


def test_the_sleeping_one_sleeps_as_long_as_it_is_told() -> None:
    problem = digits_problem(n=2)
    begin = time.monotonic()
    attacked(attacks.sleeps, problem, seconds=0.05)
    assert time.monotonic() - begin >= 0.05
    (spec,) = (spec for spec in zoo.ATTACKS if spec.name == "zoo-sleeps")
    assert spec.params().model_dump() == {"seconds": 60.0}


def test_the_global_numbers_move_the_global_state() -> None:
    problem = digits_problem(n=10)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        before = torch.get_rng_state()
        first, second = (attacked(attacks.global_numbers, problem, eps=0.01) for _ in range(2))
        assert not torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(1)
        again = attacked(attacks.global_numbers, problem, eps=0.01)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_the_counted_numbers_differ_from_call_to_call_without_it() -> None:
    problem = digits_problem(n=10)
    before = torch.get_rng_state()
    first, second = (attacked(attacks.counted_numbers, problem, eps=0.01) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(first, second)
    attacks.forget()
    assert torch.equal(attacked(attacks.counted_numbers, problem, eps=0.01), first)
