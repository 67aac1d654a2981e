"""Every corruption against its definition, written apart from it."""

from __future__ import annotations

import colorsys
import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, stats
from torch import Tensor

from robustbench_lite.builtin.attacks import corrupt_blur, corrupt_digital, corrupt_weather
from robustbench_lite.builtin.attacks.corrupt_constants import SEVERITIES
from tests.corrupted import SURE, corrupted, images, stream

# ---------------------------------------------------------------- noise


@pytest.mark.parametrize(
    ("side", "deviations"),
    [(32, (0.04, 0.06, 0.08, 0.09, 0.10)), (224, (0.08, 0.12, 0.18, 0.26, 0.38))],
)
def test_gaussian_noise_is_normal_with_the_published_deviation(
    side: int, deviations: tuple[float, ...]
) -> None:
    n = 60 if side == 32 else 2
    x = torch.full((n, 1, side, side), 0.5)
    for severity, deviation in zip(SEVERITIES, deviations, strict=True):
        noise = (corrupted(x, "gaussian-noise", severity) - x).double().flatten()
        inside = noise[noise.abs() < 0.4999].numpy()
        cut = 0.5 / deviation
        own = stats.truncnorm(-cut, cut, scale=deviation)
        assert stats.kstest(inside, own.cdf).pvalue > SURE
        share = len(inside) / len(noise)
        assert share == pytest.approx(1 - 2 * stats.norm.sf(cut), abs=0.01)


@pytest.mark.parametrize(("side", "photons"), [(32, (500, 250, 100, 75, 50)), (224, (60, 25))])
def test_shot_noise_is_poisson(side: int, photons: tuple[int, ...]) -> None:
    levels = torch.tensor([0.0, 0.05, 0.3, 0.6])
    n = 40 if side == 32 else 1
    x = levels.view(1, 4, 1, 1).expand(n, 4, side, side)[:, :3].contiguous()
    for severity, full in zip(SEVERITIES, photons, strict=False):
        counts = corrupted(x, "shot-noise", severity).double() * full
        assert float((counts - counts.round()).abs().max()) < 1e-3
        assert bool((counts[:, 0] == 0).all())
        for channel in (1, 2):
            mean = float(full * levels[channel])
            seen = counts[:, channel].flatten()
            sure = 4 * math.sqrt(mean / len(seen))
            assert float(seen.mean()) == pytest.approx(mean, abs=sure)
            assert float(seen.var()) == pytest.approx(mean, rel=0.05)


@pytest.mark.parametrize(("side", "shares"), [(32, (0.01, 0.02, 0.03)), (224, (0.03, 0.06, 0.09))])
def test_impulse_noise_turns_its_share_black_or_white(side: int, shares: tuple[float, ...]) -> None:
    x = torch.full((20 if side == 32 else 2, 3, side, side), 0.5)
    for severity, share in zip(SEVERITIES, shares, strict=False):
        out = corrupted(x, "impulse-noise", severity)
        hit = out != 0.5
        assert set(out.flatten().tolist()) == {0.0, 0.5, 1.0}
        black = int((out == 0).sum())
        assert stats.binomtest(int(hit.sum()), hit.numel(), share).pvalue > SURE
        assert stats.binomtest(black, int(hit.sum()), 0.5).pvalue > SURE
        alone = hit.sum(dim=1) == 1
        assert float(alone.sum() / hit.any(dim=1).sum()) > 0.7  # channels fall apart


# ---------------------------------------------------------------- blurs


@pytest.mark.parametrize(("radius", "sigma"), [(0.3, 0.4), (1.5, 0.1), (3, 0.1), (10, 0.5)])
def test_the_disc_sums_to_one_and_has_its_radius(radius: float, sigma: float) -> None:
    kernel = corrupt_blur.disc(radius, sigma)
    assert kernel.sum() == pytest.approx(1)
    assert (kernel >= 0).all()
    np.testing.assert_allclose(kernel, kernel[::-1], atol=1e-12)
    np.testing.assert_allclose(kernel, kernel.T, atol=1e-12)
    places = np.arange(len(kernel)) - len(kernel) // 2
    distance = np.hypot(places[:, None], places[None])
    assert kernel[distance > radius + 0.5 + 4 * math.sqrt(2) * max(sigma, 0.25)].sum() < 1e-6
    if radius >= 3:  # a disc has a quarter of its squared radius as variance along each axis
        variance = (kernel * places**2).sum()
        assert variance == pytest.approx(radius**2 / 4 + sigma**2, rel=0.06)
        assert kernel[distance <= radius - 1.5].std() < 0.01 * kernel.max()


def test_defocus_is_the_convolution_with_the_disc() -> None:
    x = torch.zeros(1, 1, 41, 41)
    x[:, :, 20, 20] = 1
    out = corrupt_blur.defocus_blur(x, stream(1), radius=3, sigma=0.1)
    kernel = corrupt_blur.disc(3, 0.1)
    reach = len(kernel) // 2
    spot = out[0, 0, 20 - reach : 21 + reach, 20 - reach : 21 + reach].numpy()
    np.testing.assert_allclose(spot, kernel, atol=1e-6)


def test_glass_only_moves_pixels_whole_and_not_far() -> None:
    side = 32
    marks = torch.arange(side * side, dtype=torch.float32).view(1, 1, side, side) / (side * side)
    x = torch.cat((marks, 1 - marks, marks), dim=1).repeat(4, 1, 1, 1)
    out = corrupt_blur.glass_blur(x, stream(4), sigma=0.05, reach=1, rounds=1)
    assert torch.equal(out[:, 0], out[:, 2])
    torch.testing.assert_close(out[:, 0] + out[:, 1], torch.ones(4, side, side))
    number = (out[:, 0] * side * side).round().long().flatten(1)
    assert torch.equal(number.sort(dim=1).values, torch.arange(side * side).expand(4, -1))
    home = torch.arange(side * side)
    rows, columns = number // side - home // side, number % side - home % side
    moved = (number != home).float().mean()
    assert 0.6 < float(moved) < 0.95
    assert float(torch.stack((rows, columns)).double().square().mean().sqrt()) < 2
    assert len({tuple(row) for row in number.tolist()}) == 4
    far = corrupt_blur.glass_blur(x, stream(4), sigma=0.05, reach=4, rounds=1)
    away = (far[:, 0] * side * side).round().long().flatten(1) // side - home // side
    assert float(away.double().square().mean()) > 4 * float(rows.double().square().mean())


def test_glass_exchanges_pixels_in_the_published_order() -> None:
    """The same exchanges, one pixel after the other, in plain Python."""
    height, width, reach = 9, 8, 2
    x = torch.arange(float(height * width)).view(1, 1, height, width) / 100
    got = corrupt_blur.glass_blur(x, stream(1), sigma=0.05, reach=reach, rounds=2)[0, 0]
    shape = (2, height - 2 * reach, width - 2 * reach, 2)
    draws = stream(1).integers(-reach, reach, shape)[0].tolist()
    grid = x[0, 0].tolist()
    for turn in range(2):
        for row in range(height - reach, reach, -1):
            for column in range(width - reach, reach, -1):
                down, right = draws[turn][row - reach - 1][column - reach - 1]
                there = row + down, column + right
                kept = grid[row][column]
                grid[row][column] = grid[there[0]][there[1]]
                grid[there[0]][there[1]] = kept
    torch.testing.assert_close(got, torch.tensor(grid))


@pytest.mark.parametrize(("angle", "down", "right"), [(0.0, 0, -1), (90.0, -1, 0), (45.0, -1, -1)])
def test_motion_is_half_a_gaussian_along_its_line(angle: float, down: int, right: int) -> None:
    x = torch.zeros(1, 1, 41, 41)
    x[:, :, 20, 20] = 1
    out = corrupt_blur.along(x, torch.tensor([angle]), radius=4, sigma=2.5)[0, 0].numpy()
    weights = np.exp(-0.5 * (np.arange(9) / 2.5) ** 2)
    expected = np.zeros((41, 41))
    steps = np.round(np.arange(9) * (math.sqrt(0.5) if down and right else 1)).astype(int)
    np.add.at(expected, (20 + down * steps, 20 + right * steps), weights / weights.sum())
    np.testing.assert_allclose(out, expected, atol=1e-6)


def test_motion_blur_turns_up_to_45_degrees_and_keeps_the_light() -> None:
    n = 200
    x = torch.zeros(n, 1, 41, 41)
    x[:, :, 20, 20] = 1
    out = corrupt_blur.motion_blur(x, stream(n), radius=9, sigma=6)
    torch.testing.assert_close(out.sum((1, 2, 3)), torch.ones(n))
    places = torch.arange(41.0) - 20
    down = (out[:, 0].sum(2) * places).sum(1)
    right = (out[:, 0].sum(1) * places).sum(1)
    angles = torch.atan2(-down, -right).rad2deg()
    assert 43 < float(angles.max()) < 46
    assert -46 < float(angles.min()) < -43
    assert stats.kstest(angles.numpy(), stats.uniform(-45, 90).cdf).pvalue > SURE


@pytest.mark.parametrize("factor", [1.0, 1.13, 1.26])
def test_enlarging_is_that_of_scipy(factor: float) -> None:
    x = images(2, (3, 30, 41))
    got = corrupt_blur.enlarged(x, factor)
    middle = (np.array([30, 41]) - 1) / 2
    for plane, own in zip(x.flatten(0, 1), got.flatten(0, 1), strict=True):
        expected = ndimage.affine_transform(
            plane.double().numpy(), [1 / factor] * 2, offset=middle * (1 - 1 / factor), order=1
        )
        np.testing.assert_allclose(own.numpy(), expected, atol=1e-5)


def test_zoom_blur_is_the_mean_of_the_image_and_all_its_enlargements() -> None:
    x = images(1, (1, 32, 32))
    copies = [x, *(corrupt_blur.enlarged(x, factor) for factor in np.arange(1, 1.055, 0.01))]
    expected = torch.stack(copies[:-1]).mean(dim=0)
    got = corrupt_blur.zoom_blur(x, stream(1), count=5, step=0.01)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


# ---------------------------------------------------------------- weather


def test_brightness_raises_the_value_of_hsv_and_nothing_else() -> None:
    x = torch.rand(1, 3, 28, 28)
    x[:, :, 0, :4] = 0.0
    for severity, shift in zip(SEVERITIES, (0.05, 0.1, 0.15, 0.2, 0.3), strict=True):
        out = corrupted(x, "brightness", severity)
        pairs = zip(x[0].flatten(1).T.tolist(), out[0].flatten(1).T.tolist(), strict=True)
        for before, after in pairs:
            hue, saturation, value = colorsys.rgb_to_hsv(*before)
            expected = colorsys.hsv_to_rgb(hue, saturation, min(1.0, value + shift))
            assert after == pytest.approx(expected, abs=1e-5)
    grey = torch.rand(1, 1, 28, 28)
    torch.testing.assert_close(corrupted(grey, "brightness", 5), (grey + 0.3).clamp_max(1))


def test_plasma_is_a_height_map_from_0_to_1_that_closes_at_its_edges() -> None:
    heights = corrupt_weather.plasma(torch.zeros(20, 1, 64, 64), stream(20), 2.0)
    assert bool((heights.amin((1, 2, 3)) == 0).all())
    torch.testing.assert_close(heights.amax((1, 2, 3)), torch.ones(20))
    steps = heights.diff(dim=3).abs().mean()
    across = (heights[..., 0] - heights[..., -1]).abs().mean()
    assert float(across) < 2 * float(steps)
    apart = (heights - heights.roll(32, 3)).abs().mean()
    assert float(apart) > 3 * float(steps)


@pytest.mark.parametrize("decay", [1.5, 2.0, 3.0])
def test_the_roughness_of_plasma_falls_by_the_square_of_its_decay(decay: float) -> None:
    """New points leave the mean of their corners by uniform noise of a range that is known."""
    heights = corrupt_weather.plasma(torch.zeros(40, 1, 64, 64), stream(40), decay)[:, 0].double()

    def off(step: int) -> Tensor:
        corners = heights[:, ::step, ::step]
        mean = (corners + corners.roll(-1, 1) + corners.roll(-1, 2)) / 4
        mean = mean + corners.roll((-1, -1), (1, 2)) / 4
        return (heights[:, step // 2 :: step, step // 2 :: step] - mean).flatten(1)

    ratio = off(4).std(dim=1) / off(2).std(dim=1)
    assert float(ratio.mean()) == pytest.approx(decay**2, rel=0.05)
    even = off(2) / off(2).abs().amax(dim=1, keepdim=True)
    assert stats.kstest(even.flatten().numpy(), stats.uniform(-1, 2).cdf).statistic < 0.02


def test_points_of_plasma_on_edges_leave_the_mean_of_their_four_neighbours_alike() -> None:
    heights = corrupt_weather.plasma(torch.zeros(40, 1, 64, 64), stream(40), 2.0)[:, 0].double()
    around = sum(heights.roll(step, axis) for step in (-1, 1) for axis in (1, 2)) / 4
    off = (heights - around)[:, 0::2, 1::2], (heights - around)[:, 1::2, 0::2]
    corners = (heights + heights.roll(-2, 1)) / 4
    centres = (heights - corners.roll((1, 1), (1, 2)) - corners.roll((1, -1), (1, 2)))[
        :, 1::2, 1::2
    ]
    reach = centres.abs().amax((1, 2))
    for edges in off:
        torch.testing.assert_close(edges.abs().amax((1, 2)), reach, rtol=0.02, atol=0)
        even = edges / reach[:, None, None]
        assert stats.kstest(even.flatten().numpy(), stats.uniform(-1, 2).cdf).statistic < 0.02


def test_fog_adds_plasma_and_keeps_the_brightest_value() -> None:
    x = images(4, (3, 32, 32)) * 0.8
    for thickness, decay in ((0.2, 3.0), (1.5, 1.75)):
        out = corrupt_weather.fog(x, stream(4), thickness=thickness, decay=decay)
        cloud = corrupt_weather.plasma(x, stream(4), decay)
        torch.testing.assert_close(out, (x + thickness * cloud) * 0.8 / (0.8 + thickness))
        assert float(out.max()) <= 0.8 + 1e-6


def test_frost_is_the_dimmed_image_and_the_same_ice_on_every_channel() -> None:
    x, black = images(3, (3, 40, 30)), torch.zeros(3, 3, 40, 30)
    out = corrupt_weather.frost(x, stream(3), kept=0.75, ice=0.45)
    ice = corrupt_weather.frost(black, stream(3), kept=0.75, ice=0.45) / 0.45
    torch.testing.assert_close(out, 0.75 * x + 0.45 * ice)
    assert torch.equal(ice[:, 0], ice[:, 1])
    assert float(ice.min()) >= 0
    assert float(ice.max()) <= 1
    assert 0.3 < float(ice.mean()) < 0.7
    assert bool((ice.flatten(1).std(dim=1) > 0.08).all())


def test_snow_bleaches_and_falls_the_same_seen_upside_down() -> None:
    x = torch.zeros(6, 3, 32, 32)
    out = corrupted(x, "snow", 4)
    torch.testing.assert_close(out, out.rot90(2, (2, 3)))
    torch.testing.assert_close(float(out.min()), 0.15 * 0.5)  # (1 - 0.85) of half grey
    assert float((out > 0.2).float().mean()) > 0.05
    assert torch.equal(out[:, 0], out[:, 2])
    white = corrupted(torch.ones(1, 3, 32, 32), "snow", 1)
    assert bool((white == 1).all())
    colour = torch.tensor([0.6, 0.2, 0.1]).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    clear = corrupted(colour.contiguous(), "snow", 1).amin((2, 3))
    grey = 1.5 * (0.299 * 0.6 + 0.587 * 0.2 + 0.114 * 0.1) + 0.5
    expected = 0.95 * colour[:, :, 0, 0] + 0.05 * colour[:, :, 0, 0].clamp_min(grey)
    torch.testing.assert_close(clear, expected)


# ---------------------------------------------------------------- digital


@pytest.mark.parametrize(("severity", "factor"), [(1, 0.75), (3, 0.4), (5, 0.15)])
def test_contrast_shrinks_every_channel_towards_its_mean(severity: int, factor: float) -> None:
    x = images(2, (3, 32, 36))
    mean = x.double().numpy().mean((2, 3), keepdims=True)
    expected = (x.double().numpy() - mean) * factor + mean
    np.testing.assert_allclose(corrupted(x, "contrast", severity), expected, atol=1e-6)


@pytest.mark.parametrize(("severity", "block"), [(2, 2), (5, 4)])
def test_pixelate_is_the_mean_of_blocks_where_they_fit(severity: int, block: int) -> None:
    x = images(2, (3, 224, 232))
    blocks = x.view(2, 3, 224 // block, block, 232 // block, block)
    expected = blocks.mean((3, 5), keepdim=True).expand_as(blocks).reshape(x.shape)
    torch.testing.assert_close(corrupted(x, "pixelate", severity), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("severity", "small"), [(1, (26, 38)), (4, (21, 30)), (5, (18, 26))])
def test_pixelate_leaves_so_many_values(severity: int, small: tuple[int, int]) -> None:
    out = corrupted(torch.rand(1, 1, 28, 40), "pixelate", severity)[0, 0]
    rows = [bool((out[i] == out[i - 1]).all()) for i in range(1, 28)]
    columns = [bool((out[:, j] == out[:, j - 1]).all()) for j in range(1, 40)]
    assert (28 - sum(rows), 40 - sum(columns)) == small


@pytest.mark.parametrize(("severity", "quality"), [(1, 80), (5, 40)])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_what_pillow_stores_and_reads(channels: int, severity: int, quality: int) -> None:
    x = images(2, (channels, 28, 36))
    got = corrupted(x, "jpeg", severity)
    for image, own in zip(x, got, strict=True):
        levels = np.round(image.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(levels.squeeze()).save(stream, format="JPEG", quality=quality)
        read = np.asarray(Image.open(stream)).reshape(28, 36, channels)
        assert np.array_equal((own.permute(1, 2, 0) * 255).round().numpy().astype(np.uint8), read)
        assert float((own * 255 - (own * 255).round()).abs().max()) < 1e-4


def test_elastic_without_displacement_is_affine() -> None:
    """A ramp stays a ramp, and no two samples are bent alike."""
    ramp = torch.linspace(0.2, 0.8, 32).view(1, 1, 1, 32).expand(5, 1, 32, 32).contiguous()
    out = corrupted(ramp, "elastic-transform", 1)
    inner = out[:, 0, 9:23, 9:23]
    assert float(inner.diff(n=2, dim=1).abs().max()) < 1e-5
    assert float(inner.diff(n=2, dim=2).abs().max()) < 1e-5
    slopes = inner.diff(dim=1).mean((1, 2))
    assert len({round(slope, 6) for slope in slopes.tolist()}) == 5
    bent = corrupted(ramp, "elastic-transform", 5)[:, 0, 9:23, 9:23]
    assert float(bent.diff(n=2, dim=2).abs().max()) > 1e-3


def test_elastic_moves_three_corners_by_no_more_than_it_may() -> None:
    n, side, reach = 300, 33, 4.0
    down, right = corrupt_digital._bent(torch.zeros(n, 1, side, side), stream(n), reach)
    half, middle = side // 3, side // 2
    offsets = []
    for row, column in ((half, half), (half, -half), (-half, -half)):
        # the pixel that shows corner c stands where c was moved to: solve the affine map for it
        a = torch.stack(
            (
                down[:, middle + 1, middle] - down[:, middle, middle],
                down[:, middle, middle + 1] - down[:, middle, middle],
                right[:, middle + 1, middle] - right[:, middle, middle],
                right[:, middle, middle + 1] - right[:, middle, middle],
            ),
            dim=1,
        ).view(n, 2, 2)
        base = torch.stack((down[:, middle, middle], right[:, middle, middle]), dim=1)
        corner = torch.tensor([row, column], dtype=torch.float64)
        offsets.append(torch.linalg.solve(a, (corner - base).unsqueeze(2)).squeeze(2) - corner)
    moved = torch.stack(offsets).flatten()
    assert float(moved.abs().max()) <= reach + 1e-6
    assert stats.kstest(moved.numpy(), stats.uniform(-reach, 2 * reach).cdf).pvalue > SURE


def test_elastic_displacement_has_the_variance_of_filtered_noise() -> None:
    n, side, sigma, amplitude = 40, 48, 2.0, 3.0
    column = torch.arange(float(side)).view(1, 1, 1, side).expand(n, 1, side, side) / side
    out = corrupt_digital.elastic_transform(
        column.contiguous(), stream(n), amplitude=amplitude, sigma=sigma, affine=0.0
    )
    shift = ((out - column) * side)[:, 0, 12:-12, 12:-12].double()
    kernel = np.exp(-0.5 * (np.arange(-6, 7) / sigma) ** 2)
    kernel /= kernel.sum()
    expected = amplitude * math.sqrt(1 / 3) * (kernel**2).sum()
    assert float(shift.std()) == pytest.approx(expected, rel=0.05)
