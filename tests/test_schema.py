"""The JSON Schema agrees with the reader: what it takes is a suite, what it refuses is none."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import jsonschema
import pytest

from robustbench_lite import plugins
from robustbench_lite.suite.schema import json_schema
from robustbench_lite.suite.yamltext import Node, parse
from robustbench_lite.types import Json
from tests.small_suite import BASE, REGISTRY, SOURCES, attack, gate, read, told, with_dataset

GATES = re.compile(r"```yaml\n(gates:\n.*?)```", re.DOTALL)
PAGE = Path(__file__).parents[1] / "docs" / "gate-a-release.md"
SUITES = sorted((Path(__file__).parents[1] / "suites").glob("**/*.yaml"))


def instance(node: Node) -> Json:
    """What an editor sees: YAML 1.2 values, a fraction as its text."""
    if isinstance(node.value, Mapping):
        return {key: instance(value) for key, value in node.value.items()}
    if isinstance(node.value, tuple):
        return [instance(item) for item in node.value]
    return node.text if isinstance(node.value, Fraction) else node.value


def accepted(text: str, registry: plugins.Registry = REGISTRY) -> bool:
    root, problems = parse(text, file="s.yaml", base=Path())
    assert root is not None
    assert not problems
    return bool(jsonschema.Draft7Validator(json_schema(registry)).is_valid(instance(root)))


def test_it_is_a_draft_07_schema_and_plain_json() -> None:
    schema = json_schema(REGISTRY)
    jsonschema.Draft7Validator.check_schema(schema)
    assert json.loads(json.dumps(schema)) == schema
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"


GOOD = [
    BASE,
    SOURCES.replace("attack: fgsm,", "attack: fgsm, source: s,"),
    attack("attack: pgd, norm: linf, eps: 1e-1, target: 3, repeats: 2, steps: 7, step_size: 2/255"),
    attack("attack: pixel"),
    with_dataset("take: 5, skip: 2, indices: [4, 0], stratified: true, seed: 9, classes: [cat, 3]"),
    BASE.replace("path: models/m.onnx", "path: m, mean: [0.5, 1/2], shape: [1, 2], token: t"),
    gate("metric: robust_accuracy, model: m, attack: f, eps: 16/510, min: 0.5, confidence: 0.99"),
    gate("metric: robust_accuracy, max_drop: 1/100, baseline: baselines/main, for_each: [model, eps]"),
    gate("metric: survives_uint8, max: 0.1, per_class: true, min_samples: 20, allow_partial: true"),
    gate("metric: median_distance, norm: linf, min: 2, for_each: eps"),
    BASE + "analyses: {x: {analysis: spectrum, steps: 3}}\nreports: [junit]\ncontrols: off\n",
    BASE + "evaluate: [{model: m, dataset: d, attacks: []}]\n",
    BASE + "evaluate: [{model: m, dataset: d, attacks: f}]\n",
    'vars: {n: 3, e: 0.5}\n' + with_dataset('take: "${n}"') + 'seed: "${n}"\n',
]  # fmt: skip


@pytest.mark.parametrize("text", GOOD)
def test_what_is_a_suite_is_accepted(text: str) -> None:
    assert accepted(text)
    assert read(text).models


BAD = [
    BASE + "modles: {}\n",
    BASE.replace("schema: 1", "schema: 2"),
    BASE.replace("schema: 1\n", ""),
    "schema: 1\nmodels: {m: {load: onnx, path: m}}\n",
    BASE.replace("load: onnx", "load: onxx"),
    BASE.replace("load: onnx, ", ""),
    BASE.replace("path: models/m.onnx", "pth: models/m.onnx"),
    BASE.replace(", path: models/m.onnx", ""),
    BASE.replace("path: models/m.onnx", "path: 3"),
    BASE.replace("path: models/m.onnx", "path: m, sha256: abc"),
    BASE.replace("  f:", "  a/b:"),
    attack("attack: pgm, eps: 1"),
    attack("attack: fgsm"),
    attack("attack: fgsm, eps: abc"),
    attack("attack: fgsm, eps: -1"),
    attack("attack: fgsm, eps: 1, norm: l1"),
    attack("attack: fgsm, eps: 1, steps: 3"),
    attack("attack: pgd, eps: 1, steps: 0"),
    attack("attack: pgd, eps: 1, steps: many"),
    attack("attack: pgd, eps: 1, step_size: 0"),
    attack("attack: pgd, eps: 1, loss: margn"),
    attack("attack: pgd, eps: 1, random_start: yes"),
    attack("attack: pgd, eps: 1, repeats: 0"),
    attack("attack: pgd, eps: 1, target: nxt"),
    with_dataset("take: 0"),
    with_dataset("takes: 1"),
    gate("metric: robust_acc, min: 0.5"),
    gate("metric: robust_accuracy, min: 80"),
    gate("metric: robust_accuracy, min: 0.5, max_drop: 0.1"),
    gate("metric: robust_accuracy, min: 0.5, baseline: b"),
    gate("metric: robust_accuracy, min: 0.5, for_each: [modl]"),
    gate("metric: robust_accuracy, min: 0.5, min_samples: 0"),
    gate("metric: robust_accuracy, min: 0.5, per_class: 1"),
    gate("metric: confidence_on_mistakes, max: 2"),
    BASE + "reports: [htm]\n",
    BASE + "controls: on\n",
    BASE + "evaluate: [{model: m}]\n",
    BASE + "evaluate: [{model: m, dataset: d, atacks: all}]\n",
]


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_suite_is_refused_by_both(text: str) -> None:
    assert not accepted(text)
    assert told(text)


def test_a_suite_that_extends_another_need_not_be_complete() -> None:
    assert accepted("extends: base.yaml\nattacks: {f: {eps: 0.5}}\n")
    assert not accepted("extends: base.yaml\natacks: {f: {eps: 0.5}}\n")


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.name)
def test_the_suites_of_this_repository_are_accepted(path: Path) -> None:
    text, registry = path.read_text(encoding="utf-8"), plugins.load()
    if "load: trained" in text and "trained" not in registry.models:
        pytest.skip("needs the plug-in robeval-train")
    assert accepted(text, registry)


def test_an_empty_registry_has_a_schema_too() -> None:
    jsonschema.Draft7Validator.check_schema(json_schema(plugins.build([])))


def test_the_gates_of_the_documentation_are_gates() -> None:
    attacks = (
        "best: {attack: fgsm, eps: [0.1, 8/255]}, minimal: {attack: fgsm, norm: l2, eps: 1},"
        " transfer: {attack: fgsm, eps: 0.1}"
    )
    base = BASE.replace("  f: {attack: fgsm, eps: [0.1, 8/255]}", f"  {{{attacks}}}")
    found = GATES.findall(PAGE.read_text(encoding="utf-8"))
    assert len(found) == 3
    for text in found:
        assert accepted(base + text)
        assert len(read(base + text).gates) == text.count("metric:")
