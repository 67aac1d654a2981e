"""Whose fault it is when the code of a plug-in raises outside of a cell."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import FOREIGN, PluginError, RobevalError
from .hookspecs import Spec
from .plugins import OWN_DISTRIBUTION, Registered


@contextmanager
def blaming(registered: Registered[Spec], what: str) -> Iterator[None]:
    """Turn what the code of another distribution raises into a PluginError that names its place.

    `what`: the spec in words. Our own code keeps its exceptions: they are bugs of ours.
    """
    try:
        yield
    except RobevalError:
        raise
    except FOREIGN as problem:
        if registered.plugin.distribution == OWN_DISTRIBUTION:
            raise
        last = traceback.extract_tb(problem.__traceback__)[-1]
        raise PluginError(
            f"{what} of {registered.plugin} raised {type(problem).__name__}: {problem}"
            f" ({last.filename}:{last.lineno}); every cell is kept: report it to its author, or"
            " take it out of the suite"
        ) from problem
