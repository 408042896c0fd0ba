"""What goes into an expert and what comes out: pixels become prepared tensors, answers a small frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from models.cards import NetworkCard


@dataclass(frozen=True)
class ExpertOutput:
    """Answer of one expert.

    Args:
        logit: (B,) raw score; above 0 leans to fake.
        feature: (B, D) the vector that the head read.
        tokens: (B, L, 2D) what the ViT's head is given; None of the others.
    """

    logit: Tensor
    feature: Tensor
    tokens: Tensor | None = None


def to_images(pixels: npt.NDArray[np.generic]) -> Tensor:
    """(B, S, S, 3) uint8 to (B, 3, S, S) float32, 0..1."""
    return torch.from_numpy(np.array(pixels, np.uint8)).permute(0, 3, 1, 2).float().div(255)


def prepare(images: Tensor, card: NetworkCard) -> Tensor:
    """Resize and normalise face crops for one network.

    Args:
        images: (B, 3, H, W) float32, RGB, 0..1.

    Returns:
        (B, 3, S, S) float32 with S the card's input size.
    """
    if images.shape[-1] != card.input_size:
        size = (card.input_size, card.input_size)
        images = functional.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
    mean = torch.tensor(card.mean, dtype=images.dtype, device=images.device).view(3, 1, 1)
    std = torch.tensor(card.std, dtype=images.dtype, device=images.device).view(3, 1, 1)
    return (images - mean) / std
