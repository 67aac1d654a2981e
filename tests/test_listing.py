"""What `robeval plugins` shows: whose every name is, and why a plug-in is not there."""

from __future__ import annotations

import json

from robustbench_lite import plugins
from robustbench_lite.builtin import attacks
from robustbench_lite.listing import as_json, lines
from robustbench_lite.plugins import Plugin, Registry, Source
from tests.small_world import Room, dataset_spec, labelled, net_spec


def broken() -> object:
    raise ImportError("no module named 'jax'")


def registry() -> Registry:
    def source(name: str, loaded: object, distribution: str) -> Source:
        plugin = Plugin(name=name, distribution=distribution, version="1.2", origin="/somewhere")
        return Source(plugin=plugin, load=broken if loaded is None else lambda: loaded)

    return plugins.assemble(
        [
            source("attacks", attacks, "robustbench-lite"),
            source(
                "nets",
                Room(
                    models=[net_spec("mine", 0)],
                    datasets=[dataset_spec("toys", lambda: labelled(0))],
                ),
                "zoo",
            ),
            source("jaxed", None, "robeval-jax"),
            source("unwanted", attacks, "robeval-copy"),
        ],
        block=["robeval-copy"],
    )


def test_every_plugin_is_shown_with_its_distribution_and_state() -> None:
    text = lines(registry(), causes=False)
    shown = {line.split()[1]: line for line in text[:4]}
    assert shown["attacks"].split()[:4] == ["ok", "attacks", "robustbench-lite", "1.2"]
    assert shown["nets"].split()[2:4] == ["zoo", "1.2"]
    assert shown["jaxed"].startswith("broken")
    assert "ImportError: no module named 'jax'" in shown["jaxed"]
    assert shown["unwanted"].startswith("blocked")
    assert "-p no:NAME" in shown["unwanted"]
    assert not any("Traceback" in line for line in text)


def test_names_are_listed_below_their_kind_and_empty_kinds_are_left_out() -> None:
    text = lines(registry(), causes=False)
    assert {"attacks:", "models:", "datasets:"} <= set(text)
    assert not {"analyses:", "reporters:", "executors:"} & set(text)
    listed = [
        line.split()[0] for line in text[text.index("attacks:") + 1 : text.index("models:") - 1]
    ]
    assert listed == sorted(listed)
    assert "fgsm" in listed
    assert any(line.startswith("  fgsm ") and "gradient" in line for line in text)
    assert text[text.index("models:") + 1].split() == ["mine"]


def test_the_cause_of_a_broken_plugin_is_shown_on_request() -> None:
    text = "\n".join(lines(registry(), causes=True))
    assert "plug-in jaxed of distribution robeval-jax: ImportError" in text
    assert "Traceback (most recent call last)" in text
    assert text.count("Traceback") == 1


def test_the_same_as_plain_values() -> None:
    listing = json.loads(json.dumps(as_json(registry())))
    states = {each["name"]: each["status"] for each in listing["plugins"]}
    assert states == {"attacks": "ok", "nets": "ok", "jaxed": "broken", "unwanted": "blocked"}
    assert {each["name"]: each["hooks"] for each in listing["plugins"]}["nets"] == [
        "robeval_attacks", "robeval_datasets", "robeval_models",
    ]  # fmt: skip
    assert listing["models"] == [{"name": "mine", "distribution": "zoo", "summary": ""}]
    assert listing["analyses"] == listing["reporters"] == listing["executors"] == []
    fgsm = next(each for each in listing["attacks"] if each["name"] == "fgsm")
    assert fgsm["distribution"] == "robustbench-lite"
