"""FGSM, PGD, APGD and Square beside torchattacks', on the quickstart networks.

Sound in it: FGSM and PGD (the last point), APGD with its `steps` set to 100 (the default of 10 is
not the paper's), Square with the schedule stretched to its queries. Not compared: its AutoAttack
(10 steps where the authors take 100), DeepFool (a loop over images that returns misclassified ones
as they came), CW (no search for the constant; pixels at 0 and 1 cannot move).
"""

from __future__ import annotations

import numpy as np
import pytest
from torch import Tensor

from benchmarks import rivals
from benchmarks.quickstart import EPS, Subject, subject
from robustbench_lite import Norm
from robustbench_lite.builtin.attacks import apgd, fgsm, pgd, square

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(rivals.missing("torchattacks")), reason=rivals.missing("torchattacks")),
]

STARTS = 12
LIBRARY_NORM = {"linf": "Linf", "l2": "L2"}


def assert_as_many(one: Subject, ours: Tensor, theirs: Tensor, norm: Norm) -> None:
    """At most two digits fewer than theirs: the two start and draw differently."""
    eps = EPS[norm]
    own, peer = one.broken(ours, norm, eps), one.broken(theirs, norm, eps)
    assert peer.any()
    alone = f"ours {np.flatnonzero(own & ~peer)}, theirs {np.flatnonzero(peer & ~own)}"
    assert own.sum() >= peer.sum() - 2, alone


@pytest.mark.parametrize("name", ["robust", "undefended"])
def test_fgsm_breaks_the_same_digits(name: str) -> None:
    one = subject(name, 200)
    ours = one.attacked(fgsm.SPEC, "linf", 0.1)
    theirs = rivals.torchattacks("FGSM", one.net, one.x, one.y, eps=0.1)
    differing = (ours - theirs).abs() > 1e-6  # they divide the loss by the batch: smaller gradients
    assert float(differing.float().mean()) < 0.02
    differs = one.broken(ours, "linf", 0.1) != one.broken(theirs, "linf", 0.1)
    assert differs.sum() <= 1, np.flatnonzero(differs)


def test_pgd_breaks_as_many() -> None:
    one = subject("undefended", 200)
    ours = one.attacked(pgd.SPEC, "linf", 0.3, steps=40, step_size=0.01)
    theirs = rivals.torchattacks("PGD", one.net, one.x, one.y, eps=0.3, alpha=0.01, steps=40)
    assert_as_many(one, ours, theirs, "linf")


def test_pgd_from_random_starts_breaks_as_many_on_average() -> None:
    """One start breaks 9 to 14 of these digits, whoever draws it: the mean over starts counts."""
    one = subject("robust", 200)
    ours, theirs = [], []
    for seed in range(STARTS):
        own = one.attacked(pgd.SPEC, "linf", 0.3, seed=seed, steps=40, step_size=0.01)
        peer = rivals.torchattacks(
            "PGD", one.net, one.x, one.y, seed=seed, eps=0.3, alpha=0.01, steps=40
        )
        ours.append(int(one.broken(own, "linf", 0.3).sum()))
        theirs.append(int(one.broken(peer, "linf", 0.3).sum()))
    spread = np.hypot(np.std(ours, ddof=1), np.std(theirs, ddof=1)) / np.sqrt(STARTS)
    assert np.mean(ours) >= np.mean(theirs) - 2 * spread, (ours, theirs)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(("loss", "short"), [("cross-entropy", "ce"), ("dlr", "dlr")])
def test_apgd_breaks_as_many(norm: Norm, loss: str, short: str) -> None:
    one, eps = subject("robust", 200), EPS[norm]
    ours = one.attacked(apgd.SPEC, norm, eps, loss=loss, steps=100)
    theirs = rivals.torchattacks(
        "APGD", one.net, one.x, one.y, norm=LIBRARY_NORM[norm], eps=eps, steps=100, loss=short
    )
    assert_as_many(one, ours, theirs, norm)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_square_breaks_as_many(norm: Norm) -> None:
    one, eps = subject("robust", 100), EPS[norm]
    ours = one.attacked(square.SPEC, norm, eps, queries=1000)
    theirs = rivals.torchattacks(
        "Square", one.net, one.x, one.y, norm=LIBRARY_NORM[norm], eps=eps, n_queries=1000
    )
    assert_as_many(one, ours, theirs, norm)
