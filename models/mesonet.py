"""MesoNet-4, the classic small baseline, for comparison only: no part of the ensemble.

Source: Afchar et al. 2018, "MesoNet: a Compact Facial Video Forgery Detection Network"; built from the description in
the paper.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MesoNet4(nn.Module):
    """Four convolutions with batch norm and pooling, then two small fully connected layers; 28,000 parameters.

    Args:
        side: of the square input, pixels; the paper has 256.
    """

    def __init__(self, *, side: int = 128) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inside, outside, kernel, pool in ((3, 8, 3, 2), (8, 8, 5, 2), (8, 16, 5, 2), (16, 16, 5, 4)):
            layers += [nn.Conv2d(inside, outside, kernel, padding=kernel // 2), nn.ReLU(), nn.BatchNorm2d(outside)]
            layers.append(nn.MaxPool2d(pool))
        self.features = nn.Sequential(*layers)
        self.classify = nn.Sequential(
            nn.Dropout(0.5), nn.Linear(16 * (side // 32) ** 2, 16), nn.LeakyReLU(0.1), nn.Dropout(0.5), nn.Linear(16, 1)
        )

    def forward(self, images: Tensor) -> Tensor:
        """(B,) logits of fake of (B, 3, side, side) pictures, 0..1."""
        logit: Tensor = self.classify(torch.flatten(self.features(images), 1)).squeeze(1)
        return logit
