"""Attacks against one another: constructed tables around every threshold, and healthy worlds.

The thresholds were chosen on real runs. The robust quickstart model at linf 0.3 under uniform
noise, fgsm, pgd (40 steps), apgd (100), square (1000 queries) and pgd from two other models; five
windows of 200 images, seeds 0 to 4; samples that only the weaker kind broke:

    noise, one step or transfer beside pgd or apgd          0   0   0   0   0
    square beside pgd and apgd together                     7   7   0   3   2   (up to 3.5 %)
    square beside pgd alone                               at most 10 of 200, 6 of 100, 5 of 50

No error and no warning in those runs, nor when they are cut into windows of 100 and 50; a rule of
1 % would have accused the model in three of five. Rounded inputs, rounded outputs, a coarse grid
and sign activations around the MLP: transfer breaks 78 to 88 of 100 beside both, square 78 to 95.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binom
from torch import Tensor

from robustbench_lite import Budget, Classifier, SampleRng, plugins
from robustbench_lite.diagnose import across, enough, gatework
from robustbench_lite.diagnose.budgets import Extent
from robustbench_lite.types import (
    Access,
    Cell,
    CellStatus,
    Component,
    Effort,
    Eps,
    Finding,
    Gate,
    Kind,
    Norm,
    Role,
    Samples,
    Severity,
)
from tests.finished_run import cell, eps, result, rule, table
from tests.small_world import Given, attack_spec, dataset_spec, entry, labelled, net_spec

Bits = NDArray[np.bool_]
Measured = tuple[Cell, Samples]
ATTACKS: dict[str, tuple[Access, Effort, Kind, Role]] = {
    "pgd": ("gradient", "iterative", "fixed-budget", "attack"),
    "apgd": ("gradient", "iterative", "fixed-budget", "attack"),
    "fab": ("gradient", "single-step", "minimal-norm", "attack"),
    "fgsm": ("gradient", "single-step", "fixed-budget", "attack"),
    "square": ("score", "iterative", "fixed-budget", "attack"),
    "boundary": ("decision", "iterative", "minimal-norm", "attack"),
    "pixels": ("score", "exhaustive", "fixed-budget", "attack"),
    "brightness": ("none", "single-step", "fixed-budget", "attack"),
    "noise": ("none", "random", "fixed-budget", "control"),
}


def a(name: str, radius: str = "0.3", **changes: object) -> Cell:
    """A cell of one of the attacks above; `changes` replace fields."""
    access, effort, kind, role = ATTACKS[name.split("-", maxsplit=1)[0]]
    norm, source = changes.pop("norm", "linf"), changes.pop("source", None)
    made = cell(name, radius, norm=norm, source=source)  # type: ignore[arg-type]
    made = dataclasses.replace(made, access=access, effort=effort, kind=kind, role=role)
    return dataclasses.replace(
        made,
        id=f"{made.id}.{source}",
        **changes,  # type: ignore[arg-type]  # names are checked
    )


def broke(n: int, start: int, stop: int) -> Samples:
    """All n are clean-correct, those from `start` to `stop` are broken."""
    at = np.arange(n)
    return table(np.ones(n, bool), (at >= start) & (at < stop))


def found(
    *measured: Measured,
    invalid: Sequence[str] = (),
    boxes: Mapping[str, Extent] | None = None,
) -> list[Finding]:
    tables = {each.id: samples for each, samples in measured}
    cells = [each for each, _ in measured]
    results = {each.id: result(each) for each in cells}
    return across.of_grid(cells, results, tables.get, invalid=invalid, boxes=boxes)


def duel(accused: Cell, rival: Cell, *, n: int, own: int, missed: int) -> list[Finding]:
    """The accused breaks `own` samples, the rival `missed` others."""
    return found((accused, broke(n, 0, own)), (rival, broke(n, own, own + missed)))


def said(findings: Sequence[Finding]) -> list[tuple[str, Severity]]:
    return [(each.id, each.severity) for each in findings]


def fewest(n: int, share: float) -> int:
    """The least count that is surely above `share`: a worse one has a chance under 5 %."""
    return next(k for k in range(2, n) if binom.sf(k - 1, n, share) < 0.05)


SHAPE: tuple[int, ...] = (3, 4, 4)


# ---------------------------------------------------------------- one weaker kind of attack


@pytest.mark.parametrize(("n", "least"), [(20, 2), (100, 2), (200, 3), (1000, 11)])
def test_noise_beats_a_white_box_attack_from_one_percent(n: int, least: int) -> None:
    for accused in ("pgd", "fab"):
        assert duel(a(accused), a("noise"), n=n, own=n // 2, missed=least - 1) == []
        (finding,) = duel(a(accused), a("noise"), n=n, own=n // 2, missed=least)
        assert said([finding]) == [("weaker-than-control", "error")]
        assert finding.cells == (a(accused).id,)
        assert f"leaves {least} of {n} samples unbroken that 'noise' breaks" in finding.message
        assert finding.numbers["broken by the other only"] == least
        assert finding.advice


@pytest.mark.parametrize(
    ("accused", "severity"),
    [
        (a("fgsm"), "note"),
        (a("pgd", source="other"), "note"),
        (a("square", source="other"), "note"),
        (a("brightness"), "note"),
        (a("square"), "error"),
        (a("boundary"), "error"),
        (a("pgd", target="next"), None),
    ],
)
def test_below_noise_each_kind_has_its_severity(accused: Cell, severity: Severity | None) -> None:
    expected = [] if severity is None else [("weaker-than-control", severity)]
    assert said(duel(accused, a("noise"), n=100, own=3, missed=30)[:1]) == expected


def test_a_search_may_leave_what_luck_finds_if_it_finds_more() -> None:
    assert said(duel(a("square"), a("noise"), n=100, own=30, missed=4)) == [
        ("weaker-than-control", "note")
    ]


@pytest.mark.parametrize("rival", [a("fgsm"), a("pgd", source="other")])
@pytest.mark.parametrize("n", [100, 500])
def test_one_step_and_transfer_are_a_note_until_it_is_sure(rival: Cell, n: int) -> None:
    name = "black-box-beats-white-box" if rival.source == "other" else "single-step-beats-iterative"
    sure = fewest(n, 0.01)
    least = n // 100 + 1
    assert duel(a("pgd"), rival, n=n, own=n // 2, missed=least - 1) == []
    for missed, severity in ((least, "note"), (sure - 1, "note"), (sure, "error")):
        assert said(duel(a("pgd"), rival, n=n, own=n // 2, missed=missed)) == [(name, severity)]


@pytest.mark.parametrize("rival", ["square", "boundary", "brightness", "pixels"])
@pytest.mark.parametrize("n", [50, 200, 1000])
def test_search_is_an_error_from_where_it_is_surely_five_percent(rival: str, n: int) -> None:
    sure = fewest(n, 0.05)
    for missed, severity in ((sure - 1, "note"), (sure, "error")):
        (finding,) = duel(a("pgd"), a(rival), n=n, own=n // 2, missed=missed)
        assert said([finding]) == [("black-box-beats-white-box", severity)]


@pytest.mark.parametrize(
    ("own", "missed", "severity"),
    [(0, 4, "note"), (0, 5, "error"), (1, 7, "error"), (4, 5, "note"), (3, 9, "note")],
)
def test_search_is_an_error_where_most_is_hidden_from_the_gradient(
    own: int, missed: int, severity: Severity
) -> None:
    (finding,) = duel(a("pgd"), a("square"), n=100, own=own, missed=missed)
    assert said([finding]) == [("black-box-beats-white-box", severity)]


def test_what_the_model_hides_touches_every_white_box_attack_there_and_nothing_else() -> None:
    n = 100
    measured = [
        (a("pgd"), broke(n, 0, 5)),
        (a("fab"), broke(n, 0, 6)),
        (a("fgsm"), broke(n, 0, 5)),
        (a("square"), broke(n, 0, 90)),
        (a("pgd", "0.2"), broke(n, 0, 5)),
        (a("pgd", norm="l2"), broke(n, 0, 5)),
        (dataclasses.replace(a("pgd"), id="m2", model="m2", source="m2"), broke(n, 0, 5)),
        (dataclasses.replace(a("pgd"), id="d2", dataset="d2"), broke(n, 0, 5)),
    ]
    (finding,) = found(*measured)
    assert said([finding]) == [("black-box-beats-white-box", "error")]
    assert finding.cells == (a("pgd").id, a("fab").id)
    assert "'pgd' at linf 0.3 on 'candidate' and 1 more attacks leave 84 of 100" in finding.message


@pytest.mark.parametrize("rival", [a("noise"), a("fgsm"), a("square"), a("pgd", source="other")])
def test_a_targeted_attack_is_not_held_to_any_mistake(rival: Cell) -> None:
    assert duel(a("pgd", target="next"), rival, n=100, own=5, missed=90) == []
    boxes = {"test": (0.0, 1.0, SHAPE)}
    assert found((a("pgd", "1", target="next"), broke(100, 0, 5)), boxes=boxes) == []


def test_one_attack_that_fails_beside_one_that_holds_is_accused_alone() -> None:
    n = 100
    holds, search = (a("apgd"), broke(n, 0, 90)), (a("square"), broke(n, 0, 90))
    (finding,) = found((a("pgd"), broke(n, 0, 2)), holds, search)
    assert said([finding]) == [("weaker-than-black-box", "error")]
    assert finding.cells == (a("pgd").id,)
    assert said(found((a("pgd"), broke(n, 0, 70)), holds, search)) == [
        ("weaker-than-black-box", "note")
    ]


def test_an_invalid_cell_neither_excuses_nor_accuses_nor_is_accused() -> None:
    n = 100
    weak, strong = (a("pgd"), broke(n, 0, 2)), (a("apgd"), broke(n, 0, 90))
    search = (a("square"), broke(n, 0, 90))
    assert found(weak, search, invalid=[weak[0].id]) == []
    assert found(weak, search, invalid=[search[0].id]) == []
    (finding,) = found(weak, strong, search, invalid=[strong[0].id])
    assert finding.cells == (weak[0].id,)
    assert said([finding]) == [("black-box-beats-white-box", "error")]


@pytest.mark.parametrize("status", ["invalid", "failed", "skipped", "timeout"])
def test_only_finished_cells_are_read(status: CellStatus) -> None:
    weak, search = a("pgd"), a("square")
    results = {weak.id: result(weak), search.id: result(search, status=status)}
    read: list[str] = []

    def samples(cell_id: str) -> Samples:
        read.append(cell_id)
        return broke(100, 0, 2 if cell_id == weak.id else 90)

    assert across.of_grid([weak, search, a("fab")], results, samples) == []
    assert read == [weak.id]
    lost = {each.id: result(each) for each in (weak, search)}
    assert across.of_grid([weak, search], lost, lambda _: None) == []
    assert found((weak, broke(0, 0, 0)), (search, broke(0, 0, 0))) == []


# ---------------------------------------------------------------- budgets


@pytest.mark.parametrize(
    ("small", "large", "expected"),
    [
        ((0, 10), (0, 6), []),  # four samples: chance
        ((0, 10), (0, 5), ["warning"]),
        ((0, 10), (5, 15), []),  # others, as many
        ((0, 10), (0, 10), []),
    ],
)
def test_a_larger_eps_that_breaks_surely_less(
    small: tuple[int, int], large: tuple[int, int], expected: list[str]
) -> None:
    tables = broke(100, *small), broke(100, *large)
    findings = found((a("pgd", "0.3"), tables[1]), (a("pgd", "8/255"), tables[0]))
    assert said(findings) == [("larger-eps-weaker", severity) for severity in expected]
    if findings:
        assert findings[0].cells == (a("pgd", "0.3").id, a("pgd", "8/255").id)
    carried = a("pgd", "0.3", carried=(eps("8/255"),))
    assert found((a("pgd", "8/255"), tables[0]), (carried, tables[1])) == []


def test_one_step_that_overshoots_is_a_note_and_noise_is_none() -> None:
    for name, expected in (("fgsm", [("larger-eps-weaker", "note")]), ("noise", [])):
        pair = (a(name, "0.1"), broke(100, 0, 30)), (a(name, "0.3"), broke(100, 0, 10))
        assert said(found(*pair)) == expected


@pytest.mark.parametrize(
    ("norm", "whole"), [("linf", "2"), ("l1", "96"), ("l2", "13857/1000"), ("l0", "16")]
)
def test_a_budget_that_reaches_everything_must_break_everything(norm: Norm, whole: str) -> None:
    boxes = {"test": (-1.0, 1.0, SHAPE)}
    below = str(Fraction(whole) * Fraction(49, 100))
    for radius, left, expected in ((whole, 1, 0), (whole, 2, 1), (below, 50, 0)):
        attack = a("pgd", radius, norm=norm)
        findings = found((attack, broke(100, left, 100)), boxes=boxes)
        assert said(findings) == [("unbounded-not-zero", "error")] * expected
    failing = broke(100, 50, 100)
    for blameless in (a("fgsm", whole, norm=norm), a("square", whole, norm=norm)):
        assert found((blameless, failing), boxes=boxes) == []
    assert found((a("pgd", whole, norm=norm), failing)) == []
    same = np.zeros(100, dtype=np.int64)
    constant = dataclasses.replace(failing, clean_pred=same)
    assert found((a("pgd", whole, norm=norm), constant), boxes=boxes) == []


def test_at_half_the_box_one_class_alone_may_stay() -> None:
    boxes = {"test": (0.0, 1.0, SHAPE)}  # labels are i % 10: ten samples of each class
    for left, expected in ((11, 0), (12, 1)):
        findings = found((a("pgd", "0.5"), broke(100, left, 100)), boxes=boxes)
        assert said(findings) == [("unbounded-not-zero", "error")] * expected
    assert found((a("pgd", "0.499"), broke(100, 50, 100)), boxes=boxes) == []


# ---------------------------------------------------------------- properties


KINDS = (
    a("pgd"),
    a("apgd"),
    a("fgsm"),
    a("fab"),
    a("square"),
    a("pgd-far", source="other"),
    a("noise"),
)
WORLDS = st.tuples(
    st.lists(st.integers(0, len(KINDS) - 1), min_size=2, unique=True),
    st.integers(0, 2**32 - 1),
    st.integers(5, 120),
)


def drawn(kinds: Sequence[int], seed: int, n: int) -> list[Measured]:
    """Tables whose rates of broken samples are drawn too."""
    rng = np.random.default_rng(seed)
    correct = rng.random(n) < 0.9
    return [(KINDS[kind], table(correct, rng.random(n) < rng.random() ** 3)) for kind in kinds]


def permuted(samples: Samples, order: NDArray[np.int64]) -> Samples:
    columns = {f.name: getattr(samples, f.name)[order] for f in dataclasses.fields(samples)}
    return Samples(**columns)


@settings(max_examples=40, deadline=None)
@given(WORLDS)
def test_the_order_of_the_samples_changes_nothing(world: tuple[list[int], int, int]) -> None:
    measured = drawn(*world)
    order = np.random.default_rng(world[1] + 1).permutation(world[2])
    assert found(*measured) == found(*((each, permuted(t, order)) for each, t in measured))


@settings(max_examples=100, deadline=None)
@given(WORLDS)
def test_a_stronger_white_box_attack_never_adds_an_error(
    world: tuple[list[int], int, int],
) -> None:
    measured = drawn(*world)
    every = np.any([samples.success for _, samples in measured], axis=0)
    before, after = (
        {(each.id, at) for each in findings if each.severity == "error" for at in each.cells}
        for findings in (
            found(*measured),
            found(*measured, (a("pgd-best"), table(measured[0][1].clean_correct, every))),
        )
    )
    assert {at for _, at in after} <= {at for _, at in before}


@pytest.mark.parametrize("n", [50, 100, 500])
def test_healthy_worlds_are_left_alone_and_masked_ones_are_not(n: int) -> None:
    """Healthy: square finds 3.5 % of n beside pgd, the most that was measured; masked: 30 %."""
    rng = np.random.default_rng(n)
    accused = {0.035: 0, 0.3: 0}
    runs = 100
    for share in accused:
        for _ in range(runs):
            fate = rng.random(n)
            both, beside = fate < 0.08, (fate >= 0.08) & (fate < 0.08 + share)
            correct = np.ones(n, bool)
            findings = found(
                (a("pgd"), table(correct, both)),
                (a("apgd"), table(correct, both & (rng.random(n) < 0.95))),
                (a("fgsm"), table(correct, both & (rng.random(n) < 0.4))),
                (a("pgd-far", source="other"), table(correct, both & (rng.random(n) < 0.4))),
                (a("noise"), table(correct, both & (rng.random(n) < 0.1))),
                (a("square"), table(correct, both | beside)),
            )
            accused[share] += any(each.severity != "note" for each in findings)
    assert accused[0.035] <= 0.03 * runs
    assert accused[0.3] >= 0.97 * runs


# ---------------------------------------------------------------- a real run


def _step(model: Classifier, x: Tensor, y: Tensor, budget: Budget, sign: float) -> Tensor:
    grad = model.gradient(x, y, "margin")
    return (x + sign * budget.eps * grad.sign()).clamp(budget.box.low, budget.box.high)


def right(model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng) -> Tensor:
    """One exact step on a linear model's margin."""
    return _step(model, x, y, budget, 1.0)


def minimises(model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng) -> Tensor:
    """The same step the wrong way."""
    return _step(model, x, y, budget, -1.0)


def test_an_attack_that_minimises_is_caught_in_a_run_and_the_right_one_is_not() -> None:
    specs = [
        attack_spec(right, "fgsm", effort="single-step"),
        attack_spec(right, "pgd", effort="iterative"),
        attack_spec(minimises, "backwards", effort="iterative"),
    ]
    world = Given(
        models=[net_spec("m", 0)],
        datasets=[dataset_spec("d", lambda: labelled(0, 60))],
        specs=specs,
        attacks=[entry(spec.name, spec, "0.3") for spec in specs],
    ).world()
    results = world.run()
    tables = {key: each.samples for key, each in results.items()}
    findings = across.of_grid(world.plan.cells, results, tables.get)
    assert said(findings) == [("single-step-beats-iterative", "error")]
    assert findings[0].cells == (world.cell("backwards").id,)


# ---------------------------------------------------------------- gates


GRADIENT = Component(name="", loader="", content="", files={}, parameters={}, access="gradient")
SCORE = dataclasses.replace(GRADIENT, access="score")


def gated(
    gates: Sequence[Gate], *measured: Measured, models: dict[str, Component] | None = None
) -> list[Finding]:
    tables = {each.id: samples for each, samples in measured}
    cells = [each for each, _ in measured]
    results = {each.id: result(each) for each in cells}
    models = {"candidate": GRADIENT} if models is None else models
    return gatework.of_gates(gates, cells, results, tables.get, models)


def floor(attack: str | None, **changes: object) -> Gate:
    return rule(**{"name": "g", "attack": attack, "minimum": 0.5, **changes})  # type: ignore[arg-type]


def worst(**changes: object) -> Gate:
    return floor(None, name="w", metric="worst_case_robust_accuracy", **changes)


FGSM, PGD, SQUARE = (
    (a("fgsm"), broke(100, 0, 5)),
    (a("pgd"), broke(100, 0, 8)),
    (a("square"), broke(100, 0, 8)),
)


@pytest.mark.parametrize(
    ("weak", "kind"),
    [
        (a("fgsm"), "a single step ('fgsm')"),
        (a("pgd", source="other"), "a transfer ('pgd' from 'other')"),
        (a("noise"), "noise ('noise')"),
        (a("brightness"), "an attack that does not search ('brightness')"),
    ],
)
def test_a_gate_on_a_weak_kind_of_attack_alone(weak: Cell, kind: str) -> None:
    beside = [] if weak.access == "gradient" else [FGSM]
    (finding,) = gated([floor(weak.entry)], (weak, broke(100, 0, 5)), *beside)
    assert said([finding]) == [("gate-on-single-step", "warning")]
    assert f"gate 'g' rests on {kind} alone at linf 0.3" in finding.message
    assert "`standard: {attack: standard, norm: linf, eps: 0.3}`" in finding.advice
    assert "norm: linf, eps: 0.3, min: 0.5}`" in finding.advice
    assert finding.cells == (weak.id,)


def test_a_gate_at_eps_0_asks_for_nothing() -> None:
    nothing = [(a(name, "0"), broke(100, 0, 0)) for name in ("pgd", "square")]
    (finding,) = gated([worst()], *nothing)
    assert said([finding]) == [("gate-without-budget", "warning")]
    assert "gate 'w' asks for nothing at linf 0 on 'candidate' with 'test'" in finding.message
    assert gated([worst()], *nothing, PGD, SQUARE) == []  # a curve that starts at the clean point
    assert gated([worst(eps=eps("0")), worst(eps=eps("0.3"))], *nothing, PGD, SQUARE) == []


def test_a_grid_of_eps_is_one_warning() -> None:
    grid = [(a("fgsm", radius), broke(100, 0, 5)) for radius in ("0.1", "8/255")]
    (finding,) = gated([floor("fgsm")], *grid)
    assert "at linf 0.1, 8/255 on 'candidate' with 'test'" in finding.message
    assert "eps: [0.1, 8/255]" in finding.advice
    assert finding.cells == tuple(each.id for each, _ in grid)


def test_a_gate_that_asks_for_more_covers_the_weaker_ones() -> None:
    small = (a("fgsm", "0.1"), broke(100, 0, 5))
    noise = (a("noise"), broke(100, 0, 1))
    everything = (small, FGSM, PGD, SQUARE, noise)
    for strong in (worst(), floor("pgd", name="p"), floor("square", name="s"), floor("all")):
        assert gated([floor("fgsm"), floor("noise", name="n"), strong], *everything) == []
    only_small = worst(eps=eps("0.1"))
    findings = gated([floor("fgsm"), only_small], *everything, (a("pgd", "0.1"), small[1]))
    assert said(findings) == [
        ("gate-on-single-step", "warning"),  # at 0.3, which the other gate does not reach
        ("no-gradient-free-check", "warning"),
    ]
    assert "alone at linf 0.3 on" in findings[0].message


def test_bounds_that_claim_no_robustness_need_no_strong_attack() -> None:
    claims = (
        floor("fgsm", metric="attack_success_rate", minimum=None, maximum=0.1),
        floor("fgsm", metric="adversarial_error", minimum=None, maximum=0.1),
    )
    for gate in claims:
        (finding,) = gated([gate], FGSM)
        assert "min: 0.9}`" in finding.advice
    free = (
        floor("fgsm", minimum=None, maximum=0.1),
        floor("fgsm", metric="attack_success_rate"),
        rule("clean", "clean_accuracy", minimum=0.9),
    )
    assert gated(free, FGSM) == []


def test_a_gate_on_an_attack_far_above_the_worst_case() -> None:
    sure = fewest(100, 0.05)
    for missed, expected in ((sure - 1, []), (sure, ["weak-gated-attack"])):
        square = (a("square"), broke(100, 8, 8 + missed))
        findings = gated([floor("pgd")], PGD, square)
        assert [each.id for each in findings] == expected
        if findings:
            assert "accuracy of 92.0 % at linf 0.3" in findings[0].message
            assert f"break {missed} more of the 100 samples" in findings[0].message
            assert findings[0].numbers["known robust"] == 92 - missed
        assert gated([floor("pgd"), worst()], PGD, square) == []
    smaller = (a("noise", "0.1"), broke(100, 8, 60))
    assert said(gated([floor("pgd")], PGD, SQUARE, smaller)) == [("weak-gated-attack", "warning")]


def test_gradients_need_a_check_without_them() -> None:
    for gate in (worst(eps=eps("0.3")), floor("pgd")):
        (finding,) = gated([gate], PGD, (a("square", "0.1"), broke(100, 0, 8)))
        assert said([finding]) == [("no-gradient-free-check", "warning")]
        assert finding.advice == "add 0.3 to the `eps:` of attack 'square'"
        assert gated([gate], PGD, SQUARE) == []
    far, noise = (a("square", source="other"), SQUARE[1]), (a("noise"), SQUARE[1])
    (finding,) = gated([worst()], PGD, far, noise)
    assert finding.id == "no-gradient-free-check"
    (finding,) = gated([worst()], (a("pgd", norm="l1"), PGD[1]))
    assert "no built-in attack in l1" in finding.advice


def test_a_gate_without_a_gradient_attack_where_there_are_gradients() -> None:
    (finding,) = gated([worst()], SQUARE)
    assert said([finding]) == [("no-gradient-attack", "warning")]
    assert finding.advice == "add `apgd: {attack: apgd, norm: linf, eps: 0.3}` to `attacks:`"
    assert gated([worst()], SQUARE, models={"candidate": SCORE}) == []
    (finding,) = gated([worst()], SQUARE, models={"candidate": SCORE, "twin": GRADIENT})
    assert "'twin' offers gradients" in finding.message
    skipped = (a("pgd", skip="the model offers scores only"), PGD[1])
    (again,) = gated([worst()], SQUARE, skipped, models={"candidate": SCORE, "twin": GRADIENT})
    assert again.message == finding.message
    assert "`source: twin`" in finding.advice
    exhaustive = (a("pixels", norm="l0"), SQUARE[1])
    assert gated([worst()], exhaustive) == []


def test_a_family_that_counts_as_one_is_gated_as_one() -> None:
    family = {"family": "release", "union": True}
    members = [(dataclasses.replace(each, **family), t) for each, t in (PGD, SQUARE)]  # type: ignore[arg-type]
    assert gated([floor("release")], *members) == []
    assert said(gated([floor("release")], members[0])) == [("no-gradient-free-check", "warning")]


# ---------------------------------------------------------------- what a worst case needs


def lacking(*cells: Cell, norm: Norm = "linf", invalid: Sequence[str] = ()) -> str:
    results = {each.id: result(each) for each in cells}
    return enough.evidence(
        cells, results, invalid, model="candidate", dataset="test", norm=norm, eps=eps("0.3")
    )


@pytest.mark.parametrize(
    "cells",
    [
        (a("pgd"), a("square")),
        (a("fab"), a("boundary")),
        (a("square"),),  # searches, and without gradients
        (a("pixels"),),
        (a("square", target="next"), a("pgd")),
    ],
)
def test_a_worst_case_with_enough_evidence(cells: tuple[Cell, ...]) -> None:
    assert lacking(*cells, a("noise")) == ""


@pytest.mark.parametrize(
    ("cells", "kinds", "line"),
    [
        ((a("pgd"), a("noise")), "gradient-free", "square: {attack: square, norm: linf, eps: 0.3}"),
        ((a("pgd"), a("square", source="other")), "gradient-free", "`square-2: {attack: square"),
        ((a("pgd"), a("square", "0.1")), "gradient-free", "add 0.3 to the `eps:` of attack 'squ"),
        ((a("pgd"), a("brightness")), "gradient-free", "square: {attack: square"),
        ((a("pgd"), a("square", "0.1", family="f")), "gradient-free", "add `square-2: {attack"),
        ((a("fgsm"), a("pgd", "0.1", family="f", union=True)), "iterative", "`eps:` of attack 'f'"),
        ((a("fgsm"),), "iterative or minimal-norm and no gradient-free", "{attack: standard,"),
        ((), "iterative or minimal-norm and no gradient-free", "{attack: standard, norm: linf"),
        (
            (a("square", effort="random"),),
            "iterative or minimal-norm",
            "apgd: {attack: apgd, norm: linf, eps: 0.3}",
        ),
        ((a("pgd", skip="no gradients"), a("square", source="o")), "iterative", "('pgd' did not"),
    ],
)
def test_a_worst_case_without_enough_says_what_to_add(
    cells: tuple[Cell, ...], kinds: str, line: str
) -> None:
    sentence = lacking(*cells)
    assert sentence.startswith(f"no valid {kinds}")
    assert line in sentence


def test_an_invalid_attack_is_no_evidence() -> None:
    cells = a("pgd"), a("square")
    sentence = lacking(*cells, invalid=[a("square").id])
    assert "('square' did not give a valid result): 'square' is there and gave no" in sentence
    assert lacking(*cells, invalid=[a("pgd").id]) == ""


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "l0"])
def test_every_line_to_add_names_an_attack_that_does_what_is_missing(norm: Norm) -> None:
    registry = plugins.load()
    spot = (a("pgd", norm=norm), a("fgsm", norm=norm), a("square", norm=norm, effort="random"))
    for cells in ((spot[0],), (spot[1],), (spot[2],)):
        sentence = lacking(*cells, norm=norm)
        lines = re.findall(r"`(\S+: \{.*?\})`", sentence)
        if not lines:
            assert norm == "l1"
            assert "no built-in attack in l1" in sentence
            continue
        (added,) = yaml.safe_load(lines[0]).values()
        spec = registry.attacks[added["attack"]].spec
        assert norm in spec.norms
        assert (added["norm"], str(added["eps"])) == (norm, "0.3")
        if cells[0].entry == "pgd":
            assert spec.access in {"score", "decision"}
        if cells[0].entry == "square":
            assert (spec.access, spec.effort) == ("gradient", "iterative")


def test_eps_are_joined_as_fractions() -> None:
    cells = a("pgd"), a("square")
    results = {each.id: result(each) for each in cells}
    same = Eps(Fraction(3, 10), "30/100")
    assert not enough.evidence(
        cells, results, (), model="candidate", dataset="test", norm="linf", eps=same
    )
