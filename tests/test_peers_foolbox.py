"""FGSM, PGD and the minimal-norm attacks beside foolbox's, on both quickstart networks.

Sound in foolbox: FGSM and PGD (which return the last point and not the best), DeepFool on a network
that a linear step can break, C&W with enough steps, DDN, HopSkipJump. Not compared: L2 DeepFool on
the robust network, where it leaves half of the digits unbroken.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks import rivals
from benchmarks.quickstart import EPS, Subject, subject
from robustbench_lite import Norm
from robustbench_lite.builtin.attacks import cw, ddn, deepfool, fgsm, hopskipjump, pgd

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(rivals.missing("foolbox")), reason=rivals.missing("foolbox")),
]

ALLOWED = 1.02
"""Our median distance over theirs."""
UNLIMITED = 1e3


def digits(name: str, n: int) -> Subject:
    """The first n digits that the network knows."""
    return subject(name, 2 * n).correct().rows(torch.arange(n))


def medians(one: Subject, ours: torch.Tensor, theirs: torch.Tensor, norm: Norm) -> None:
    """All broken, and the median distance not larger than theirs by more than is allowed."""
    own, peer = one.least(ours, norm), one.least(theirs, norm)
    assert np.isfinite(own).all(), np.flatnonzero(np.isinf(own))
    assert np.median(own) <= ALLOWED * np.median(peer), (np.median(own), np.median(peer))


@pytest.mark.parametrize("name", ["robust", "undefended"])
@pytest.mark.parametrize("eps", [0.1, 0.3])
def test_fgsm_is_the_same_point(name: str, eps: float) -> None:
    one = subject(name, 200)
    ours = one.attacked(fgsm.SPEC, "linf", eps)
    theirs = rivals.foolbox("LinfFastGradientAttack", one.net, one.x, one.y, eps)
    differing = (ours - theirs).abs() > 1e-6  # the sign of a gradient of about 0
    assert float(differing.float().mean()) < 1e-3
    assert np.array_equal(one.broken(ours, "linf", eps), one.broken(theirs, "linf", eps))


@pytest.mark.parametrize("name", ["robust", "undefended"])
@pytest.mark.parametrize(
    ("norm", "attack", "step_size"), [("linf", "LinfPGD", 0.01), ("l2", "L2PGD", 0.05)]
)
def test_pgd_from_the_same_start_breaks_all_that_theirs_does(
    name: str, norm: Norm, attack: str, step_size: float
) -> None:
    """From the digit itself both walk the same way; ours stops at the first broken point."""
    one, eps = subject(name, 200), EPS[norm]
    own = one.attacked(pgd.SPEC, norm, eps, random_start=False, steps=40, step_size=step_size)
    ours = one.broken(own, norm, eps)
    peer = rivals.foolbox(
        attack, one.net, one.x, one.y, eps, random_start=False, steps=40, abs_stepsize=step_size
    )
    theirs = one.broken(peer, norm, eps)
    assert ours.sum() > 0
    missed = theirs & ~ours
    assert missed.sum() <= 1, np.flatnonzero(missed)  # rounding parts the two ways
    assert ours.sum() >= theirs.sum()


@pytest.mark.parametrize(
    ("name", "norm", "attack"),
    [
        ("undefended", "l2", "L2DeepFoolAttack"),
        ("undefended", "linf", "LinfDeepFoolAttack"),
        ("robust", "linf", "LinfDeepFoolAttack"),
    ],
)
def test_deepfool_ends_as_near(name: str, norm: Norm, attack: str) -> None:
    one = digits(name, 60)
    ours = one.attacked(deepfool.SPEC, norm, UNLIMITED)
    medians(one, ours, rivals.foolbox(attack, one.net, one.x, one.y, None), norm)


@pytest.mark.parametrize("name", ["robust", "undefended"])
def test_ddn_ends_as_near(name: str) -> None:
    one = digits(name, 60)
    ours = one.attacked(ddn.SPEC, "l2", UNLIMITED, steps=300)
    medians(one, ours, rivals.foolbox("DDNAttack", one.net, one.x, one.y, None, steps=300), "l2")


@pytest.mark.parametrize("name", ["robust", "undefended"])
def test_cw_ends_as_near(name: str) -> None:
    one = digits(name, 20)
    ours = one.attacked(cw.SPEC, "l2", UNLIMITED, steps=1000, searches=9)
    theirs = rivals.foolbox(
        "L2CarliniWagnerAttack", one.net, one.x, one.y, None, steps=1000, binary_search_steps=9
    )
    medians(one, ours, theirs, "l2")


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_hopskipjump_ends_as_near(norm: Norm) -> None:
    """With the decisions that its iterations take: about 26,000 a digit, ours 10,000."""
    one = digits("undefended", 10)
    ours = one.attacked(hopskipjump.SPEC, norm, UNLIMITED, queries=10_000)
    theirs = rivals.foolbox(
        "HopSkipJumpAttack", one.net, one.x, one.y, None, steps=30, constraint=norm
    )
    medians(one, ours, theirs, norm)
