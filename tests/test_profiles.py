"""`${name[other]}`: one entry of a mapping, chosen by a variable, such as a profile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Robeval

SUITE = """\
vars:
  profile: small
  eps: {small: [0.1], large: [0.1, 0.2]}
  noise: {small: null, large: {attack: uniform-noise, eps: 0.1}}
  line: {small: null, large: {model: linear, dataset: mnist, attacks: [noise]}}
  names: {a: {small: x}}
attacks:
  fgsm: {attack: fgsm, norm: linf, eps: "${eps[profile]}"}
  noise: "${noise[profile]}"
evaluate:
  - {model: linear, dataset: mnist, attacks: [fgsm]}
"""
Write = Callable[..., Path]


def planned(robeval: Robeval, path: Path, *argv: str) -> list[str]:
    ended = robeval("plan", str(path), *argv)
    assert ended.code == 0, ended.err
    return [line.split("  ", 1)[1].split()[0] for line in ended.out.splitlines()[:-1]]


def test_a_profile_chooses_values_and_leaves_out_entries(
    robeval: Robeval, write_suite: Write
) -> None:
    path = write_suite(SUITE)
    assert planned(robeval, path) == ["clean", "control", "attack"]
    large = ("--set", "vars.profile=large")
    assert planned(robeval, path, *large) == ["clean", "control", "control", "attack", "attack"]


def test_a_list_leaves_out_what_a_profile_has_not(robeval: Robeval, write_suite: Write) -> None:
    text = SUITE.replace("attacks: [fgsm]}\n", 'attacks: [fgsm]}\n  - "${line[profile]}"\n')
    path = write_suite(text)
    assert len(planned(robeval, path)) == 3
    ended = robeval("plan", str(path), "--set", "vars.profile=large")
    assert "uniform-noise" in ended.out


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("${eps[profil]}", "unknown variable 'profil'"),
        ("${esp[profile]}", "unknown variable 'esp'"),
        ("${profile[profile]}", "'profile' is 'small'; expected a mapping to choose from"),
        ("${names[profile]}", "'names' has no entry 'small', the value of profile"),
    ],
)
def test_a_choice_that_cannot_be_made_is_told(
    robeval: Robeval, write_suite: Write, value: str, words: str
) -> None:
    path = write_suite(SUITE.replace("${eps[profile]}", value))
    ended = robeval("validate", str(path))
    assert ended.code == 2
    assert f"attacks.fgsm.eps: {words}" in ended.err


def test_an_empty_entry_that_nobody_chose_is_still_a_mistake(
    robeval: Robeval, write_suite: Write
) -> None:
    path = write_suite(SUITE.replace('noise: "${noise[profile]}"', "noise:"))
    ended = robeval("validate", str(path))
    assert ended.code == 2
    assert "attacks.noise: expected a mapping, found nothing" in ended.err
