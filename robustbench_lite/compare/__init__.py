"""Two runs, paired by sample hash: what broke, what was fixed, and whether that is chance.

A run directory and a baseline file both become a `Side`; two of them a `Comparison`.
"""

from __future__ import annotations

from .baseline import read as read
from .baseline import unfit as unfit
from .baseline import write_text as write_text
from .pairs import compare as compare
from .pairs import pair_models as pair_models
from .pairs import refusal as refusal
from .side import Line as Line
from .side import Side as Side
from .side import of_run as of_run
