"""What a user is told when a suite means nothing: everything, at once, in his words."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustbench_lite.errors import SuiteError
from tests.small_suite import (
    BASE,
    SOURCES,
    attack,
    gate,
    read,
    told,
    with_dataset,
)


def test_the_message_of_the_design() -> None:
    assert told(attack("attack: fgsm, norm: Linf, eps: 1")) == (
        "suites/s.yaml:7:27: error: attacks.a.norm: 'Linf' is not one of linf, l2, l1, l0\n"
        "  help: did you mean 'linf'?"
    )


def test_all_problems_at_once_in_the_order_of_the_file() -> None:
    text = (
        "schema: 2\nmodles: {}\nmodels: {m: {load: onx, path: 3}}\ndatasets: {d: {laod: mnist}}\n"
        "attacks: {clean: {attack: fgsm, eps: abc}}\ngates: {g: {metric: robust, min: 80}}\n"
        "seed: 1.5\nseed: 2\n"
    )
    lines = [line for line in told(text).splitlines() if "error:" in line]
    places = [tuple(int(n) for n in line.split(":")[1:3]) for line in lines]
    assert places == sorted(places)
    assert [line.split("error: ")[1].split(":")[0] for line in lines] == [
        "schema", "modles", "models.m.load", "datasets.d.load", "attacks.clean",
        "attacks.clean.eps", "gates.g.metric", "gates.g.min", "seed", "seed",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("eps", "words"),
    [
        ("abc", "'abc' is not a number; expected a finite number of at least 0, such as 0.1 or 8/255"),
        ("-1", "-1 is negative"),
        ("-1/255", "-1/255 is negative"),
        ("0/0", "'0/0' divides by zero"),
        ("nan", "'nan' is not a number"),
        (".nan", ".nan is not finite"),
        (".inf", ".inf is not finite"),
        ("1e999", "'1e999' is not a number"),
        ("true", "found true"),
        ("{a: 1}", "found a mapping"),
        ("[]", "the list is empty"),
        ("[0.1, 0.10]", "0.10 stands twice in the grid (first as 0.1)"),
        ("[8/255, 16/510]", "16/510 stands twice in the grid (first as 8/255)"),
        ("[[0.1]]", "found a list"),
        ("[~]", "found nothing"),
    ],
)  # fmt: skip
def test_an_eps_that_is_no_radius(eps: str, words: str) -> None:
    found = told(attack(f"attack: fgsm, eps: {eps}"))
    assert f"attacks.a.eps: {words}" in found or words in found
    assert found.count("error:") == 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("attack: pgm, eps: 1", "a.attack: unknown attack 'pgm'\n  help: did you mean 'pgd'?"),
        ("attack: 3, eps: 1", "a.attack: expected a text, found 3"),
        ("eps: 1", "attacks.a.attack: missing; one of fgsm, pgd, pixel, vague"),
        ("atack: fgsm, eps: 1", "missing; one of fgsm, pgd, pixel, vague\n  help: is 'atack' meant"),
        ("attack: fgsm, norm: l1, eps: 1", "a.norm: attack 'fgsm' has no l1 form; expected linf, l2"),
        ("attack: fgsm, norm: .inf, eps: 1", "a.norm: .inf is not one of"),
        ("attack: fgsm, norm: inf, eps: 1", "did you mean 'linf'?"),
        ("attack: fgsm, norm: 2, eps: 1", "did you mean 'l2'?"),
        ("attack: pixel, eps: 1.5", "l0 counts changed pixels: expected a whole number, found 1.5"),
        ("attack: fgsm, eps: 1, target: next", "a.target: attack 'fgsm' cannot be targeted"),
        ("attack: pgd, eps: 1, target: nxt", "help: did you mean 'next'?"),
        ("attack: pgd, eps: 1, target: -1", "-1 is not one of next, random, least-likely or the"),
        ("attack: pgd, eps: 1, source: mm", "a.source: unknown model 'mm'\n  help: did you mean 'm'?"),
        ("attack: pgd, eps: 1, repeats: 0", "a.repeats: expected at least 1, found 0"),
        ("attack: pgd, eps: 1, repeats: two", "a.repeats: expected a whole number of at least 1"),
        ("attack: pgd, eps: 1, stepz: 2", "a.stepz: unknown key 'stepz'\n  help: did you mean 'steps'?"),
        ("attack: pgd, eps: 1, ep: 2", "a.ep: unknown key 'ep'\n  help: did you mean 'eps'?"),
        ("attack: pgd, eps: 1, zzzz: 2", "help: known keys: steps, step_size, loss, random_start, att"),
        ("attack: pgd, eps: 1, steps: 0", "a.steps: expected at least 1, found 0"),
        ("attack: pgd, eps: 1, steps: 9999", "a.steps: expected at most 1000, found 9999"),
        ("attack: pgd, eps: 1, steps: many", "a.steps: expected a whole number, found 'many'"),
        ("attack: pgd, eps: 1, steps: 1.5", "a.steps: expected a whole number, found 1.5"),
        ("attack: pgd, eps: 1, steps: '4'", "a.steps: expected a whole number, found '4'"),
        ("attack: pgd, eps: 1, steps: true", "a.steps: expected a whole number, found true"),
        ("attack: pgd, eps: 1, steps: ~", "a.steps: expected a whole number, found nothing"),
        ("attack: pgd, eps: 1, step_size: 0", "a.step_size: expected a value above 0"),
        ("attack: pgd, eps: 1, step_size: .inf", "a.step_size: expected a finite number, found .inf"),
        ("attack: pgd, eps: 1, step_size: .nan", "a.step_size: expected a finite number, found .nan"),
        ("attack: pgd, eps: 1, random_start: yes", "expected true or false, found 'yes'"),
        ("attack: pgd, eps: 1, loss: margn", "'margn' is not one of cross-entropy, margin\n  help: did"),
        ("attack: pgd, eps: 1, loss: margin, steps: 1", "attacks.a: the margin loss needs at least 2"),
    ],
)  # fmt: skip
def test_an_attack_that_is_not_one(body: str, words: str) -> None:
    found = told(attack(body))
    assert words in found


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("{load: onnx}", "3:6: error: models.m.path: missing; it has no default"),
        ("{load: onnx, path: 3}", "models.m.path: expected a text, found 3"),
        ("{load: onnx, path: m, mean: x}", "models.m.mean: expected a number, or a list, found 'x'"),
        ("{load: onnx, path: m, mean: [1, x]}", "models.m.mean.1: expected a number"),
        ("{load: onnx, path: m, shape: []}", "models.m.shape: expected at least 1 items, found an em"),
        ("{load: onnx, path: m, token: 12}", 'expected a text, found 12\n  help: for the text write "12"'),
        ("{load: onnx, path: m, sha256: abc}", "models.m.sha256: expected 64 hexadecimal digits"),
        ("{load: torhc, path: m}", "models.m.load: unknown model loader 'torhc'\n  help: installed: onnx"),
        ("onnx", "models.m: expected a mapping, found 'onnx'"),
        ("", "models.m: expected a mapping, found nothing"),
    ],
)  # fmt: skip
def test_a_model_that_is_not_one(entry: str, words: str) -> None:
    assert words in told(BASE.replace("{load: onnx, path: models/m.onnx}", entry))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("take: 0", "datasets.d.take: expected at least 1, found 0"),
        ("take: ten", "expected a whole number of at least 1, found 'ten'"),
        ("skip: -1", "datasets.d.skip: expected at least 0, found -1"),
        ("indices: [1, -1]", "expected whole numbers of at least 0, found -1"),
        ("indices: [1, 1]", "datasets.d.indices: 1 stands twice"),
        ("indices: []", "the list is empty; leave the key out for all"),
        ("stratified: on", "expected true or false, found 'on'"),
        ("seed: x", "datasets.d.seed: expected a whole number"),
        ("classes: [a, a]", "datasets.d.classes: 'a' stands twice"),
        ("classes: [1.5]", "expected names or numbers of classes, found 1.5"),
        ("root: here", "datasets.d.root: unknown key 'root'"),
    ],
)
def test_a_selection_that_is_not_one(keys: str, words: str) -> None:
    assert words in told(with_dataset(keys))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("min: 0.5", "g.metric: missing; one of clean_accuracy"),
        ("metric: robust_acc, min: 0.5", "help: did you mean 'robust_accuracy'?"),
        ("metric: robust_accuracy", "gates.g.min: missing; a gate needs min, max or max_drop"),
        ("metric: robust_accuracy, min: 80", "help: is this a percentage? write 0.8"),
        ("metric: robust_accuracy, min: 80%", "found '80%'\n  help: write 0.8"),
        ("metric: robust_accuracy, min: 99.5 %", "help: write 0.995"),
        ("metric: robust_accuracy, min: -0.1", "expected a number from 0 to 1, found -0.1"),
        ("metric: robust_accuracy, min: .nan", "expected a number from 0 to 1, found .nan"),
        ("metric: robust_accuracy, min: 0.9, max: 0.1", "min 0.9 is above max 0.1"),
        ("metric: robust_accuracy, min: 0.5, confidence: 0.5", "expected a number between 0.5 and 1"),
        ("metric: robust_accuracy, min: 0.5, confidence: 95", "write 0.95"),
        ("metric: robust_accuracy, min: 0.5, model: mm", "unknown model 'mm'\n  help: did you mean"),
        ("metric: robust_accuracy, min: 0.5, dataset: q", "unknown dataset 'q'\n  help: known: d"),
        ("metric: robust_accuracy, min: 0.5, attack: ff", "unknown attack 'ff'\n  help: did you mean"),
        ("metric: robust_accuracy, min: 0.5, norm: l2", "no selected attack has norm l2; there are: linf"),
        ("metric: robust_accuracy, min: 0.5, eps: 0.2", "attack has eps 0.2; there are: 8/255, 0.1"),
        ("metric: robust_accuracy, min: 0.5, eps: wide", "gates.g.eps: 'wide' is not a number"),
        ("metric: clean_accuracy, min: 0.5, eps: 0.1", "clean_accuracy is measured without an attack"),
        ("metric: worst_case_robust_accuracy, min: 0.5, attack: f", "the worst case is over all attacks"),
        ("metric: robust_accuracy, max_drop: 0.1, min: 0", "gates.g.min: a gate with max_drop has no min"),
        ("metric: robust_accuracy, max_drop: 2", "help: is this a percentage? write 0.02"),
        ("metric: robust_accuracy, max_dorp: 0.1", "help: did you mean 'max_drop'?"),
        ("metric: attack_success_rate, max_drop: 0.1", "cannot be compared sample by sample"),
        ("metric: robust_accuracy, baseline: b, min: 0", "only max_drop compares with a baseline"),
        ("metric: robust_accuracy, baseline: 3, max_drop: 0", "gates.g.baseline: expected a text"),
        ("metric: robust_accuracy, min: 0, for_each: modl", "help: did you mean 'model'?"),
        ("metric: robust_accuracy, min: 0, for_each: [eps, eps]", "gates.g.for_each: 'eps' stands twice"),
        ("metric: robust_accuracy, min: 0, min_samples: 0", "expected at least 1, found 0"),
        ("metric: robust_accuracy, min: 0, per_class: 1", "gates.g.per_class: expected true or false"),
        ("metric: robust_accuracy, min: 0, allow_partial: 1", "allow_partial: expected true or false"),
        ("metric: robust_accuracy, max_drop: 0, per_class: true", "max_drop is not split by class"),
        ("metric: confidence_on_mistakes, max: 0.9, per_class: true", "is not split by class; use"),
        ("metric: confidence_on_mistakes, max: 1.5", "expected a number from 0 to 1, found 1.5"),
        ("metric: median_distance, min: 1", "gates.g.norm: missing; distances of different norms"),
        ("metric: median_distance, norm: linf, min: -1", "expected a distance of at least 0, found -1"),
        ("metric: median_distance, norm: linf, min: far", "expected a distance such as 0.5 or 8/255"),
        ("metric: median_distance, norm: none, min: 1", "no distance is measured under 'none'"),
        ("metric: robust_accuracy, max_drop: 0, sequential: true", "cannot stop early with max_drop"),
        ("metric: survives_uint8, max: 0, sequential: true", "cannot stop early for survives_uint8"),
    ],
)  # fmt: skip
def test_a_gate_that_could_not_be_checked(keys: str, words: str) -> None:
    assert words in told(gate(keys))


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("[]", "evaluate: expected a list of {model: ..., dataset: ..., attacks: ...}, found an empty"),
        ("{model: m}", "evaluate: expected a list"),
        ("[m]", "evaluate.0: expected {model: ..., dataset: ..., attacks: ...}, found 'm'"),
        ("[{model: m}]", "evaluate.0.dataset: missing; one of d"),
        ("[{model: x, dataset: d}]", "evaluate.0.model: unknown model 'x'"),
        ("[{model: m, dataset: d, attacks: [g]}]", "evaluate.0.attacks: unknown attack 'g'"),
        ("[{model: m, dataset: d, attacks: [f, f]}]", "attack 'f' stands twice"),
        ("[{model: m, dataset: d, atacks: f}]", "unknown key 'atacks'\n  help: did you mean 'attacks'?"),
        ("[{model: m, dataset: d}, {model: m, dataset: d, attacks: f}]", "'f' of model 'm' on 'd' is ev"),
    ],
)  # fmt: skip
def test_an_evaluate_line_that_is_not_one(lines: str, words: str) -> None:
    assert words in told(f"{BASE}evaluate: {lines}\n")


def test_a_gate_must_select_something_that_is_evaluated() -> None:
    text = SOURCES + "evaluate: [{model: m, dataset: d, attacks: []}]\ngates:\n"
    other = told(text + "  g: {metric: clean_accuracy, model: s, min: 0.5}\n")
    assert "gates.g.model: no line of `evaluate` has this model and dataset" in other
    bare = told(text + "  g: {metric: robust_accuracy, min: 0.5}\n")
    assert "robust_accuracy needs an attack; none is evaluated here" in bare
    named = told(text + "  g: {metric: robust_accuracy, attack: f, min: 0.5}\n")
    assert "gates.g.attack: attack 'f' is not evaluated here" in named


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BASE.replace("schema: 1\n", ""), "schema: missing; write 'schema: 1' at the top"),
        (BASE.replace("schema: 1", "schema: 2"), "found 2\n  help: upgrade robustbench-lite"),
        (BASE.replace("schema: 1", "schema: true"), "schema: expected 1, found true"),
        (BASE.replace("schema: 1", "schema: '1'"), "schema: expected 1, found '1'"),
        ("schema: 1\n", "datasets: missing; a suite needs at least one"),
        ("schema: 1\nmodels: {}\ndatasets: {}\n", "models: there is no entry"),
        (BASE.replace("  f:", "  all:"), "attacks.all: 'all' is a name that reports use"),
        (BASE.replace("  f:", "  worst-case:"), "'worst-case' is a name that reports use"),
        (BASE.replace("  f:", "  a/b:"), "name 'a/b' has a character that names cannot have"),
        (BASE.replace("  f:", '  "a\\tb":'), "has a character that names cannot have"),
        (BASE.replace("  f:", f"  {'x' * 101}:"), "is longer than 100 characters"),
        (BASE.replace("  f:", '  "":'), "is empty"),
        (f"{BASE}name: ..\n", "name: name '..' cannot name a folder"),
        (f"{BASE}name: a/b\n", "has a character that names cannot have"),
        (f"{BASE}reports: [htm]\n", "unknown reporter 'htm'\n  help: did you mean 'html'?"),
        (f"{BASE}reports: [html, html]\n", "reports: 'html' stands twice"),
        (f"{BASE}reports: [h: l]\n", "reports: expected the name of a report, found a mapping"),
        (f"{BASE}controls: on\n", "controls: 'on' is not one of auto, off"),
        (f"{BASE}seed: -1\n", "seed: expected at least 0, found -1"),
        (f"{BASE}seed: {2**63}\n", "seed: expected at most"),
        (f"{BASE}python_path: [nowhere]\n", "python_path: there is no folder 'nowhere'"),
        (f"{BASE}analyses: {{x: {{analysis: spectrm}}}}\n", "help: did you mean 'spectrum'?"),
        (f"{BASE}requires: x\n", "unknown key 'requires'"),
    ],
)
def test_a_top_level_that_is_wrong(text: str, words: str) -> None:
    assert words in told(text)


WHOLE = (
    gate("metric: robust_accuracy, attack: f, eps: 0.1, min: 0.5")
    + 'vars: {a: "${b}", b: 3}\nanalyses: {x: {analysis: spectrum, steps: 3}}\nreports: [csv]\n'
    + "evaluate: [{model: m, dataset: d, attacks: [f]}]\nseed: 3\n"
)
PIECES = ["", "{", "]", ": ", "\n", "${", '"${b}"', "- ", "&a ", "*a", "'", "~", "/", ".inf", "8/255",
          "[1]", "{a: 1}", "null", "#", "|", "!x ", "9" * 70, "true"]  # fmt: skip


@given(st.lists(st.tuples(st.integers(0), st.integers(0, 20), st.sampled_from(PIECES)), max_size=3))
@settings(max_examples=300, deadline=None)
def test_damage_anywhere_is_reported_or_harmless(edits: list[tuple[int, int, str]]) -> None:
    """Cut, or put something into, a good suite: a Suite or a SuiteError, nothing else."""
    text = WHOLE
    for position, cut, piece in edits:
        start = position % (len(text) + 1)
        text = text[:start] + piece + text[start + cut :]
    try:
        names = [model.name for model in read(text).models]
    except SuiteError as error:
        assert edits  # without damage there is no error
        names = [line for line in error.problems if "error: " in line]
    assert names
