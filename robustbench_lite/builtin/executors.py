"""Executors that ship with robeval: one process on this machine."""

from __future__ import annotations

from collections.abc import Iterable

from robustbench_lite import ExecutorSpec, hookimpl

LOCAL = ExecutorSpec(
    name="local",
    implementation="robustbench_lite.execute:cells",
    summary="one process on this machine, cells one after the other",
)


@hookimpl
def robeval_executors() -> Iterable[ExecutorSpec]:
    """The executors of this module."""
    return [LOCAL]
