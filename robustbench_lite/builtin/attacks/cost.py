"""What a control costs."""

from __future__ import annotations

from robustbench_lite import Cost, Params


def no_passes(params: Params, shape: tuple[int, ...] | None, classes: int | None) -> Cost:  # noqa: ARG001
    """Nothing: a control never looks at the model."""
    return Cost(queries=0, gradients=0)
