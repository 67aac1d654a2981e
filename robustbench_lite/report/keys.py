"""Short ids for the names on a page."""

from __future__ import annotations

from collections.abc import Iterable

from ..types import CLEAN, WORST_CASE, Row


class Keys:
    """Short ids of models and attacks, by which the toggles of the page know what to hide."""

    def __init__(self, rows: Iterable[Row]) -> None:
        measured = [row for row in rows if row.plugin != WORST_CASE]
        self._models = _numbered("m", (row.model for row in measured))
        self._attacks = _numbered("a", (r.attack for r in measured if r.attack != CLEAN))

    @property
    def models(self) -> list[tuple[str, str]]:
        """(id, name) of every model, in the order of the plan."""
        return [(key, name) for name, key in self._models.items()]

    @property
    def attacks(self) -> list[tuple[str, str]]:
        """(id, name) of every attack entry, in the order of the plan."""
        return [(key, name) for name, key in self._attacks.items()]

    def model(self, name: str) -> str:
        """The id of a model."""
        return self._models.get(name, "")

    def attack(self, name: str) -> str:
        """The id of an attack entry, "" for clean passes and worst cases."""
        return self._attacks.get(name, "")


def _numbered(prefix: str, names: Iterable[str]) -> dict[str, str]:
    return {name: f"{prefix}{at}" for at, name in enumerate(dict.fromkeys(names))}
