"""Runs over time: in order, nothing lost in silence, and a page that is closed and readable."""

from __future__ import annotations

import base64
import csv
import dataclasses
import hashlib
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from robustbench_lite import history, records
from robustbench_lite.errors import NothingSelected, UsageError
from robustbench_lite.report import trend, trendchart
from robustbench_lite.store import write_json
from robustbench_lite.types import Component, History, Past, Plan
from tests.finished_run import cell
from tests.test_report_html import Page

if TYPE_CHECKING:
    from tests.conftest import Robeval

HOSTILE = "<script>alert(1)</script>\"'{{7*7}}"
Write = Callable[..., Path]


def component(name: str, **files: str) -> Component:
    return Component(name=name, loader="onnx", content="c0ffee" * 4, files=files, parameters={})


def store_run(
    folder: Path,
    started: str,
    *,
    status: str = "PASS",
    value: float | None = 0.9,
    gate: str = "floor",
    subject: str = "robust on test, fgsm linf 0.1",
    code: int = 0,
    sha: str = "ab" * 32,
    cell_id: str = "",
) -> Path:
    """A stored run with one gate, as `robeval run` leaves it."""
    one = cell("fgsm", "0.1", model="robust")
    models = {"robust": component("robust", path=sha), "other": component("other", a="1", b="2")}
    plan = Plan(suite="release", seed=0, models=models, datasets={}, cells=(one,))
    write_json(folder / "manifest.json", {"status": "finished", "started": started})
    write_json(folder / "plan.json", records.plan_to_json(plan))
    record = {
        "gate": gate,
        "status": status,
        "metric": "robust_accuracy",
        "threshold": ">= 0.8",
        "subject": subject,
        "cell_id": cell_id or one.id,
        "value": value,
        "low": None if value is None else value - 0.05,
        "high": None if value is None else value + 0.05,
        "n": 100,
        "reason": "because",
        "needed": None,
        "where": "a.yaml:3:3",
    }
    gates = [record] if gate else []
    write_json(folder / "gates.json", {"exit_code": code, "sentence": "s", "gates": gates})
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three runs whose names are not in the order of their start."""
    root = tmp_path / "reports"
    store_run(root / "s" / "b", "2026-11-20T10:00:00+00:00", value=0.7, status="FAIL", code=1)
    store_run(root / "s" / "c", "2026-11-19T23:30:00-02:00", value=None, status="INVALID", code=8)
    store_run(root / "s" / "a", "2026-11-21T10:00:00+00:00")
    return root


def test_one_row_per_run_and_gate_in_order_of_the_start(root: Path) -> None:
    found = history.read([root])
    assert [(row.run, row.status, row.value, row.exit_code) for row in found.rows] == [
        ("c", "INVALID", None, 8),
        ("b", "FAIL", 0.7, 1),
        ("a", "PASS", 0.9, 0),
    ]
    assert found.rows[0].started == "2026-11-20T01:30:00+00:00"
    assert found.left_out == ()
    first = found.rows[-1]
    assert (first.model, first.model_sha256, first.n) == ("robust", "ab" * 6, 100)


def test_a_root_a_run_and_a_mixture_are_read_once(root: Path) -> None:
    assert history.read([root / "s" / "a"]).rows == history.read([root]).rows[-1:]
    assert history.read([root / "s" / "a", root, root / "s"]).rows == history.read([root]).rows


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda run: (run / "gates.json").unlink(), "never judged"),
        (lambda run: (run / "gates.json").write_text("{"), "gates.json cannot be read"),
        (lambda run: (run / "gates.json").write_text("[]"), "does not hold a JSON object"),
        (lambda run: (run / "gates.json").write_text("{}"), "damaged, or of another version"),
        (lambda run: (run / "plan.json").unlink(), "plan.json cannot be read"),
        (lambda run: (run / "plan.json").write_text('{"suite": 3}'), "damaged"),
        (lambda run: (run / "manifest.json").write_bytes(b"\xff"), "manifest.json cannot be read"),
        (
            lambda run: write_json(run / "manifest.json", {"status": "interrupted"}),
            "not finished (status interrupted)",
        ),
        (lambda run: write_json(run / "manifest.json", {"status": "finished"}), "damaged"),
        (
            lambda run: write_json(
                run / "manifest.json", {"status": "finished", "started": "yesterday"}
            ),
            "damaged",
        ),
    ],
)
def test_what_cannot_be_used_is_named_and_left_out(
    root: Path, spoil: Callable[[Path], object], says: str
) -> None:
    spoil(root / "s" / "b")
    found = history.read([root])
    assert [row.run for row in found.rows] == ["c", "a"]
    (left,) = found.left_out
    assert left.startswith(f"'{root / 's' / 'b'}': ")
    assert says in left


def test_nothing_to_show_is_said(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no directory"):
        history.read([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="there is no run"):
        history.read([tmp_path / "empty"])
    (root / "s" / "a" / "gates.json").unlink()
    with pytest.raises(NothingSelected, match="never judged"):
        history.read([root / "s" / "a"])


def test_the_model_of_a_worst_case_and_of_several_files(tmp_path: Path) -> None:
    started = "2026-11-21T10:00:00+00:00"
    store_run(tmp_path / "r" / "w", started, cell_id="worst-case/other/test/linf/0.1")
    store_run(tmp_path / "r" / "x", started, cell_id="unknown")
    store_run(tmp_path / "r" / "y", started, gate="", code=4)
    worst, unknown, none = history.read([tmp_path / "r"]).rows
    assert (worst.model, worst.model_sha256) == ("other", "c0ffee" * 2)
    assert (unknown.model, unknown.model_sha256) == ("", "")
    assert (none.gate, none.status, none.exit_code) == ("", "INCOMPLETE", 4)


# ---------------------------------------------------------------- forms


def test_csv_and_json_give_the_records_back(root: Path) -> None:
    rows = history.read([root]).rows
    assert [Past(**record) for record in json.loads(trend.as_json(rows))] == list(rows)
    read = list(csv.DictReader(io.StringIO(trend.as_csv(rows))))
    assert [each["value"] for each in read] == ["", "0.7", "0.9"]
    assert [each["gate"] for each in read] == ["floor"] * 3


def test_the_text_is_aligned_and_plain(root: Path) -> None:
    store_run(root / "s" / "d", "2026-11-22T10:00:00+00:00", gate="\x1b[31mred\n", subject="a\tb")
    lines = trend.as_text(history.read([root]).rows).splitlines()
    assert len(lines) == 5
    assert "\x1b" not in "".join(lines)
    end = lines[0].index("value") + len("value")
    assert all(line[end - 1] in "%e-" for line in lines)
    assert [line.split()[-2:] for line in lines[1:]] == [
        ["INVALID", "8"],
        ["FAIL", "1"],
        ["PASS", "0"],
        ["PASS", "0"],
    ]


def test_the_page_is_closed_and_escaped(root: Path, tmp_path: Path) -> None:
    store_run(
        root / "s" / HOSTILE.replace("/", "_"),
        "2026-11-22T10:00:00+00:00",
        gate=HOSTILE,
        subject=HOSTILE,
    )
    found = history.read([root])
    lone = dataclasses.replace(found.rows[-1], reason="\ud800")  # no text file can hold it
    found = dataclasses.replace(found, rows=(*found.rows, lone))
    trend.write(found, tmp_path / "trend.html")
    text = (tmp_path / "trend.html").read_text(encoding="utf-8")
    page = Page(text)
    (policy,) = [m["content"] for m in page.named("meta") if "http-equiv" in m]
    (style,) = page.styles
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}'")
    assert not page.named("script", "link", "iframe", "object", "base", "form", "img")
    assert not re.search(r"url\(|@import|https?://", text)
    for _, attributes in page.tags:
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
    assert "".join(page.text).count(HOSTILE) >= 3
    assert "49" not in re.findall(r"\{\{.*?\}\}|49", text)
    assert text.count("<table") == text.count("<caption>")
    assert all(head.get("scope") for head in page.named("th"))
    assert all(drawn["role"] == "img" for drawn in page.named("svg"))


def test_a_chart_has_a_mark_per_run_the_limits_and_the_floor(root: Path) -> None:
    (one,) = trend.trends(history.read([root]).rows)
    drawn = str(trendchart.chart(one.rows, one.bounds, trend.shown))
    assert one.bounds == (0.8,)
    assert re.findall(r'class="at (\w+)"', drawn) == ["invalid", "fail", "pass"]
    assert drawn.count('class="whisker h0"') == 2
    assert drawn.count('class="threshold"') == 1
    heights = re.findall(r"<text[^>]*>([\d.]+)</text>", drawn)
    ticks = [float(text) for text in heights]
    (floor,) = re.findall(r'd="M52 ([\d.]+)H\d+" class="threshold"', drawn)
    levels = [float(y) for y in re.findall(r'd="M52 ([\d.]+)H\d+" class="(?:grid|base)"', drawn)]
    share = (float(floor) - levels[0]) / (levels[-1] - levels[0])
    assert ticks[0] + share * (ticks[-1] - ticks[0]) == pytest.approx(80, abs=0.2)


def test_a_long_history_stays_a_small_page(root: Path) -> None:
    (*_, row) = history.read([root]).rows
    rows = tuple(
        dataclasses.replace(row, run=f"r{run}", gate=f"g{gate}")
        for run in range(500)
        for gate in range(70)
    )
    text = trend.page(History(rows=rows))
    assert text.count("<figure") == trend.MOST_CHARTS
    assert text.count('class="at pass"') == trend.MOST_CHARTS * trend.MOST_RUNS
    assert "The newest 200 of 500 runs." in text
    assert "10 more gates are only in the table." in text
    assert "33,000 older lines are left out" in text
    assert len(text) < 10_000_000


@pytest.mark.parametrize(
    "values",
    [[None], [0.0], [1.0, 1.0], [0.5, 0.5000001], [-0.02, 0.01], [0.0, 1.0], [0.985, 0.99]],
)
def test_every_point_is_inside_the_chart(tmp_path: Path, values: list[float | None]) -> None:
    rows: list[Past] = []
    for at, value in enumerate(values):
        run = store_run(tmp_path / f"r{at}", f"2026-11-{at + 1:02d}T00:00:00+00:00", value=value)
        rows += history.read([run]).rows
    drawn = str(trendchart.chart(rows, trend.bounds(rows[-1]), trend.shown))
    assert "nan" not in drawn
    for y in re.findall(r'd="M[\d.]+ ([-\d.]+)[aHVlh]', drawn):
        assert -12 <= float(y) <= trendchart.HEIGHT


def test_a_distance_is_no_share(root: Path) -> None:
    row = history.read([root]).rows[-1]
    far = dataclasses.replace(
        row, metric="median_distance", value=3.25, low=3.0, high=3.5, threshold=">= 2.5"
    )
    assert trend.shown(far) == ("3.25", "[3, 3.5]")
    assert trend.shown(row) == ("90.0 %", "[85.0, 95.0]")
    drop = dataclasses.replace(row, threshold="run - baseline >= -0.02", value=-0.013, low=-0.03)
    assert trend.shown(drop) == ("-1.3 points", "[-3.0, +95.0]")
    assert trend.bounds(drop) == (-0.02,)
    drawn = str(trendchart.chart([far], trend.bounds(far), trend.shown))
    assert ">%<" not in drawn


# ---------------------------------------------------------------- the command


def test_the_command_tells_what_runs_stored(
    robeval: Robeval, write_suite: Write, tmp_path: Path
) -> None:
    gates = "reports: [junit]\ncontrols: off\ngates:\n  g: {metric: clean_accuracy, min: 0.5}\n"
    path = str(write_suite(gates, take=20))
    assert robeval("run", path, "-q", "-o", "runs/one").code == 0
    high = ("--set", "gates.g.min=0.999", "--set", "gates.g.confidence=0.9")
    assert robeval("run", path, "-q", "-o", "runs/two", *high).code in {1, 6}
    shutil.copytree(tmp_path / "runs" / "one", tmp_path / "runs" / "three")
    (tmp_path / "runs" / "three" / "gates.json").write_text("{")
    ended = robeval("history", "runs", "-o", "trend.html")
    assert ended.code == 0
    assert [line.split()[1] for line in ended.out.splitlines()[1:3]] == ["one", "two"]
    assert "left out: 'runs/three'" in ended.err
    assert (tmp_path / "trend.html").is_file()
    ended = robeval("history", "runs/one", "runs/two", "--json", "-o", "t/trend.html")
    rows = json.loads(ended.out)
    manifest = json.loads((tmp_path / "runs" / "one" / "manifest.json").read_text())
    assert rows[0]["started"] == manifest["started"]
    assert manifest["models"]["linear"] == {} or rows[0]["model_sha256"]
    assert rows[0]["model"] == "linear"
    assert "trend:" in ended.err
    assert robeval("history", "runs", "--csv").out.startswith("run,started,suite,gate")


def test_the_command_refuses_what_it_cannot_do(robeval: Robeval, tmp_path: Path) -> None:
    assert robeval("history", "nowhere").code == 2
    store_run(tmp_path / "r", "2026-11-20T10:00:00+00:00")
    assert robeval("history", "r", "--json", "--csv").code == 2
    (tmp_path / "r" / "gates.json").unlink()
    ended = robeval("history", "r")
    assert ended.code == 5
    assert "never judged" in ended.err
