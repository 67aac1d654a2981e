"""Analyses of the suite that failed: every number of a cell stands, a table is missing."""

from __future__ import annotations

from collections.abc import Sequence

from ..types import FailedAnalysis, Finding


def of_analyses(failed: Sequence[FailedAnalysis]) -> list[Finding]:
    """One finding per analysis; it touches no cell."""
    return [
        Finding(
            id="analysis-failed",
            severity="error",
            message=f"analysis '{each.name}' failed: {each.reason}",
            advice=(
                "put right what it names (-v shows the traceback), then run the same command with"
                " --resume: finished cells are kept"
            ),
            cells=(),
        )
        for each in failed
    ]
