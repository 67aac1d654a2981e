"""Two sets of attacks on the same samples: what one of them broke and the other left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..types import Finding, Severity
from .grid import Bits, Broken
from .subject import subject

WEAK_ATTACK = (
    "raise `steps` or `restarts`, try another `loss`, or use `attack: standard`; if that does not"
    " help, the model hides its gradient"
)
ITS_NATURE = "nothing to do where a stronger attack stands beside it; it proves little alone"


@dataclass(frozen=True, slots=True)
class Duel:
    """Counts of n samples: what the accused broke, the rival broke, and each of them alone."""

    n: int
    own: int
    rival: int
    missed: int
    extra: int

    @staticmethod
    def of(own: Bits, rival: Bits) -> Duel:
        """Bits of the same samples, bool [n] each."""
        return Duel(
            len(own),
            int(own.sum()),
            int(rival.sum()),
            int((rival & ~own).sum()),
            int((own & ~rival).sum()),
        )

    def numbers(self) -> dict[str, float]:
        """The counts by name, for a finding."""
        return {
            "samples": self.n,
            "broken": self.own,
            "broken by the other": self.rival,
            "broken by the other only": self.missed,
            "broken by it only": self.extra,
        }


def finding(
    name: str,
    severity: Severity,
    accused: Sequence[Broken],
    rivals: Sequence[Broken],
    duel: Duel,
    advice: str,
) -> Finding:
    """What the rivals broke and the accused, taken together, left."""
    strongest = max(rivals, key=lambda each: int(each.bits.sum())).cell
    more = f" and {len(rivals) - 1} more" if len(rivals) > 1 else ""
    crafted = f" from '{strongest.source}'" if strongest.source != strongest.model else ""
    others = f" and {len(accused) - 1} more attacks" if len(accused) > 1 else ""
    leave, broke = "leave" if others else "leaves", "break" if more else "breaks"
    return Finding(
        id=name,
        severity=severity,
        message=(
            f"{subject(accused[0].cell)}{others} {leave} {duel.missed} of {duel.n} samples unbroken"
            f" that '{strongest.entry}'{crafted}{more} {broke}"
            f" ({100 * duel.missed / duel.n:.1f} %); {duel.own} against {duel.rival} broken in all"
        ),
        advice=advice,
        cells=tuple(each.cell.id for each in accused),
        numbers=duel.numbers(),
    )
