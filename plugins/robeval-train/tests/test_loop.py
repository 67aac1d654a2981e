"""Training is a function of options, data and seed: twice, interrupted, stopped early, diverged."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from blobs import Interrupting, blobs, job, params, same

from robeval_train.training import loop
from robeval_train.training.kept import RECORD, STATE, WEIGHTS, Folder
from robustbench_lite import EnvironmentProblem, ModelError

MAXOUT = {"name": "maxout", "units": 8, "init": 0.1}
MOMENTUM = {"name": "sgd", "lr": 0.1, "decay": 1.001, "momentum": 0.5, "final_momentum": 0.7}
OPTIMISERS = [MOMENTUM, {"name": "adam"}, {"name": "rmsprop"}, {"name": "adabound"}]


def outcome(tmp_path: Path, name: str, given: Mapping[str, object]) -> dict[str, torch.Tensor]:
    weights, _ = loop.train(job(tmp_path / name, given))
    return weights


@pytest.mark.parametrize("recipe", ["standard", "fgsm-adversarial", "noise", "rubbish"])
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(
    tmp_path: Path, recipe: str
) -> None:
    given: dict[str, object] = {"arch": MAXOUT, "optimiser": MOMENTUM, "recipe": recipe}
    first = outcome(tmp_path, "a", given)
    torch.rand(7)  # the global generator is no input
    assert same(first, outcome(tmp_path, "b", given))
    assert not same(first, outcome(tmp_path, "c", {**given, "seed": 1}))


@pytest.mark.parametrize("optimiser", OPTIMISERS, ids=lambda each: str(each["name"]))
@pytest.mark.parametrize("after", [1, 8, 17])
def test_an_interrupted_training_goes_on_from_its_last_epoch_to_the_same_bits(
    tmp_path: Path, optimiser: dict[str, object], after: int
) -> None:
    """6 batches an epoch: `after` falls into the first, the second and the third one."""
    given = {"arch": MAXOUT, "optimiser": optimiser, "epochs": 4}
    whole = outcome(tmp_path, "whole", given)
    with pytest.raises(KeyboardInterrupt):
        loop.train(job(tmp_path / "cut", given, cost=Interrupting(after)))
    kept = Folder(tmp_path / "cut").state()
    assert (0 if kept is None else kept["epoch"]) == after // 6
    weights, record = loop.train(job(tmp_path / "cut", given))
    assert same(whole, weights)
    history = record["history"]
    assert isinstance(history, list)
    assert [line["epoch"] for line in history] == [1, 2, 3, 4]


STOP = {"hold_out": 30, "stop": {"patience": 3}, "epochs": 12}


def test_early_stopping_keeps_the_best_epoch_and_ends_after_its_patience(tmp_path: Path) -> None:
    given = {"arch": MAXOUT, "optimiser": {"name": "sgd", "lr": 0.5}, **STOP}
    weights, record = loop.train(job(tmp_path / "a", given))
    history = record["history"]
    assert isinstance(history, list)
    errors = [line["held_out_error"] for line in history]
    best = errors.index(min(errors)) + 1
    assert record["best_epoch"] == best
    assert len(errors) == min(12, best + 3)
    short = {"arch": MAXOUT, "optimiser": {"name": "sgd", "lr": 0.5}, "epochs": best}
    data = blobs()
    first_90 = loop.Labelled(data.x[:90], data.y[:90])
    again, _ = loop.train(job(tmp_path / "b", short, data=first_90))
    assert same(weights, again)


def test_retraining_anew_is_training_on_all_data_for_the_best_number_of_epochs(
    tmp_path: Path,
) -> None:
    given = {"arch": MAXOUT, "optimiser": MOMENTUM, **STOP}
    weights, record = loop.train(job(tmp_path / "a", {**given, "retrain": "anew"}))
    plain = {"arch": MAXOUT, "optimiser": MOMENTUM, "epochs": record["best_epoch"]}
    assert same(weights, outcome(tmp_path, "b", plain))


def test_retraining_on_ends_when_the_held_out_cost_is_down_to_the_best_training_cost(
    tmp_path: Path,
) -> None:
    given = {"arch": "softmax", "optimiser": {"name": "sgd", "lr": 0.05}, **STOP, "retrain": "on"}
    _, record = loop.train(job(tmp_path / "a", given))
    history = record["history"]
    assert isinstance(history, list)
    again = [line for line in history if line["phase"] == "again"]
    assert 1 <= len(again) <= 12
    first = [line for line in history if line["phase"] == "first"]
    assert again[-1]["held_out_cost"] < first[0]["held_out_cost"]


@pytest.mark.parametrize("retrain", ["anew", "on"])
def test_an_interruption_in_the_second_phase_changes_nothing(tmp_path: Path, retrain: str) -> None:
    given: dict[str, object] = {"arch": MAXOUT, "optimiser": MOMENTUM, **STOP, "retrain": retrain}
    given["hold_out"] = 20
    counting = Interrupting(10**6)
    whole, _ = loop.train(job(tmp_path / "whole", given, cost=counting))
    calls = 10**6 - counting.left
    with pytest.raises(KeyboardInterrupt):
        loop.train(job(tmp_path / "cut", given, cost=Interrupting(calls - 2)))
    kept = Folder(tmp_path / "cut").state()
    assert kept is not None
    assert kept["phase"] == "again"
    assert same(whole, outcome(tmp_path, "cut", given))


@pytest.mark.parametrize("retrain", ["no", "anew", "on"])
def test_an_interruption_after_the_last_epoch_changes_nothing(tmp_path: Path, retrain: str) -> None:
    """Its state is kept, its finished weights are not: nothing is left to train."""
    given: dict[str, object] = {"arch": "softmax", "optimiser": {"name": "sgd", "lr": 0.05}}
    given |= {**STOP, "retrain": retrain}
    whole, record = loop.train(job(tmp_path / "a", given))
    again, resumed = loop.train(job(tmp_path / "a", given))
    assert same(whole, again)
    assert resumed == record


def test_early_stopping_on_adversarial_error_looks_at_fgsm_examples(tmp_path: Path) -> None:
    stop = {"on": "adversarial", "patience": 2, "eps": 0.2}
    given = {"arch": MAXOUT, "hold_out": 30, "stop": stop, "epochs": 6}
    _, record = loop.train(job(tmp_path / "a", given))
    history = record["history"]
    assert isinstance(history, list)
    errors = [line["held_out_adversarial_error"] for line in history]
    assert record["best_error"] == min(errors)
    assert all(line["held_out_adversarial_error"] >= line["held_out_error"] for line in history)


def test_a_diverging_training_is_an_error_that_names_epoch_and_step(tmp_path: Path) -> None:
    given = {"arch": {"name": "mlp"}, "optimiser": {"name": "sgd", "lr": 1e20}}
    with pytest.raises(ModelError, match=r"diverged: the loss is .* in epoch 1, step \d+ of 6"):
        loop.train(job(tmp_path / "a", given))
    assert Folder(tmp_path / "a").finished() is None
    assert Folder(tmp_path / "a").state() is None


def test_weights_that_the_last_step_broke_are_no_model(tmp_path: Path) -> None:
    """One step of one epoch: its loss is finite, what it leaves behind is not."""
    given = {"arch": "softmax", "optimiser": {"name": "sgd", "lr": 1e20}, "epochs": 1}
    data = blobs(20)
    large = loop.Labelled(data.x * 1e30, data.y)
    with pytest.raises(ModelError, match=r"diverged: '1\.weight' is not finite after epoch 1"):
        loop.train(job(tmp_path / "a", given, data=large))
    assert Folder(tmp_path / "a").state() is None


@pytest.mark.parametrize("stop", [None, {"patience": 2}])
def test_a_held_out_cost_that_is_not_finite_is_an_error(
    tmp_path: Path, stop: dict[str, object] | None
) -> None:
    data = blobs()
    data.x[-1, 0, 0, 0] = math.nan
    given = {"arch": MAXOUT, "hold_out": 30, "stop": stop}
    with pytest.raises(ModelError, match="mean cost of the 30 held-out samples is nan after ep"):
        loop.train(job(tmp_path / "a", given, data=data))
    assert Folder(tmp_path / "a").state() is None


@pytest.mark.parametrize("content", [b"", b"cut short", b"PK\x03\x04 cut short"])
def test_a_state_that_cannot_be_read_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / STATE).write_bytes(content)
    with pytest.raises(EnvironmentProblem, match=r"state\.pt cannot be read .*delete it to begin"):
        loop.train(job(tmp_path, {}))


def test_progress_goes_to_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="robustbench_lite"):
        loop.train(job(tmp_path / "a", {"epochs": 2}))
    told = [record.getMessage() for record in caplog.records]
    assert [text[:26] for text in told] == [
        "blobs: epoch 1 of at most ",
        "blobs: epoch 2 of at most ",
    ]


def test_finished_weights_are_kept_with_their_hash_and_a_changed_file_is_refused(
    tmp_path: Path,
) -> None:
    folder = Folder(tmp_path / "a")
    weights, record = loop.train(job(tmp_path / "a", {}))
    assert (folder.path / STATE).is_file()
    folder.finish(weights, record)
    assert sorted(path.name for path in folder.path.iterdir()) == [RECORD, WEIGHTS]
    found = folder.finished()
    assert found is not None
    assert same(found[0], weights)
    assert json.loads((folder.path / RECORD).read_text())["epochs"] == 3
    (folder.path / WEIGHTS).write_bytes((folder.path / WEIGHTS).read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(EnvironmentProblem, match="not what its training wrote"):
        folder.finished()


def test_l1_and_decay_shrink_what_they_penalise(tmp_path: Path) -> None:
    def first(name: str, **given: object) -> torch.Tensor:
        weights = outcome(tmp_path, name, {"arch": {"name": "mlp"}, "epochs": 10, **given})
        return weights["1.weight"]

    plain = first("plain")
    assert float(first("l1", l1=0.01).abs().sum()) < 0.7 * float(plain.abs().sum())
    assert float(first("decay", decay=0.5).norm()) < 0.7 * float(plain.norm())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"arch": "maxot"}, "did you mean 'maxout'"),
        ({"recipe": "fgsm-adversary"}, "did you mean 'fgsm-adversarial'"),
        ({"optimiser": {"name": "adagrad"}}, "optimiser 'adagrad' is not one of sgd"),
        ({"stop": {}}, "stop needs held-out samples"),
        ({"retrain": "anew"}, "add stop"),
        ({"recipe": "worst-case-logistic"}, "exact for arch logistic alone"),
        ({"recipe": "trades", "arch": "rbf"}, "arch rbf has a yes or no for each class"),
        ({"epochs": 0}, "greater than or equal to 1"),
    ],
)
def test_options_that_make_no_sense_are_refused_in_words(
    given: dict[str, object], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        params(**given)
