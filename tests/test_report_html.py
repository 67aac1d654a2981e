"""The HTML report: closed to requests and to markup of names; its pictures and numbers exact."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustbench_lite import summary
from robustbench_lite.report import charts, curves, html, origin, svg, words
from robustbench_lite.types import Finding, GateResult, Rate, Row
from tests.finished_run import cell, eps, rule, world
from tests.showcase import HOSTILE, hostile_run

VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Every tag and attribute of a page; complains about tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.styles: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        kept = {"style": self.styles, "script": self.scripts}
        kept.get(self.open[-1] if self.open else "", self.text).append(data)

    def named(self, *tags: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.tags if tag in tags]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    run = world(
        tmp_path_factory.mktemp("runs") / "run",
        n=120,
        gates=[
            rule("worst", "worst_case_robust_accuracy", minimum=0.75, eps=eps("0.1"), norm="linf"),
            rule("narrow", minimum=0.97, attack="fgsm", model="robust", eps=eps("8/255")),
        ],
        skipped=[cell("apgd", "0.1", model="robust", norm="l2", skip="needs gradients")],
        findings=[Finding(id="f", severity="warning", message="odd", advice="look", cells=())],
    )
    html.write(run)
    return (run.path / "report.html").read_text(encoding="utf-8")


def test_the_page_is_closed(text: str) -> None:
    page = Page(text)
    (policy,) = [m["content"] for m in page.named("meta") if "http-equiv" in m]
    (style,), (script,) = page.styles, page.scripts
    assert policy.startswith("default-src 'none'; img-src data:; ")
    for kind, text_ in (("style", style), ("script", script)):
        digest = base64.b64encode(hashlib.sha256(text_.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert page.named("script") == [{}], "one script of our own, without a source"
    assert script == (html.TEMPLATES / "report.js").read_text(encoding="utf-8")
    assert not page.named("link", "iframe", "object", "base", "form")
    for _, attributes in page.tags:
        assert "style" not in attributes, "the policy would block it"
        assert not [name for name in attributes if name.startswith("on")]
        assert attributes.get("src", "data:").startswith("data:")
        assert attributes.get("href", "#").startswith("#")
    assert not re.search(r"url\(|@import|https?://", text)


def test_every_name_is_escaped(tmp_path: Path) -> None:
    page = Page(html.page(hostile_run(tmp_path / "x")))
    assert page.scripts == [(html.TEMPLATES / "report.js").read_text(encoding="utf-8")]
    assert all(image["src"].startswith("data:image/png;base64,") for image in page.named("img"))
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    said = "".join(page.text)
    assert said.count(HOSTILE) > 20
    assert "<b>x</b>" in said
    assert "1337" not in said


def test_tables_and_pictures_can_be_read_without_sight(text: str) -> None:
    page = Page(text)
    assert text.count("<table") == text.count("<caption>") + text.count('<caption class="sr">')
    assert all(head.get("scope") for head in page.named("th"))
    assert all(image["alt"] for image in page.named("img"))
    for drawn in page.named("svg"):
        assert drawn.get("role") == "img" or drawn.get("aria-hidden") == "true"
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.tags:
        for name in ("aria-labelledby", "aria-describedby"):
            assert attributes.get(name, ids[0]) in ids
    assert "lang" in page.named("html")[0]
    for scroller in (a for _, a in page.tags if a.get("class") == "scroll"):
        assert scroller["tabindex"] == "0"
        assert scroller["aria-label"]


def test_it_says_what_happened(text: str) -> None:
    said = re.sub(r"\s+", " ", " ".join(Page(text).text))
    assert "FAIL" in said
    assert "below the floor of 75 %" in said
    assert "samples would decide" in said
    assert "needs gradients" in said
    assert "odd" in said
    assert "robeval run 'my suite.yaml'" in said
    order = ["Gates", "At a glance", "Accuracy against eps", "Worst examples", "Findings"]
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", text)
    assert [h for h in headings if h in order] == order


def test_status_is_said_in_words_beside_its_colour(text: str) -> None:
    for word in ("FAIL", "INCONCLUSIVE"):
        assert re.search(rf'class="sign" aria-hidden="true">.</span> {word}', text)


def test_a_chart_has_every_measured_point(tmp_path: Path) -> None:
    run = world(tmp_path / "x", n=100)
    assert run.summary is not None
    drawn = charts.charts(run.summary.rows)
    places = [(chart.model, chart.norm) for chart in drawn]
    assert places == [(m, n) for m in ("robust", "undefended") for n in ("linf", "l0")]
    points = {
        (chart.model, chart.norm, series.name, point.eps): point.rate
        for chart in drawn
        for series in chart.series
        for point in series.points
    }
    for row in run.summary.rows:
        if row.eps is not None and row.norm is not None:
            name = "worst case" if row.attack == "worst-case" else row.attack
            assert points.pop((row.model, row.norm, name, float(row.eps))) == row.robust_accuracy
    assert not points
    assert [series.kind for series in drawn[0].series] == [
        "worst-case",
        "attack",
        "attack",
        "control",
    ]


def test_charts_are_well_formed_and_stay_in_their_box(tmp_path: Path) -> None:
    run = world(tmp_path / "x", n=30, models={HOSTILE: 0.05, "robust": 0.5})
    assert run.summary is not None
    for chart in charts.charts(run.summary.rows):
        root = ET.fromstring(str(curves.accuracy(chart, "c1")))
        assert HOSTILE in "".join(root.itertext()) or chart.model == "robust"
        for path in root.iter("path"):
            moves = re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path.attrib["d"])
            for x, y in moves:
                assert -6 <= float(x) <= svg.WIDTH
                assert 0 <= float(y) <= svg.HEIGHT
        lines = [p for p in root.iter("path") if p.attrib["class"].startswith("line")]
        assert len(lines) == len(chart.series)
        assert len(str(curves.accuracy(chart, "c1"))) < 20_000


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(-1, 1), st.floats(-1, 1))
def test_limits_keep_their_order_on_the_axis(
    low: float, value: float, high: float, bound: float
) -> None:
    low, value, high = sorted((low, value, high))
    root = ET.fromstring(str(svg.limits((low, value, high), [bound], "PASS", said="", least=-1)))
    span = next(p.attrib["d"] for p in root.iter("path") if p.attrib["class"].startswith("span"))
    tick = next(p.attrib["d"] for p in root.iter("path") if p.attrib["class"] == "bound")
    left, right = (float(each) for each in re.findall(r"M([\d.]+) .*H([\d.]+)", span)[0])
    at = float(re.findall(r"M([\d.]+) ", tick)[0])
    assert 28 <= min(left, at) <= max(right, at) <= 146
    if bound < low:
        assert at <= left
    if bound > high:
        assert at >= right


def test_the_closest_gate_is_named_if_all_pass(tmp_path: Path) -> None:
    far = rule("far", "clean_accuracy", minimum=0.5)
    near = rule("near", "clean_accuracy", model="robust", minimum=0.93)
    text = html.page(world(tmp_path / "x", n=300, gates=[far, near]))
    assert re.search("Closest to its bound: <b>near</b>, robust on test", text)
    lost = rule("lost", "clean_accuracy", minimum=0.999)
    assert "Closest to its bound" not in html.page(world(tmp_path / "y", gates=[far, near, lost]))


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_slack_is_positive_exactly_for_limits_inside_the_bounds(
    low: float, high: float, bound: float
) -> None:
    low, high = sorted((low, high))
    gate = GateResult(
        gate="g",
        status="PASS",
        metric="robust_accuracy",
        threshold=f">= {bound!r}",
        subject="",
        cell_id="",
        value=low,
        low=low,
        high=high,
        n=10,
        reason="",
        needed=None,
        where="",
    )
    floor, ceiling = (
        words.slack(gate),
        words.slack(dataclasses.replace(gate, threshold=f"<= {bound!r}")),
    )
    assert floor == low - bound
    assert ceiling == bound - high
    both = dataclasses.replace(gate, threshold=f">= {bound!r}, <= {bound!r}")
    assert words.slack(both) == min(low - bound, bound - high)
    assert words.slack(dataclasses.replace(gate, threshold="max drop 0.01")) is None
    assert words.bounds(dataclasses.replace(gate, threshold="")) == []


def test_a_row_without_a_rate_leaves_no_point() -> None:
    (chart,) = charts.charts(
        [_row("fgsm", "0.1", None), _row("fgsm", "0.2", Rate(5, 10, 0.5, 0.2, 0.8))]
    )
    assert [point.text for point in chart.series[0].points] == ["0.2"]
    assert chart.missing == ("fgsm at eps 0.1: failed",)


def _row(attack: str, radius: str, rate: Rate | None) -> Row:
    of = cell(attack, radius)
    return Row(
        cell_id=of.id,
        model=of.model,
        dataset=of.dataset,
        attack=attack,
        plugin=attack,
        source=of.model,
        role="attack",
        kind=of.kind,
        norm=of.norm,
        eps=of.eps,
        n=10,
        status="ok" if rate else "failed",
        reason="",
        clean_accuracy=rate,
        robust_accuracy=rate,
        attack_success_rate=rate,
        adversarial_error=rate,
        confidence_on_mistakes=None,
        median_distance=None,
        survives_uint8=None,
        queries_mean=None,
        gradients_mean=None,
        seconds=0.0,
        device="cpu",
        provider="",
        batch_size=1,
    )


def test_a_run_without_verdict_examples_or_rates_still_renders(tmp_path: Path) -> None:
    run = world(tmp_path / "x", n=10)
    bare = dataclasses.replace(run, verdict=None, images={}, manifest={})
    assert "NOT JUDGED" in html.page(bare)
    skipped = cell("apgd", "0.1", skip="needs gradients")
    nothing = summary.make([skipped], {}, lambda _: None, [], partial=True)
    text = html.page(dataclasses.replace(run, summary=nothing))
    assert "No cell of this chart has a rate" in text
    assert "Partial run" in text


def test_many_models_stay_in_one_small_file(tmp_path: Path) -> None:
    models = {f"model-{at}": 0.1 for at in range(50)}
    text = html.page(world(tmp_path / "x", n=12, models=models, shape=(3, 32, 32)))
    assert len(text.encode()) < 5_000_000
    assert all(f"<b>{name}</b>" in text for name in models)


def test_the_command_is_quoted_and_names_the_program(tmp_path: Path) -> None:
    run = world(
        tmp_path / "x", n=5, manifest={"argv": ["/opt/venv/bin/robeval", "run", "a b.yaml"]}
    )
    assert origin.command(run) == "robeval run 'a b.yaml'"
    unknown = dataclasses.replace(run, manifest={"suite_file": "mine.yaml"})
    assert origin.command(unknown) == "robeval run mine.yaml"
