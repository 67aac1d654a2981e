"""FGSM, PGD and Square beside the Adversarial Robustness Toolbox, on the quickstart networks.

Sound in it: FGSM and PGD with one random start, Square (three predictions a step, and all samples
in each). Not compared: AutoPGD, which judges the last point alone and forgets broken ones;
AutoAttack, a set of its own with DeepFool in place of FAB; PixelAttack, which throws broken
candidates away; CarliniL2Method, ten steps by default and one sample at a time.
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import rivals
from benchmarks.quickstart import subject
from robustbench_lite.builtin.attacks import fgsm, pgd, square

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(rivals.missing("art")), reason=rivals.missing("art")),
]


@pytest.mark.parametrize("name", ["robust", "undefended"])
def test_fgsm_breaks_the_same_digits(name: str) -> None:
    one = subject(name, 200)
    ours = one.attacked(fgsm.SPEC, "linf", 0.1)
    theirs = rivals.art(
        "FastGradientMethod", one.net, one.x, one.y, norm=np.inf, eps=0.1, batch_size=200
    )
    differs = one.broken(ours, "linf", 0.1) != one.broken(theirs, "linf", 0.1)
    assert differs.sum() <= 1, np.flatnonzero(differs)


@pytest.mark.parametrize(("name", "starts"), [("robust", 6), ("undefended", 1)])
def test_pgd_breaks_as_many(name: str, starts: int) -> None:
    """On average over random starts: single ones break 9 to 14 of the robust network's digits."""
    one = subject(name, 200)
    ours, theirs = 0, 0
    for seed in range(starts):
        own = one.attacked(pgd.SPEC, "linf", 0.3, seed=seed, steps=40, step_size=0.01)
        peer = rivals.art(
            "ProjectedGradientDescent",
            one.net,
            one.x,
            one.y,
            seed=seed,
            norm=np.inf,
            eps=0.3,
            eps_step=0.01,
            max_iter=40,
            num_random_init=1,
            batch_size=200,
            verbose=False,
        )
        ours += int(one.broken(own, "linf", 0.3).sum())
        theirs += int(one.broken(peer, "linf", 0.3).sum())
    assert theirs > 0
    assert ours >= theirs - starts, (ours, theirs)


def test_square_breaks_as_many() -> None:
    one = subject("robust", 60)
    ours = one.broken(one.attacked(square.SPEC, "linf", 0.3, queries=500), "linf", 0.3)
    peer = rivals.art(
        "SquareAttack",
        one.net,
        one.x,
        one.y,
        norm=np.inf,
        eps=0.3,
        max_iter=500,
        batch_size=60,
        verbose=False,
    )
    theirs = one.broken(peer, "linf", 0.3)
    assert theirs.any()
    assert ours.sum() >= theirs.sum() - 1, np.flatnonzero(theirs & ~ours)
