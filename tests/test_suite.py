"""The language of suites: what a text means."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import yaml

from robustbench_lite.types import Selection
from tests.small_suite import (
    BASE,
    SOURCES,
    FileParams,
    attack,
    gate,
    read,
    told,
    with_dataset,
)


def test_a_small_suite_with_its_defaults() -> None:
    found = read(BASE)
    assert (found.name, found.seed, found.controls) == ("s", 0, "auto")
    assert found.reports == ("html", "markdown", "junit", "csv", "parquet")
    (entry,) = found.attacks
    assert (entry.norm, entry.source, entry.target, entry.repeats) == ("linf", None, None, 1)
    assert [(eps.value, eps.text) for eps in entry.eps] == [
        (Fraction(1, 10), "0.1"),
        (Fraction(8, 255), "8/255"),
    ]
    assert [str(where) for where in entry.eps_where] == ["suites/s.yaml:7:27", "suites/s.yaml:7:32"]
    assert str(entry.where) == "suites/s.yaml:7:3"
    (evaluation,) = found.evaluations
    assert (evaluation.model, evaluation.dataset, evaluation.attacks) == ("m", "d", ("f",))
    (model,) = found.models
    assert model.params == FileParams(path=Path("suites/models/m.onnx"))
    assert found.datasets[0].selection == Selection()


def test_every_key_of_an_attack() -> None:
    text = attack(
        "attack: pgd, norm: linf, eps: 1e-1, source: m, target: 3, repeats: 2, steps: 7, "
        "step_size: 2/255, loss: margin, random_start: false"
    )
    (entry,) = read(text + "evaluate: [{model: m, dataset: d}]").attacks
    assert (entry.source, entry.target, entry.repeats) == ("m", "3", 2)
    assert entry.eps[0].value == Fraction(1, 10)
    expected = {"steps": 7, "step_size": 2 / 255, "loss": "margin", "random_start": False}
    assert entry.params.model_dump() == expected


def test_every_key_of_a_dataset() -> None:
    keys = "take: 5, skip: 2, indices: [4, 0], stratified: true, seed: 9, classes: [cat, 3]"
    pin = "AB" * 32
    (entry,) = read(with_dataset(f"{keys}, sha256: {pin}")).datasets
    assert entry.sha256 == pin.lower()
    assert entry.selection == Selection(
        take=5, skip=2, indices=(4, 0), stratified=True, seed=9, classes=("cat", "3")
    )


def test_a_radius_has_a_default_only_where_the_plugin_gives_one() -> None:
    (entry,) = read(attack("attack: pixel")).attacks
    assert (entry.norm, [eps.text for eps in entry.eps]) == ("l0", ["1"])
    assert "attacks.a.eps: missing; a radius such as 8/255" in told(attack("attack: fgsm"))
    assert "attack 'vague' has the default eps 'wide', which is no radius" in told(
        attack("attack: vague")
    )


def test_gates_compare_eps_exactly() -> None:
    keys = "metric: robust_accuracy, model: m, dataset: d, attack: f, norm: linf"
    (found,) = read(gate(f"{keys}, eps: 16/510, min: 0.5, max: 1, confidence: 0.99")).gates
    assert found.eps is not None
    assert (found.eps.value, found.eps.text) == (Fraction(8, 255), "16/510")
    assert (found.minimum, found.maximum, found.confidence) == (0.5, 1.0, 0.99)
    assert (found.model, found.dataset, found.attack, found.norm) == ("m", "d", "f", "linf")


def test_analyses_reports_controls_and_seed() -> None:
    found = read(
        BASE + "analyses: {x: {analysis: spectrum, steps: 3}}\nreports: [junit, csv]\n"
        "controls: off\nseed: 17\nname: release one\n"
    )
    assert [entry.params.model_dump()["steps"] for entry in found.analyses] == [3]
    assert found.reports == ("junit", "csv")
    assert (found.controls, found.seed, found.name) == ("off", 17, "release one")


def test_a_model_that_is_only_a_source_is_not_judged() -> None:
    text = SOURCES.replace("attack: fgsm,", "attack: fgsm, source: s,")
    assert [each.model for each in read(text).evaluations] == ["m"]
    gated = text + "gates: {g: {metric: clean_accuracy, model: s, min: 0.1}}"
    assert [each.model for each in read(gated).evaluations] == ["m", "s"]
    named = text + "evaluate: [{model: s, dataset: d, attacks: [f]}]"
    assert [each.model for each in read(named).evaluations] == ["s"]


def test_if_every_model_is_a_source_none_is_left() -> None:
    text = told(BASE.replace("attack: fgsm,", "attack: fgsm, source: m,"))
    assert "models: every model is the source of an attack, so none is left to judge" in text


def test_the_resolved_suite_is_the_same_suite() -> None:
    first = read(
        attack("attack: pgd, eps: [8/255, 1e-2, 0.30], step_size: 1/255")
        + "  pix: {attack: pixel}\n"
        + "vars: {n: 5}\ngates: {g: {metric: robust_accuracy, attack: a, eps: 8/255, min: 0.5}}\n"
    )
    again = read(yaml.safe_dump(first.resolved, sort_keys=False))
    assert again.resolved == first.resolved
    for one, two in zip(first.attacks, again.attacks, strict=True):
        assert (one.name, one.attack, one.params, one.norm) == (
            two.name,
            two.attack,
            two.params,
            two.norm,
        )
        assert [eps.value for eps in one.eps] == [eps.value for eps in two.eps]
    assert first.resolved["attacks"]["a"]["eps"] == ["8/255", 0.01, 0.3]  # type: ignore[index, call-overload]
