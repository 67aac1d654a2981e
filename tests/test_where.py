"""A report points at the line of the suite that it talks about."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from robustbench_lite import Where, place_of, where_is
from robustbench_lite.where import where_each
from tests.finished_run import cell, world

SUITE = """\
schema: 1
models:
  robust: {load: onnx, path: a.onnx}
attacks:
  fgsm:
    attack: fgsm
  "pgd": {attack: pgd, eps: [0.1, 8/255]}
"""


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("suites/a.yaml:8:24", Where("suites/a.yaml", 8, 24)),
        ("C:\\a.yaml:8:24", Where("C:\\a.yaml", 8, 24)),
        ("--set a.b=c", Where("--set a.b=c", 0, 0)),
        ("a.yaml:x:1", Where("a.yaml:x:1", 0, 0)),
    ],
)
def test_a_place_is_read_back(text: str, place: Where) -> None:
    assert place_of(text) == place
    assert place.line == 0 or str(place) == text


def test_cells_lead_to_what_they_share(tmp_path: Path) -> None:
    run = world(tmp_path / "x", n=5, manifest={"suite_folder": "s", "suite_file": "a.yaml"})
    run = dataclasses.replace(run, suite_text=SUITE)
    fgsm, pgd = (cell(name, "0.1", model="robust").id for name in ("fgsm", "pgd"))
    other = cell("fgsm", "0.1", model="undefended").id
    clean = cell("clean", model="robust").id
    assert where_is(run, [fgsm]) == Where("s/a.yaml", 5, 3)
    assert where_is(run, [pgd]) == Where("s/a.yaml", 7, 3)
    assert where_is(run, [fgsm, other]) == Where("s/a.yaml", 5, 3)
    assert where_is(run, [fgsm, pgd, clean]) == Where("s/a.yaml", 3, 3)
    assert where_is(run, [clean]) == Where("s/a.yaml", 3, 3)
    nowhere = Where("s/a.yaml", 0, 0)
    assert where_is(run, [other, pgd]) == nowhere
    assert where_is(run) == where_is(run, ["unknown"]) == nowhere
    each = where_each(run)
    assert each == {one.id: where_is(run, [one.id]) for one in run.plan.cells}


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "a: [", "models: 3\n", "\x00"])
def test_a_text_that_is_no_suite_gives_the_file(tmp_path: Path, text: str) -> None:
    run = dataclasses.replace(world(tmp_path / "x", n=5), suite_text=text)
    assert where_is(run, [run.plan.cells[1].id]) == Where("suite.yaml", 0, 0)
