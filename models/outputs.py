"""What the networks return: small frozen dataclasses instead of tuples and dictionaries."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ExpertOutput:
    """Answer of one expert.

    Args:
        logit: (B,) raw score; above 0 leans to fake.
        feature: (B, D) the vector that the head read.
    """

    logit: Tensor
    feature: Tensor


@dataclass(frozen=True)
class EnsembleOutput:
    """Answer of the ensemble.

    Args:
        logit: (B,) calibrated logit of fake.
        weights: (B, E) share of each expert; rows sum to 1, missing experts have 0.
        calibrated: (B, E) each expert's own calibrated logit; NaN where it is missing.
    """

    logit: Tensor
    weights: Tensor
    calibrated: Tensor
