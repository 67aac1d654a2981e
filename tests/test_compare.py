"""Two runs compared: against brute force, with everything that makes them incomparable."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from robustbench_lite import compare, paired, stats
from robustbench_lite.compare import Side
from robustbench_lite.compare.side import keys_of
from robustbench_lite.errors import RobevalError, UsageError
from robustbench_lite.group import BOX_HIGH, BOX_LOW
from robustbench_lite.report import changes, outcome
from robustbench_lite.report.words import difference
from robustbench_lite.types import Cell, Change, Comparison, Component, Finding, Json, Plan, Samples
from tests.finished_run import FakeRun, cell, eps, result, summarised, table

Tables = dict[Cell, Samples]


def run(tables: dict[str, tuple[Cell, Samples]], **models: dict[str, str]) -> FakeRun:
    """A finished run of these cells; `models`: the files of each model."""
    cells = [each for each, _ in tables.values()]
    components = {
        name: Component(name=name, loader="onnx", content=f"{name}1", files=files, parameters={})
        for name, files in models.items()
    }
    return FakeRun(
        path=Path("run"),
        manifest={"suite": "s", "ended": "2026-01-01T00:00:00+00:00"},
        plan=Plan(suite="s", seed=0, models=components, datasets={}, cells=tuple(cells)),
        suite_text="",
        results={each.id: result(each, observed={BOX_LOW: 0.0, BOX_HIGH: 1.0}) for each in cells},
        tables={each.id: samples for each, samples in tables.values()},
        summary=summarised(*tables.values()),
    )


def side(name: str, made: FakeRun) -> Side:
    assert made.summary is not None
    return compare.of_run(name, made, made.summary)


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def release(
    seed: int = 0, n: int = 300, *, model: str = "candidate", order: np.ndarray | None = None,
    salt: str = "", **changes: object,
) -> FakeRun:  # fmt: skip
    """A clean pass and two attacks; `order` shuffles the samples, `changes` alter the pgd cells."""
    rng = np.random.default_rng(seed)
    order = np.arange(n) if order is None else order
    correct = (rng.random(n) < 0.9)[order]
    hashes = np.array([digest(f"{salt}{i}") for i in range(n)], dtype=object)
    ids = np.array([f"test-{i}" for i in range(n)], dtype=object)
    tables: dict[str, tuple[Cell, Samples]] = {}
    names = {"sample_hash": hashes[order], "sample_id": ids[order]}
    tables["clean"] = (cell("clean", model=model), table(correct, np.zeros(n, dtype=bool), **names))
    for entry in ("pgd", "square"):
        for radius in ("0.1", "0.2"):
            broken = (rng.random(n) < 3 * float(radius))[order] & correct
            which = cell(entry, radius, model=model)
            if entry == "pgd":
                which = dataclasses.replace(which, **changes)  # type: ignore[arg-type]
            tables[f"{entry}{radius}"] = (which, table(correct, broken, **names))
    return run(tables, **{model: {"model": "ab" * 32}})


def altered(changes: dict[str, object]) -> FakeRun:
    """A release whose pgd cells are others."""
    return release(**changes)  # type: ignore[arg-type]  # fields of a cell


def by_subject(found: Comparison) -> dict[str, Change]:
    return {each.subject.split(", ", 1)[1]: each for each in found.changes}


def brute(old: FakeRun, new: FakeRun, keep: Callable[[FakeRun], dict[str, bool]]) -> Change:
    before, now = keep(old), keep(new)
    both = sorted(before.keys() & now.keys())
    names = {digest(str(i)): f"test-{i}" for i in range(300)}
    broken = sorted(names[h] for h in both if before[h] and not now[h])
    fixed = sorted(names[h] for h in both if now[h] and not before[h])
    b, c, n = len(broken), len(fixed), len(both)
    low, high = paired.interval(b, c, n)
    return Change(
        subject="", metric="", model="", dataset="", attack="", norm=None, eps=None,
        base_cell="", head_cell="", n=n,
        base=stats.rate(sum(before[h] for h in both), n),
        head=stats.rate(sum(now[h] for h in both), n),
        newly_broken=tuple(broken), newly_fixed=tuple(fixed),
        difference=(c - b) / n, low=low, high=high, p_value=stats.mcnemar(b, c),
    )  # fmt: skip


def kept_by(*ids: str) -> Callable[[FakeRun], dict[str, bool]]:
    """Hash -> right under every one of these cells."""

    def keep(made: FakeRun) -> dict[str, bool]:
        found: dict[str, bool] = {}
        for each in ids:
            rows = made.tables[each]
            right = rows.clean_correct & ~rows.success
            for name, ok in zip(rows.sample_hash, right, strict=True):
                found[str(name)] = found.get(str(name), True) and bool(ok)
        return found

    return keep


PGD = ("candidate.test.pgd.linf.0.1", "candidate.test.pgd.linf.0.2")
SQUARE = ("candidate.test.square.linf.0.1", "candidate.test.square.linf.0.2")


def test_every_line_is_what_counting_gives() -> None:
    """The head has other samples, in another order: pairs are made by hash, not by position."""
    old = release(0, 300)
    new = release(1, 250, order=np.random.default_rng(9).permutation(250))
    found = by_subject(compare.compare(side("old", old), side("new", new)))
    assert list(found) == [
        "clean", "pgd linf 0.1", "pgd linf 0.2", "square linf 0.1", "square linf 0.2",
        "worst-case linf 0.1", "worst-case linf 0.2",
    ]  # fmt: skip
    expected = {
        "clean": kept_by("candidate.test.clean.linf.None"),
        "pgd linf 0.1": kept_by(PGD[0]),
        "square linf 0.2": kept_by(SQUARE[1]),
        "worst-case linf 0.1": kept_by(PGD[0], SQUARE[0]),
        "worst-case linf 0.2": kept_by(*PGD, *SQUARE),
    }
    for name, keep in expected.items():
        true = brute(old, new, keep)
        assert true.n == 250
        assert found[name].newly_broken
        same = ("n", "base", "head", "newly_broken", "newly_fixed", "difference", "low", "high")
        for field in (*same, "p_value"):
            assert getattr(found[name], field) == getattr(true, field), (name, field)
    assert found["clean"].metric == "clean_accuracy"
    assert found["pgd linf 0.1"].metric == "robust_accuracy"


def test_a_run_against_itself_and_the_other_way_round() -> None:
    one, other = side("a", release(0)), side("b", release(1))
    for change in compare.compare(one, one).changes:
        assert (change.newly_broken, change.newly_fixed, change.p_value) == ((), (), 1.0)
    for there, back in zip(
        compare.compare(one, other).changes, compare.compare(other, one).changes, strict=True
    ):
        assert there.newly_broken == back.newly_fixed
        assert there.difference == -(back.difference or 0)
        assert there.p_value == back.p_value


# ---------------------------------------------------------------- what makes two incomparable


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"params": {"steps": 40}}, "parameters.steps is not set in old and 40 in new"),
        ({"attack": "apgd"}, 'attack is "pgd" in old and "apgd" in new'),
        ({"repeats": 3}, "repeats is 1 in old and 3 in new"),
        ({"target": "next"}, 'target is not set in old and "next" in new'),
        ({"eot": 8}, "eot is 1 in old and 8 in new"),
        ({"kind": "minimal-norm", "reach": eps("0.2")}, 'largest eps is not set in old and "1/5"'),
    ],
)
def test_another_threat_model_is_named(changes: dict[str, object], words: str) -> None:
    found = compare.compare(side("old", release()), side("new", altered(changes)))
    told = by_subject(found)
    assert "the threat model differs" in told["pgd linf 0.1"].reason
    assert words in told["pgd linf 0.1"].reason
    assert told["pgd linf 0.1"].head is None
    assert words in told["worst-case linf 0.1"].reason, "a union differs with its member"
    assert not told["square linf 0.1"].reason
    assert not told["clean"].reason
    assert compare.refusal(found) == ""


def test_another_box_makes_everything_incomparable() -> None:
    old, new = release(), release()
    wide = {
        key: dataclasses.replace(each, observed={BOX_LOW: -1.0, BOX_HIGH: 1.0})
        for key, each in new.results.items()
    }
    found = compare.compare(side("old", old), side("new", dataclasses.replace(new, results=wide)))
    assert all("box is [0.0, 1.0] in old and [-1.0, 1.0] in new" in c.reason for c in found.changes)
    assert "box is" in compare.refusal(found)


def test_another_surrogate_is_another_attack() -> None:
    def transferred(files: dict[str, str]) -> FakeRun:
        which = cell("pgd", "0.1", source="surrogate")
        clean = np.ones(50, dtype=bool)
        tables = {
            "clean": (cell("clean"), table(clean, ~clean)),
            "pgd": (which, table(clean, ~clean)),
        }
        return run(tables, candidate={"model": "a"}, surrogate=files)

    one, other = transferred({"weights": "aa"}), transferred({"weights": "bb"})
    found = by_subject(compare.compare(side("old", one), side("new", other)))
    reason = found["pgd (from surrogate) linf 0.1"].reason
    assert 'source.surrogate.weights is "aa" in old and "bb" in new' in reason
    same = by_subject(compare.compare(side("old", one), side("new", one)))
    assert not same["pgd (from surrogate) linf 0.1"].reason


def test_other_data_are_refused_with_their_number() -> None:
    found = compare.compare(side("old", release()), side("new", release(salt="f")))
    assert all(
        "0 samples are in both, of 300 in old and 300 in new" in c.reason for c in found.changes
    )
    assert "the data differ: 0 samples" in compare.refusal(found)
    few, whole = side("few", release(n=100)), side("whole", release(n=300))
    assert all(not each.reason for each in compare.compare(whole, few).changes)
    shifted = release(n=100)
    moved = {
        key: dataclasses.replace(
            rows, sample_hash=np.array([digest(str(i + 60)) for i in range(100)], dtype=object)
        )
        for key, rows in shifted.tables.items()
    }
    other = compare.compare(few, side("moved", dataclasses.replace(shifted, tables=moved)))
    assert all("40 samples are in both, of 100 in few" in each.reason for each in other.changes)


def test_what_only_one_has_is_told() -> None:
    old = release()
    tables = {
        key: (each, old.tables[each.id])
        for key, each in zip("abc", old.plan.cells[:3], strict=True)
    }
    less = run(tables, candidate={"model": "ab" * 32})
    found = compare.compare(side("old", old), side("less", less))
    assert "only in old: candidate on test, square linf 0.1" in found.unmatched
    reason = by_subject(found)["worst-case linf 0.1"].reason
    assert "only in old: square linf 1/10" in reason, "a worst case over less is another one"
    assert not by_subject(found)["pgd linf 0.1"].reason


def test_nothing_in_common_is_refused() -> None:
    pgd = (cell("pgd", "0.1"), table([True] * 9, [False] * 9))
    fgsm = (cell("fgsm", "0.3"), table([True] * 9, [False] * 9))
    found = compare.compare(side("old", run({"a": pgd})), side("new", run({"a": fgsm})))
    assert found.changes == ()
    refused = compare.refusal(found)
    assert "'old' and 'new' cannot be compared" in refused
    assert "only in old: candidate on test, pgd linf 0.1" in refused


def test_another_seed_or_version_is_told_and_compared() -> None:
    old, new = release(), release()
    old = dataclasses.replace(old, manifest={"seed": 0, "versions": {"torch": "2.6", "onnx": "1"}})
    new = dataclasses.replace(new, manifest={"seed": 1, "versions": {"torch": "2.7", "onnx": "1"}})
    found = compare.compare(side("old", old), side("new", new))
    assert found.unmatched == (
        "measured otherwise: seed is 0 in old and 1 in new",
        'measured otherwise: versions.torch is "2.6" in old and "2.7" in new',
    )
    assert all(not each.reason for each in found.changes)


def test_a_line_that_is_not_ok_is_not_compared() -> None:
    old = release()
    gone = {key: rows for key, rows in old.tables.items() if key != PGD[0]}
    lost = compare.compare(side("old", old), side("new", dataclasses.replace(old, tables=gone)))
    found = by_subject(lost)
    assert "failed in new: its per-sample table is missing" in found["pgd linf 0.1"].reason
    assert found["worst-case linf 0.1"].reason
    assert not found["square linf 0.1"].reason


def test_cells_of_one_dataset_must_have_its_samples() -> None:
    old = release()
    rows = old.tables[PGD[0]]
    ids = np.array([f"other-{i}" for i in range(300)], dtype=object)
    other = dataclasses.replace(rows, sample_id=ids)
    with pytest.raises(RobevalError, match="internal error"):
        side("x", dataclasses.replace(old, tables={**old.tables, PGD[0]: other}))


def test_a_cell_that_was_stopped_early_is_compared_on_what_it_saw(tmp_path: Path) -> None:
    old, new = release(0), release(1)
    first = {f.name: getattr(new.tables[PGD[0]], f.name)[:120] for f in dataclasses.fields(Samples)}
    short = {**new.tables, PGD[0]: Samples(**first)}
    stopped = side("new", dataclasses.replace(new, tables=short))
    told = by_subject(compare.compare(side("old", old), stopped))
    true = brute(old, dataclasses.replace(new, tables=short), kept_by(PGD[0]))
    for name in ("n", "base", "head", "newly_broken", "newly_fixed", "p_value"):
        assert getattr(told["pgd linf 0.1"], name) == getattr(true, name)
    assert told["pgd linf 0.1"].n == 120
    assert told["worst-case linf 0.1"].n == 120, "of a union, what all of its cells saw"
    assert told["square linf 0.1"].n == 300
    assert "stopped early by a sequential gate" in compare.unfit(stopped, "finished")
    file = tmp_path / "b.json"
    file.write_text(compare.write_text(stopped))
    again = compare.compare(side("old", old), compare.read(file))
    assert [each.n for each in again.changes] == [each.n for each in told.values()]
    assert [each.p_value for each in again.changes] == [each.p_value for each in told.values()]


# ---------------------------------------------------------------- which models are paired


def test_a_single_model_is_paired_whatever_its_name() -> None:
    old, new = release(model="v1"), release(1, model="v2")
    found = compare.compare(side("old", old), side("new", new))
    assert len(found.changes) == 7
    assert all(not each.reason and each.model == "v2" for each in found.changes)


def test_models_are_paired_by_name_or_as_told() -> None:
    assert compare.pair_models({"a": 0, "b": 0}, {"b": 0, "c": 0}) == {"b": "b"}
    assert compare.pair_models({"a": 0, "b": 0}, {"b": 0, "c": 0}, {"a": "c"}) == {
        "b": "b",
        "a": "c",
    }
    assert compare.pair_models({"a": 0, "b": 0}, {"a": 0, "b": 0}, {"a": "b"}) == {"a": "b"}
    for named, words in (
        ({"x": "c"}, "the base judges no model 'x'; it judges: a, b"),
        ({"a": "y"}, "the head judges no model 'y'; it judges: b, c"),
    ):
        with pytest.raises(UsageError, match=words):
            compare.pair_models({"a": 0, "b": 0}, {"b": 0, "c": 0}, named)


def test_alike_samples_are_told_apart_by_their_number() -> None:
    assert keys_of(["ab" * 16, "cd" * 16, "ab" * 16]) == ["ab" * 6, "cd" * 6, "ab" * 6 + "~2"]


# ---------------------------------------------------------------- baseline files


def kept(made: FakeRun, path: Path) -> Path:
    path.write_text(compare.write_text(side("run", made)), encoding="utf-8")
    return path


def test_a_baseline_compares_as_its_run_does(tmp_path: Path) -> None:
    old, new = release(0), side("new", release(1, order=np.random.default_rng(2).permutation(300)))
    read = compare.read(kept(old, tmp_path / "old.json"))
    assert read.name == "old"
    assert compare.compare(read, new) == compare.compare(side("old", old), new)
    twice = kept(old, tmp_path / "again.json").read_bytes()
    assert twice == (tmp_path / "old.json").read_bytes(), "the same run gives the same bytes"
    text = compare.write_text(read)
    assert json.loads(text)["cells"] == json.loads(twice)["cells"], "and reading loses nothing"


def test_a_baseline_is_sorted_and_can_be_read_by_a_person(tmp_path: Path) -> None:
    value = json.loads(kept(release(), tmp_path / "b.json").read_text())
    assert list(value) == sorted(value)
    clean = value["cells"][0]
    assert (clean["attack"], clean["n"], clean["model"]) == ("clean", 300, "candidate")
    assert clean["metrics"]["clean_accuracy"] == pytest.approx(clean["correct"] / 300, abs=1e-6)
    assert value["models"] == {"candidate": {"model": "ab" * 32}}
    assert value["provenance"]["ended"] == "2026-01-01T00:00:00+00:00"
    assert value["datasets"]["test"]["n"] == 300


def test_a_baseline_of_a_large_run_stays_small(tmp_path: Path) -> None:
    """42 cells of 1,000 samples: about 85 kB."""
    rng = np.random.default_rng(0)
    names = np.array([rng.bytes(16).hex() for _ in range(1000)], dtype=object)
    tables = {"clean": (cell("clean"), table([True] * 1000, [False] * 1000, sample_hash=names))}
    for at in range(41):
        params: dict[str, Json] = {"steps": 40, "step_size": 0.01, "loss": "margin", "restarts": 5}
        which = dataclasses.replace(cell(f"attack-{at % 7}", f"{at + 1}/255"), params=params)
        broken = rng.random(1000) < 0.5
        tables[str(at)] = (which, table([True] * 1000, broken, sample_hash=names))
    path = kept(run(tables, candidate={"model": "ab" * 32}), tmp_path / "large.json")
    assert len(compare.read(path).lines) == 42 + 41
    assert path.stat().st_size < 120_000


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: "{", "cannot be read"),
        (lambda text: "[]", "is not a baseline; make one with `robeval baseline set RUN NAME`"),
        (lambda text: '{"schema": 1}', "is not a baseline"),
        (
            lambda text: text.replace('"robeval_baseline": 1', '"robeval_baseline": 2'),
            "has format 2",
        ),
        (lambda text: text.replace('"correct": ', '"correct": 1'), "is damaged"),
        (lambda text: text.replace('"datasets"', '"data"'), "is damaged"),
        (lambda text: text.replace('"n": 300', '"n": 299'), "is damaged"),
        (lambda text: text.replace('"right": "', '"right": "zz'), "is damaged"),
        (lambda text: text.replace('"eps": "1/10"', '"eps": "1/0"'), "is damaged"),
        (lambda text: text.replace('"threat": ', '"treat": '), "is damaged"),
        (
            lambda text: text.replace(',\n "models"', '\n "models"'),
            ":[0-9]+:2: error: the baseline",
        ),
    ],
)
def test_a_damaged_baseline_is_refused(
    tmp_path: Path, change: Callable[[str], str], words: str
) -> None:
    path = kept(release(), tmp_path / "b.json")
    path.write_text(change(path.read_text()))
    with pytest.raises(UsageError, match=words.replace("(", r"\(")):
        compare.read(path)


def test_what_is_not_fit_to_be_a_baseline() -> None:
    whole = side("run", release())
    assert compare.unfit(whole, "finished") == ""
    assert "is not complete (status interrupted)" in compare.unfit(whole, "interrupted")
    assert "it is partial" in compare.unfit(dataclasses.replace(whole, partial=True), "finished")
    bad = dataclasses.replace(whole.lines[1], status="invalid", reason="zero gradients", right=None)
    broken = dataclasses.replace(whole, lines=(whole.lines[0], bad))
    assert "candidate on test, pgd linf 0.1 is invalid: zero" in compare.unfit(broken, "finished")
    skipped = dataclasses.replace(bad, status="skipped")
    aside = dataclasses.replace(whole, lines=(whole.lines[0], skipped))
    assert compare.unfit(aside, "finished") == "", "an attack that cannot run here never will"
    assert "no cell" in compare.unfit(dataclasses.replace(whole, lines=(skipped,)), "finished")


# ---------------------------------------------------------------- in words


def test_a_comparison_is_told_as_a_table_on_a_terminal() -> None:
    found = compare.compare(side("old", release(0)), side("new", release(1)))
    stream = io.StringIO()
    changes.render(found, Console(file=stream, force_terminal=True, width=200))
    shown = stream.getvalue()
    assert "\x1b[" in shown
    for each in found.changes:
        assert each.subject in shown
        assert difference(each.difference, each.low, each.high) in shown
    assert outcome.sentence(found) in shown
    plain = "\n".join(changes.lines(found))
    assert "\x1b[" not in plain
    assert plain.isascii()


def test_only_what_is_beyond_chance_counts_as_worse() -> None:
    """Ten lines of which one broke for sure: Holm over all of them decides, not each alone."""
    same = compare.compare(side("a", release(0)), side("b", release(0))).changes[0]
    doubtful = dataclasses.replace(same, head_cell="x", difference=-0.01, p_value=0.03)
    sure = dataclasses.replace(same, head_cell="y", difference=-0.1, p_value=1e-6)
    better = dataclasses.replace(same, head_cell="z", difference=0.1, p_value=1e-5)
    found = Comparison(base="a", head="b", changes=(doubtful, sure, better))
    assert "1 worse, 1 better, 1 within" in outcome.sentence(
        dataclasses.replace(
            found, changes=(*found.changes[1:], dataclasses.replace(doubtful, p_value=0.06))
        )
    )
    assert outcome.surely(found) == pytest.approx({"x": 0.03, "y": 3e-6, "z": 2e-5})
    two = Comparison(
        base="a", head="b", changes=(doubtful, dataclasses.replace(doubtful, head_cell="w"))
    )
    assert "0 worse, 0 better, 2 within chance" in outcome.sentence(two)
    told = json.loads(json.dumps(changes.as_json(found)))
    assert [each["p_holm"] for each in told["changes"]] == pytest.approx([0.03, 3e-6, 2e-5])


def test_a_worst_case_over_one_surrogate_is_paired_though_one_side_is_invalid() -> None:
    def transferred(*, ok: bool) -> FakeRun:
        clean, right = cell("clean"), np.ones(40, dtype=bool)
        pgd = cell("pgd", "0.1", source="surrogate")
        made = run({"clean": (clean, table(right, ~right)), "pgd": (pgd, table(right, ~right))})
        error = Finding(id="x", severity="error", message="bad", advice="", cells=(pgd.id,))
        found = summarised(
            (clean, table(right, ~right)),
            (pgd, table(right, ~right)),
            findings=() if ok else (error,),
        )
        return dataclasses.replace(made, summary=found)

    told = compare.compare(side("old", transferred(ok=True)), side("new", transferred(ok=False)))
    assert told.unmatched == ()
    assert by_subject(told)["worst-case linf 0.1"].reason.startswith("invalid in new: ")
