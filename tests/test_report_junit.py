"""junit.xml: a public reader and a CI server's schema accept it, whatever the names hold."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from xml.etree import ElementTree as ET

import junitparser
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustbench_lite import summary
from robustbench_lite.report import junit
from robustbench_lite.types import Finding
from tests.finished_run import FakeRun, cell, eps, result, rule, world

SUITE = """\
schema: 1
models:
  robust: {load: onnx, path: a.onnx}
  undefended: {load: onnx, path: b.onnx}
attacks:
  fgsm: {attack: fgsm, eps: 0.1}
  pgd: {attack: pgd, eps: 0.1}
"""
NASTY = "a\x00b\x1b[31m]]><!-- & \"quoted\" 'x' \ud800 \ufffe \U0001f600\r\n\t</testcase>"

# What junit-10.xsd of Jenkins' xunit plug-in allows: element -> (attributes, elements in it).
SCHEMA: dict[str, tuple[set[str], set[str]]] = {
    "testsuites": ({"name", "time", "tests", "failures", "disabled", "errors"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors", "time", "skipped", "timestamp", "file"},
        {"properties", "testcase", "system-out"},
    ),
    "properties": (set(), {"property"}),
    "property": ({"name", "value"}, set()),
    "testcase": (
        {"name", "classname", "time", "file", "line"},
        {"skipped", "error", "failure", "system-out"},
    ),
    "failure": ({"type", "message"}, set()),
    "error": ({"type", "message"}, set()),
    "skipped": ({"type", "message"}, set()),
    "system-out": (set(), set()),
}


def checked(text: str) -> ET.Element:
    """The document, after every element was held against the schema and every count recounted."""
    root = ET.fromstring(text.encode("utf-8"))
    for element in root.iter():
        attributes, inside = SCHEMA[element.tag]
        assert set(element.attrib) <= attributes, element.tag
        assert {child.tag for child in element} <= inside, element.tag
    for suite in root:
        cases = suite.findall("testcase")
        assert suite.get("tests") == str(len(cases)) != "0"
        for count, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert suite.get(count) == str(len(suite.findall(f"testcase/{tag}")))
    for count in ("tests", "failures", "errors"):
        assert root.get(count) == str(sum(int(suite.attrib[count]) for suite in root))
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    gates = [
        rule("fails", attack="fgsm", model="undefended", eps=eps("0.3"), minimum=0.99),
        rule("passes", attack="fgsm", model="robust", eps=eps("8/255"), minimum=0.1),
        rule("open", attack="fgsm", model="robust", eps=eps("8/255"), minimum=0.97),
        rule("void", attack="nothing", minimum=0.5),
        rule("both", attack="pgd", eps=eps("0.1"), minimum=0.01),
    ]
    skipped = [cell("apgd", "0.1", model="robust", norm="l2", skip="needs gradients")]
    touched = cell("pgd", "0.3", model="undefended")
    error = Finding(id="e", severity="error", message="odd", advice="", cells=(touched.id,))
    manifest = {
        "started": "2026-11-21T10:15:30+00:00",
        "suite_folder": "suites",
        "suite_file": "a.yaml",
    }
    made = world(
        tmp_path_factory.mktemp("runs") / "suite",
        n=100,
        gates=gates,
        skipped=skipped,
        findings=[error],
        manifest=manifest,
    )
    return dataclasses.replace(made, suite_text=SUITE)


def test_one_case_per_gate_and_row_and_one_per_cell(run: FakeRun) -> None:
    root = checked(junit.text(run))
    names = [suite.get("name") for suite in root]
    assert names[:5] == [f"gate {name}" for name in ("fails", "passes", "open", "void", "both")]
    assert names[5:] == ["cells of robust", "cells of undefended"]
    assert run.verdict is not None
    gates = [case for suite in root[:5] for case in suite.findall("testcase")]
    assert len(gates) == len(run.verdict.gates)
    cells = [case for suite in root[5:] for case in suite.findall("testcase")]
    assert len(cells) == len(run.plan.cells)


def test_each_status_has_its_element(run: FakeRun) -> None:
    junit.write(run)
    read = junitparser.JUnitXml.fromfile(str(run.path / "junit.xml"))
    kinds: dict[str, list[str]] = {}
    for suite in read:
        for case in suite:
            kinds.setdefault(suite.name, []).extend(type(each).__name__ for each in case.result)
    assert kinds["gate fails"] == ["Failure"]
    assert kinds["gate passes"] == []
    assert kinds["gate open"] == ["Error"]
    assert kinds["gate void"] == ["Error"]
    assert kinds["cells of robust"] == ["Skipped"]
    assert kinds["cells of undefended"] == ["Error"]
    assert (read.failures, read.errors, read.skipped) == (1, 3, 1)


def test_reasons_numbers_and_lines_are_told(run: FakeRun) -> None:
    root = checked(junit.text(run))
    (failure,) = root.findall("testsuite/testcase/failure")
    assert failure.attrib["message"].startswith("FAIL: at most ")
    assert "wanted >= 0.99, n 100" in (failure.text or "")
    gate = root[0][1]
    assert (gate.get("file"), gate.get("line")) == ("suite.yaml", "12")
    places = {
        case.attrib["name"].split()[0]: (case.get("file"), case.get("line"))
        for case in root[5].findall("testcase")
    }
    assert places["fgsm"] == ("suites/a.yaml", "6")
    assert places["pgd"] == ("suites/a.yaml", "7")
    assert places["clean"] == ("suites/a.yaml", "3")
    (skipped,) = root.findall("testsuite/testcase/skipped")
    assert skipped.get("message") == "skipped: needs gradients"


@pytest.mark.parametrize("status", ["failed", "timeout"])
def test_a_cell_without_a_result_is_an_error(run: FakeRun, status: str) -> None:
    broken = next(each for each in run.plan.cells if each.attack == "fgsm")
    results = {**run.results, broken.id: result(broken, status=status, reason="it broke")}
    whole = summary.make(run.plan.cells, results, run.tables.get, ())
    root = checked(junit.text(dataclasses.replace(run, results=results, summary=whole)))
    errors = root.findall("testsuite/testcase/error[@type='" + status + "']")
    assert [error.get("message") for error in errors] == [f"{status}: it broke"]


def nasty_run(path: Path, name: str) -> FakeRun:
    finding = Finding(id=name, severity="error", message=name, advice=name, cells=(name,))
    return world(
        path,
        n=5,
        models={name: 0.2},
        dataset=name,
        gates=[rule(name, minimum=0.5), rule("none", attack=name, minimum=0.1)],
        findings=[finding],
        skipped=[cell(name, "0.1", model=name, dataset=name, skip=name)],
        manifest={"started": name, "suite_file": name},
    )


def test_no_name_breaks_the_document(tmp_path: Path) -> None:
    run = nasty_run(tmp_path / "run", NASTY)
    junit.write(run)
    text = (tmp_path / "run" / "junit.xml").read_bytes().decode("utf-8")
    checked(text)
    read = junitparser.JUnitXml.fromstring(text.encode())
    assert any("\U0001f600" in suite.name for suite in read)


@settings(max_examples=60, deadline=None)
@given(name=st.text(st.characters(exclude_categories=()), min_size=1, max_size=8))
def test_any_name_at_all(name: str) -> None:
    checked(junit.text(nasty_run(Path("run"), name)))


def test_a_run_without_gates_has_no_empty_suite(tmp_path: Path) -> None:
    root = checked(junit.text(world(tmp_path / "run", n=10)))
    assert [suite.get("name") for suite in root] == ["cells of robust", "cells of undefended"]
