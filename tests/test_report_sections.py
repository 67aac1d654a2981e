"""The sections of the report against counts made by hand: nothing on the page is another number."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.report import make
from robustbench_lite import run as running
from robustbench_lite.report import (
    against,
    charts,
    classes,
    confidence,
    cost,
    curves,
    gallery,
    html,
    limits,
    outcome,
    pixels,
    strengths,
    transfer,
)
from robustbench_lite.report.tallies import QUANTILES, Tally, tallies
from robustbench_lite.types import Change, Row
from tests.finished_run import FakeRun, world
from tests.showcase import showcase

RUN = showcase(Path("showcase"))
PLACES = {("robust", "test"), ("undefended", "test")}


def rows(run: FakeRun = RUN) -> tuple[Row, ...]:
    assert run.summary is not None
    return run.summary.rows


def tallied(run: FakeRun = RUN) -> dict[str, Tally]:
    groups = transfer.groups(rows(run), run.plan, PLACES)
    return tallies(run, PLACES, transfer.paired(groups))


TALLIED = tallied()


def row_of(model: str, attack: str, text: str) -> Row:
    return next(
        row
        for row in rows()
        if row.model == model and row.attack == attack and row.eps and row.eps.text == text
    )


def test_every_sound_cell_is_read_once() -> None:
    read: list[str] = []

    class Watched:
        def __getattr__(self, name: str) -> object:
            return getattr(RUN, name)

        def samples(self, cell_id: str) -> object:
            read.append(cell_id)
            return RUN.samples(cell_id)

    html.page(Watched())  # type: ignore[arg-type]  # a run that counts
    compared = [change.head_cell for change in RUN.comparison.changes] if RUN.comparison else []
    sound = [row.cell_id for row in rows() if row.status == "ok" and row.plugin != "worst-case"]
    for cell_id in compared:
        while read.count(cell_id) > 1:
            read.remove(cell_id)
    assert sorted(read) == sorted(sound)


def test_tallies_agree_with_the_rows() -> None:
    for tally in TALLIED.values():
        row = tally.row
        samples = RUN.tables[row.cell_id]
        assert row.clean_accuracy is not None
        assert row.robust_accuracy is not None
        labels, n, correct, robust = tally.classes.T
        assert labels.tolist() == sorted(set(samples.label.tolist()))
        assert n.sum() == row.n
        assert correct.sum() == row.clean_accuracy.count
        assert robust.sum() == row.robust_accuracy.count
        assert sum(tally.answers.values()) == row.n
        wrong = sum(count for (label, answer), count in tally.answers.items() if label != answer)
        assert row.adversarial_error is not None
        assert wrong == row.adversarial_error.count == tally.mistakes


def test_the_share_left_at_each_distance_is_what_was_not_broken_within_it() -> None:
    found = charts.distances(TALLIED, charts.slots(rows()))
    assert [(chart.model, chart.norm, chart.reach_text) for chart in found] == [
        ("robust", "l2", "2"),
        ("undefended", "l2", "2"),
    ]
    for chart in found:
        (stair,) = chart.stairs
        samples = RUN.tables[row_of(chart.model, "ddn", "2").cell_id]
        for distance, share in stair.steps:
            broken = samples.success & (samples.l2 <= distance)
            assert share == pytest.approx((samples.clean_correct & ~broken).mean())
        smaller = row_of(chart.model, "ddn", "1").robust_accuracy
        assert smaller is not None
        below = [share for distance, share in stair.steps if distance <= 1]
        assert below[-1] >= smaller.value >= below[-1] - 4 / chart.stairs[0].n
        assert len(stair.steps) <= charts.MOST_STEPS + 1
        root = ET.fromstring(str(curves.staircases(chart, "d")))
        line = next(p for p in root.iter("path") if p.attrib["class"].startswith("line"))
        heights = [float(y) for y in re.findall(r"V([\d.]+)", line.attrib["d"])]
        assert heights == sorted(heights)


def test_the_diagonal_is_the_white_box_and_agreement_is_counted() -> None:
    groups = transfer.groups(rows(), RUN.plan, PLACES)
    (matrix,) = transfer.matrices(groups, TALLIED)
    assert (matrix.attack, matrix.budget, matrix.targets) == (
        "pgd",
        "linf 0.1",
        ("robust", "undefended"),
    )
    for source, line in matrix.lines:
        for target, crossing in zip(matrix.targets, line, strict=True):
            assert crossing is not None
            assert crossing.white_box == (source == target)
            entry = "pgd" if source == target else "pgd-transfer"
            assert crossing.row == row_of(target, entry, "0.1")
            if source == target:
                assert crossing.agreement is None
                continue
            own = RUN.tables[row_of(source, "pgd", "0.1").cell_id]
            there = RUN.tables[crossing.row.cell_id]
            both = own.clean_correct & own.success & there.clean_correct & there.success
            same = both & (own.adv_pred == there.adv_pred)
            assert crossing.agreement is not None
            assert (crossing.agreement.count, crossing.agreement.n) == (same.sum(), both.sum())


def test_a_target_that_is_no_source_has_its_white_box_in_a_last_line() -> None:
    one_way = [
        row for row in rows() if not (row.attack == "pgd-transfer" and row.model == "robust")
    ]
    (matrix,) = transfer.matrices(transfer.groups(one_way, RUN.plan, PLACES), TALLIED)
    assert [source for source, _ in matrix.lines] == ["robust", transfer.ITSELF]
    (own, crossed), whites = (line for _, line in matrix.lines)
    assert crossed is not None
    assert not crossed.white_box
    assert own == whites[0]
    assert [each.row for each in whites if each] == [
        row_of(model, "pgd", "0.1") for model in matrix.targets
    ]


def test_without_a_transfer_there_is_no_matrix(tmp_path: Path) -> None:
    plain = world(tmp_path / "x", n=20)
    assert not transfer.groups(rows(plain), plain.plan, PLACES)


def test_classes_are_shown_where_about_half_is_left() -> None:
    found = classes.classes(TALLIED)
    assert [each.model for each in found] == ["robust", "undefended"]
    for each in found:
        strongest: dict[str, float] = {}
        for tally in TALLIED.values():
            row = tally.row
            if row.model == each.model and row.role == "attack" and row.norm != "none":
                budget = f"{row.norm} {row.eps.text if row.eps else ''}"
                assert row.robust_accuracy is not None
                left = row.robust_accuracy.value
                strongest[budget] = min(left, strongest.get(budget, 1.0))
        assert abs(strongest[each.budget] - 0.5) == min(abs(s - 0.5) for s in strongest.values())
        shares = [line.robust.value for line in each.lines]
        assert shares == sorted(shares)
        for label, n, counts in each.matrix:
            assert sum(counts) == n == next(line.n for line in each.lines if line.label == label)


def test_the_gallery_shows_each_attack_before_a_second_example_of_one() -> None:
    for wall in gallery.walls(RUN, TALLIED, 2_000_000):
        names = [specimen.attack for specimen in wall.specimens]
        in_a_ball = [name for name in names if name != "fog"]
        firsts = len(dict.fromkeys(in_a_ball))
        assert len(set(in_a_ball[:firsts])) == firsts, names
        assert "fog" not in names or names.index("fog") >= len(in_a_ball)
        first = wall.specimens[0].sample
        cells = [t for t in TALLIED.values() if t.row.model == wall.model]
        own = [each for t in cells if t.row.attack == names[0] for each in t.candidates]
        assert first.adv_confidence == max(each.adv_confidence for each in own)


def test_many_classes_give_pairs_in_place_of_a_matrix(tmp_path: Path) -> None:
    run = world(tmp_path / "x", n=400, models={"weak": 0.1})
    label = np.arange(400) % 40
    tables = {
        key: dataclasses.replace(
            each,
            label=label,
            clean_pred=np.where(each.clean_correct, label, 0),
            adv_pred=np.where(each.adv_correct, label, (label + 1 + (label > 20)) % 40),
        )
        for key, each in run.tables.items()
    }
    run = dataclasses.replace(run, tables=tables)
    (found,) = classes.classes(tallies(run, {("weak", "test")}, set()))
    assert not found.matrix
    assert len(found.lines) == classes.MOST_CLASSES
    assert found.left == 40 - classes.MOST_CLASSES
    counts = [pair.count for pair in found.pairs]
    assert counts == sorted(counts, reverse=True)
    assert all(pair.answer in (pair.label + 1, pair.label + 2, 0, 1) for pair in found.pairs)
    assert all(pair.of == 10 for pair in found.pairs)
    assert "Most frequent confusions" in html.page(run)


def test_confidence_is_that_of_the_wrong_decisions() -> None:
    for model in confidence.confidence(TALLIED):
        roles = [(strip.attack != "", strip.role == "control") for strip in model.strips]
        assert roles == sorted(roles)
        for strip in model.strips:
            if not strip.attack or not strip.quantiles:
                continue
            eps = strip.budget.split()[1]
            samples = RUN.tables[row_of(model.model, strip.attack, eps).cell_id]
            mistakes = samples.adv_confidence[~samples.adv_correct].astype(float)
            assert strip.mistakes == len(mistakes)
            assert strip.quantiles == pytest.approx(np.quantile(mistakes, QUANTILES))
            assert "<svg" in confidence.strip_picture(strip)


def test_positions_of_single_pixels_are_counted() -> None:
    found = pixels.heat_maps(TALLIED)
    assert [heat.entry for heat in found] == ["every-pixel", "every-pixel"]
    for heat in found:
        samples = RUN.tables[row_of(heat.model, "every-pixel", "1").cell_id]
        assert heat.side == (12, 12)
        expected: dict[tuple[int, int], int] = {}
        for position in samples.pixel[samples.clean_correct & samples.success]:
            spot = divmod(int(position), 12)
            expected[spot] = expected.get(spot, 0) + 1
        assert dict(heat.counts) == expected
        root = ET.fromstring(str(pixels.picture(heat)))
        squares = [each for each in root.iter("rect") if each.attrib["class"] != "field"]
        assert len(squares) == len(expected)
        assert heat.top[0][1] == max(expected.values())


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 300), st.integers(2, 300), st.integers(0, 2**32 - 1))
def test_blocks_of_a_large_image_lose_no_sample(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    positions = rng.integers(0, height * width, 50)
    counted = {int(at): int((positions == at).sum()) for at in positions}
    base = TALLIED[row_of("robust", "every-pixel", "1").cell_id]
    tally = dataclasses.replace(base, pixels=counted, shape=(3, height, width))
    (heat,) = pixels.heat_maps({"x": tally})
    assert sum(heat.counts.values()) == heat.broken == 50
    assert max(heat.side) <= pixels.MOST_SIDE
    for row, column in heat.counts:
        assert 0 <= row < heat.side[0]
        assert 0 <= column < heat.side[1]


def test_what_has_no_distance_has_a_table_and_no_chart() -> None:
    found = strengths.strengths(rows())
    assert [(table.model, table.texts) for table in found] == [
        ("robust", ("1", "3")),
        ("undefended", ("1", "3")),
    ]
    for table in found:
        ((name, entry, line),) = table.lines
        assert name == entry == "fog"
        assert line == (row_of(table.model, "fog", "1"), row_of(table.model, "fog", "3"))
    drawn = {series.name for chart in charts.charts(rows()) for series in chart.series}
    assert "fog" not in drawn


def test_costs_add_up_and_a_minimal_norm_attack_is_paid_once() -> None:
    found = cost.costs([row for row in rows() if row.plugin != "worst-case"])
    assert sum(each.share for each in found) == pytest.approx(1.0)
    by_name = {each.name: each for each in found}
    assert by_name["ddn"].cells == 2, "two models, two radii each"
    assert by_name["pgd"].cells == 8
    assert by_name["pgd"].seconds == pytest.approx(8 * 1.5)
    assert [each.seconds for each in found] == sorted((e.seconds for e in found), reverse=True)


def _changes() -> tuple[Change, ...]:
    assert RUN.comparison is not None
    return RUN.comparison.changes


def test_newly_broken_samples_are_named_and_pictured_where_pictures_exist() -> None:
    found = against.changes(RUN, 300, 1_000_000)
    order = [outcome.WORDS.index(each.word) for each in found]
    assert order == sorted(order)
    assert "NOT COMPARED" in [each.word for each in found]
    for each in found:
        assert each.broken == each.change.newly_broken
        kept = RUN.images[each.change.head_cell].positions
        ids = set(RUN.tables[each.change.head_cell].sample_id[kept])
        assert {seen.sample_id for seen in each.seen} == ids & set(each.broken)
    assert any(each.seen for each in found)
    assert not any(each.seen for each in against.changes(RUN, 300, 0))
    long = dataclasses.replace(_changes()[1], newly_broken=tuple(f"s{i}" for i in range(500)))
    run = dataclasses.replace(RUN, comparison=dataclasses.replace(RUN.comparison, changes=(long,)))  # type: ignore[type-var]
    (cut,) = against.changes(run, 300, 0)
    assert len(cut.broken) + cut.broken_left == 500


def test_the_page_says_what_changed() -> None:
    text = html.page(RUN)
    for each in ("Against the baseline", "only in the baseline", "data differ", "newly broken"):
        assert each in text
    for change in _changes():
        for sample_id in change.newly_broken:
            assert sample_id in text


def test_a_page_that_grows_too_large_is_drawn_again_with_less(tmp_path: Path) -> None:
    names = {f"{at} {'long ' * 900}": 0.1 for at in range(60)}
    run = world(tmp_path / "x", n=8, models=names)
    text = html.page(run)
    assert len(text.encode()) <= limits.MOST_BYTES
    assert re.search(r"[\d,]+ more charts; all of them are in tables/cells.csv", text)
    assert re.search(r"[\d,]+ more rows", text)
    assert "NOT JUDGED" not in text


def test_a_stored_run_renders_without_the_plug_ins_that_made_it(tmp_path: Path) -> None:
    make(tmp_path / "run", models=2, samples=60)
    finished = running.judge_run(tmp_path / "run", ())
    html.write(finished.run)
    text = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "gone-plug-in" in text
    for section in ("transfer", "classes", "confidence", "distances", "gallery", "pixels", "cost"):
        assert f'<h2 id="{section}">' in text


def test_levels_only_shrink() -> None:
    for more, less in zip(limits.LEVELS, limits.LEVELS[1:], strict=False):
        for name in limits.Limits.__dataclass_fields__:
            assert getattr(less, name) <= getattr(more, name)
