"""The reader of YAML: which text is which value, where it stands, and what a suite may not contain."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from robustbench_lite.suite.yamltext import MAX_ALIASED, MAX_DEPTH, Node, exact, parse, scalar
from robustbench_lite.types import Where
from robustbench_lite.words import render


def read(text: str) -> Node:
    """The tree of a text without problems."""
    root, problems = parse(text, file="s.yaml", base=Path())
    assert [render(problem) for problem in problems] == []
    assert root is not None
    return root


def problems_of(text: str) -> list[str]:
    return [render(problem) for problem in parse(text, file="s.yaml", base=Path()).problems]


def plain(node: Node) -> object:
    """The values alone."""
    if isinstance(node.value, Mapping):
        return {key: plain(value) for key, value in node.value.items()}
    if isinstance(node.value, tuple):
        return [plain(item) for item in node.value]
    return node.value


# ---------------------------------------------------------------- scalars


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None), ("~", None), ("null", None), ("none", "none"),
        ("true", True), ("false", False), ("True", "True"), ("yes", "yes"), ("no", "no"),
        ("on", "on"), ("off", "off"), ("y", "y"),
        ("10", 10), ("-3", -3), ("+3", 3), ("010", 10), ("0o17", 15), ("0x1f", 31), ("0b1", "0b1"),
        ("1_000", "1_000"), ("1:30", "1:30"), ("2020-01-01", "2020-01-01"), ("1.2.3", "1.2.3"),
        ("1e-3", 0.001), ("1e3", 1000.0), ("1E+2", 100.0), (".5", 0.5), ("1.", 1.0), ("-1.5", -1.5),
        (".inf", math.inf), ("-.INF", -math.inf), ("inf", "inf"), ("nan", "nan"),
        ("8/255", Fraction(8, 255)), ("-8/255", Fraction(-8, 255)), ("8 / 255", Fraction(8, 255)),
        ("0.5/255", Fraction(1, 510)), ("0/0", "0/0"), ("1/0", "1/0"), ("1/2/3", "1/2/3"),
        ("models/a.onnx", "models/a.onnx"), ("/", "/"), ("1/", "1/"), ("1e999999", "1e999999"),
        ("e5", "e5"), (".", "."), ("-", "-"), ("9" * 5000, "9" * 5000),
    ],
)  # fmt: skip
def test_plain_scalars_follow_the_core_schema(text: str, value: object) -> None:
    found = scalar(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("quote", ["'", '"'])
@pytest.mark.parametrize("text", ["8/255", "true", "10", "~", ""])
def test_a_quoted_scalar_is_text(quote: str, text: str) -> None:
    assert plain(read(f"a: {quote}{text}{quote}")) == {"a": text}


@given(st.fractions())
def test_a_fraction_comes_back_exactly(value: Fraction) -> None:
    text = f"{value.numerator}/{value.denominator}"
    if len(text) <= 60:
        assert exact(text) == value


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300))
def test_a_float_comes_back_and_its_text_is_exact(value: float) -> None:
    assert scalar(repr(value)) == value
    assert exact(repr(value)) == Fraction(repr(value))


@pytest.mark.parametrize(
    "text", ["abc", "1e999", "0/0", ".inf", ".nan", "1e-400000000", "", "1/3/4"]
)
def test_what_is_no_finite_number_is_not_exact(text: str) -> None:
    assert exact(text) is None


words = st.text(st.characters(max_codepoint=0xD7FF), max_size=20)
json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | words,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(words.filter(lambda key: key != "<<"), inner, max_size=4)
    ),
    max_leaves=15,
)


@given(json_like)
@settings(max_examples=200, deadline=None)
def test_json_is_read_as_json(value: object) -> None:
    assert plain(read(json.dumps(value))) == value


@given(st.text(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_text_gives_a_tree_or_a_problem_with_its_place(text: str) -> None:
    root, problems = parse(text, file="s.yaml", base=Path())
    if root is None and not problems:
        assert yaml.safe_load(text) is None
    for problem in problems:
        assert problem.where.line >= 1
        assert problem.where.col >= 1


# ---------------------------------------------------------------- places


def test_every_value_and_key_knows_its_place_and_text() -> None:
    root = read("schema: 1\nattacks:\n  fgsm: {norm: linf, eps: [0.10, 8/255]}\n")
    assert isinstance(root.value, Mapping)
    assert root.keys["attacks"] == Where("s.yaml", 2, 1)
    attacks = root.value["attacks"]
    assert isinstance(attacks.value, Mapping)
    assert attacks.keys["fgsm"] == Where("s.yaml", 3, 3)
    fgsm = attacks.value["fgsm"]
    assert isinstance(fgsm.value, Mapping)
    assert fgsm.keys["eps"] == Where("s.yaml", 3, 22)
    eps = fgsm.value["eps"]
    assert isinstance(eps.value, tuple)
    assert [(str(each.where), each.text) for each in eps.value] == [
        ("s.yaml:3:28", "0.10"),
        ("s.yaml:3:34", "8/255"),
    ]


def test_an_alias_is_the_anchored_value() -> None:
    assert plain(read("a: &x [1, 2]\nb: *x")) == {"a": [1, 2], "b": [1, 2]}


def test_an_empty_document_is_no_tree_and_no_problem() -> None:
    for text in ("", "   \n", "# only a comment\n"):
        assert parse(text, file="s.yaml", base=Path()) == (None, ())


# ---------------------------------------------------------------- what a suite may not contain


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: 2\na: 3", "s.yaml:3:1: error: a: duplicate key; it stands first in line 1"),
        (
            "m:\n  a: 1\n  'a': 3",
            "s.yaml:3:3: error: m.a: duplicate key; it stands first in line 2",
        ),
        ("a: !!str 3", "s.yaml:1:4: error: a: tag '!!str': a suite has no tags; remove it"),
        (
            "a: !python/x {}",
            "s.yaml:1:4: error: a: tag '!python/x': a suite has no tags; remove it",
        ),
        ("b: &b {x: 1}\na: {<<: *b}", "s.yaml:2:5: error: a: merge keys (<<)"),
        ("{[1]: 2}", "s.yaml:1:2: error: a list stands where a key is expected"),
        ("a: &x [*x]", "s.yaml:1:8: error: a.0: alias '*x' stands inside the value it names"),
        ("a: *x", "s.yaml:1:4: error: a: alias '*x' has no anchor before it"),
        ("a: 1\n---\nb: 2", "s.yaml:2:1: error: a second document starts here"),
        ("a:\n\tb: 1", "s.yaml:2:1: error: YAML syntax: a tab cannot indent YAML"),
        ("a: {b: ${x}}", 'write a reference in quotes: "${name}"'),
        ("a: b: c", "s.yaml:1:5: error: YAML syntax: mapping values are not allowed here"),
        ("a: [1,\n  2\nb: 3", "help: the construct starts in line 1"),
        ("a: @x", "s.yaml:1:4: error: YAML syntax:"),
        (r'a: "\ud800"', "s.yaml:1:4: error: a: the text holds half a character (U+D800)"),
        ("a: \x01", "s.yaml:1:4: error: character U+0001 is not allowed in a suite"),
        ("- " * (MAX_DEPTH + 2) + "1", f"nested deeper than {MAX_DEPTH} levels"),
        ("[" * 5000, f"nested deeper than {MAX_DEPTH} levels"),
    ],
)
def test_a_problem_says_where_and_what(text: str, problem: str) -> None:
    assert problem in "\n".join(problems_of(text))


def test_all_duplicates_are_shown_at_once() -> None:
    found = problems_of("a: 1\na: 2\nb: {c: 1, c: 2}\nd: !x 1")
    assert [line.split(": error")[0] for line in found] == [
        "s.yaml:2:1",
        "s.yaml:3:11",
        "s.yaml:4:4",
    ]


def test_aliases_cannot_blow_up_a_small_text() -> None:
    names = "abcdefghij"
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]" for a, b in itertools.pairwise(names)]
    root, problems = parse("\n".join(lines), file="s.yaml", base=Path())
    assert root is None
    assert f"aliases repeat more than {MAX_ALIASED} values" in problems[0].message
