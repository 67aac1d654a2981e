"""Corruptions: what all 15 keep, their constants, the family and the table."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import torch

from robustbench_lite import Box, PluginError
from robustbench_lite.builtin.analyses.corruptions import COLUMNS, corruption_table
from robustbench_lite.builtin.attacks.corrupt_constants import KINDS, PUBLISHED, SEVERITIES, Kind
from robustbench_lite.builtin.attacks.corruption import SPEC, TRANSFORMATIONS
from robustbench_lite.builtin.attacks.corruptions import SPEC as FAMILY
from robustbench_lite.builtin.attacks.corruptions import CorruptionsParams
from robustbench_lite.store import load_run
from tests.corrupted import corrupted, images, problem_of
from tests.no_norm import assert_contract
from tests.oracles import estimated, run

if TYPE_CHECKING:
    from tests.conftest import Robeval

# their published constants trade one thing for another: less ice for a dimmer image
UNEVEN: tuple[Kind, ...] = ("elastic-transform", "glass-blur", "snow", "frost")
PAGE = Path(__file__).parents[1] / "docs" / "corruptions.md"
RANDOM: tuple[Kind, ...] = ("gaussian-noise", "shot-noise", "impulse-noise", "glass-blur")
RANDOM += ("motion-blur", "snow", "frost", "fog", "elastic-transform")


def constants(kind: Kind, severity: int, side: int) -> dict[str, float]:
    return PUBLISHED[kind].at(severity, side)


# ---------------------------------------------------------------- every kind


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 40), (33, 28)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_contract(kind: Kind, shape: tuple[int, ...], device: torch.device) -> None:
    box = Box(-1.5, 2.0)
    x = (box.low + box.width * images(3, shape)).to(device)
    whole = assert_contract(SPEC, problem_of(x, box), 3.0, kind=kind)
    assert bool((whole != x).flatten(1).any(dim=1).all())


@pytest.mark.parametrize("kind", KINDS)
def test_any_box_is_scaled_to_the_unit_and_back(kind: Kind) -> None:
    x = images(2, (3, 28, 28))
    box = Box(-2.0, 6.0)
    elsewhere = corrupted(box.low + box.width * x, kind, 4, box=box)
    back = (elsewhere - box.low) / box.width
    off = (back - corrupted(x, kind, 4)).abs() > 1e-5
    assert float(off.float().mean()) < 0.01  # a count of photons or an 8-bit level may turn over


@pytest.mark.parametrize("kind", KINDS)
def test_chance_is_another_for_another_seed_and_the_same_for_every_severity(kind: Kind) -> None:
    x = images(2, (1, 28, 28))
    one, other = (corrupted(x, kind, 5, seed=seed) for seed in (0, 1))
    assert torch.equal(one, other) == (kind not in RANDOM)
    assert torch.equal(corrupted(x, kind, 5), one)


def test_severities_share_their_random_numbers() -> None:
    x = torch.full((1, 1, 28, 28), 0.5)
    noise = [(corrupted(x, "gaussian-noise", s) - x).flatten() for s in (1, 5)]
    torch.testing.assert_close(noise[0] / 0.04, noise[1] / 0.10, rtol=0, atol=1e-4)


def test_kinds_have_random_numbers_of_their_own() -> None:
    x = torch.full((2, 1, 28, 28), 0.5)
    own = problem_of(x).rng().fork("gaussian-noise").normal((1, 28, 28))
    assert torch.equal(corrupted(x, "gaussian-noise", 1), (x + 0.04 * own).clamp(0, 1))


@pytest.mark.parametrize("side", [28, 96])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in UNEVEN])
def test_a_higher_severity_moves_pictures_further(kind: Kind, side: int) -> None:
    x = images(8, (1, side, side))
    moved = [
        float((corrupted(x, kind, severity) - x).flatten(1).norm(dim=1).mean())
        for severity in SEVERITIES
    ]
    assert moved[0] > 0
    assert all(b >= 0.99 * a for a, b in itertools.pairwise(moved)), moved
    assert moved[-1] > 1.15 * moved[0]


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize(
    "kind",
    ["defocus-blur", "glass-blur", "motion-blur", "zoom-blur", "contrast", "elastic-transform"],
)
@pytest.mark.parametrize("side", [28, 90])
def test_a_blank_image_stays_blank(kind: Kind, severity: int, side: int) -> None:
    x = torch.tensor([0.0, 0.3, 1.0]).view(3, 1, 1, 1).expand(3, 3, side, side).contiguous()
    torch.testing.assert_close(corrupted(x, kind, severity), x, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_it_never_looks_at_the_model(kind: Kind) -> None:
    problem = problem_of(images(2, (1, 28, 28)))
    model = problem.model()
    run(SPEC, problem, problem.budget("none", 2), model=model, kind=kind)
    assert int(model.queries.sum()) == int(model.gradients.sum()) == 0
    assert estimated(SPEC, problem, kind=kind) == (0, 0)


@pytest.mark.parametrize("severity", [0.5, 6, -1])
def test_another_severity_is_an_error_that_says_what_it_is(severity: float) -> None:
    with pytest.raises(ValueError, match=f"a whole number from 1 to 5; found {severity:g}"):
        corrupted(images(1, (1, 28, 28)), "fog", severity)


def test_what_is_no_picture_is_an_error_that_says_so() -> None:
    with pytest.raises(ValueError, match=r"corruption needs images .* shape \[784\]"):
        corrupted(torch.rand(1, 784), "fog", 1)
    with pytest.raises(ValueError, match="have 28 channels, expected 1"):
        corrupted(torch.rand(1, 28, 28, 3), "fog", 1)
    with pytest.raises(ValueError, match="the images are 28 x 7, expected at least 8 x 8"):
        corrupted(torch.rand(1, 1, 28, 7), "fog", 1)


# ---------------------------------------------------------------- constants


def test_every_kind_has_constants_that_its_function_takes() -> None:
    assert set(PUBLISHED) == set(TRANSFORMATIONS) == set(KINDS)
    for kind, published in PUBLISHED.items():
        own = list(inspect.signature(TRANSFORMATIONS[kind]).parameters)[2:]
        assert own == list(published.names)
        assert published.lengths <= set(published.names)
        for row in (*published.small, *published.large):
            assert len(row) == len(own)


def test_lengths_grow_with_the_side_and_nothing_else_does() -> None:
    assert constants("glass-blur", 4, 32) == {"sigma": 0.25, "reach": 1, "rounds": 2}
    assert constants("glass-blur", 4, 64) == {"sigma": 0.5, "reach": 2, "rounds": 2}
    assert constants("glass-blur", 4, 112) == {"sigma": 0.55, "reach": 1.5, "rounds": 2}
    assert constants("glass-blur", 4, 224) == {"sigma": 1.1, "reach": 3, "rounds": 2}
    assert constants("motion-blur", 1, 28) == {"radius": 5.25, "sigma": 0.875}
    for kind in ("shot-noise", "fog", "jpeg", "pixelate", "zoom-blur", "contrast"):
        assert constants(kind, 3, 28) == constants(kind, 3, 64) != constants(kind, 3, 300)


def test_the_page_lists_every_published_constant() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for kind, published in PUBLISHED.items():
        for side, rows in ((32, published.small), (224, published.large)):
            told = " ; ".join(", ".join(f"{value:g}" for value in row) for row in rows)
            line = f"| {kind} | {side} | {', '.join(published.names)} | {told} |"
            assert line in text, line


# ---------------------------------------------------------------- the family and the table


def test_the_family_stands_for_one_corruption_per_kind() -> None:
    assert FAMILY.members is not None
    assert not FAMILY.union
    members = FAMILY.members(FAMILY.params(), "none", "score")
    assert [(m.label, m.attack, dict(m.params)) for m in members] == [
        (kind, "corruption", {"kind": kind}) for kind in KINDS
    ]
    some = FAMILY.members(CorruptionsParams(kinds=("fog", "jpeg")), "none", "none")
    assert [member.label for member in some] == ["fog", "jpeg"]
    problem = problem_of(images(1, (1, 28, 28)))
    with pytest.raises(PluginError, match="run `corruption` with one `kind`"):
        run(FAMILY, problem, problem.budget("none", 1))


FOUR = """
attacks:
  common: {attack: corruptions, kinds: [fog, contrast]}
analyses:
  corruption-table: {analysis: corruption-table}
reports: [csv]
"""


def test_a_suite_runs_the_family_and_writes_its_table(
    robeval: Robeval, write_suite: Callable[..., Path], tmp_path: Path
) -> None:
    path = write_suite(FOUR, take=40)
    planned = robeval("plan", str(path)).out
    assert planned.count("(one of the 15 common corruptions)") == 10
    ended = robeval("run", str(path), "-o", str(tmp_path / "run"), "-q")
    assert ended.code == 0, ended.err
    table = pd.read_csv(tmp_path / "run" / "tables" / "corruption-table.csv")
    assert list(table.columns) == list(COLUMNS)
    assert table["corruption"].tolist() == ["contrast", "fog", "mean of 2"]
    assert table["n"].tolist() == [40] * 3
    stored = load_run(tmp_path / "run")
    names = [f"severity_{severity}" for severity in SEVERITIES]
    for cell in stored.plan.cells:
        if cell.attack == "corruption":
            samples = stored.samples(cell.id)
            assert samples is not None
            assert cell.eps is not None
            (row,) = table.index[table["corruption"] == cell.params["kind"]]
            left = (samples.adv_pred == samples.label).mean()
            assert table.loc[row, f"severity_{cell.eps.text}"] == pytest.approx(left)
            assert table.loc[row, "clean_accuracy"] == pytest.approx(samples.clean_correct.mean())
    rows = table[names].to_numpy()
    np.testing.assert_allclose(table["mean"][:2], rows[:2].mean(axis=1))
    np.testing.assert_allclose(rows[2], rows[:2].mean(axis=0))
    assert table["mean"][2] == pytest.approx(rows[:2].mean())
    np.testing.assert_allclose(table["relative"], table["mean"] / table["clean_accuracy"])
    assert rows[:2].min() < table["clean_accuracy"][0]
    pd.testing.assert_frame_equal(corruption_table(stored), table, check_dtype=False)


def test_a_mean_over_a_severity_that_failed_is_empty(
    robeval: Robeval, write_suite: Callable[..., Path], tmp_path: Path
) -> None:
    text = FOUR.replace("contrast]", "contrast], eps: [1, 1.5]")
    ended = robeval("run", str(write_suite(text, take=10)), "-o", str(tmp_path / "run"), "-q")
    assert ended.code == 4
    table = pd.read_csv(tmp_path / "run" / "tables" / "corruption-table.csv")
    assert table["mean"].isna().all()
    assert table["severity_1"].notna().all()
    assert table["severity_3"].isna().all()


@pytest.mark.parametrize(
    ("given", "said"),
    [("[fog, fog]", "'fog' stands twice"), ("[fogg]", "fog"), ("[]", "kinds")],
)
def test_kinds_that_are_wrong_are_told_with_their_place(
    given: str, said: str, robeval: Robeval, write_suite: Callable[..., Path]
) -> None:
    path = write_suite(f"attacks:\n  common: {{attack: corruptions, kinds: {given}}}\n")
    ended = robeval("validate", str(path))
    assert ended.code == 2
    assert said in ended.err
    assert "suite.yaml:" in ended.err
