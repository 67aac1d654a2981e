"""Entries that refer to entries: order, circles, content ids, and what a loader is given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from robustbench_lite import (
    AnalysisSpec,
    Bench,
    Box,
    DataError,
    DatasetRef,
    DatasetSpec,
    DataSource,
    LoadedModel,
    ModelRef,
    ModelSpec,
    Params,
    Places,
    hookimpl,
    plugins,
)
from robustbench_lite import plan as planning
from robustbench_lite import suite as suites
from robustbench_lite.errors import SuiteError
from robustbench_lite.params import Reference, referring, refers_to
from robustbench_lite.stock import Stock
from robustbench_lite.types import Plan, Suite

PLACES = Places(suite=Path(), data=None, cache=Path())
SEEN: list[tuple[str, int]] = []
"""Content id and number of samples of every model that was made, for the tests to look at."""


class Digits(Params):
    """A dataset of `count` numbers."""

    count: int = 10


class Shifted(Params):
    """A dataset made of another one."""

    of: DatasetRef
    by: float = 0.0


class Mean(Params):
    """A model made of a dataset and, if it is given, of others."""

    on: DatasetRef | None = None
    beside: tuple[ModelRef, ...] = ()
    knob: int = 0


class Looked(Params):
    """An analysis of a model."""

    model: ModelRef


def digits(params: Digits, *, places: Places) -> DataSource:
    x = torch.linspace(0, 1, params.count).view(-1, 1)
    return DataSource(
        ids=[f"n{row}" for row in range(params.count)],
        labels=(torch.arange(params.count) % 2).long(),
        read=lambda rows: x[list(rows)],
        shape=(1,),
        box=Box(0, 2),
        classes=("even", "odd"),
    )


def shifted(params: Shifted, *, places: Places, bench: Bench) -> DataSource:
    below = bench.dataset(params.of)
    return DataSource(
        ids=below.ids,
        labels=below.labels,
        read=lambda rows: below.read(rows) + params.by,
        shape=below.shape,
        box=below.box,
        classes=below.classes,
    )


class Threshold(nn.Module):
    def __init__(self, at: Tensor) -> None:
        super().__init__()
        self.register_buffer("at", at)

    def forward(self, x: Tensor) -> Tensor:
        at = self.at
        assert isinstance(at, Tensor)
        return torch.cat([at - x, x - at], dim=1)


def mean(params: Mean, *, places: Places, device: str, threads: int, bench: Bench) -> LoadedModel:
    at = torch.zeros(())
    n = 0
    if params.on is not None:
        source = bench.dataset(params.on)
        n = len(source.ids)
        at = source.read(range(n)).mean()
    for name in params.beside:
        other = bench.model(name).differentiable
        assert isinstance(other, Threshold)
        assert isinstance(other.at, Tensor)
        at = at + other.at
    SEEN.append((bench.content, n))
    net = Threshold(at)
    return LoadedModel(
        predict=net,
        differentiable=net,
        num_classes=2,
        input_shape=(1,),
        output="logits",
        device=device,
        provider="torch",
    )


class Plugin:
    """Loaders that refer, and one that does not."""

    @hookimpl
    def robeval_models(self) -> list[ModelSpec]:
        return [ModelSpec(name="mean", implementation=mean, summary="", params=Mean)]

    @hookimpl
    def robeval_datasets(self) -> list[DatasetSpec]:
        return [
            DatasetSpec(name="digits", implementation=digits, summary="", params=Digits),
            DatasetSpec(name="shifted", implementation=shifted, summary="", params=Shifted),
        ]

    @hookimpl
    def robeval_analyses(self) -> list[AnalysisSpec]:
        return [AnalysisSpec(name="look", implementation=mean, summary="", params=Looked)]


REGISTRY = plugins.build([Plugin()])
SUITE = """\
schema: 1
datasets:
  train: {load: digits, count: 8}
  moved: {load: shifted, of: train, by: 0.5}
  test: {load: digits}
models:
  a: {load: mean, on: moved}
  b: {load: mean, on: train, beside: [a]}
"""


def read(text: str = SUITE, *overrides: str) -> Suite:
    return suites.loads(text, REGISTRY, path=Path("s.yaml"), overrides=overrides, places=PLACES)


def plan(text: str = SUITE, *overrides: str, limit: int | None = None) -> Plan:
    return planning.make(read(text, *overrides), REGISTRY, PLACES, limit=limit)


def contents(plan: Plan) -> Mapping[str, str]:
    return {name: part.content for name, part in (*plan.models.items(), *plan.datasets.items())}


def test_parameters_say_what_they_refer_to() -> None:
    assert {name: mark.kind for name, mark in referring(Mean).items()} == {
        "on": "dataset",
        "beside": "model",
    }
    assert refers_to(Mean(on="d", beside=("m", "n"))) == (
        Reference("on", "dataset", "d"),
        Reference("beside", "model", "m"),
        Reference("beside", "model", "n"),
    )
    assert refers_to(Mean()) == ()
    assert referring(Digits) == {}


def test_a_loader_gets_what_its_parameters_name_and_each_is_made_once() -> None:
    suite, made = read(), plan()
    SEEN.clear()
    stock = Stock(suite, REGISTRY, PLACES, "cpu", 1, plan=made)
    b = stock.model("b")
    assert isinstance(b, LoadedModel)
    assert isinstance(b.differentiable, Threshold)
    # mean of the train set, 0.5, and of the shifted one, 1.0
    assert float(b.differentiable.at) == pytest.approx(1.5)  # type: ignore[arg-type]
    stock.model("a")
    assert [content for content, _ in SEEN] == [made.models[name].content for name in ("a", "b")]


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("models.b.knob=1", {"b"}),
        ("models.a.knob=1", {"a", "b"}),
        ("datasets.moved.by=0.25", {"moved", "a", "b"}),
        ("datasets.train.count=6", {"train", "moved", "a", "b"}),
        ("datasets.train.take=4", {"train", "moved", "a", "b"}),
        ("datasets.test.count=6", {"test"}),
        ("models.b.beside=[]", {"b"}),
    ],
)
def test_a_change_reaches_everything_that_is_made_of_it_and_nothing_else(
    override: str, changed: set[str]
) -> None:
    before, after = contents(plan()), contents(plan(SUITE, override))
    assert {name for name in before if before[name] != after[name]} == changed


def test_the_name_of_an_ingredient_is_no_part_of_an_identity() -> None:
    renamed = SUITE.replace("moved", "other").replace("train", "school")
    before, after = contents(plan()), contents(plan(renamed))
    assert before["b"] == after["b"]
    assert before["moved"] == after["other"]


def test_limit_cuts_what_is_judged_and_never_what_a_model_is_made_of() -> None:
    whole, cut = plan(), plan(limit=3)
    assert contents(whole)["b"] == contents(cut)["b"]
    assert whole.datasets["test"].content != cut.datasets["test"].content
    assert whole.datasets["test"].origin == cut.datasets["test"].origin
    SEEN.clear()
    Stock(read(), REGISTRY, PLACES, "cpu", 1, plan=cut).model("b")
    assert SEEN[-1][1] == 8


def test_a_dataset_that_models_are_made_of_is_not_judged_unless_a_line_says_so() -> None:
    assert {cell.dataset for cell in plan().cells} == {"test"}
    line = "evaluate: [{model: a, dataset: train}]\n"
    assert {cell.dataset for cell in plan(SUITE + line).cells} == {"train"}
    only = plan(SUITE.replace("  test: {load: digits}\n", ""))
    assert {cell.dataset for cell in only.cells} == {"train", "moved"}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("models.a.on=trian", "models.a.on: there is no dataset 'trian'\n  help: did you mean"),
        ("models.b.beside=[c]", "models.b.beside: there is no model 'c'\n  help: models: a, b"),
        ("datasets.moved.of=a", "datasets.moved.of: there is no dataset 'a'"),
        ("analyses.x={analysis: look, model: z}", "analyses.x.model: there is no model 'z'"),
    ],
)
def test_a_name_that_is_not_there_is_told_where_it_stands(override: str, words: str) -> None:
    with pytest.raises(SuiteError) as caught:
        read(SUITE, override)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "circle"),
    [
        (("models.b.beside=[b]",), "models.b: refers to itself: b -> b"),
        (("models.a.beside=[b]",), "models.a: refers to itself: a -> b -> a"),
        (("datasets.moved.of=moved",), "datasets.moved: refers to itself: moved -> moved"),
    ],
)
def test_circles_are_refused(overrides: tuple[str, ...], circle: str) -> None:
    with pytest.raises(SuiteError) as caught:
        plan(SUITE, *overrides)
    assert circle in str(caught.value)
    assert str(caught.value).startswith("s.yaml:")


def test_a_bench_raises_what_an_ingredient_has_wrong() -> None:
    text = SUITE.replace("count: 8", "count: 8, classes: [none]")
    suite = read(text)
    stock = Stock(suite, REGISTRY, PLACES, "cpu", 1, plan=plan(text))
    with pytest.raises(DataError, match="'none' is neither a class"):
        stock.whole("train")
    made = stock.model("a")
    assert not isinstance(made, LoadedModel)
    assert "model 'a'" in made.reason
    assert "'none' is neither a class" in made.reason


def test_a_selection_is_a_source_of_its_own() -> None:
    text = SUITE.replace("count: 8", "count: 8, skip: 2, take: 3")
    source = Stock(read(text), REGISTRY, PLACES, "cpu", 1, plan=plan(text)).whole("train")
    assert list(source.ids) == ["n2", "n3", "n4"]
    assert torch.allclose(source.read([2, 0]), torch.tensor([[4 / 7], [2 / 7]]))
