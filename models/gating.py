"""The gate: how much each expert counts for this face, from all experts' logits and the quality of the crop.

Each expert is calibrated first (Platt scaling), then mixed; the mixture is scaled by one temperature. An expert that
is missing has weight 0 and its logit is never made up.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

WEIGHT_FLOOR_LOGIT = -1e9


class GateOutput(NamedTuple):
    """Answer of the gate.

    Args:
        logit: (B,) calibrated logit of fake.
        weights: (B, E) share of each expert; rows sum to 1, missing experts have 0.
        calibrated: (B, E) each expert's own calibrated logit; NaN where it is missing.
    """

    logit: Tensor
    weights: Tensor
    calibrated: Tensor


class Gate(nn.Module):
    """A small linear gate over E experts and Q quality measurements.

    In short: `z = scale * raw + shift` (per expert); `w = softmax(bias + A [tanh(z / 4), present, quality])` over the
    experts that are present; `logit = temperature * sum(w * z) + offset`.

    Source: Jacobs et al. 1991, "Adaptive Mixtures of Local Experts"; Platt 1999; Guo et al. 2017, "On Calibration of
    Modern Neural Networks".
    """

    scale: Tensor
    shift: Tensor
    temperature: Tensor
    offset: Tensor
    quality_mean: Tensor
    quality_std: Tensor

    def __init__(self, *, experts: int, quality: int) -> None:
        super().__init__()
        self.mix = nn.Linear(2 * experts + quality, experts)
        nn.init.zeros_(self.mix.weight)  # starts as the plain mean of the calibrated experts
        nn.init.zeros_(self.mix.bias)
        self.register_buffer("scale", torch.ones(experts))
        self.register_buffer("shift", torch.zeros(experts))
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("offset", torch.zeros(()))
        self.register_buffer("quality_mean", torch.zeros(quality))
        self.register_buffer("quality_std", torch.ones(quality))

    def forward(self, logits: Tensor, quality: Tensor) -> GateOutput:
        """Mix the experts.

        Args:
            logits: (B, E) raw logits in the order of `EXPERT_NAMES`; NaN marks a missing expert.
            quality: (B, Q) quality measurements.

        Raises:
            ValueError: a row has no expert at all.
        """
        present = ~torch.isnan(logits)  # (B, E)
        if not bool(present.any(1).all()):
            raise ValueError("at least one expert must be present in each row")
        calibrated = self.scale * logits + self.shift  # (B, E), NaN where missing
        known = torch.where(present, calibrated, torch.zeros_like(calibrated))
        standard = ((quality - self.quality_mean) / self.quality_std).clamp(-3, 3)
        seen = torch.cat([torch.tanh(known / 4), present.to(known.dtype), standard], dim=1)  # (B, 2E + Q)
        scores = self.mix(seen).masked_fill(~present, WEIGHT_FLOOR_LOGIT)
        weights = scores.softmax(1) * present  # exactly 0 where missing
        mixture = (weights * known).sum(1)
        return GateOutput(logit=self.temperature * mixture + self.offset, weights=weights, calibrated=calibrated)
