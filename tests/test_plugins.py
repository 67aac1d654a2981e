"""Entry points of real distributions written into a folder: what loads, what is set aside, whose it is."""

from __future__ import annotations

import functools
import hashlib
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace

import pytest
from pydantic import BaseModel

from robustbench_lite import AttackSpec, ModelSpec, Params, hookimpl, plugins
from robustbench_lite.errors import PluginError
from robustbench_lite.hookspecs import hookimpl as marker
from robustbench_lite.plugins import Registered, Registry, assemble, build

Install = Callable[..., Path]

GOOD = """
    from robustbench_lite import AttackSpec, hookimpl

    def attack(model, x, y, *, budget, rng):
        return x

    @hookimpl
    def robeval_attacks():
        return [AttackSpec(name="{name}", implementation=attack, summary="", norms=("linf",), access="none")]
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Writes a distribution with one module and its entry points where Python finds it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def write(
        distribution: str,
        module: str,
        code: str,
        *,
        points: Sequence[str] = (),
        version: str = "1.5",
    ) -> Path:
        info = tmp_path / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        )
        lines = points or [f"{module} = {module}"]
        (info / "entry_points.txt").write_text("\n".join(["[robeval]", *lines, ""]))
        path = tmp_path / f"{module}.py"
        path.write_text(dedent(code))
        return path

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("rbplug_"):
            del sys.modules[name]


def found(registry: Registry, name: str) -> plugins.Plugin:
    (plugin,) = [each for each in registry.plugins if each.name == name]
    return plugin


def spec(name: str = "a", **own: object) -> AttackSpec:
    fields: dict[str, object] = {
        "implementation": "math:sqrt",
        "summary": "",
        "norms": ("linf",),
        "access": "none",
        **own,
    }
    return AttackSpec(name=name, **fields)  # type: ignore[arg-type]


def giving(*specs: object) -> object:
    """A plug-in object whose attack hook returns `specs`."""

    class Giving:
        @hookimpl
        def robeval_attacks(self) -> Iterable[object]:
            return specs

    return Giving()


def refused(plugin: object) -> str:
    with pytest.raises(PluginError) as caught:
        build([plugin])
    return str(caught.value)


# ---------------------------------------------------------------- load


def test_a_plugin_of_a_stranger_is_loaded_with_its_provenance(install: Install) -> None:
    path = install("rb-stranger", "rbplug_good", GOOD.format(name="stranger"))
    registry = plugins.load()
    registered = registry.attacks["stranger"]
    plugin = registered.plugin
    assert (plugin.name, plugin.distribution, plugin.version) == (
        "rbplug_good",
        "rb-stranger",
        "1.5",
    )
    assert (plugin.status, plugin.hooks) == ("ok", ("robeval_attacks",))
    assert Path(plugin.origin) == path
    assert plugin in registry.plugins
    assert registry.names("attack") == tuple(sorted(registry.attacks))


def test_the_built_ins_come_through_the_same_entry_points() -> None:
    own = [p for p in plugins.load().plugins if p.distribution == plugins.OWN_DISTRIBUTION]
    names = {"builtin-attacks", "builtin-models", "builtin-data", "builtin-reports"}
    assert names <= {plugin.name for plugin in own}
    assert "fgsm" in plugins.load().attacks


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("import rbplug_not_there", "ModuleNotFoundError: No module named 'rbplug_not_there'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def broken(:", "SyntaxError"),
        ("x = 1", "it has no robeval hooks"),
        (
            """
            from robustbench_lite import hookimpl
            @hookimpl
            def robeval_attacks():
                raise KeyError("lost")
            """,
            "KeyError: 'lost'",
        ),
    ],
)
def test_a_broken_plugin_is_named_and_set_aside(install: Install, code: str, cause: str) -> None:
    install("rb-bad", "rbplug_bad", code)
    install("rb-stranger", "rbplug_good", GOOD.format(name="stranger"))
    registry = plugins.load()
    broken = found(registry, "rbplug_bad")
    assert (broken.status, broken.distribution) == ("broken", "rb-bad")
    assert cause in broken.reason
    assert "Traceback" in broken.traceback
    assert "stranger" in registry.attacks
    with pytest.raises(PluginError, match="plug-in rbplug_bad of distribution rb-bad could not be"):
        plugins.load(strict=True)


@pytest.mark.parametrize("name", ["rbplug_bad", "rb-bad", "RB_Bad"])
def test_a_blocked_plugin_is_not_even_imported(install: Install, name: str) -> None:
    install("rb-bad", "rbplug_bad", "raise AssertionError('imported')")
    blocked = found(plugins.load(block=[name]), "rbplug_bad")
    assert blocked.status == "blocked"
    assert "rbplug_bad" not in sys.modules


def test_no_plugins_keeps_only_what_ships_with_robeval(install: Install) -> None:
    install("rb-stranger", "rbplug_good", GOOD.format(name="stranger"))
    registry = plugins.load(no_plugins=True)
    assert {p.distribution for p in registry.plugins} == {plugins.OWN_DISTRIBUTION}
    assert "stranger" not in registry.attacks
    assert "rbplug_good" not in sys.modules


def test_two_owners_of_one_spec_name_are_an_error_that_names_both(install: Install) -> None:
    install("rb-one", "rbplug_one", GOOD.format(name="same"))
    install("rb-two", "rbplug_two", GOOD.format(name="same"))
    with pytest.raises(PluginError, match=r"attack 'same'.*rb-one.*rb-two"):
        plugins.load()
    assert plugins.load(block=["rb-two"]).attacks["same"].plugin.distribution == "rb-one"


def test_two_entry_points_of_one_name_are_an_error_that_names_both(install: Install) -> None:
    install("rb-one", "rbplug_one", GOOD.format(name="x"), points=["twin = rbplug_one"])
    install("rb-two", "rbplug_two", GOOD.format(name="y"), points=["twin = rbplug_two"])
    with pytest.raises(PluginError, match=r"called 'twin'.*rb-one.*rb-two"):
        plugins.load()
    assert "x" in plugins.load(block=["rb-two"]).attacks


def test_the_order_is_by_distribution_then_name(install: Install) -> None:
    install("rb-zeta", "rbplug_z", GOOD.format(name="z"), points=["a-first = rbplug_z"])
    install("rb-alpha", "rbplug_a", GOOD.format(name="a"), points=["z-last = rbplug_a"])
    names = [p.name for p in plugins.load().plugins if p.distribution.startswith("rb-")]
    assert names == ["z-last", "a-first"]


# ---------------------------------------------------------------- the contract


def test_an_unknown_hook_is_named_with_the_nearest_one() -> None:
    class Typo:
        @hookimpl
        def robeval_atacks(self) -> list[AttackSpec]:
            return []

    assert "unknown hook 'robeval_atacks'; did you mean 'robeval_attacks'?" in refused(Typo())


def test_a_hook_of_a_newer_robeval_may_be_marked_optional() -> None:
    class Ahead:
        @marker(optionalhook=True)
        def robeval_oracles(self) -> list[object]:
            return []

        @hookimpl
        def robeval_attacks(self) -> list[AttackSpec]:
            return [spec("ahead")]

    assert "ahead" in build([Ahead()]).attacks


class OpenParams(BaseModel):
    """Not a subclass of Params: unknown keys would pass."""


class Eps(Params):
    """Hides a key of the harness."""

    eps: float = 0.1


@pytest.mark.parametrize(
    ("plugin", "words"),
    [
        (giving("fgsm"), "gave 'fgsm', expected an object of AttackSpec"),
        (giving(ModelSpec(name="m", implementation="a:b", summary="")), "expected an object of Attack"),
        (giving(spec("a"), spec("a")), "gives AttackSpec 'a' 2 times"),
        (giving(spec("  ")), "has no name"),
        (giving(spec(api=99)), "written for plug-in API 99.*upgrade robustbench-lite"),
        (giving(spec(implementation="no colon")), "neither something to call nor 'package.module:name'"),
        (giving(spec(implementation=3)), "neither something to call"),
        (giving(spec(params=OpenParams)), "is not a subclass of Params"),
        (giving(spec(params=Eps)), "parameter 'eps' is a key that every attack has"),
        (giving(spec(norms=())), "expected some of linf, l2, l1, l0"),
        (giving(spec(norms=("l3",))), "expected some of linf, l2, l1, l0"),
    ],
)  # fmt: skip
def test_a_spec_that_nobody_could_use_is_refused(plugin: object, words: str) -> None:
    with pytest.raises(PluginError, match=words):
        build([plugin])


@pytest.mark.parametrize("value", [None, 3, "fgsm", spec("single")])
def test_a_hook_returns_a_list_of_specs(value: object) -> None:
    class Returning:
        @hookimpl
        def robeval_attacks(self) -> object:
            return value

    assert "expected a list of AttackSpec" in refused(Returning())


# ---------------------------------------------------------------- implementations


def registered(implementation: object) -> Registered[AttackSpec]:
    (only,) = build([giving(spec(implementation=implementation))]).attacks.values()
    return only


def test_an_implementation_named_as_text_is_imported_when_asked_for(install: Install) -> None:
    path = install(
        "rb-lazy", "rbplug_lazy", "class Deep:\n    def run(): return 7\n", points=["x = y"]
    )
    lazy = registered("rbplug_lazy:Deep.run")
    assert plugins.source_hash(lazy) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert "rbplug_lazy" not in sys.modules
    assert plugins.implementation(lazy)() == 7
    assert plugins.implementation(registered(math.sqrt)) is math.sqrt


@pytest.mark.parametrize(
    ("target", "cause"),
    [
        ("rbplug_nowhere:f", "No module named 'rbplug_nowhere'"),
        ("math:not_there", "has no attribute 'not_there'"),
        ("math:pi", "is float, expected something to call"),
    ],
)
def test_an_implementation_that_cannot_be_had_is_named(target: str, cause: str) -> None:
    with pytest.raises(PluginError, match=f"implementation '{target}' of 'a'.*{cause}"):
        plugins.implementation(registered(target))


def test_the_hash_of_a_function_is_that_of_its_file() -> None:
    here = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    wrapped = functools.wraps(giving)(lambda: None)

    class Callable_:
        def __call__(self) -> None: ...

    for target in (giving, functools.partial(giving, 1), wrapped, Callable_, Callable_()):
        assert plugins.source_hash(registered(target)) == here


def test_without_a_source_the_distribution_and_version_stand_for_it() -> None:
    hashes = set()
    for version in ("1", "2"):
        plugin = plugins.Plugin(name="p", distribution="rb-d", version=version, origin="")
        source = plugins.Source(plugin=plugin, load=lambda: giving(spec(implementation=len)))
        (only,) = assemble([source]).attacks.values()
        hashes.add(plugins.source_hash(only))
        assert plugins.source_hash(only) == plugins.source_hash(only)
    assert len(hashes) == 2


@pytest.mark.parametrize("target", ["rbplug_nowhere:f", "rbplug_nowhere.deep:f", "math.deep:f"])
def test_the_hash_of_a_module_that_is_not_there_is_an_error(target: str) -> None:
    with pytest.raises(PluginError, match="cannot be found"):
        plugins.source_hash(registered(target))


# ---------------------------------------------------------------- words


def test_missing_says_what_was_meant_and_what_could_not_be_had(install: Install) -> None:
    install("rb-bad", "rbplug_bad", "import rbplug_not_there")
    install("rb-stranger", "rbplug_good", GOOD.format(name="stranger"))
    registry = plugins.load(block=["rb-stranger"])
    text = plugins.missing(registry, "attack", "FGMS")
    assert text.splitlines()[:2] == ["unknown attack 'FGMS'", "  help: did you mean 'fgsm'?"]
    assert "plug-in rbplug_bad of distribution rb-bad could not be loaded: ModuleNotFound" in text
    assert "plug-in rbplug_good of distribution rb-stranger is blocked by name" in text


def test_missing_lists_what_there_is_where_nothing_is_near() -> None:
    registry = build([giving(spec("pgd"), spec("fgsm"))])
    assert plugins.missing(registry, "attack", "zzz").endswith("help: installed: fgsm, pgd")
    assert plugins.missing(registry, "model", "onnx").startswith("unknown model loader 'onnx'")
    assert plugins.missing(registry, "model", "onnx").endswith("installed: none")


def test_a_plain_namespace_with_a_hook_function_is_a_plugin_too() -> None:
    @hookimpl
    def robeval_attacks() -> list[AttackSpec]:
        return [spec("spaced")]

    assert "spaced" in build([SimpleNamespace(robeval_attacks=robeval_attacks)]).attacks
