"""The compact CNN: pixel artefacts such as blending seams, noise that does not match, traces of upsampling."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.cards import RESIDUAL_DIVISORS, RESIDUAL_KERNELS, RESIDUAL_LIMIT
from models.preprocess import ExpertOutput


class HighPassResidual(nn.Module):
    """Three fixed high-pass filters on the brightness, cut off and scaled to -1..1.

    Source: Fridrich and Kodovsky 2012, "Rich Models for Steganalysis of Digital Images".
    """

    kernels: Tensor

    def __init__(self) -> None:
        super().__init__()
        divisors = torch.tensor(RESIDUAL_DIVISORS).view(3, 1, 1)
        kernels = torch.tensor(RESIDUAL_KERNELS, dtype=torch.float32) / divisors
        self.register_buffer("kernels", kernels.unsqueeze(1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised to -1..1 gives (B, 3, H, W) residuals in -1..1."""
        grey = images.mean(1, keepdim=True) / 2  # (B, 1, H, W), one brightness range wide
        residual = functional.conv2d(grey, self.kernels, padding=2)  # (B, 3, H, W)
        return residual.clamp(-RESIDUAL_LIMIT, RESIDUAL_LIMIT) / RESIDUAL_LIMIT


def _block(inside: int, outside: int, stride: int) -> nn.Sequential:
    """Two 3 x 3 convolutions with batch norm; `stride` belongs to the first."""
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(),
        nn.Conv2d(outside, outside, 3, padding=1, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(),
    )


def pool_statistics(maps: Tensor) -> Tensor:
    """Mean and standard deviation of each channel over all positions: (B, C, H, W) gives (B, 2C).

    Neither depends on where something is nor on how large the picture is.
    """
    return torch.cat([maps.mean((2, 3)), maps.var((2, 3), correction=0).add(1e-5).sqrt()], dim=1)


class CompactCNN(nn.Module):
    """Four convolution blocks on RGB and residuals, then a fully connected head."""

    def __init__(self, *, widths: tuple[int, int, int, int], hidden: int) -> None:
        super().__init__()
        self.residual = HighPassResidual()
        channels = (6, *widths)
        self.blocks = nn.Sequential(*(_block(a, b, 2) for a, b in pairwise(channels)))
        self.hidden = nn.Sequential(nn.Linear(widths[-1] * 2, hidden), nn.ReLU(), nn.Dropout(0.3))
        self.head = nn.Linear(hidden, 1)

    def forward(self, images: Tensor) -> ExpertOutput:
        """Score face crops.

        Args:
            images: (B, 3, H, W) float32, prepared with the card.
        """
        both = torch.cat([images, self.residual(images)], dim=1)  # (B, 6, H, W)
        maps = self.blocks(both)  # (B, C, H/16, W/16)
        feature = self.hidden(pool_statistics(maps))  # (B, D)
        return ExpertOutput(logit=self.head(feature).squeeze(1), feature=feature)


def build_cnn(tiny: bool) -> CompactCNN:
    """The CNN with 1.96 M parameters, or a tiny one."""
    if tiny:
        return CompactCNN(widths=(4, 8, 8, 16), hidden=16)
    return CompactCNN(widths=(32, 64, 128, 256), hidden=1536)
