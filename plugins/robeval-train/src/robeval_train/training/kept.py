"""What is kept of a training: its finished weights, and where it stands while it runs.

A folder per content id in the run's cache: `weights.safetensors` and `training.json` when it is
done, `state.pt` after every epoch until then. Files are written aside and renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from robustbench_lite import EnvironmentProblem, Json

WEIGHTS = "weights.safetensors"
RECORD = "training.json"
STATE = "state.pt"


@dataclass(frozen=True, slots=True)
class Folder:
    """Where one training is kept."""

    path: Path

    def finished(self) -> tuple[dict[str, Tensor], dict[str, Json]] | None:
        """Weights and record of a finished training, None if it is not finished."""
        weights = self.path / WEIGHTS
        if not weights.is_file():
            return None
        from safetensors.torch import load_file

        record: dict[str, Json] = json.loads((self.path / RECORD).read_text(encoding="utf-8"))
        if record.get("weights_sha256") != _sha256(weights):
            raise EnvironmentProblem(
                f"{weights} is not what its training wrote: delete the folder to train it again"
            )
        return load_file(weights), record

    def finish(self, weights: Mapping[str, Tensor], record: Mapping[str, Json]) -> dict[str, Json]:
        """Keep the weights for good; the record with their hash."""
        from safetensors.torch import save_file

        self.path.mkdir(parents=True, exist_ok=True)
        aside = self._aside(WEIGHTS)
        save_file({name: value.cpu().contiguous() for name, value in weights.items()}, aside)
        whole: dict[str, Json] = {**record, "weights_sha256": _sha256(aside)}
        told = self._aside(RECORD)
        told.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
        told.replace(self.path / RECORD)
        aside.replace(self.path / WEIGHTS)
        (self.path / STATE).unlink(missing_ok=True)
        return whole

    def state(self) -> dict[str, object] | None:
        """Where an interrupted training stands, None if it has not begun.

        Raises EnvironmentProblem for a file that cannot be read.
        """
        path = self.path / STATE
        if not path.is_file():
            return None
        try:
            found: object = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, UnpicklingError) as problem:
            raise EnvironmentProblem(
                f"{path} cannot be read ({problem.__class__.__name__}): delete it to begin this"
                " training anew"
            ) from problem
        assert isinstance(found, dict)
        return found

    def save_state(self, state: Mapping[str, object]) -> None:
        """Remember the end of an epoch."""
        self.path.mkdir(parents=True, exist_ok=True)
        aside = self._aside(STATE)
        torch.save(dict(state), aside)
        aside.replace(self.path / STATE)

    def _aside(self, name: str) -> Path:
        return self.path / f".{name}.{os.getpid()}.tmp"


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
