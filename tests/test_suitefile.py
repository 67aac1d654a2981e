"""Files, `extends`, `--set`, `${...}`: where the values of a suite come from."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path

import pytest
import yaml

from robustbench_lite import (
    suite,
)
from robustbench_lite.errors import SuiteError
from robustbench_lite.types import Suite
from tests.small_suite import (
    BASE,
    PLACES,
    REGISTRY,
    attack,
    read,
    told,
    with_dataset,
)


def test_a_whole_reference_keeps_its_type_and_an_inner_one_becomes_text() -> None:
    text = 'vars: {n: 12, grid: [0.1, 4/255], dir: models, file: "${dir}/x.onnx"}\n' + with_dataset(
        'take: "${n}"'
    ).replace("[0.1, 8/255]", '"${grid}"').replace("models/m.onnx", '"${file}"')
    found = read(text)
    assert found.datasets[0].selection.take == 12
    assert [eps.text for eps in found.attacks[0].eps] == ["0.1", "4/255"]
    assert found.models[0].params.model_dump()["path"] == Path("suites/models/x.onnx")


def test_what_came_from_the_environment_is_typed_and_never_shown() -> None:
    text = 'vars: {home: "${env:HOME_OF_MODELS}"}\n' + with_dataset('take: "${env:N:-7}"').replace(
        "models/m.onnx", '"${home}/m.onnx", token: "${env:TOKEN}"'
    )
    env = {"HOME_OF_MODELS": "/srv/hidden", "TOKEN": "123456"}
    found = read(text, env=env)
    assert found.datasets[0].selection.take == 7
    assert read(text, env={**env, "N": "9"}).datasets[0].selection.take == 9
    params = found.models[0].params.model_dump()
    assert (params["path"], params["token"]) == (Path("/srv/hidden/m.onnx"), "123456")
    shown = yaml.safe_dump(found.resolved)
    assert "hidden" not in shown
    assert "123456" not in shown
    assert found.resolved["models"] == {
        "m": {
            "load": "onnx",
            "path": "${env:HOME_OF_MODELS}/m.onnx",
            "labels": None,
            "mean": 0.0,
            "token": "${env:TOKEN}",
            "shape": None,
        }
    }


def test_an_error_does_not_show_what_came_from_the_environment() -> None:
    env = {"SECRET": "hunter2"}
    text = told(with_dataset('take: "${env:SECRET}"'), env=env)
    assert "datasets.d.take: expected a whole number of at least 1, found '${env:SECRET}'" in text
    mean = BASE.replace("path: models/m.onnx", 'path: m.onnx, mean: "x${env:SECRET}"')
    assert "hunter2" not in told(mean, env=env)
    assert "hunter2" not in told(attack('attack: fgsm, eps: "${env:SECRET}"'), env=env)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('vars: {nn: 1}\nname: "${n}"', "name: unknown variable 'n'\n  help: did you mean 'nn'?"),
        ('name: "${env:NOT_SET}"', "name: environment variable NOT_SET is not set"),
        ('vars: {a: "${b}", b: "x${a}"}', "variable 'a' refers to itself: a -> b -> a"),
        ('vars: {a: "${a}"}', "vars.a: variable 'a' refers to itself: a -> a"),
        ('vars: {a: [1]}\nname: "x${a}"', "'${a}' is a list: it cannot stand inside a text"),
        ("vars: [1]", "vars: expected a mapping of names to values, found a list"),
    ],
)
def test_a_reference_that_leads_nowhere(text: str, words: str) -> None:
    found = told(f"{BASE}{text}\n")
    assert words in found
    assert found.count("error:") == 1


def test_references_cannot_blow_up_a_small_suite() -> None:
    lists = ["  a: [x, x, x, x, x, x, x, x, x, x]"]
    texts = ["  ta: xxxxxxxxxx"]
    for one, two in itertools.pairwise("abcdefghi"):
        items = ", ".join(['"${' + one + '}"'] * 10)
        lists.append(f"  {two}: [{items}]")
        texts.append(f"  t{two}: '" + ("${t" + one + "}") * 10 + "'")
    assert "references repeat more than" in told(BASE + "\n".join(["vars:", *lists]))
    assert "grows longer than" in told(BASE + "\n".join(["vars:", *texts]))


def test_set_replaces_values_with_the_types_of_yaml() -> None:
    found = read(
        BASE,
        overrides=["attacks.f.eps=[1/4, 5e-1]", "datasets.d.take=3", "seed=0x10", "name=n",
                   "gates.new={metric: clean_accuracy, min: 0.5}", "attacks.f.norm="],
    )  # fmt: skip
    assert [eps.value for eps in found.attacks[0].eps] == [Fraction(1, 4), Fraction(1, 2)]
    assert (found.datasets[0].selection.take, found.seed, found.name) == (3, 16, "n")
    assert [each.name for each in found.gates] == ["new"]
    assert found.attacks[0].norm == "linf"


def test_set_finds_names_with_dots_and_places_in_lists() -> None:
    text = BASE.replace("  f:", "  f-0.1:") + "evaluate: [{model: x, dataset: d}]\n"
    found = read(text, overrides=["attacks.f-0.1.eps=0.3", "evaluate.0.model=m"])
    assert [eps.text for eps in found.attacks[0].eps] == ["0.3"]
    assert found.evaluations[0].model == "m"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("attacks.f.eps=-1", "attacks.f.eps: -1 is negative"),
        ("attacks.f.esp=1", "attacks.f.esp: unknown key 'esp'\n  help: did you mean 'eps'?"),
        ("seed=[1", "seed: YAML syntax"),
        ("seed.x=1", "seed.x: seed is 3: there is nothing inside it to set"),
        ("reports.7=html", "reports.7: reports is a list of 1: '7' is not in it"),
        ("seed", "expected KEY.KEY=VALUE"),
        ("a..b=1", "expected KEY.KEY=VALUE"),
        ("extends=x.yaml", "extends: `extends` cannot be set from outside"),
    ],
)
def test_an_override_is_checked_like_the_file(override: str, words: str) -> None:
    found = told(BASE + "seed: 3\nreports: [html]\n", overrides=[override])
    assert found.startswith(f"--set {override}: error: {words}")


def test_an_override_that_names_no_entry_is_told_of_the_near_one() -> None:
    found = told(attack("attack: fgsm, eps: 1"), overrides=["attacks.b.eps=0.1"])
    assert found.startswith("--set attacks.b.eps=0.1: error: attacks.b.attack: missing; one of ")
    assert found.endswith("help: the suite's own attacks: a")
    text = BASE.replace("f: {", "fgsm: {")
    assert told(text, overrides=["attacks.fgms.eps=1"]).endswith("help: did you mean 'fgsm'?")
    assert "did you mean" not in told(text + "gates: {g: {min: 1}}")
    more = read(text, overrides=["attacks.fgsm2.attack=fgsm", "attacks.fgsm2.eps=1"])
    assert [each.name for each in more.attacks] == ["fgsm", "fgsm2"]


def test_a_variable_set_from_outside_selects_a_profile() -> None:
    text = "vars: {n: 100}\n" + with_dataset('take: "${n}"')
    assert read(text, overrides=["vars.n=5"]).datasets[0].selection.take == 5
    found = told(text, overrides=["vars.n=few"])
    assert found.startswith("--set vars.n=few: error: datasets.d.take: expected a whole number")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "linf.yaml").write_text(BASE)
    return tmp_path


def from_file(path: Path, text: str | None = None) -> Suite:
    if text is not None:
        path.write_text(text)
    return suite.load(path, REGISTRY, places=PLACES)


def told_of(path: Path, text: str | None = None) -> str:
    with pytest.raises(SuiteError) as caught:
        from_file(path, text)
    return str(caught.value)


def test_extends_merges_maps_and_the_later_wins(folder: Path) -> None:
    (folder / "more.yaml").write_text("attacks: {f: {eps: 0.5}, p: {attack: pixel}}\nseed: 1\n")
    found = from_file(
        folder / "top.yaml",
        "extends: [base/linf.yaml, more.yaml]\nattacks: {f: {norm: l2}}\nseed: 2\n"
        "models: {m: {labels: l.txt}}\n",
    )
    assert (found.name, found.seed) == ("top", 2)
    assert [(a.name, a.norm, [e.text for e in a.eps]) for a in found.attacks] == [
        ("f", "l2", ["0.5"]),
        ("p", "l0", ["1"]),
    ]
    paths = found.models[0].params.model_dump()
    assert paths["path"] == folder / "base" / "models" / "m.onnx"
    assert paths["labels"] == folder / "l.txt"
    assert "extends" not in found.resolved


def test_an_error_points_into_the_file_where_the_value_stands(folder: Path) -> None:
    path = folder / "base" / "linf.yaml"
    path.write_text(BASE.replace("8/255", "wide"))
    found = told_of(folder / "top.yaml", "extends: base/linf.yaml\nsead: 3\n")
    assert found.splitlines()[0].startswith(f"{path}:7:32: error: attacks.f.eps: 'wide' is not a")
    assert f"{folder / 'top.yaml'}:2:1: error: sead: unknown key 'sead'" in found


def test_a_cycle_of_extends_is_refused(folder: Path) -> None:
    (folder / "a.yaml").write_text("extends: b.yaml\n")
    found = told_of(folder / "b.yaml", "extends: a.yaml\n")
    assert f"{folder / 'a.yaml'}:1:10: error: extends: the suite extends itself" in found
    assert "b.yaml -> a.yaml -> b.yaml" in found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "extends: none.yaml",
            "top.yaml:1:10: error: extends: 'none.yaml': there is no such suite file",
        ),
        ("extends: base", "is a folder; expected a suite file"),
        ("extends: [3]", "expected the path of a suite file or a list of them, found 3"),
        ("extends: base/broken.yaml", "broken.yaml:1:5: error: YAML syntax"),
        ("extends: base/empty.yaml", "empty.yaml: error: is empty"),
    ],
)
def test_an_extended_file_that_cannot_be_used(folder: Path, text: str, words: str) -> None:
    (folder / "base" / "broken.yaml").write_text("a: b: c")
    (folder / "base" / "empty.yaml").write_text("")
    found = told_of(folder / "top.yaml", text)
    assert words in found
    assert "missing" not in found  # without that file nobody knows


def test_files_that_are_no_suites(tmp_path: Path) -> None:
    path = tmp_path / "suite.yaml"
    (tmp_path / "release.yaml").write_text(BASE)
    missing = told_of(tmp_path / "relaese.yaml")
    assert missing.endswith("there is no such suite file\n  help: did you mean 'release.yaml'?")
    assert "is a folder; expected a suite file" in told_of(tmp_path)
    assert "there is no such suite file" in told_of(tmp_path / "nowhere" / "s.yaml")
    assert "is empty; a suite starts with 'schema: 1'" in told_of(path, "# nothing\n")
    assert ":1:1: error: a suite is a mapping of keys to values, found a list" in told_of(
        path, "[1]"
    )
    assert ":2:3: error: YAML syntax" in told_of(path, "a: 1\n b: 2")
    path.write_bytes(b"schema: 1\nname: \xff\n")
    assert ":2:7: error: byte 0xff is not UTF-8; save the file as UTF-8" in told_of(path)
    path.write_bytes(b"#" * ((1 << 20) + 1))
    assert "is larger than 1 MiB" in told_of(path)
    path.write_bytes(b"\xef\xbb\xbf" + BASE.encode())
    assert from_file(path).name == "suite"
