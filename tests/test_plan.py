"""Content ids: what decides a number changes them, how it is computed does not; and what is missing."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import pytest

from robustbench_lite import (
    AttackSpec,
    Cost,
    DatasetSpec,
    ModelSpec,
    Params,
    SuitePath,
    identity,
    plugins,
)
from robustbench_lite import plan as planning
from robustbench_lite.builtin.attacks import gaussian_noise, salt_and_pepper, uniform_noise
from robustbench_lite.errors import EnvironmentProblem, ModelError, PluginError
from robustbench_lite.types import (
    AttackEntry,
    Cell,
    DatasetEntry,
    Evaluation,
    ModelEntry,
    Places,
    Plan,
    Selection,
    Suite,
    Where,
)
from tests.small_world import Room, attack_spec, entry, eps

PLACES = Places(suite=Path(), data=None, cache=Path())
NOISES = (uniform_noise.SPEC, gaussian_noise.SPEC, salt_and_pepper.SPEC)
Change = Callable[["Scene"], "Scene"]


class FileParams(Params):
    """A loader's parameters: files and a knob."""

    path: SuitePath
    extra: SuitePath | None = None
    knob: int = 0


class Knob(Params):
    """An attack's parameters."""

    knob: int = 0
    other: int = 5


def files(params: Params, places: Places) -> Mapping[str, Path | str]:
    assert isinstance(params, FileParams)
    found: dict[str, Path | str] = {"path": params.path}
    if params.extra is not None:
        found["extra"] = params.extra
    return found


def nothing(*args: object, **own: object) -> object:
    raise AssertionError("a plan loads and calls nothing")


MODEL = ModelSpec(name="file", implementation=nothing, summary="", params=FileParams, content=files)
OTHER = ModelSpec(
    name="other", implementation=nothing, summary="", params=FileParams, content=files
)
SCORE = ModelSpec(
    name="score", implementation=nothing, summary="", params=FileParams, content=files,
    access=lambda params: "score",
)  # fmt: skip
DATA = DatasetSpec(
    name="data", implementation=nothing, summary="", params=FileParams, content=files
)
HIT = attack_spec(nothing, "hit", params=Knob, targeted=True)
CARRY = attack_spec(nothing, "carry", params=Knob, carries=True)
NEAREST = attack_spec(nothing, "nearest", params=Knob, kind="minimal-norm")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scene:
    """Everything that a plan is made of."""

    models: tuple[ModelEntry, ...]
    datasets: tuple[DatasetEntry, ...]
    attacks: tuple[AttackEntry, ...]
    evaluate: tuple[tuple[str, str, tuple[str, ...]], ...] = ()
    specs: tuple[AttackSpec, ...] = (HIT, CARRY, NEAREST, *NOISES)
    loaders: tuple[ModelSpec, ...] = (MODEL, OTHER, SCORE)
    readers: tuple[DatasetSpec, ...] = (DATA,)
    controls: Literal["auto", "off"] = "off"
    seed: int = 0
    name: str = "scene"

    def suite(self) -> Suite:
        names = tuple(each.name for each in self.attacks)
        lines = self.evaluate or (("m", "d", names),)
        return Suite(
            name=self.name,
            path=Path("suite.yaml"),
            text="",
            resolved={},
            models=self.models,
            datasets=self.datasets,
            attacks=self.attacks,
            evaluations=tuple(
                Evaluation(model=m, dataset=d, attacks=a, where=Where("suite.yaml", 1, 1))
                for m, d, a in lines
            ),
            gates=(),
            analyses=(),
            reports=(),
            controls=self.controls,
            seed=self.seed,
            python_path=(),
        )

    def plan(self, *, seed: int | None = None, limit: int | None = None) -> Plan:
        registry = plugins.build([Room(self.specs, self.loaders, self.readers)])
        return planning.make(self.suite(), registry, PLACES, seed=seed, limit=limit)

    def cell(self, name: str = "a", radius: str | None = None, *, model: str = "m") -> Cell:
        (found,) = [
            cell
            for cell in self.plan().cells
            if (cell.entry, cell.model) == (name, model)
            and (radius is None or (cell.eps and cell.eps.value == eps(radius).value))
        ]
        return found


def replace(scene: Scene, **fields: object) -> Scene:
    return dataclasses.replace(scene, **fields)  # type: ignore[arg-type]


def model(
    name: str,
    path: Path,
    *,
    loader: str = "file",
    sha256: str | None = None,
    line: int = 3,
    **own: object,
) -> ModelEntry:
    params = FileParams(path=path, **own)  # type: ignore[arg-type]
    return ModelEntry(
        name=name, loader=loader, params=params, sha256=sha256, where=Where("suite.yaml", line, 5)
    )


def dataset(
    name: str,
    path: Path,
    *,
    line: int = 7,
    sha256: str | None = None,
    chosen: Selection | None = None,
    **own: object,
) -> DatasetEntry:
    params = FileParams(path=path, **own)  # type: ignore[arg-type]
    return DatasetEntry(
        name=name, loader="data", params=params, selection=chosen or Selection(take=9),
        sha256=sha256, where=Where("suite.yaml", line, 5),
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("net", "surrogate", "points", "more"):
        (tmp_path / name).write_text(f"the bytes of {name}")
    return tmp_path


@pytest.fixture
def scene(folder: Path) -> Scene:
    return Scene(
        models=(model("m", folder / "net"), model("s", folder / "surrogate")),
        datasets=(dataset("d", folder / "points"),),
        attacks=(entry("a", HIT, "0.1"),),
    )


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ---------------------------------------------------------------- what an id is made of


def with_attack(**fields: object) -> Change:
    return lambda scene: replace(
        scene,
        attacks=(dataclasses.replace(scene.attacks[0], **fields),),  # type: ignore[arg-type]
    )


def with_model(**fields: object) -> Change:
    return lambda scene: replace(
        scene,
        models=(dataclasses.replace(scene.models[0], **fields), scene.models[1]),  # type: ignore[arg-type]
    )


def with_data(**fields: object) -> Change:
    return lambda scene: replace(
        scene,
        datasets=(dataclasses.replace(scene.datasets[0], **fields),),  # type: ignore[arg-type]
    )


def rewrite(section: str, text: str) -> Change:
    def change(scene: Scene) -> Scene:
        params = getattr(scene, section)[0].params
        params.path.write_text(text)
        return scene

    return change


def with_params(section: str, **own: object) -> Change:
    def change(scene: Scene) -> Scene:
        first = getattr(scene, section)[0]
        params = first.params.model_copy(update=own)
        return replace(
            scene,
            **{section: (dataclasses.replace(first, params=params), *getattr(scene, section)[1:])},
        )

    return change


def version_of_attack(scene: Scene) -> Scene:
    """The same name with code of another file."""
    other = dataclasses.replace(HIT, implementation=hashlib.sha256)
    return replace(scene, specs=(other, *scene.specs[1:]))


DECIDES: dict[str, Change] = {
    "model file": rewrite("models", "retrained"),
    "model parameter": with_params("models", knob=1),
    "model loader": with_model(loader="other"),
    "data file": rewrite("datasets", "relabelled"),
    "data parameter": with_params("datasets", knob=1),
    "take": with_data(selection=Selection(take=8)),
    "skip": with_data(selection=Selection(take=9, skip=1)),
    "indices": with_data(selection=Selection(take=9, indices=(1, 2))),
    "classes": with_data(selection=Selection(take=9, classes=("3",))),
    "stratified": with_data(selection=Selection(take=9, stratified=True)),
    "eps": with_attack(eps=(eps("0.2"),)),
    "norm": with_attack(norm="l2"),
    "repeats": with_attack(repeats=2),
    "target": with_attack(target="next"),
    "source": with_attack(source="s"),
    "attack parameter": with_params("attacks", knob=1),
    "attack": with_attack(attack="carry"),
    "attack code": version_of_attack,
    "seed": lambda scene: replace(scene, seed=1),
}


@pytest.mark.parametrize("name", DECIDES)
def test_what_decides_a_number_changes_its_id(name: str, scene: Scene) -> None:
    before = scene.cell().id
    assert DECIDES[name](scene).cell().id != before


SHARED = ("model file", "model parameter", "model loader", "data file", "take", "seed")


@pytest.mark.parametrize("name", DECIDES)
def test_the_clean_pass_depends_on_model_data_and_seed_alone(name: str, scene: Scene) -> None:
    before = scene.cell("clean").id
    attack_only = name in {
        "eps", "norm", "repeats", "target", "source", "attack parameter", "attack", "attack code",
    }  # fmt: skip
    assert (DECIDES[name](scene).cell("clean").id == before) == attack_only


def moved(scene: Scene) -> Scene:
    """The model file in another folder under another name."""
    old = scene.models[0].params
    assert isinstance(old, FileParams)
    new = old.path.parent / "elsewhere.bin"
    new.write_bytes(old.path.read_bytes())
    return with_params("models", path=new)(scene)


def renamed(scene: Scene) -> Scene:
    (data,) = scene.datasets
    (attack,) = scene.attacks
    return replace(
        scene,
        name="another name",
        models=(dataclasses.replace(scene.models[0], name="M"), scene.models[1]),
        datasets=(dataclasses.replace(data, name="D"),),
        attacks=(dataclasses.replace(attack, name="A"),),
        evaluate=(("M", "D", ("A",)),),
    )


def beside_others(scene: Scene) -> Scene:
    more = (entry("0", HIT, "0.3"), *scene.attacks, entry("z", NEAREST, "0.3", norm="l2"))
    return replace(scene, attacks=more, models=scene.models[::-1], controls="auto")


DOES_NOT: dict[str, Change] = {
    "path": moved,
    "names": renamed,
    "place in the file": with_attack(where=Where("other.yaml", 99, 1)),
    "a pin": lambda scene: with_model(sha256=sha(scene.models[0].params.path))(scene),  # type: ignore[attr-defined]
    "other cells, their order, controls": beside_others,
    "a grid that is not carried": with_attack(eps=(eps("0.1"), eps("0.05"), eps("1"))),
    "a default written out": with_params("attacks", knob=0),
}


@pytest.mark.parametrize("name", DOES_NOT)
def test_what_does_not_decide_a_number_does_not_change_its_id(name: str, scene: Scene) -> None:
    before = scene.cell().id
    cells = [cell for cell in DOES_NOT[name](scene).plan().cells if cell.attack == "hit"]
    assert before in {cell.id for cell in cells}


def test_one_number_written_in_two_ways_is_one_number_and_a_rounded_fraction_is_another(
    scene: Scene,
) -> None:
    ids = {
        text: with_attack(eps=(eps(text),))(scene).cell().id
        for text in ("0.1", "1/10", "1e-1", "8/255", "0.03137")
    }
    assert ids["0.1"] == ids["1/10"] == ids["1e-1"]
    assert ids["8/255"] != ids["0.03137"]
    assert len(set(ids.values())) == 3


def test_the_file_that_an_attack_reads_is_part_of_its_id(scene: Scene, folder: Path) -> None:
    spec = attack_spec(nothing, "patch", params=FileParams)
    ids = []
    for text in ("one patch", "another patch"):
        (folder / "patch").write_text(text)
        attack = entry("a", spec, "0.1", path=folder / "patch")
        ids.append(replace(scene, attacks=(attack,), specs=(spec,)).cell().id)
    assert ids[0] != ids[1]
    (folder / "copy").write_text("another patch")
    attack = entry("a", spec, "0.1", path=folder / "copy")
    assert replace(scene, attacks=(attack,), specs=(spec,)).cell().id == ids[1]


def test_ids_are_the_same_in_every_process(scene: Scene) -> None:
    canonical = rb'{"a":"\u00e9","b":[1,2.5,null]}'
    hashed = identity.content_hash({"b": [1, 2.5, None], "a": "é"})
    assert hashed == hashlib.sha256(canonical).hexdigest()[:16]
    assert scene.cell().id == scene.cell().id
    assert len(scene.cell().id) == 16
    assert identity.text_hash("suite") == hashlib.sha256(b"suite").hexdigest()


def test_a_plan_is_known_by_its_cells_in_any_order(scene: Scene) -> None:
    two = (entry("a", HIT, "0.1"), entry("b", HIT, "0.2"))
    one, other = (replace(scene, attacks=order).plan() for order in (two, two[::-1]))
    assert planning.plan_id(one) == planning.plan_id(other)
    assert planning.plan_id(one) != planning.plan_id(scene.plan())


def test_the_same_content_under_two_names_is_the_same_cells(scene: Scene, folder: Path) -> None:
    (folder / "copy").write_bytes((folder / "net").read_bytes())
    twin = model("twin", folder / "copy")
    both = replace(
        scene, models=(*scene.models, twin), evaluate=(("m", "d", ("a",)), ("twin", "d", ("a",)))
    )
    ids = {name: [c.id for c in both.plan().cells if c.model == name] for name in ("m", "twin")}
    assert ids["m"] == ids["twin"]
    assert len(both.plan().cells) == 4


def test_the_seed_of_the_command_line_replaces_that_of_the_suite(scene: Scene) -> None:
    assert scene.plan(seed=7).seed == 7
    assert scene.plan(seed=7).cells == replace(scene, seed=7).plan().cells
    assert scene.plan().cells != replace(scene, seed=7).plan().cells


# ---------------------------------------------------------------- grids


def test_a_grid_is_sorted_and_each_eps_carries_the_smaller_ones(scene: Scene) -> None:
    grid = replace(scene, attacks=(entry("a", CARRY, "0.3", "1/10", "0.2"),))
    cells = [cell for cell in grid.plan().cells if cell.entry == "a"]
    assert [cell.eps.text for cell in cells if cell.eps] == ["1/10", "0.2", "0.3"]
    assert [[e.text for e in cell.carried] for cell in cells] == [[], ["1/10"], ["1/10", "0.2"]]
    plain = replace(scene, attacks=(entry("a", HIT, "0.3", "0.1"),))
    assert all(cell.carried == () for cell in plan_cells(plain))


def plan_cells(scene: Scene) -> list[Cell]:
    return [cell for cell in scene.plan().cells if cell.attack != "clean"]


def test_a_carried_cell_depends_on_the_smaller_eps_and_not_on_larger_ones(scene: Scene) -> None:
    def at(*grid: str) -> str:
        return replace(scene, attacks=(entry("a", CARRY, *grid),)).cell("a", "0.2").id

    assert at("0.2") == at("0.2", "0.3")
    assert len({at("0.2"), at("0.1", "0.2"), at("0.05", "0.1", "0.2")}) == 3


def test_a_minimal_norm_cell_depends_on_the_largest_eps(scene: Scene) -> None:
    def at(*grid: str) -> str:
        return replace(scene, attacks=(entry("a", NEAREST, *grid),)).cell("a", "0.2").id

    assert at("0.2", "0.5") == at("0.1", "0.2", "0.5")
    assert at("0.2", "0.5") != at("0.2", "0.6")


def test_an_attack_named_twice_for_a_model_is_planned_once(scene: Scene) -> None:
    again = replace(scene, evaluate=(("m", "d", ("a", "a")), ("m", "d", ("a",)), ("m", "d", ())))
    assert [cell.entry for cell in again.plan().cells] == ["clean", "a"]


def test_clean_cells_come_first_then_the_cheapest(scene: Scene) -> None:
    def priced(name: str, price: float | None) -> AttackSpec:
        cost = None if price is None else lambda params, shape, classes: Cost(price, 0)
        return attack_spec(nothing, name, cost=cost)

    specs = (priced("dear", 100), priced("cheap", 1), priced("unknown", None), priced("middle", 10))
    entries = tuple(entry(f"{spec.name}-entry", spec, "0.2", "0.1") for spec in specs)
    lines = (("s", "d", tuple(e.name for e in entries)), ("m", "d", tuple(e.name for e in entries)))
    cells = replace(scene, specs=specs, attacks=entries, evaluate=lines).plan().cells
    assert [cell.entry for cell in cells[:2]] == ["clean", "clean"]
    order = list(dict.fromkeys(cell.attack for cell in cells[2:]))
    assert order == ["cheap", "middle", "dear", "unknown"]
    cheap = [(c.model, c.eps.text) for c in cells if c.attack == "cheap" and c.eps]
    assert cheap == [("m", "0.1"), ("m", "0.2"), ("s", "0.1"), ("s", "0.2")]


def test_the_cost_of_a_cell_counts_its_repeats(scene: Scene) -> None:
    spec = attack_spec(nothing, "hit", cost=lambda params, shape, classes: Cost(3, 2))
    attack = entry("a", spec, "0.1", repeats=4)
    assert replace(scene, specs=(spec,), attacks=(attack,)).cell().cost == Cost(12, 8)
    assert scene.cell().cost is None
    assert scene.cell("clean").cost == Cost(1, 0)


# ---------------------------------------------------------------- controls


def controls(scene: Scene) -> list[tuple[str, str, str]]:
    return [
        (cell.attack, str(cell.norm), cell.eps.text if cell.eps else "")
        for cell in scene.plan().cells
        if cell.implicit
    ]


def test_every_spot_gets_the_control_of_its_norm_once(scene: Scene) -> None:
    attacks = (
        entry("a", HIT, "0.1", "0.2"),
        entry("b", CARRY, "1/10"),
        entry("c", HIT, "0.1", norm="l2"),
        entry("e", HIT, "0.1", norm="l1"),
        entry("f", HIT, "3", norm="l0"),
        entry("t", HIT, "0.1", source="s"),
    )
    auto = replace(scene, attacks=attacks, controls="auto")
    assert sorted(controls(auto)) == [
        ("gaussian-noise", "l2", "0.1"),
        ("salt-and-pepper", "l0", "3"),
        ("uniform-noise", "l1", "0.1"),
        ("uniform-noise", "linf", "0.1"),
        ("uniform-noise", "linf", "0.2"),
    ]
    (cell,) = [c for c in auto.plan().cells if c.implicit and c.norm == "l2"]
    assert (cell.entry, cell.role, cell.source) == ("gaussian-noise (control)", "control", "m")
    assert controls(replace(auto, controls="off")) == []


def test_a_declared_control_takes_the_place_at_its_own_eps_and_norm_only(scene: Scene) -> None:
    attacks = (entry("a", HIT, "0.1", "0.2"), entry("n", uniform_noise.SPEC, "1/10", repeats=3))
    auto = replace(scene, attacks=attacks, controls="auto")
    assert controls(auto) == [("uniform-noise", "linf", "0.2")]
    other = (entry("a", HIT, "0.1"), entry("n", uniform_noise.SPEC, "0.1", norm="l1"))
    assert controls(replace(auto, attacks=other)) == [("uniform-noise", "linf", "0.1")]


def test_a_control_is_added_for_each_model_and_dataset(scene: Scene, folder: Path) -> None:
    more = replace(
        scene,
        datasets=(*scene.datasets, dataset("e", folder / "more")),
        evaluate=(("m", "d", ("a",)), ("s", "d", ("a",)), ("m", "e", ("a",))),
        controls="auto",
    )
    spots = [(c.model, c.dataset) for c in more.plan().cells if c.implicit]
    assert sorted(spots) == [("m", "d"), ("m", "e"), ("s", "d")]


def test_an_attack_may_name_its_control(scene: Scene) -> None:
    named = attack_spec(nothing, "hit", params=Knob, control="gaussian-noise")
    auto = replace(scene, specs=(named, *NOISES), controls="auto")
    assert controls(auto) == [("gaussian-noise", "linf", "0.1")]
    lost = attack_spec(nothing, "hit", params=Knob, control="lost")
    with pytest.raises(PluginError, match="attack 'hit' names the unknown control 'lost'"):
        replace(scene, specs=(lost, *NOISES), controls="auto").plan()


def test_a_suite_of_controls_alone_needs_none(scene: Scene) -> None:
    noise = (entry("n", uniform_noise.SPEC, "0.1"),)
    assert controls(replace(scene, attacks=noise, controls="auto")) == []
    assert [c.entry for c in replace(scene, attacks=(), controls="auto").plan().cells] == ["clean"]


# ---------------------------------------------------------------- access and transfer


def test_an_attack_that_the_model_cannot_serve_is_skipped_in_words(
    scene: Scene, folder: Path
) -> None:
    weak = replace(scene, models=(model("m", folder / "net", loader="score"), scene.models[1]))
    cell = weak.cell()
    assert cell.skip is not None
    for part in ("hit needs gradient access", "'m' (score) offers score only", "'a'", "`source:`"):
        assert part in cell.skip
    assert weak.cell("clean").skip is None
    through = replace(weak, attacks=(entry("a", HIT, "0.1", source="s"),))
    assert through.cell().skip is None  # the source has gradients
    assert through.cell().source == "s"
    other_way = replace(
        weak, attacks=(entry("a", HIT, "0.1", source="m"),), evaluate=(("s", "d", ("a",)),)
    )
    assert other_way.cell(model="s").skip is not None


@pytest.mark.parametrize("access", ["none", "decision", "score"])
def test_an_attack_that_needs_less_runs_on_a_model_that_offers_scores(
    access: str, scene: Scene, folder: Path
) -> None:
    spec = attack_spec(nothing, "hit", params=Knob, access=access)
    weak = replace(scene, models=(model("m", folder / "net", loader="score"),), specs=(spec,))
    assert weak.cell().skip is None


def test_defaults_for_transfer_hold_in_transfer_and_only_where_nothing_was_said(
    scene: Scene,
) -> None:
    spec = attack_spec(nothing, "hit", params=Knob, when_transferred={"knob": 9, "other": 8})

    def params(source: str | None, **own: int) -> dict[str, object]:
        attack = dataclasses.replace(entry("a", spec, "0.1", source=source), params=Knob(**own))
        return dict(replace(scene, specs=(spec,), attacks=(attack,)).cell().params)

    assert params(None) == {"knob": 0, "other": 5}
    assert params("m") == {"knob": 0, "other": 5}
    assert params("s") == {"knob": 9, "other": 8}
    assert params("s", knob=0) == {"knob": 0, "other": 8}
    assert params("s", knob=2, other=3) == {"knob": 2, "other": 3}


def test_what_an_attack_is_called_with_is_planned_for_every_cell(scene: Scene) -> None:
    spec = attack_spec(nothing, "hit", params=Knob, when_transferred={"knob": 9})
    attacks = (entry("a", spec, "0.1", source="s", other=2), entry("b", spec, "0.1", knob=4))
    plan = replace(scene, specs=(spec,), attacks=attacks).plan()
    found = {c.entry: plan.arguments[c.id] for c in plan.cells if c.attack != "clean"}
    assert found == {"a": Knob(knob=9, other=2), "b": Knob(knob=4, other=5)}


def test_a_transfer_from_itself_has_the_id_of_white_box(scene: Scene) -> None:
    assert with_attack(source="m")(scene).cell().id == scene.cell().id


# ---------------------------------------------------------------- files, pins, limits


def test_every_missing_file_is_named_at_once_where_it_is_asked_for(
    scene: Scene, folder: Path
) -> None:
    missing = replace(
        scene,
        models=(
            model("m", folder / "gone.onnx", line=3),
            model("s", folder / "surrogate", extra=folder / "lost.bin", line=4),
        ),
        datasets=(dataset("d", folder / "no.npz", line=9),),
    )
    with pytest.raises(EnvironmentProblem) as caught:
        missing.plan()
    assert str(caught.value).splitlines() == [
        f"suite.yaml:3:5: error: models.m: path: there is no file '{folder / 'gone.onnx'}'",
        f"suite.yaml:4:5: error: models.s: extra: there is no file '{folder / 'lost.bin'}'",
        f"suite.yaml:9:5: error: datasets.d: path: there is no file '{folder / 'no.npz'}'",
    ]
    assert caught.value.exit_code == 7


def test_a_folder_is_no_file(scene: Scene, folder: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="there is no file"):
        replace(scene, models=(model("m", folder),)).plan()


def test_what_a_loader_says_is_missing_is_named_with_the_rest(scene: Scene, folder: Path) -> None:
    def ask(params: Params, places: Places) -> Mapping[str, Path | str]:
        raise ModelError("set ROBEVAL_DATA to the folder that holds mnist/")

    loaders = (dataclasses.replace(MODEL, content=ask),)
    readers = (dataclasses.replace(DATA, content=ask),)
    with pytest.raises(EnvironmentProblem) as caught:
        replace(scene, loaders=loaders, readers=readers, models=(scene.models[0],)).plan()
    assert str(caught.value).splitlines() == [
        "suite.yaml:3:5: error: models.m: set ROBEVAL_DATA to the folder that holds mnist/",
        "suite.yaml:7:5: error: datasets.d: set ROBEVAL_DATA to the folder that holds mnist/",
    ]


def test_pins_are_checked_and_a_changed_file_is_refused(scene: Scene, folder: Path) -> None:
    right = replace(
        scene,
        models=(model("m", folder / "net", sha256=sha(folder / "net").upper()),),
        datasets=(dataset("d", folder / "points", sha256=sha(folder / "points")),),
    )
    assert right.cell().id == scene.cell().id
    (folder / "net").write_text("changed")
    (folder / "points").write_text("changed too")
    with pytest.raises(EnvironmentProblem) as caught:
        right.plan()
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(
        f"suite.yaml:3:5: error: models.m: sha256: path '{folder / 'net'}' has"
        f" {sha(folder / 'net')}, the suite pins"
    )
    assert lines[1].startswith("suite.yaml:7:5: error: datasets.d: sha256: path '")


def test_a_pin_that_pins_nothing_is_refused(scene: Scene, folder: Path) -> None:
    bare = dataclasses.replace(MODEL, content=lambda params, places: {})
    pinned = model("m", folder / "net", sha256="0" * 64)
    with pytest.raises(EnvironmentProblem, match=r"suite.yaml:3:5: error: models.m: sha256"):
        replace(scene, loaders=(bare,), models=(pinned,)).plan()


def test_a_hash_that_is_known_without_the_file_counts_like_the_file(
    scene: Scene, folder: Path
) -> None:
    def known(params: Params, places: Places) -> Mapping[str, Path | str]:
        return {"path": f"sha256:{sha(folder / 'net')}"}

    loaders = (dataclasses.replace(MODEL, content=known),)
    assert replace(scene, loaders=loaders, models=(scene.models[0],)).cell().id == scene.cell().id


def test_a_limit_is_a_smaller_take(scene: Scene) -> None:
    def taken(take: int | None, limit: int | None) -> int | None:
        chosen = Selection(take=take)
        data = dataclasses.replace(scene.datasets[0], selection=chosen)
        return identity.selection(data, limit).take

    assert [taken(9, None), taken(9, 4), taken(4, 9), taken(None, 4), taken(None, None)] == [
        9,
        4,
        4,
        4,
        None,
    ]
    four = with_data(selection=Selection(take=4))(scene)
    assert scene.plan(limit=4).cells == four.plan().cells
    assert scene.plan(limit=9).cells == scene.plan().cells
    assert scene.plan(limit=4).cells != scene.plan().cells


def test_a_component_shows_what_its_content_was_computed_from(scene: Scene, folder: Path) -> None:
    plan = scene.plan()
    assert plan.models["m"].files == {"path": sha(folder / "net")}
    assert plan.models["m"].parameters["path"] == str(folder / "net")
    assert plan.models["m"].access == "gradient"
    assert plan.datasets["d"].parameters["selection"] == dataclasses.asdict(Selection(take=9))
