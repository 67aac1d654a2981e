"""Contrast of every colour of the report in both themes, by WCAG 2.2 (1.4.3 and 1.4.11)."""

from __future__ import annotations

import re

import pytest

from robustbench_lite.report.html import TEMPLATES
from robustbench_lite.report.svg import HUES

CSS = (TEMPLATES / "report.css").read_text(encoding="utf-8")
Colour = tuple[float, float, float]
TONES = ("pass", "fail", "unsure", "void", "accent", "muted")
TEXT, GRAPHIC = 4.5, 3.0


def themes() -> dict[str, dict[str, Colour]]:
    """Variables of the light theme, and of the dark one that replaces some of them."""
    blocks = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
    light, dark = (
        {name: rgb(value) for name, value in re.findall(r"--([\w]+): (#[0-9a-f]{6});", block)}
        for block in blocks[:2]
    )
    assert light.keys() == dark.keys()
    return {"light": light, "dark": dark}


def rgb(text: str) -> Colour:
    red, green, blue = (int(text[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return red, green, blue


def mixed(over: Colour, under: Colour, share: float) -> Colour:
    red, green, blue = (share * a + (1 - share) * b for a, b in zip(over, under, strict=True))
    return red, green, blue


def luminance(colour: Colour) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(a: Colour, b: Colour) -> float:
    darker, lighter = sorted((luminance(a), luminance(b)))
    return (lighter + 0.05) / (darker + 0.05)


def test_the_formula_is_that_of_the_standard() -> None:
    assert contrast(rgb("#ffffff"), rgb("#000000")) == pytest.approx(21)
    assert contrast(rgb("#777777"), rgb("#ffffff")) == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_can_be_read_on_every_ground(theme: str) -> None:
    v = themes()[theme]
    for ground in ("bg", "card", "soft"):
        for words in ("ink", "muted", "accent"):
            assert contrast(v[words], v[ground]) >= TEXT, (words, ground)
    (badge,) = set(re.findall(r"color-mix\(in srgb, var\(--tone\) (\d+)%", CSS))
    for tone in TONES:
        assert contrast(v[tone], mixed(v[tone], v["card"], int(badge) / 100)) >= TEXT, tone
    assert contrast(v["bg"], v["ink"]) >= TEXT, "values under the pointer"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_numbers_can_be_read_on_every_shade(theme: str) -> None:
    v = themes()[theme]
    shades = re.findall(r"\.s(\d) \{ background: color-mix\(in srgb, var\(--heat\) (\d+)%", CSS)
    assert [int(name) for name, _ in shades] == list(range(1, 9))
    seen = [luminance(mixed(v["heat"], v["card"], int(share) / 100)) for _, share in shades]
    assert seen == sorted(seen, reverse=theme == "light"), "a stronger colour is more broken"
    for _, share in shades:
        assert contrast(v["ink"], mixed(v["heat"], v["card"], int(share) / 100)) >= TEXT


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_curves_and_marks_stand_out(theme: str) -> None:
    v = themes()[theme]
    for hue in (*(f"h{at}" for at in range(HUES)), "control", "accent", "ink", "heat"):
        assert contrast(v[hue], v["card"]) >= GRAPHIC, hue
    assert contrast(v["heat"], v["soft"]) >= GRAPHIC
