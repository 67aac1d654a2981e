"""The model card: what Hugging Face's own library reads back is what was measured, or nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData

from robustbench_lite import summary
from robustbench_lite.report import model_card
from robustbench_lite.types import CLEAN, WORST_CASE, Finding, Json
from tests.finished_run import FakeRun, cell, world

MANIFEST: Mapping[str, Json] = {"suite_sha256": "5" * 64, "versions": {"robustbench-lite": "9.9"}}


@pytest.fixture
def run(tmp_path: Path) -> FakeRun:
    return world(tmp_path / "run", n=100, manifest=MANIFEST)


def data_of(path: Path) -> ModelCardData:
    """The metadata of a card, read and written once more by the public library."""
    card = ModelCard.load(path)
    assert isinstance(card.data, ModelCardData)
    return card.data


def test_the_public_library_reads_every_headline_number(run: FakeRun) -> None:
    model_card.write(run)
    assert run.summary is not None
    for model in ("robust", "undefended"):
        data = data_of(run.path / "model-cards" / f"{model}.md")
        assert data.model_name == model
        rows = [
            row
            for row in run.summary.rows
            if row.model == model and row.attack in (CLEAN, WORST_CASE)
        ]
        assert data.eval_results is not None
        assert len(data.eval_results) == len(rows) == 6
        for found, row in zip(data.eval_results, rows, strict=True):
            rate = row.robust_accuracy
            assert rate is not None
            assert found.metric_value == pytest.approx(rate.value, abs=1e-6)
            args = found.metric_args
            assert args is not None
            assert args["n"] == rate.n == 100
            assert args["interval"] == pytest.approx([rate.low, rate.high], abs=1e-6)
            assert args["suite_sha256"] == "5" * 64
            assert args["robeval"] == "9.9"
            assert (found.task_type, found.dataset_type) == ("image-classification", "arrays")
            assert found.dataset_name == "test"
            if row.attack == WORST_CASE:
                assert row.eps is not None
                assert (args["norm"], args["eps_text"]) == (row.norm, row.eps.text)
                assert row.eps.text in (found.metric_name or "")
                assert "uniform-noise" not in args["attacks"]
                assert args["attacks"]
        text = (run.path / "model-cards" / f"{model}.md").read_text(encoding="utf-8")
        assert text.count("\n| test |") == 6


def test_the_yaml_holds_every_model(run: FakeRun) -> None:
    model_card.write(run)
    index = yaml.safe_load((run.path / "model-card.yaml").read_text(encoding="utf-8"))
    assert [entry["name"] for entry in index["model-index"]] == ["robust", "undefended"]


def test_never_a_number_of_an_invalid_cell(run: FakeRun) -> None:
    touched = cell("fgsm", "0.1", model="robust")
    error = Finding(id="e", severity="error", message="odd", advice="", cells=(touched.id,))
    whole = summary.make(run.plan.cells, run.results, run.tables.get, [error])
    spoilt = dataclasses.replace(run, summary=whole)
    model_card.write(spoilt)
    data = data_of(run.path / "model-cards" / "robust.md")
    names = [found.metric_name for found in data.eval_results or []]
    assert names == [
        "Clean accuracy",
        "Worst-case robust accuracy, linf eps 8/255",
        "Worst-case robust accuracy, l0 eps 1",
    ]
    text = (run.path / "model-cards" / "robust.md").read_text(encoding="utf-8")
    assert "linf eps 0.3 (invalid)" in text


def test_a_model_without_any_number_is_not_in_the_index(run: FakeRun) -> None:
    ids = tuple(each.id for each in run.plan.cells if each.model == "robust")
    error = Finding(id="e", severity="error", message="odd", advice="", cells=ids)
    whole = summary.make(run.plan.cells, run.results, run.tables.get, [error])
    model_card.write(dataclasses.replace(run, summary=whole))
    index = yaml.safe_load((run.path / "model-card.yaml").read_text(encoding="utf-8"))
    assert [entry["name"] for entry in index["model-index"]] == ["undefended"]
    text = (run.path / "model-cards" / "robust.md").read_text(encoding="utf-8")
    assert "No cell of this model has a valid number." in text
    assert "%" not in text.replace("95 %", "")


def test_a_partial_run_says_so(run: FakeRun) -> None:
    assert run.summary is not None
    part = dataclasses.replace(run, summary=dataclasses.replace(run.summary, partial=True))
    model_card.write(part)
    data = data_of(run.path / "model-cards" / "robust.md")
    assert all((found.metric_args or {})["partial"] for found in data.eval_results or [])
    assert "Partial run" in (run.path / "model-cards" / "robust.md").read_text(encoding="utf-8")


def test_a_table_is_no_image(tmp_path: Path) -> None:
    run = world(tmp_path / "run", n=20, shape=(7,), manifest=MANIFEST)
    model_card.write(run)
    data = data_of(run.path / "model-cards" / "robust.md")
    assert {found.task_type for found in data.eval_results or []} == {"tabular-classification"}


def test_names_can_neither_end_the_front_matter_nor_leave_the_folder(tmp_path: Path) -> None:
    names = ["../up\n---\nx: {y", "a/b", "a b", "\ud800\x00", "A B", "."]
    run = world(tmp_path / "run", n=10, models=dict.fromkeys(names, 0.2), manifest=MANIFEST)
    model_card.write(run)
    cards = sorted(path.name for path in (run.path / "model-cards").iterdir())
    assert len(cards) == len({card.casefold() for card in cards}) == len(names)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    (path,) = (run.path / "model-cards").glob("up*.md")
    up = data_of(path)
    assert len(up.eval_results or []) == 6
    assert up.model_name == "../up --- x: {y"
