"""What can go wrong, in the user's words; each class knows the exit code of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class RobevalError(Exception):
    """A problem that the user can act on: what was found, what was expected, what to do."""

    exit_code: ClassVar[int] = 3


class SuiteError(RobevalError):
    """The suite text is not usable. Carries every problem found, one line each (exit 2)."""

    exit_code = 2

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems: tuple[str, ...] = (
            (problems,) if isinstance(problems, str) else tuple(problems)
        )
        super().__init__("\n".join(self.problems))


class UsageError(RobevalError):
    """The command line asks for something that cannot be done as asked (exit 2)."""

    exit_code = 2


class PluginError(RobevalError):
    """A plug-in is broken, conflicting, or breaks its contract (exit 2)."""

    exit_code = 2


class NothingSelected(RobevalError):
    """No sample or no cell is left to run (exit 5)."""

    exit_code = 5


class EnvironmentProblem(RobevalError):
    """Device, provider, disk or directory is not there or not usable (exit 7)."""

    exit_code = 7


class ModelError(EnvironmentProblem):
    """A model file is missing, unreadable, untrusted or not as declared (exit 7)."""


class DataError(EnvironmentProblem):
    """A dataset is missing, unreadable or not as declared (exit 7)."""


class AccessDenied(RobevalError):
    """An attack asked for more than its declared access allows (the cell fails, exit 4)."""

    exit_code = 4


FOREIGN = (Exception, SystemExit)
"""What code that is not ours may raise: the `sys.exit()` of a script is its failure, no verdict."""
