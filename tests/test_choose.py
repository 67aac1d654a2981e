"""`-k`: names, and, or, not, parentheses; the chosen cells keep what they need."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustbench_lite.builtin.attacks import fgsm, pgd, uniform_noise
from robustbench_lite.choose import choose, label, parse
from robustbench_lite.errors import UsageError
from robustbench_lite.types import Plan
from tests.small_world import changed, dataset_spec, entry, labelled, net_spec, simple

WORDS = ("alpha", "beta", "gamma")


def plan() -> Plan:
    given = simple(
        (fgsm.SPEC, entry("Quick", fgsm.SPEC, "0.1", "8/255")),
        (pgd.SPEC, entry("slow", pgd.SPEC, "0.1", "0.3", norm="l2", source="s")),
        (uniform_noise.SPEC, entry("noise", uniform_noise.SPEC, "0.3")),
    )
    models = [net_spec("m", 0), net_spec("other", 1), net_spec("s", 2)]
    datasets = [dataset_spec("d", lambda: labelled(0)), dataset_spec("test", lambda: labelled(0))]
    return changed(given, models=models, datasets=datasets).world().plan


def chosen(expression: str) -> set[tuple[str, str, str, str]]:
    cells = choose(plan(), expression).cells
    return {(c.model, c.dataset, c.entry, c.eps.text if c.eps else "") for c in cells}


# ---------------------------------------------------------------- the grammar


@pytest.mark.parametrize(
    ("expression", "python"),
    [
        ("a", "a"),
        ("not a", "not a"),
        ("not not a", "a"),
        ("a and b", "a and b"),
        ("a or b and c", "a or b and c"),
        ("a and b or c", "a and b or c"),
        ("(a or b) and c", "(a or b) and c"),
        ("not a or b", "not a or b"),
        ("not (a or b)", "not (a or b)"),
        ("not a and not b and not c", "not a and not b and not c"),
        ("((a))", "a"),
        ("(a)and(b)", "a and b"),
        ("  a   or\tb ", "a or b"),
        ("a or b or c", "a or b or c"),
    ],
)
def test_an_expression_means_what_it_means_in_python(expression: str, python: str) -> None:
    matches = parse(expression)
    for a in (False, True):
        for b in (False, True):
            for c in (False, True):
                text = " ".join(name for name, on in zip("abc", (a, b, c), strict=True) if on)
                assert matches(text) == eval(python, {"a": a, "b": b, "c": c}), text


@st.composite
def expressions(draw: st.DrawFn, depth: int = 3) -> str:
    if depth == 0 or draw(st.booleans()):
        return draw(st.sampled_from(WORDS))
    kind = draw(st.sampled_from(["not", "and", "or", "()"]))
    left = draw(expressions(depth=depth - 1))
    if kind == "not":
        return f"not ({left})"
    if kind == "()":
        return f"({left})"
    return f"({left}) {kind} {draw(expressions(depth=depth - 1))}"


@given(expression=expressions(), there=st.sets(st.sampled_from(WORDS)))
def test_any_expression_agrees_with_python(expression: str, there: set[str]) -> None:
    values = {word: word in there for word in WORDS}
    assert parse(expression)(" ".join(sorted(there))) == eval(expression, values)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "expected a name, `not` or `(`, found the end"),
        ("   ", "found the end"),
        ("a and", "found the end"),
        ("not", "found the end"),
        ("or a", "found 'or'"),
        ("a and or b", "found 'or'"),
        (")", "found ')'"),
        ("()", "found ')'"),
        ("(a", "a `(` is not closed"),
        ("(a or b", "a `(` is not closed"),
        ("a)", "expected `and` or `or` before ')'"),
        ("a b", "expected `and` or `or` before 'b'"),
        ("a (b)", "expected `and` or `or` before '('"),
        ("a not b", "expected `and` or `or` before 'not'"),
    ],
)
def test_a_broken_expression_is_shown_with_the_place(expression: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(expression)
    assert message in str(caught.value)
    assert f"-k '{expression}'" in str(caught.value)
    assert caught.value.exit_code == 2


# ---------------------------------------------------------------- what it chooses


def test_a_name_is_a_part_of_the_label_in_any_case() -> None:
    cell = next(cell for cell in plan().cells if cell.entry == "slow")
    assert label(cell) == f"{cell.model} {cell.dataset} slow pgd l2 0.1 s"
    for name in ("quick", "QUICK", "uic"):
        assert {entry for _, _, entry, _ in chosen(name)} == {"clean", "Quick"}


def test_cells_are_chosen_by_every_part_of_the_label() -> None:
    assert {eps for *_, eps in chosen("8/255")} == {"", "8/255"}
    assert {model for model, *_ in chosen("other")} == {"other"}
    assert {dataset for _, dataset, *_ in chosen("test and linf")} == {"test"}
    assert {entry for _, _, entry, _ in chosen("l2")} == {"clean", "slow"}


def test_chosen_cells_bring_their_clean_pass_and_no_other() -> None:
    assert chosen("other and test and 8/255") == {
        ("other", "test", "clean", ""), ("other", "test", "Quick", "8/255"),
    }  # fmt: skip
    assert chosen("m and d and clean") >= {("m", "d", "clean", "")}
    assert chosen("nothing-of-this-name") == set()


def test_order_and_ids_of_the_plan_stay() -> None:
    whole = plan()
    part = choose(whole, "linf or clean")
    ids = [cell.id for cell in whole.cells]
    assert [cell.id for cell in part.cells] == [i for i in ids if i in {c.id for c in part.cells}]
    assert (part.seed, part.models, part.datasets) == (whole.seed, whole.models, whole.datasets)
    assert choose(whole, "clean or not clean").cells == whole.cells


def test_a_cell_that_carries_brings_what_it_carries_from() -> None:
    cells = [
        c for c in choose(plan(), "slow and 0.3 and other and test").cells if c.entry == "slow"
    ]
    largest = next(c for c in cells if c.eps and c.eps.text == "0.3")
    assert {e.text for e in largest.carried} <= {c.eps.text for c in cells if c.eps}
