"""Analyses against cases with exact answers."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from scipy.stats import norm as normal
from stored import Table, linear, run_with, source
from torch import Tensor, nn

from robeval_train.analyses import (
    agreement,
    confidence,
    growth,
    paired,
    paths,
    rotation,
    rubbish,
    weights,
)
from robeval_train.training.load import as_model
from robustbench_lite import ModelError, StoredRun
from robustbench_lite.types import Plan

EMPTY = StoredRun(
    path=Path(),
    manifest={},
    plan=Plan(suite="", seed=0, models={}, datasets={}, cells=()),
    suite_text="",
    results={},
)


def test_linear_growth_is_eps_m_n_to_rounding() -> None:
    rng = torch.Generator().manual_seed(0)
    weight = torch.randn(2, 50, generator=rng)
    x = torch.rand(20, 50, generator=rng)
    bench = Table({"m": linear(weight)}, {"d": source(x, torch.zeros(20, dtype=torch.int64), 2)})
    frame = growth.growth(EMPTY, bench=bench, models=("m",), dataset="d", samples=20, eps=0.25)
    expected = 0.25 * weight.abs().sum(dim=1)
    assert frame["predicted"].tolist() == pytest.approx(expected.tolist(), rel=1e-6)
    assert frame["measured"].tolist() == pytest.approx(expected.tolist(), rel=1e-4)
    assert (frame["m"] * frame["n"] * frame["eps"] - frame["predicted"]).abs().max() < 1e-12


def test_growth_refuses_a_network_of_several_linear_layers() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    bench = Table(
        {"m": as_model(net, (4,), 2, "cpu", own=False, facts={})},
        {"d": source(torch.rand(2, 4), torch.zeros(2, dtype=torch.int64), 2)},
    )
    with pytest.raises(ModelError, match="2 linear layers"):
        growth.growth(EMPTY, bench=bench, models=("m",), dataset="d", samples=2, eps=0.1)


@pytest.mark.parametrize("kinks", [0, 1, 3])
def test_pieces_counts_the_linear_pieces_of_a_broken_line(kinks: int) -> None:
    e = torch.linspace(-10, 10, 801)
    score = 2 * e
    for at in range(kinks):
        score = score + (at + 1) * (e - (3.3 * at - 4)).relu()
    assert paths.pieces(torch.stack([score, -e], dim=1)) == kinks + 1


def test_a_line_through_a_linear_model_has_one_piece_and_turns_wrong_where_the_margin_ends() -> (
    None
):
    """Scores (0, w.x) with w = (1, ..., 1): along -sign(w) the score of class 1 falls by 4 e."""
    weight = torch.stack([torch.zeros(4), torch.ones(4)])
    x = torch.full((1, 4), 0.5)
    bench = Table({"m": linear(weight)}, {"d": source(x, torch.tensor([1]), 2)})
    frame = paths.paths(
        EMPTY, bench=bench, models=("m",), dataset="d", samples=1, reach=10.0, points=2001, eps=0.25
    )
    (row,) = frame.to_dict("records")
    assert row["pieces"] == 1
    assert row["right_from"] == pytest.approx(-10)
    assert row["right_to"] == pytest.approx(0.5, abs=0.011)
    assert row["wrong_from"] == pytest.approx(0.5, abs=0.011)
    assert row["wrong_width"] == pytest.approx(9.5, abs=0.02)
    assert row["wrong_share"] == pytest.approx(9.5 / 9.75, abs=2e-3)


class Vee(nn.Module):
    """Scores (0, |x| - 0.5) of one number: class 1 on both sides of a gap."""

    def forward(self, x: Tensor) -> Tensor:
        z = x.flatten(1).abs() - 0.5
        return torch.cat([torch.zeros_like(z), z], dim=1)


@pytest.mark.parametrize(
    ("x", "label", "ends"), [(1.0, 1, (-10.0, 0.5)), (0.25, 0, (-0.75, 0.25)), (1.0, 0, None)]
)
def test_the_right_interval_is_the_one_around_the_sample(
    x: float, label: int, ends: tuple[float, float] | None
) -> None:
    """Beyond the gap the class is right again: that is another interval."""
    data = source(torch.tensor([[x]]), torch.tensor([label]), 2)
    bench = Table({"m": as_model(Vee(), (1,), 2, "cpu", own=False, facts={})}, {"d": data})
    (row,) = paths.paths(
        EMPTY, bench=bench, models=("m",), dataset="d", samples=1, reach=10.0, points=2001, eps=0.25
    ).to_dict("records")
    found = (row["right_from"], row["right_to"])
    assert found == ((None, None) if ends is None else pytest.approx(ends, abs=0.011))


def test_turning_a_sample_keeps_its_length_and_no_turn_changes_nothing() -> None:
    rng = torch.Generator().manual_seed(0)
    x, y = torch.rand(60, 6, generator=rng), torch.arange(60) % 3
    bench = Table({"m": linear(torch.randn(3, 6, generator=rng))}, {"d": source(x, y, 3)})
    frame = rotation.rotation(
        EMPTY, bench=bench, models=("m",), dataset="d", samples=60, degrees=(0.0, 10.0, 60.0)
    )
    clean = float((bench.model("m").predict(x).argmax(dim=1) != y).double().mean())
    assert frame["error"].tolist()[0] == pytest.approx(clean)
    assert frame["error"].is_monotonic_increasing
    chord = 2 * math.sin(math.radians(10) / 2) * float(x.norm(dim=1).mean())
    assert frame["mean_l2"].tolist() == pytest.approx(
        [0.0, chord, chord / math.sin(math.radians(10) / 2) * 0.5], rel=1e-4, abs=1e-6
    )


@pytest.mark.parametrize("own", [False, True])
def test_the_rubbish_error_of_a_linear_model_is_that_of_the_normal_distribution(own: bool) -> None:
    """Scores (a z1 + b, 0): p of some class above .5. A softmax of two always has one; of a yes of
    its own class 0 has it where a z1 + b > 0, and class 1 never (score -9)."""
    weight = torch.zeros(2, 5)
    weight[0, 0] = 2.0
    bias = torch.tensor([-1.0, -9.0])
    bench = Table({"m": linear(weight, bias, own=own)})
    frame = rubbish.rubbish(
        EMPTY, bench=bench, models=("m",), samples=20_000, stepped=0, eps=0.25, seed=3
    )
    (row,) = frame.to_dict("records")
    expected = float(normal.sf(0.5)) if own else 1.0
    assert row["error"] == pytest.approx(expected, abs=0.01)
    assert row["mode"] == 0
    if own:
        assert row["share_0"] == 1.0


def test_a_step_towards_a_class_moves_rubbish_across_the_boundary() -> None:
    """z1 > 0.5 - 0.25 for class 0 of the step; the fixed score of class 1 never gets there."""
    weight = torch.zeros(2, 5)
    weight[0, 0] = 2.0
    bench = Table({"m": linear(weight, torch.tensor([-1.0, -9.0]), own=True)})
    frame = rubbish.rubbish(
        EMPTY, bench=bench, models=("m",), samples=20_000, stepped=20_000, eps=0.25, seed=3
    )
    expected = float(normal.sf(0.25)) / 2  # of (sample, class) pairs
    assert frame["step_error"].iloc[0] == pytest.approx(expected, abs=0.01)


def test_agreement_counts_what_it_says(tmp_path: Path) -> None:
    y = [0, 0, 0, 0, 1, 1]
    run = run_with(
        tmp_path,
        {
            ("a", "m"): (y, [1, 1, 2, 0, 0, 1]),
            ("a", "s"): (y, [1, 2, 2, 1, 1, 1]),
            ("a", "r"): (y, [1, 0, 0, 0, 0, 2]),
        },
    )
    frame = agreement.agreement(run, bench=Table(), attack="a", first="m", second="s", third="r")
    found = {row["id"]: (row["n"], row["agreement"]) for row in frame.to_dict("records")}
    assert found["A1"] == (4, 2 / 4)
    assert found["A2"] == (4, 2 / 4)
    assert found["A3"] == (3, 2 / 3)
    assert found["A4"] == (2, 1.0)
    assert found["A5"] == (1, 1.0)


def test_chance_is_the_agreement_of_independent_draws(tmp_path: Path) -> None:
    rng = torch.Generator().manual_seed(0)
    m, s = (torch.randint(1, 5, (5000,), generator=rng).tolist() for _ in range(2))
    y = [0] * 5000
    run = run_with(tmp_path, {("a", "m"): (y, m), ("a", "s"): (y, s), ("a", "r"): (y, s)})
    frame = agreement.agreement(run, bench=Table(), attack="a", first="m", second="s", third="r")
    row = frame.set_index("id").loc["A3"]
    assert row["chance"] == pytest.approx(0.25, abs=0.01)
    assert row["agreement"] == pytest.approx(row["chance"], abs=0.03)


def test_agreement_of_cells_that_did_not_run_is_an_empty_table(tmp_path: Path) -> None:
    run = run_with(tmp_path, {("a", "m"): ([0], [1])})
    frame = agreement.agreement(run, bench=Table(), attack="a", first="m", second="s", third="r")
    assert frame.empty
    assert "chance" in frame.columns


def test_paired_errors_are_an_exact_mcnemar_test(tmp_path: Path) -> None:
    y = [0] * 20
    run = run_with(
        tmp_path,
        {("clean", "a"): (y, [1] * 9 + [0] * 11), ("clean", "b"): (y, [1] * 2 + [0] * 17 + [1])},
    )
    frame = paired.paired(run, pairs=(("a", "b"),), dataset="test")
    (row,) = frame.to_dict("records")
    assert (row["only_base_wrong"], row["only_head_wrong"]) == (7, 1)
    tail = sum(math.comb(8, k) for k in (0, 1)) / 2**8
    assert row["p_value"] == pytest.approx(2 * tail)
    assert paired.paired(run, pairs=(("a", "c"),), dataset="test").empty


def test_clean_confidence_is_the_mean_over_all_samples(tmp_path: Path) -> None:
    run = run_with(tmp_path, {("clean", "a"): ([0] * 5, [0, 1, 0, 0, 1])})
    frame = confidence.confidence(run)
    assert frame["confidence"].tolist() == pytest.approx([0.5])


def test_weight_norms_are_of_matrices_and_their_rows() -> None:
    weight = torch.tensor([[3.0, -4.0], [0.0, 1.0]])
    frame = weights.weights(EMPTY, bench=Table({"m": linear(weight)}), models=("m",))
    (row,) = frame.to_dict("records")
    assert (row["l1"], row["row_l1"], row["row_l2"]) == (8.0, 4.0, 3.0)
    assert row["l2"] == pytest.approx(math.sqrt(26))
