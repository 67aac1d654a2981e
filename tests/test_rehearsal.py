"""`validate --deep` tells an author of every attack that breaks its contract, at its line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from robustbench_lite.errors import ModelError
from robustbench_lite.raised import cause, place

if TYPE_CHECKING:
    from tests.conftest import Robeval

WriteSuite = Callable[..., Path]
LIES = {
    "lie-raises": "ZeroDivisionError: the attack gave up (robeval_lies.py:",
    "lie-wrong-shape": "returned shape [2, 784], expected [2, 1, 28, 28]",
    "lie-claims-success": "returned tuple, expected a tensor",
    "lie-integers": "returned dtype torch.int64, expected torch.float32",
    "lie-nan": "not finite",
    "lie-out-of-ball": "outside the linf ball",
    "lie-out-of-box": "outside the box",
    "lie-changes-weights": "changed",
}
SLIPS = {
    "lie-global-rng": "the attack used the global random state",
    "lie-changes-input": "the attack changed its input in place",
}


@pytest.mark.usefixtures("lies")
def test_every_breach_is_told_at_once_at_its_line(
    robeval: Robeval, write_suite: WriteSuite, caplog: pytest.LogCaptureFixture
) -> None:
    names = [*LIES, *SLIPS]
    lines = ["controls: off", "attacks:", *(f"  {n}: {{attack: {n}, eps: 0.2}}" for n in names)]
    path = write_suite("\n".join([*lines, ""]))
    ended = robeval("validate", str(path), "--deep")
    assert ended.code == 2
    at = {name: number for number, line in enumerate(path.read_text().split("\n"), 1)
          for name in names if line.startswith(f"  {name}:")}  # fmt: skip
    told = ended.err.split(str(path))
    for name, said in LIES.items():
        (problem,) = [each for each in told if each.startswith(f":{at[name]}:3: error:")]
        assert f"attacks.{name}: " in problem
        assert said in problem
    assert len(told) == len(LIES) + 1
    for name, said in SLIPS.items():
        (warning,) = [each for each in caplog.messages if f"attacks.{name}: " in each]
        assert warning.startswith(f"{path}:{at[name]}:3: warning:")
        assert said in warning


@pytest.mark.usefixtures("lies")
def test_a_slip_alone_leaves_a_suite_valid(robeval: Robeval, write_suite: WriteSuite) -> None:
    path = str(write_suite("controls: off\nattacks: {f: {attack: lie-global-rng, eps: 0.2}}\n"))
    assert robeval("validate", path, "--deep").code == 0


def raised(problem: Exception) -> Exception:
    try:
        raise problem
    except (KeyError, ValueError, ModelError) as caught:
        return caught


def test_a_strange_exception_is_told_with_its_class_and_line() -> None:
    assert cause(raised(KeyError("x"))).startswith("KeyError: 'x' (test_rehearsal.py:")
    assert cause(raised(ValueError())).startswith("ValueError (test_rehearsal.py:")


def test_our_own_words_need_no_line() -> None:
    assert cause(raised(ModelError("it has 3 layers"))) == "it has 3 layers"


def test_what_was_never_raised_or_only_in_a_library_has_no_line() -> None:
    import json

    assert place(ValueError("x")) == ""
    with pytest.raises(ValueError, match="Expecting") as caught:
        json.loads("{")
    inner = caught.value.with_traceback(caught.tb.tb_next)
    assert place(inner) == ""
