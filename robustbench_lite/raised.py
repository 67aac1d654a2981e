"""What is told of an exception that somebody else's code raised: what, and at which line of it."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

from .errors import RobevalError

_HOME = Path(__file__).parent
_INSTALLED = frozenset({"site-packages", "dist-packages"})
_LIBRARIES = frozenset({"torch", "numpy", "onnxruntime", "pandas", "pydantic", "pluggy", "scipy"})


def cause(problem: BaseException) -> str:
    """Our own exceptions by their words, any other after its class and with its place."""
    if isinstance(problem, RobevalError):
        return str(problem)
    kind = type(problem).__name__
    return (f"{kind}: {problem}" if str(problem) else kind) + place(problem)


def place(problem: BaseException) -> str:
    """` (file.py:12)`: the innermost line that is neither ours nor a library's, "" without one.

    A file is told by its name, one that is called `__init__.py` by its folder too.
    """
    for frame in reversed(traceback.extract_tb(problem.__traceback__)):
        path = Path(frame.filename)
        written = not frame.filename.startswith("<")  # not in the interpreter or a shell
        if written and frame.lineno is not None and not _is_foreign(path):
            name = f"{path.parent.name}/{path.name}" if path.stem == "__init__" else path.name
            return f" ({name}:{frame.lineno})"
    return ""


def _is_foreign(path: Path) -> bool:
    """Whether no plug-in's author can mend the file: ours, a library's, the interpreter's."""
    if path.is_relative_to(_HOME):
        return True
    installed = [at for at, part in enumerate(path.parts) if part in _INSTALLED]
    if installed:
        return path.parts[installed[-1] + 1].removesuffix(".py") in _LIBRARIES
    return path.is_relative_to(sysconfig.get_paths()["stdlib"])
