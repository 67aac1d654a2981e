"""A copy of a model in which every sample has an adversarial example that is known beforehand.

After the binarisation test of Zimmermann, Brendel, Tramer and Carlini, "Increasing Confidence in
Adversarial Robustness Evaluations", NeurIPS 2022. `witness` finds, for every sample, a point of its
ball that shall be adversarial; `model` is the copy on which it is.
"""

from __future__ import annotations

from .model import PlantedClassifier as PlantedClassifier
from .model import Readout as Readout
from .model import planted_copy as planted_copy
from .witness import Plant as Plant
from .witness import plant as plant
from .witness import typical_margin as typical_margin
