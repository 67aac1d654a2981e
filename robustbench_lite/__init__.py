"""robeval: the referee of model robustness. These names are the public API for plug-ins.

Names are imported on first use, so that `import robustbench_lite` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ._version import __version__

if TYPE_CHECKING:
    from . import losses as losses
    from . import norms as norms
    from .catalogue import FINDINGS as FINDINGS
    from .errors import AccessDenied as AccessDenied
    from .errors import DataError as DataError
    from .errors import EnvironmentProblem as EnvironmentProblem
    from .errors import ModelError as ModelError
    from .errors import PluginError as PluginError
    from .errors import RobevalError as RobevalError
    from .errors import SuiteError as SuiteError
    from .frames import Frames as Frames
    from .frames import load_run as load_run
    from .hookspecs import AnalysisSpec as AnalysisSpec
    from .hookspecs import AttackSpec as AttackSpec
    from .hookspecs import Column as Column
    from .hookspecs import DatasetSpec as DatasetSpec
    from .hookspecs import ExecutorSpec as ExecutorSpec
    from .hookspecs import Member as Member
    from .hookspecs import ModelSpec as ModelSpec
    from .hookspecs import ReporterSpec as ReporterSpec
    from .hookspecs import hookimpl as hookimpl
    from .params import DatasetRef as DatasetRef
    from .params import ModelRef as ModelRef
    from .params import NoParams as NoParams
    from .params import Params as Params
    from .params import SuitePath as SuitePath
    from .rng import SampleRng as SampleRng
    from .store import StoredRun as StoredRun
    from .types import Access as Access
    from .types import Bench as Bench
    from .types import Box as Box
    from .types import Budget as Budget
    from .types import Cell as Cell
    from .types import Classifier as Classifier
    from .types import Cost as Cost
    from .types import DataSource as DataSource
    from .types import Eps as Eps
    from .types import Evaluated as Evaluated
    from .types import Finding as Finding
    from .types import GateResult as GateResult
    from .types import Json as Json
    from .types import LoadedModel as LoadedModel
    from .types import Loss as Loss
    from .types import Norm as Norm
    from .types import Output as Output
    from .types import Parity as Parity
    from .types import Places as Places
    from .types import Plan as Plan
    from .types import Row as Row
    from .types import Summary as Summary
    from .types import Verdict as Verdict
    from .types import Where as Where
    from .where import place_of as place_of
    from .where import where_is as where_is

_HOMES = {
    "catalogue": ("FINDINGS",),
    "errors": (
        "AccessDenied",
        "DataError",
        "EnvironmentProblem",
        "ModelError",
        "PluginError",
        "RobevalError",
        "SuiteError",
    ),
    "frames": ("Frames", "load_run"),
    "hookspecs": (
        "AnalysisSpec",
        "AttackSpec",
        "Column",
        "DatasetSpec",
        "ExecutorSpec",
        "Member",
        "ModelSpec",
        "ReporterSpec",
        "hookimpl",
    ),
    "params": ("DatasetRef", "ModelRef", "NoParams", "Params", "SuitePath"),
    "rng": ("SampleRng",),
    "store": ("StoredRun",),
    "types": (
        "Access",
        "Bench",
        "Box",
        "Budget",
        "Cell",
        "Classifier",
        "Cost",
        "DataSource",
        "Eps",
        "Evaluated",
        "Finding",
        "GateResult",
        "Json",
        "LoadedModel",
        "Loss",
        "Norm",
        "Output",
        "Parity",
        "Places",
        "Plan",
        "Row",
        "Summary",
        "Verdict",
        "Where",
    ),
    "where": ("place_of", "where_is"),
}
_MODULES = ("losses", "norms")
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME), *_MODULES]  # noqa: PLE0604  (built from the table above)


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
