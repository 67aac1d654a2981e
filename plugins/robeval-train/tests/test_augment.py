"""Flips and shifts against plain slices; and trainings with them, twice and interrupted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from blobs import Interrupting, blobs, job, params, same
from torch import Tensor

from robeval_train.training import loop, recipes
from robeval_train.training.augment import augmented, check
from robeval_train.training.draws import Draws
from robeval_train.training.kept import Folder
from robeval_train.training.options import Augment, Recipe
from robustbench_lite import Box, ModelError

BOTH = {"flip": True, "shift": 1}
MAXOUT = {"name": "maxout", "units": 8, "init": 0.1}


def made(x: Tensor, *, box: Box | None = None, seed: int = 0, **given: object) -> Tensor:
    options = Augment.model_validate(given)
    return augmented(options, x, box or Box(), torch.Generator().manual_seed(seed))


def places(x: Tensor, found: Tensor, shift: int, fill: float) -> list[tuple[int, int, bool]]:
    """Of each image, the one (down, right, flipped) that explains it, by plain slices."""
    n, _, height, width = x.shape
    explained: list[list[tuple[int, int, bool]]] = [[] for _ in range(n)]
    for flipped in (False, True):
        wide = torch.nn.functional.pad(x.flip(3) if flipped else x, [shift] * 4, value=fill)
        for down in range(-shift, shift + 1):
            for right in range(-shift, shift + 1):
                cut = wide[..., shift - down :, shift - right :][..., :height, :width]
                for at in torch.nonzero((cut == found).flatten(1).all(dim=1)).flatten().tolist():
                    explained[at].append((down, right, flipped))
    assert all(len(each) == 1 for each in explained)
    return [each[0] for each in explained]


def test_every_image_is_a_slice_of_itself_or_its_mirror_and_all_of_them_come_up() -> None:
    x = torch.rand(4000, 2, 6, 5, generator=torch.Generator().manual_seed(1)) + 0.1
    seen = places(x, made(x, flip=True, shift=2), 2, 0.0)
    flips = sum(flipped for _, _, flipped in seen)
    assert abs(flips / len(seen) - 0.5) < 0.03
    counts = {key: sum(each[:2] == key for each in seen) for key in {each[:2] for each in seen}}
    assert len(counts) == 25
    assert min(counts.values()) > 100  # 160 are expected of each, sd 12.4


def test_a_flip_alone_flips_half_and_a_shift_alone_none() -> None:
    x = torch.rand(1000, 1, 4, 4, generator=torch.Generator().manual_seed(2)) + 0.1
    flipped = made(x, flip=True)
    turned = (flipped == x.flip(3)).flatten(1).all(dim=1)
    assert torch.equal(flipped, torch.where(turned[:, None, None, None], x.flip(3), x))
    assert 440 < int(turned.sum()) < 560
    assert not any(each[2] for each in places(x, made(x, shift=1), 1, 0.0))


@pytest.mark.parametrize(
    ("box", "fill"), [(Box(0, 1), 0.0), (Box(-20, 20), 0.0), (Box(0.25, 1), 0.25)]
)
def test_what_comes_in_is_the_zero_of_the_data(box: Box, fill: float) -> None:
    x = torch.full((200, 1, 3, 3), 0.75)
    found = made(x, box=box, shift=2)
    assert set(found.flatten().tolist()) == {fill, 0.75}


def test_nothing_asked_for_changes_nothing() -> None:
    x = torch.rand(20, 3, 4, 4)
    assert torch.equal(made(x), x)


def test_a_step_is_trained_on_what_its_epoch_and_number_draw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Draws, Tensor]] = []
    plain = recipes.loss

    def told(options: Recipe, step: recipes.Step) -> Tensor:
        seen.append((step.draws, step.x))
        return plain(options, step)

    monkeypatch.setattr(recipes, "loss", told)
    data = blobs(40)
    loop.train(job(tmp_path, {"arch": MAXOUT, "augment": BOTH, "epochs": 2}, data=data))
    assert [(draws.epoch, draws.step) for draws, _ in seen] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    for epoch in (1, 2):
        order = torch.randperm(40, generator=Draws(0, epoch).generator("order"))
        for number, rows in enumerate(torch.split(order, 20)):
            rng = Draws(0, epoch, number).generator("augment")
            expected = augmented(Augment(flip=True, shift=1), data.x[rows], Box(), rng)
            assert torch.equal(seen[2 * (epoch - 1) + number][1], expected)


def test_an_augmented_training_is_the_same_twice_and_after_an_interruption(tmp_path: Path) -> None:
    given: dict[str, object] = {"arch": MAXOUT, "augment": BOTH, "epochs": 4}
    whole, _ = loop.train(job(tmp_path / "a", given))
    again, _ = loop.train(job(tmp_path / "b", given))
    assert same(whole, again)
    with pytest.raises(KeyboardInterrupt):
        loop.train(job(tmp_path / "cut", given, cost=Interrupting(15)))
    state = Folder(tmp_path / "cut").state()
    assert state is not None
    assert state["epoch"] == 2
    resumed, _ = loop.train(job(tmp_path / "cut", given))
    assert same(whole, resumed)
    other, _ = loop.train(job(tmp_path / "c", {"arch": MAXOUT, "epochs": 4}))
    assert not same(whole, other)


def test_slow_convolutions_go_on_with_their_rate_and_their_momentum(tmp_path: Path) -> None:
    given: dict[str, object] = {
        "arch": {"name": "conv-maxout", "channels": [4, 4, 4], "dense": 8},
        "optimiser": {"name": "sgd", "momentum": 0.5, "conv_scale": 0.05, "final_lr": 0.01},
        "augment": {"flip": True, "shift": 2},
        "epochs": 3,
    }
    data = blobs(40, shape=(1, 16, 16))
    whole, _ = loop.train(job(tmp_path / "a", given, data=data))
    with pytest.raises(KeyboardInterrupt):
        loop.train(job(tmp_path / "cut", given, data=data, cost=Interrupting(3)))
    resumed, _ = loop.train(job(tmp_path / "cut", given, data=data))
    assert same(whole, resumed)


@pytest.mark.parametrize(
    ("given", "shape", "words"),
    [
        ({"flip": True}, (784,), r"need images .* the samples are \[784\]"),
        ({"shift": 4}, (1, 8, 4), "a shift of 4 moves images of 8 x 4 pixels out of sight"),
    ],
)
def test_what_cannot_be_done_is_told(
    given: dict[str, object], shape: tuple[int, ...], words: str
) -> None:
    check(Augment(), shape)
    with pytest.raises(ModelError, match=words):
        check(Augment.model_validate(given), shape)


def test_a_scale_for_convolutions_needs_one() -> None:
    params(arch="cnn", optimiser={"name": "sgd", "conv_scale": 0.05})
    with pytest.raises(ValueError, match="conv_scale: arch maxout has no convolution"):
        params(arch="maxout", optimiser={"name": "sgd", "conv_scale": 0.05})
