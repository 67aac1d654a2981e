"""The published constants of the 15 common corruptions, and what they are for other sizes.

Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions and
perturbations", ICLR 2019. The paper gives no numbers: those of ImageNet-C (224 x 224) are in
`make_imagenet_c.py` and those of CIFAR-10-C (32 x 32) in `make_cifar_c.py` of the authors'
repository github.com/hendrycks/robustness, folder ImageNet-C/create_c.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

Kind = Literal[
    "gaussian-noise",
    "shot-noise",
    "impulse-noise",
    "defocus-blur",
    "glass-blur",
    "motion-blur",
    "zoom-blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic-transform",
    "pixelate",
    "jpeg",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
SEVERITIES = (1, 2, 3, 4, 5)
SMALL, LARGE = 32, 224  # sides of the images that the two published sets are for
NEARER_LARGE = math.sqrt(SMALL * LARGE)

Five = tuple[
    tuple[float, ...], tuple[float, ...], tuple[float, ...], tuple[float, ...], tuple[float, ...]
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """`names` of one corruption's constants, and their values at severities 1 to 5.

    `small`: for 32 x 32. `large`: for 224 x 224. `lengths`: those that are pixels.
    """

    names: tuple[str, ...]
    small: Five
    large: Five
    lengths: frozenset[str] = frozenset()

    def at(self, severity: int, side: int) -> dict[str, float]:
        """The constants for images of that `side`, lengths scaled with it."""
        published = SMALL if side < NEARER_LARGE else LARGE
        values = (self.small if published == SMALL else self.large)[severity - 1]
        return {
            name: value * side / published if name in self.lengths else value
            for name, value in zip(self.names, values, strict=True)
        }


def _of_side(side: int, *shares: tuple[float, float, float]) -> Five:
    one, two, three, four, five = (tuple(side * share for share in each) for each in shares)
    return one, two, three, four, five


PUBLISHED: Mapping[Kind, Published] = MappingProxyType(
    {
        "gaussian-noise": Published(
            names=("deviation",),
            small=((0.04,), (0.06,), (0.08,), (0.09,), (0.10,)),
            large=((0.08,), (0.12,), (0.18,), (0.26,), (0.38,)),
        ),
        "shot-noise": Published(
            names=("photons",),
            small=((500,), (250,), (100,), (75,), (50,)),
            large=((60,), (25,), (12,), (5,), (3,)),
        ),
        "impulse-noise": Published(
            names=("share",),
            small=((0.01,), (0.02,), (0.03,), (0.05,), (0.07,)),
            large=((0.03,), (0.06,), (0.09,), (0.17,), (0.27,)),
        ),
        "defocus-blur": Published(
            names=("radius", "sigma"),
            small=((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
            large=((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
            lengths=frozenset({"radius", "sigma"}),
        ),
        "glass-blur": Published(
            names=("sigma", "reach", "rounds"),
            small=((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
            large=((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
            lengths=frozenset({"sigma", "reach"}),
        ),
        "motion-blur": Published(
            names=("radius", "sigma"),
            small=((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
            large=((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
            lengths=frozenset({"radius", "sigma"}),
        ),
        "zoom-blur": Published(
            names=("count", "step"),
            small=((7, 0.01), (12, 0.01), (16, 0.01), (21, 0.01), (26, 0.01)),
            large=((12, 0.01), (16, 0.01), (11, 0.02), (13, 0.02), (11, 0.03)),
        ),
        "snow": Published(
            names=("mean", "deviation", "flake", "threshold", "radius", "sigma", "kept"),
            small=(
                (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
                (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
                (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
                (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
                (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
            ),
            large=(
                (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
                (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
                (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
                (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
                (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
            ),
            lengths=frozenset({"flake", "radius", "sigma"}),
        ),
        "frost": Published(
            names=("kept", "ice"),
            small=((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
            large=((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
        ),
        "fog": Published(
            names=("thickness", "decay"),
            small=((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
            large=((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
        ),
        "brightness": Published(
            names=("shift",),
            small=((0.05,), (0.1,), (0.15,), (0.2,), (0.3,)),
            large=((0.1,), (0.2,), (0.3,), (0.4,), (0.5,)),
        ),
        "contrast": Published(
            names=("factor",),
            small=((0.75,), (0.5,), (0.4,), (0.3,), (0.15,)),
            large=((0.4,), (0.3,), (0.2,), (0.1,), (0.05,)),
        ),
        "elastic-transform": Published(
            names=("amplitude", "sigma", "affine"),
            small=_of_side(
                32,
                (0, 0, 0.08),
                (0.05, 0.2, 0.07),
                (0.08, 0.06, 0.06),
                (0.1, 0.04, 0.05),
                (0.1, 0.03, 0.03),
            ),
            large=_of_side(  # 244, not 224, in the authors' code
                244,
                (2, 0.7, 0.1),
                (2, 0.08, 0.2),
                (0.05, 0.01, 0.02),
                (0.07, 0.01, 0.02),
                (0.12, 0.01, 0.02),
            ),
            lengths=frozenset({"amplitude", "sigma", "affine"}),
        ),
        "pixelate": Published(
            names=("share",),
            small=((0.95,), (0.9,), (0.85,), (0.75,), (0.65,)),
            large=((0.6,), (0.5,), (0.4,), (0.3,), (0.25,)),
        ),
        "jpeg": Published(
            names=("quality",),
            small=((80,), (65,), (58,), (50,), (40,)),
            large=((25,), (18,), (15,), (10,), (7,)),
        ),
    }
)
