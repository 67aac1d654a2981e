"""AutoAttack beside pyautoattack, a package of the authors' code, on the robust quickstart network.

Sound in it: all of "standard" for four classes or more. Not compared: "rand", and fewer classes,
where it raises. `python -m benchmarks.peers` makes the same comparison on 1,000 digits.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks import rivals
from benchmarks.peers import compared
from benchmarks.quickstart import EPS, subject
from robustbench_lite import Norm
from robustbench_lite.builtin.attacks import apgd, square

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(rivals.missing("pyautoattack")), reason=rivals.missing("pyautoattack")),
]

NORMS: tuple[Norm, ...] = ("linf", "l2")
DIGITS = 100
ALLOWED = 2 / 1000
"""By how much our robust accuracy may lie above theirs: two digits of a thousand."""


@pytest.mark.parametrize("norm", NORMS)
def test_our_robust_accuracy_is_not_above_theirs(norm: Norm) -> None:
    found = compared(norm, DIGITS)
    ours, theirs = found.robust()
    assert 0.8 < theirs < 0.95
    assert ours <= theirs + ALLOWED, found.disagreements()


@pytest.mark.parametrize("norm", NORMS)
def test_apgd_breaks_as_many(norm: Norm) -> None:
    """One start and one loss: either side may break a digit that the other does not."""
    one, eps = subject("robust", 250), EPS[norm]
    ours = one.broken(one.attacked(apgd.SPEC, norm, eps), norm, eps)
    theirs = one.broken(rivals.pyautoattack_apgd(one.net, one.x, one.y, norm, eps), norm, eps)
    alone = f"ours {np.flatnonzero(ours & ~theirs)}, theirs {np.flatnonzero(theirs & ~ours)}"
    assert ours.sum() >= theirs.sum() - 2, alone


@pytest.mark.parametrize("norm", NORMS)
def test_square_breaks_as_many(norm: Norm) -> None:
    one, eps = subject("robust", 100), EPS[norm]
    ours = one.broken(one.attacked(square.SPEC, norm, eps, queries=1000), norm, eps)
    peer = rivals.pyautoattack_square(one.net, one.x, one.y, norm, eps, queries=1000)
    theirs = one.broken(peer, norm, eps)
    alone = f"ours {np.flatnonzero(ours & ~theirs)}, theirs {np.flatnonzero(theirs & ~ours)}"
    assert ours.sum() >= theirs.sum() - 2, alone


def test_our_global_random_state_is_left_alone_by_the_comparison() -> None:
    one, before = subject("robust", 4), torch.get_rng_state()
    rivals.pyautoattack_apgd(one.net, one.x, one.y, "linf", 0.3)
    assert torch.equal(torch.get_rng_state(), before)
