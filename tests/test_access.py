"""The model as an attack sees it: every pass counted, nothing granted beyond the threat model."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from robustbench_lite import AccessDenied, Classifier, losses
from robustbench_lite.access import OWN_LOSS, BatchMemory, Granted, Tally, differentiate
from robustbench_lite.types import Access, LoadedModel, covers
from tests.small_world import UNIT, Linear, loaded, points, random_linear

LEVELS: tuple[Access, ...] = ("none", "decision", "score", "gradient")


class Counting(nn.Module):
    """A network that knows how many samples really went through it, forwards and backwards."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.forwards = 0
        self.backwards = 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += len(x)
        logits: Tensor = self.net(x)
        if logits.requires_grad:
            logits.register_hook(self.seen)  # type: ignore[no-untyped-call]
        return logits

    def seen(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


class Faulty(nn.Module):
    """A linear net whose gradient is multiplied by `factor` where x[0] > 0.5."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.net = random_linear(0)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        x = x + 0
        if x.requires_grad:
            factor = torch.where(x.detach()[:, :1] > 0.5, self.factor, 1.0)
            x.register_hook(lambda g: g * factor)  # type: ignore[no-untyped-call]
        logits: Tensor = self.net(x)
        return logits


class Cut(nn.Module):
    """A net that loses its graph, wholly or in its first layer."""

    def __init__(self, *, wholly: bool) -> None:
        super().__init__()
        self.net = random_linear(0)
        self.net.bias.requires_grad_(not wholly)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x.detach().round())
        return logits


class View:
    """A granted model over n rows, with the tally that it reports to."""

    def __init__(
        self,
        net: nn.Module | None = None,
        *,
        n: int = 4,
        access: Access = "gradient",
        base: Tensor | None = None,
        model: LoadedModel | None = None,
        device: torch.device | None = None,
    ) -> None:
        net = random_linear(0) if net is None else net
        self.x = points(n).to(device)
        self.y = (torch.arange(n) % 3).to(device)
        self.memory = BatchMemory(
            loaded(net.to(device), 3) if model is None else model, self.x, self.y
        )
        base = torch.arange(n, device=device) if base is None else base.to(device)
        self.clean = self.x[base]
        self.labels = self.y[base]
        self.tally = Tally(len(base), self.x.device)
        self.model: Classifier = Granted(
            self.memory, UNIT, access, self.tally, clean=self.clean, base=base
        )

    def leaf(self) -> Tensor:
        return self.clean.clone().requires_grad_(True)

    @property
    def queries(self) -> list[float]:
        counted: list[float] = self.tally.queries.tolist()
        return counted

    @property
    def gradients(self) -> list[float]:
        counted: list[float] = self.tally.gradients.tolist()
        return counted


# ---------------------------------------------------------------- what is granted


def ask(model: Classifier, x: Tensor, y: Tensor) -> dict[Access, list[Callable[[], object]]]:
    """Every method by the access that it needs."""
    return {
        "decision": [lambda: model.decide(x)],
        "score": [lambda: model.logits(x)],
        "gradient": [
            lambda: model.gradient(x, y),
            lambda: model.value_and_gradient(x, y),
            model.module,
        ],
    }


@pytest.mark.parametrize("granted", LEVELS)
def test_what_the_declared_access_covers_answers_and_the_rest_is_refused(granted: Access) -> None:
    view = View(access=granted)
    index = torch.tensor([0, 1])
    views = [(view.model, view.clean), (view.model.rows(index), view.clean[index])]
    for model, x in views:
        for needed, methods in ask(model, x, torch.zeros(len(x), dtype=torch.int64)).items():
            for method in methods:
                if LEVELS.index(granted) >= LEVELS.index(needed):
                    method()
                    continue
                with pytest.raises(AccessDenied, match=f"{needed} access .* '{granted}'"):
                    method()
    if granted == "none":
        assert view.queries == [0, 0, 0, 0]


@pytest.mark.parametrize("offered", LEVELS)
def test_an_offer_covers_a_need_of_the_same_or_a_lower_level(offered: Access) -> None:
    for needed in LEVELS:
        assert covers(offered, needed) == (LEVELS.index(offered) >= LEVELS.index(needed))


def test_gradients_of_a_model_that_has_none_are_refused() -> None:
    view = View(model=loaded(random_linear(0), 3, differentiable=False))
    assert view.model.logits(view.clean).shape == (4, 3)
    for method in ask(view.model, view.clean, view.labels)["gradient"]:
        with pytest.raises(AccessDenied, match="this model has none"):
            method()


def test_what_an_attack_may_know_of_the_model(device: torch.device) -> None:
    view = View(device=device)
    assert view.model.num_classes == 3
    assert view.model.box == UNIT
    assert view.model.shape == (6,)
    assert view.model.device == view.x.device
    assert (
        view.model.decide(view.clean).tolist() == view.model.logits(view.clean).argmax(1).tolist()
    )


# ---------------------------------------------------------------- counting


def test_every_method_counts_its_passes() -> None:
    view = View()
    x = view.clean + 0.01
    view.model.logits(x)
    view.model.decide(x)
    assert (view.queries, view.gradients) == ([2.0] * 4, [0.0] * 4)
    view.model.gradient(x, view.labels)
    view.model.value_and_gradient(x, view.labels, "margin")
    assert (view.queries, view.gradients) == ([4.0] * 4, [2.0] * 4)


def test_passes_are_counted_on_the_rows_that_made_them(device: torch.device) -> None:
    view = View(device=device)

    def look(*index: int) -> None:
        rows = torch.tensor(index, device=device)
        view.model.rows(rows).gradient(view.clean[rows], view.labels[rows])

    look(1, 3)
    assert view.queries == view.gradients == [0, 1, 0, 1]
    look(2, 2, 2)
    assert view.queries == [0, 1, 3, 1]
    nested = view.model.rows(torch.tensor([3, 0, 0], device=device))
    nested = nested.rows(torch.tensor([2, 0], device=device))  # rows 0 and 3
    nested.logits(view.clean[:2])
    assert view.queries == [1, 1, 3, 2]
    assert view.gradients == [0, 1, 3, 1]


@pytest.mark.parametrize("passes", [1, 3, 8, 9])
def test_passes_that_belong_to_no_row_are_shared_out(passes: int) -> None:
    view = View()
    x = view.clean[:1].expand(passes, -1)
    view.model.logits(x)
    assert view.queries == [passes / 4] * 4
    view.model.rows(torch.tensor([1, 2])).logits(x)
    assert sum(view.queries) == pytest.approx(2 * passes)


def test_the_private_module_counts_forward_and_backward_samples() -> None:
    view = View()
    module = view.model.module()
    leaf = view.clean.clone().requires_grad_()
    logits = module(leaf)
    assert (view.queries, view.gradients) == ([1.0] * 4, [0.0] * 4)
    torch.autograd.grad(logits[:, 0].sum(), leaf, retain_graph=True)
    torch.autograd.grad(logits[:, 1].sum(), leaf)
    assert (view.queries, view.gradients) == ([1.0] * 4, [2.0] * 4)
    with torch.no_grad():
        module(view.clean)
    assert (view.queries, view.gradients) == ([2.0] * 4, [2.0] * 4)
    view.model.rows(torch.tensor([2])).module()(view.clean[2:3])
    assert view.queries == [2, 2, 3, 2]


# ---------------------------------------------------------------- what is remembered


def test_the_clean_gradient_is_computed_once_for_an_eps_grid_and_every_norm() -> None:
    net = Counting(random_linear(0))
    view = View(net)
    answers = [view.model.gradient(view.clean, view.labels) for _ in range(5)]
    assert (net.forwards, net.backwards) == (4, 4)
    assert view.queries == view.gradients == [5.0] * 4  # what the attack spent, not what we saved
    fresh = differentiate(view.memory.model, view.x, view.y, "cross-entropy").gradient
    assert all(torch.equal(answer, fresh) for answer in answers)
    view.model.gradient(view.clean, view.labels, "margin")
    view.model.gradient(view.clean, view.labels, "margin")
    assert net.backwards == 12  # 4 for fresh, 4 for the other loss


def test_the_clean_logits_are_computed_once() -> None:
    net = Counting(random_linear(0))
    view = View(net)
    first = view.model.logits(view.clean)
    assert torch.equal(view.model.logits(view.clean), first)
    assert torch.equal(view.model.decide(view.clean), first.argmax(dim=1))
    assert net.forwards == 4
    assert view.queries == [3.0] * 4


def test_an_attack_on_some_rows_gets_their_part_of_the_memory() -> None:
    base = torch.tensor([3, 1])
    view = View(base=base)
    got = view.model.value_and_gradient(view.clean, view.labels)
    fresh = differentiate(view.memory.model, view.x[base], view.y[base], "cross-entropy")
    for mine, theirs in zip(got, fresh, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)
    assert torch.equal(view.model.logits(view.clean), view.memory.logits()[base])


def test_what_was_remembered_cannot_be_spoilt() -> None:
    view = View()
    expected = view.model.value_and_gradient(view.clean, view.labels)
    spoilt = view.model.value_and_gradient(view.clean, view.labels)
    for tensor in (*spoilt, view.model.logits(view.clean)):
        tensor.zero_()
    for mine, theirs in zip(
        view.model.value_and_gradient(view.clean, view.labels), expected, strict=True
    ):
        assert torch.equal(mine, theirs)
    assert torch.equal(view.model.logits(view.clean), expected.logits)


def reference(view: View, x: Tensor, y: Tensor, loss: str = "cross-entropy") -> Tensor:
    return differentiate(view.memory.model, x, y, loss).gradient


def test_the_memory_answers_for_the_clean_batch_and_its_labels_only() -> None:
    view = View()
    x, y = view.clean, view.labels
    view.model.gradient(x, y)
    others = (y + 1) % 3
    assert torch.equal(view.model.gradient(x, others), reference(view, x, others))
    assert torch.equal(view.model.gradient(x, y, "margin"), reference(view, x, y, "margin"))
    moved = x + 0.05
    assert torch.equal(view.model.gradient(moved, y), reference(view, moved, y))
    assert not torch.equal(view.model.gradient(moved, y), view.model.gradient(x, y))


def test_a_clean_input_changed_in_place_is_not_taken_for_the_clean_input() -> None:
    view = View()
    before = view.model.gradient(view.clean, view.labels)
    logits = view.model.logits(view.clean)
    view.clean.add_(0.2)
    assert torch.equal(
        view.model.gradient(view.clean, view.labels), reference(view, view.clean, view.labels)
    )
    assert not torch.equal(view.model.gradient(view.clean, view.labels), before)
    assert not torch.equal(view.model.logits(view.clean), logits)


def test_a_reordered_or_reshaped_clean_input_is_computed_anew() -> None:
    view = View()
    view.model.logits(view.clean)
    turned = view.model.rows(torch.tensor([3, 2, 1, 0])).logits(view.clean.flip(0))
    assert torch.equal(turned, view.memory.logits().flip(0))
    half = view.model.rows(torch.tensor([0, 1])).logits(view.clean[:2])  # same memory, fewer rows
    torch.testing.assert_close(half, view.memory.logits()[:2])


def test_a_loss_of_ones_own_is_never_remembered() -> None:
    view = View()

    def first(logits: Tensor, y: Tensor) -> Tensor:
        return logits[:, 0]

    def second(logits: Tensor, y: Tensor) -> Tensor:
        return logits[:, 1]

    weight = random_linear(0).weight
    assert torch.equal(view.model.gradient(view.clean, view.labels, first)[0], weight[0])
    assert torch.equal(view.model.gradient(view.clean, view.labels, second)[0], weight[1])


# ---------------------------------------------------------------- what is left as found


def test_gradients_leave_no_graph_and_no_grad_behind() -> None:
    net = random_linear(0)
    for parameter in net.parameters():
        parameter.requires_grad_()
    view = View(net)
    x = view.clean.clone().requires_grad_()
    got = view.model.value_and_gradient(x, view.labels)
    assert not any(tensor.requires_grad for tensor in got)
    assert not view.model.logits(x).requires_grad
    assert x.grad is None
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_gradient_does_not_depend_on_who_else_is_in_the_batch() -> None:
    view = View(n=6)
    alone = torch.cat(
        [
            view.model.rows(torch.tensor([i])).gradient(view.x[i : i + 1], view.y[i : i + 1])
            for i in range(6)
        ]
    )
    torch.testing.assert_close(alone, view.model.gradient(view.clean, view.labels))


def test_gradients_are_there_under_no_grad() -> None:
    view = View()
    with torch.no_grad():
        got = view.model.gradient(view.clean, view.labels)
    assert bool((got != 0).all())


def test_nothing_done_to_the_private_module_reaches_the_artefact() -> None:
    net = random_linear(0)
    view = View(net)
    before = net.weight.clone()
    module = view.model.module()
    for parameter in module.parameters():
        parameter.data.zero_()
    module.train()
    assert torch.equal(net.weight, before)
    assert not net.training
    assert not torch.equal(view.model.module()(view.clean), module(view.clean))


def test_the_private_module_is_in_eval_mode_through_and_through() -> None:
    assert not any(part.training for part in View().model.module().modules())


# ---------------------------------------------------------------- broken gradients are noticed


@pytest.mark.parametrize(
    ("factor", "broken", "zero"),
    [(math.nan, True, False), (math.inf, True, False), (0.0, False, True)],
)
def test_a_gradient_fault_is_noted_on_its_row(factor: float, broken: bool, zero: bool) -> None:
    view = View(Faulty(factor))
    view.x[:] = 0.25
    view.x[2] = 0.75
    view.clean.copy_(view.x)
    view.model.gradient(view.clean, view.labels)
    assert view.tally.broken_gradient.tolist() == [False, False, broken, False]
    assert view.tally.zero_gradient.tolist() == [False, False, zero, False]


def test_each_loss_that_was_tried_has_its_own_faults() -> None:
    view = View(Saturated())

    def sum_of_squares(logits: Tensor, y: Tensor) -> Tensor:
        return logits.square().sum(dim=1)

    for loss in ("cross-entropy", "margin", losses.dlr, sum_of_squares):
        view.model.gradient(view.clean + 0.01, view.labels, loss)
    (gradient,) = torch.autograd.grad(view.model.module()(leaf := view.leaf()).sum() * 0, leaf)
    assert not gradient.any()
    zero = {name: faults[1].tolist() for name, faults in view.tally.faults.items()}
    own = "test-each-loss-that-was-tried-has-its-own-faults"
    assert zero == {
        "cross-entropy": [1.0] * 4,
        "margin": [0.0] * 4,
        "dlr": [0.0] * 4,
        own: [0.0] * 4,
        OWN_LOSS: [1.0] * 4,
    }
    assert view.tally.zero_gradient.all()
    assert not view.tally.broken_gradient.any()


class Saturated(nn.Module):
    """The label's logit is far ahead for every sample: cross-entropy is 0 in float32."""

    def forward(self, x: Tensor) -> Tensor:
        ahead = 1000 * nn.functional.one_hot(torch.arange(len(x)) % 3, 3)
        return ahead + x[:, :3] * torch.tensor([1.0, 2.0, 3.0])


@pytest.mark.parametrize("turned", [False, True])
def test_a_fault_in_a_view_of_repeated_rows_is_noted_on_those_rows(turned: bool) -> None:
    view = View(Faulty(0.0))
    rows = torch.tensor([3, 1, 1])
    x = torch.full((3, 6), 0.25)
    x[2 if turned else 1] = 0.75
    view.model.rows(rows).gradient(x, view.labels[rows])
    assert view.tally.zero_gradient.tolist() == [False, True, False, False]
    assert not view.tally.broken_gradient.any()


@pytest.mark.parametrize("wholly", [False, True])
def test_a_cut_graph_has_a_zero_gradient_and_it_is_noted(wholly: bool) -> None:
    view = View(Cut(wholly=wholly))
    got = view.model.gradient(view.clean, view.labels)
    assert got.shape == view.clean.shape
    assert not got.any()
    assert view.tally.zero_gradient.all()


def test_a_loss_that_ignores_the_model_has_a_zero_gradient() -> None:
    view = View()
    got = view.model.gradient(view.clean, view.labels, lambda logits, y: torch.ones(len(y)))
    assert not got.any()
    assert view.tally.zero_gradient.all()


@pytest.mark.parametrize(
    ("factor", "note"), [(math.nan, "broken_gradient"), (0.0, "zero_gradient")]
)
def test_a_fault_that_belongs_to_no_row_falls_on_all(factor: float, note: str) -> None:
    view = View(Faulty(factor))
    x = torch.full((8, 6), 0.75)
    view.model.gradient(x, torch.zeros(8, dtype=torch.int64))
    assert bool(getattr(view.tally, note).all())


@pytest.mark.parametrize(
    ("factor", "note"), [(math.nan, "broken_gradient"), (0.0, "zero_gradient")]
)
def test_a_fault_behind_the_private_module_is_noted(factor: float, note: str) -> None:
    view = View(Faulty(factor))
    leaf = torch.full((4, 6), 0.25)
    leaf[2] = 0.75
    logits = view.model.module()(leaf.requires_grad_())
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), leaf)
    assert bool((gradient[2] == 0).all()) if factor == 0 else bool(gradient[2].isnan().all())
    assert getattr(view.tally, note).tolist() == [False, False, True, False]


def test_a_model_that_changes_its_input_in_place_does_not_change_the_attacks_point() -> None:
    view = View(model=loaded(Linear(torch.eye(3)), 3, predict=lambda x: x.mul_(0.5)[:, :3]))
    x = view.clean + 0.01
    kept = x.clone()
    view.model.logits(x)
    view.model.decide(x)
    assert torch.equal(x, kept)


@pytest.mark.parametrize("leaves_input", [True, False])
def test_only_a_model_that_never_writes_to_its_input_is_given_the_point_itself(
    leaves_input: bool,
) -> None:
    given: list[int] = []

    def predict(x: Tensor) -> Tensor:
        given.append(x.data_ptr())
        return x[:, :3]

    network = loaded(Linear(torch.eye(3)), 3, predict=predict)
    view = View(model=replace(network, leaves_input=leaves_input))
    x = view.clean + 0.01
    view.model.logits(x)
    assert (given == [x.data_ptr()]) is leaves_input
