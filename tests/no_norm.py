"""The contract of attacks whose set is their own: no ball, and all the rest of the rules."""

from __future__ import annotations

import torch
from torch import Tensor

from robustbench_lite import AttackSpec
from tests.oracles import Problem, run


def assert_contract(spec: AttackSpec, problem: Problem, eps: float, **own: object) -> Tensor:
    """Legality, purity, and no say of the batch, to the last bit; returns the answers."""

    def answer(part: Problem, eps: float = eps) -> Tensor:
        return run(spec, part, part.budget("none", eps), seed=0, model=None, **own)

    kept, state = problem.x.clone(), torch.get_rng_state()
    whole = answer(problem)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(problem.x, kept)
    assert whole.data_ptr() != problem.x.data_ptr()
    assert not whole.requires_grad
    assert (whole.shape, whole.dtype, whole.device) == (kept.shape, torch.float32, kept.device)
    assert bool(whole.isfinite().all())
    assert bool(((whole >= problem.box.low) & (whole <= problem.box.high)).all())
    assert torch.equal(answer(problem), whole)
    assert torch.equal(torch.cat([answer(problem.rows([i])) for i in range(len(whole))]), whole)
    turned = list(range(len(whole)))[::-1]
    assert torch.equal(answer(problem.rows(turned)), whole[turned])
    assert answer(problem.rows([])).shape == (0, *whole.shape[1:])
    assert torch.equal(answer(problem, 0.0), problem.x)
    return whole
