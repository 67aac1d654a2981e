"""A run against another, or against a baseline: reading either, keeping the ones a gate needs."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import compare as comparing
from . import store
from .assess import assess
from .compare import Side
from .diagnose import Before
from .errors import UsageError
from .store import StoredRun
from .types import Comparison, Gate, Json, Summary

FOLDER = Path("baselines")
KEPT = "baselines"  # folder of a run directory, and key of its manifest
MAIN = "baseline"  # key of the manifest: what the reports compare with


def find(path: Path) -> Path | None:
    """The run directory or baseline file that a path names, with or without `.json`."""
    if (path / store.MANIFEST).is_file() or path.is_file():
        return path
    file = path.with_name(f"{path.name}.json")
    return file if file.is_file() else None


def side(path: Path) -> Side:
    """A run directory or baseline file, ready to be compared. Raises UsageError if it is none."""
    found = find(path)
    if found is None:
        raise UsageError(_absent(path))
    if found.is_file():
        return comparing.read(found)
    stored = store.load_run(found)
    return comparing.of_run(found.name, stored, assess(stored, ()).summary)


def file_of(name: str) -> Path:
    """Where the baseline of a name is kept, from the working directory."""
    if name in ("", "..") or Path(name).name != name:
        raise UsageError(f"'{name}' cannot name a baseline; give a plain name, or a path with -o")
    return FOLDER / f"{name.removesuffix('.json')}.json"


def _same(path: Path, run: Path) -> bool:
    return path.resolve() == run.resolve()


def _itself(path: Path) -> str:
    return (
        f"the baseline '{path}' is this very run, which never drops below itself; name an earlier"
        " run, or a file written by `robeval baseline set`"
    )


def _absent(path: Path) -> str:
    return (
        f"there is no baseline '{path}': no file, no '{path.name}.json' and no run directory;"
        f" make one with `robeval baseline set RUN {path.name}`"
    )


@dataclass(frozen=True, slots=True)
class Compared:
    """Two runs compared; the runs themselves where they are run directories."""

    comparison: Comparison
    base: StoredRun | None
    head: StoredRun | None


def compared(base: Path, head: Path, models: Mapping[str, str] | None = None) -> Compared:
    """Two runs, each a run directory or a baseline file.

    Raises UsageError if nothing of the two can be compared, with what differs.
    """
    old, new = _opened(base), _opened(head)
    found = comparing.compare(_side(base, old), _side(head, new), models)
    refused = comparing.refusal(found)
    if refused:
        raise UsageError(refused)
    return Compared(found, old, new)


def _side(path: Path, run: StoredRun | None) -> Side:
    if run is None or run.summary is None:
        if find(path) is None:
            raise UsageError(
                f"'{path}' is neither a run directory nor a baseline file; expected"
                " reports/<suite>/<time>-<id> or baselines/<name>.json"
            )
        return side(path)
    return comparing.of_run(run.path.name, run, run.summary)


def _opened(path: Path) -> StoredRun | None:
    """A run directory with its summary, None for anything else."""
    if not (path / store.MANIFEST).is_file():
        return None
    stored = store.load_run(path)
    return dataclasses.replace(stored, summary=assess(stored, ()).summary)


def set_baseline(run: Path, file: Path) -> Side:
    """Write the baseline file of a run. Raises UsageError with the reason if it is not fit."""
    stored = store.load_run(run)
    found = comparing.of_run(run.name, stored, assess(stored, ()).summary)
    reason = comparing.unfit(found, stored.manifest.get("status"))
    if reason:
        raise UsageError(f"'{run}' cannot become a baseline: {reason}")
    store.write_text(file, comparing.write_text(found))
    return found


# ---------------------------------------------------------------- baselines of a run's gates


def overridden(gates: Sequence[Gate], baseline: Path | None) -> tuple[Gate, ...]:
    """The gates, each that compares with a baseline with this one if it is given."""
    if baseline is None:
        return tuple(gates)
    return tuple(
        gate if gate.max_drop is None else dataclasses.replace(gate, baseline=baseline)
        for gate in gates
    )


@dataclass(frozen=True, slots=True)
class Chosen:
    """The baselines that a run will be judged against, read before anything runs.

    `main`: what the reports compare with. `texts`: path -> baseline file, of those that are there.
    """

    main: Path | None
    texts: Mapping[Path, str]

    def keep(self, folder: Path) -> dict[str, Json]:
        """Copy them into a run directory; the entries of the manifest that say which is which."""
        names: dict[str, Json] = {}
        for path, text in self.texts.items():
            if _same(path, folder):
                continue
            name = f"{path.stem}-{hashlib.sha256(str(path).encode()).hexdigest()[:6]}.json"
            store.write_text(folder / KEPT / name, text)
            names[str(path)] = name
        return {MAIN: None if self.main is None else str(self.main), KEPT: names}


def chosen(gates: Sequence[Gate], baseline: Path | None) -> Chosen:
    """The baselines of the gates and of the command line. Raises UsageError for one that is broken.

    A baseline of a gate that is not there yet is left to the gate to tell; `baseline`, which the
    command line names, must be there.
    """
    if baseline is not None and find(baseline) is None:
        raise UsageError(f"--baseline: {_absent(baseline)}")
    wanted = [gate.baseline for gate in gates if gate.baseline is not None]
    paths = dict.fromkeys(path for path in (baseline, *wanted) if path is not None)
    texts = {path: comparing.write_text(side(path)) for path in paths if find(path) is not None}
    return Chosen(next(iter(paths), None), texts)


@dataclass(slots=True)
class Baselines:
    """The baselines of a stored run, each read once; what the run keeps stands before the path."""

    stored: StoredRun
    override: Path | None = None
    _sides: dict[Path, Side | str] = field(default_factory=dict)

    def main(self) -> Path | None:
        """What the reports compare with."""
        if self.override is not None:
            return self.override
        named = self.stored.manifest.get(MAIN)
        return None if named is None else Path(str(named))

    def side(self, path: Path) -> Side | str:
        """A baseline, or why there is none."""
        if path not in self._sides:
            self._sides[path] = self._read(path)
        return self._sides[path]

    def _read(self, path: Path) -> Side | str:
        names = self.stored.manifest.get(KEPT)
        name = names.get(str(path)) if isinstance(names, Mapping) else None
        kept = self.stored.path / KEPT / str(name)
        if self.override is None and name is not None and kept.is_file():
            return dataclasses.replace(side(kept), name=path.stem)
        if _same(path, self.stored.path):
            if path == self.override:
                raise UsageError(f"--baseline: {_itself(path)}")
            return _itself(path)
        if find(path) is not None:
            return side(path)
        if path == self.override:
            raise UsageError(f"--baseline: {_absent(path)}")
        return _absent(path)

    def before(self) -> dict[str, Before]:
        """The files that the main baseline had of each model that is judged here."""
        path = self.main()
        base = None if path is None else self.side(path)
        if base is None or isinstance(base, str):
            return {}
        judged = dict.fromkeys(cell.model for cell in self.stored.plan.cells)
        pairs = comparing.pair_models(base.models, judged)
        return {new: Before(base.name, base.models[old]) for old, new in pairs.items()}

    def against(
        self, summary: Summary
    ) -> tuple[Callable[[Gate], Comparison | str], Comparison | None]:
        """How the run compares with a gate's baseline, and with the main one."""
        comparisons: dict[Path, Comparison | str] = {}
        heads: list[Side] = []

        def with_path(path: Path) -> Comparison | str:
            if path not in comparisons:
                base = self.side(path)
                if not isinstance(base, str) and not heads:
                    heads.append(comparing.of_run(self.stored.path.name, self.stored, summary))
                comparisons[path] = (
                    base if isinstance(base, str) else comparing.compare(base, heads[0])
                )
            return comparisons[path]

        def with_gate(gate: Gate) -> Comparison | str:
            if gate.baseline is None:
                return "no baseline was given; name one with --baseline, or `baseline:` in the gate"
            return with_path(gate.baseline)

        main = self.main()
        found = None if main is None else with_path(main)
        return with_gate, None if isinstance(found, str) else found
