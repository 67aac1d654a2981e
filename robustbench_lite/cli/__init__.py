"""The command line: commands, options, and how an outcome becomes an exit code.

Nothing heavy is imported before a command runs: `robeval --help` loads no plug-in.
"""

from . import baselines, models, registry, runs, suites
from .app import app, invoke, main

__all__ = ["app", "baselines", "invoke", "main", "models", "registry", "runs", "suites"]
