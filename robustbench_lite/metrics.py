"""The names of what a gate can decide on, and what kind of number each is."""

from __future__ import annotations

CLEAN_ACCURACY = "clean_accuracy"
WORST = "worst_case_robust_accuracy"
CONFIDENCE = "confidence_on_mistakes"
DISTANCE = "median_distance"
DIFFERENCE = "run - baseline"  # how the threshold of a max_drop gate begins

PAIRED = (CLEAN_ACCURACY, "robust_accuracy", WORST)
"""Shares of all samples, which two runs can be compared on sample by sample."""

RATES = (*PAIRED, "attack_success_rate", "adversarial_error", "survives_uint8")
"""Shares, each with its own denominator (see `summary`)."""

METRICS = (*RATES, CONFIDENCE, DISTANCE)
"""All of them: CONFIDENCE is a mean of values from 0 to 1, DISTANCE a median in a norm's unit."""

AXES = ("model", "dataset", "attack", "source", "norm", "eps")
"""What a gate can make a claim for each of."""
