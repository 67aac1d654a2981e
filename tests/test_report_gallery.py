"""The worst examples: what is chosen, and pictures that show exactly what was measured."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from robustbench_lite.report import gallery, html, pictures
from robustbench_lite.report.tallies import Tally, tallies
from robustbench_lite.types import Examples
from tests.finished_run import FakeRun, world


def tallied(run: FakeRun) -> dict[str, Tally]:
    assert run.summary is not None
    return tallies(run, {(row.model, row.dataset) for row in run.summary.rows}, set())


def walls(run: FakeRun) -> list[gallery.Wall]:
    return gallery.walls(run, tallied(run), 2_000_000)


@pytest.mark.parametrize("shape", [(1, 12, 12), (3, 12, 12), (12, 12), (7,), (40,), (4, 5, 5)])
def test_every_shape_of_input_has_a_picture(tmp_path: Path, shape: tuple[int, ...]) -> None:
    run = world(tmp_path / "x", n=50, models={"weak": 0.05}, shape=shape)
    (wall,) = walls(run)
    assert wall.specimens
    is_image = shape in ((1, 12, 12), (3, 12, 12), (12, 12))
    for specimen in wall.specimens:
        assert ("<img" in specimen.trio.clean) == is_image
        assert ("first 32 of" in specimen.trio.note) == (not is_image and np.prod(shape) > 32)
    assert f"<b>{wall.specimens[0].attack}</b>" in html.page(run)


WEAK = world(Path("run"), n=8, models={"weak": 1e-6})


BROKEN = int(np.flatnonzero(next(iter(WEAK.tables.values())).clean_correct)[0])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 3]), st.floats(1e-4, 0.6))
def test_pictures_are_lossless_and_the_difference_is_what_is_printed(
    seed: int, channels: int, radius: float
) -> None:
    rng = np.random.default_rng(seed)
    x = np.rint(rng.random((1, channels, 6, 5)) * 255).astype(np.float32) / np.float32(255)
    x_adv = np.clip(x + rng.uniform(-radius, radius, x.shape), 0, 1).astype(np.float32)
    found = Examples(positions=np.array([BROKEN]), x=x, x_adv=x_adv)
    run = dataclasses.replace(WEAK, images=dict.fromkeys(WEAK.images, found))
    specimen = walls(run)[0].specimens[0]
    factor = float(specimen.trio.factor.replace(",", ""))
    expected = {
        "clean": x[0],
        "adversarial": x_adv[0],
        "difference": np.clip(0.5 + factor * (x_adv[0] - x[0]), 0, 1),
    }
    for name, image in expected.items():
        encoded = re.findall(r"base64,([^\"]+)", getattr(specimen.trio, name))[0]
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))
        shown = np.moveaxis(image, 0, -1) if channels == 3 else image[0]
        assert np.abs(pixels - 255 * shown.astype(np.float64)).max() <= 0.5 + 1e-3
    assert factor * np.abs(x_adv - x).max() <= 0.5 or factor == 1


@given(st.floats(1e-6, 2.0), st.floats(0.1, 300.0))
def test_amplification_uses_the_range_and_stays_in_it(largest: float, width: float) -> None:
    factor = pictures.amplification(largest, width)
    assert factor >= 1
    assert factor * largest <= 0.5 * width or factor == 1
    assert 2.5 * factor * largest > 0.5 * width or factor == 50_000
    assert pictures.amplification(0.0, width) == 1


def test_the_gallery_shows_broken_samples_once_attacks_first(tmp_path: Path) -> None:
    run = world(tmp_path / "x", n=200)
    for wall in walls(run):
        names = [specimen.sample.sample_id for specimen in wall.specimens]
        assert len(names) == len(set(names))
        assert len(names) <= gallery.PER_MODEL
        for specimen in wall.specimens:
            sample = specimen.sample
            assert sample.clean_pred == sample.label != sample.adv_pred
        roles = [specimen.attack == "uniform-noise" for specimen in wall.specimens]
        assert roles == sorted(roles)


def test_large_pictures_are_left_out_and_counted() -> None:
    rng = np.random.default_rng(0)
    noise = rng.random((2, 6, 3, 224, 224), dtype=np.float32)  # does not compress
    broken = np.flatnonzero(next(iter(WEAK.tables.values())).clean_correct)[:6]
    found = Examples(positions=broken, x=noise[0], x_adv=noise[1])
    run = dataclasses.replace(WEAK, images=dict.fromkeys(WEAK.images, found))
    (wall,) = walls(run)
    assert len(wall.specimens) + wall.left_out == len(broken)
    assert wall.specimens
    assert wall.left_out
    text = html.page(run)
    assert len(text.encode()) < 5_000_000
    assert f"{wall.left_out} more left out to keep this file small" in text
