"""What is looked at once the work of a group is done: is the model still what it was?

A model that keeps what it was asked, counts its calls or answers by the place in the batch gives
clean answers to adversarial inputs in this process, and gives them away to whoever asks it first.
So it is loaded a second time, and the copy is asked what the worn one is asked.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from torch import Tensor

from .craft import fixed_chance
from .errors import FOREIGN
from .group import ASKED_AGAIN, OTHERWISE, Group
from .preflight import worn
from .rng import SampleRng
from .samples import Selected
from .stock import Stock
from .types import CLEAN, LoadedModel

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LookBack:
    """The answers of fresh copies, asked for once per model and dataset: inputs and scores."""

    stock: Stock
    seed: int
    _known: dict[tuple[str, str], tuple[Tensor, Tensor | None]] = field(default_factory=dict)

    def at(self, group: Group, selected: Selected, size: int) -> dict[str, float]:
        """What was seen after a group of attacks, as counts; nothing after a clean pass.

        `size`: of the batches, so that none is larger than what memory holds.
        """
        if group.cells[0].attack == CLEAN:
            return {}
        observed: dict[str, float] = {}
        for name in dict.fromkeys(cell.model for cell in group.cells):
            model = self.stock.model(name)
            if not isinstance(model, LoadedModel):
                continue
            try:
                x, fresh = self._fresh(name, selected, size)
                if fresh is not None:
                    observed[ASKED_AGAIN] = observed.get(ASKED_AGAIN, 0) + len(x)
                    other = worn.changed(model, x, fresh, size)
                    observed[OTHERWISE] = observed.get(OTHERWISE, 0) + other
            except FOREIGN:  # a second copy may not fit; the cells say what cannot be run
                log.info("%s: no look back", name, exc_info=True)
        return {key: value for key, value in observed.items() if value}

    def _fresh(self, name: str, selected: Selected, size: int) -> tuple[Tensor, Tensor | None]:
        key = (name, selected.name)
        if key not in self._known:
            few = selected.batch(0, min(worn.ROWS, selected.n), self.stock.device)
            x = worn.points(few, self.seed)
            with fixed_chance(SampleRng(self.seed, "look back", few.keys)):
                copy = self.stock.fresh(name)
                scores = worn.expected(copy, x, size) if isinstance(copy, LoadedModel) else None
            self._known[key] = (x, scores)
        return self._known[key]
