"""Where log lines of a command go: stderr, and a file if asked."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

PROGRESS = "robustbench_lite.progress"
"""The logger on which plug-ins tell of long work, such as the epochs of a training."""
_HANDLERS = ("robeval console", "robeval file")


def stop() -> None:
    """Take away what `start` added."""
    logger = logging.getLogger("robustbench_lite")
    for handler in list(logger.handlers):
        if handler.name in _HANDLERS:
            logger.removeHandler(handler)
            handler.close()


def start(verbose: int, log_file: Path | None, *, quiet: bool = False) -> None:
    """Send log lines to stderr from WARNING on, with `verbose` more, and into a file.

    Those of `PROGRESS` are shown without `verbose`, unless `quiet`.
    """
    level = {0: logging.WARNING, 1: logging.INFO}.get(verbose, logging.DEBUG)
    logger = logging.getLogger("robustbench_lite")
    logger.setLevel(min(level, logging.INFO))
    console = logging.StreamHandler(sys.stderr)
    console.addFilter(
        lambda record: record.levelno >= level or (record.name == PROGRESS and not quiet)
    )
    console.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    console.name = _HANDLERS[0]
    logger.addHandler(console)
    if log_file is not None:
        from ..store import naming_disk_problems

        with naming_disk_problems(log_file):
            log_file.parent.mkdir(parents=True, exist_ok=True)
            handler = logging.FileHandler(log_file, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        handler.name = _HANDLERS[1]
        logger.addHandler(handler)
