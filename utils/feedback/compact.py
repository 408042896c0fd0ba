"""The same training on fewer numbers: the head of the ViT in the coordinates of the items it learns from.

The gradient of a linear layer is made of its inputs, so SGD never leaves the span of the items' (normalised) tokens.
With an orthonormal basis Q of that span, `W x = (W Q) (Q^T x)`, distances are kept, and the path of the training is
the same up to rounding; with some hundred items instead of 1536 dimensions a step costs a fraction.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from models.vision_transformer import TapHead
from utils.feedback.feature_set import FeatureSet
from utils.feedback.trainable import LearnedParts

WORTH_IT = 0.6
"""With more frames than this share of the dimensions the detour does not pay."""


@dataclass(frozen=True)
class Compacted:
    """A training in other coordinates.

    Args:
        parts: with the head's linear layers in the new coordinates; the gate is that of the original.
        features: with tokens (F, L, R) in them.
        bases: Q of each tapped layer, (2D, R).
    """

    parts: LearnedParts
    features: FeatureSet
    bases: tuple[Tensor, ...]


def compact(parts: LearnedParts, features: FeatureSet) -> Compacted | None:
    """Change to the coordinates of the items; None where that would not pay.

    Args:
        parts: whose normalisation layers do not learn.
        features: everything that will be learned from.
    """
    frames, _, width = features.tokens.shape
    if parts.head is None or frames > WORTH_IT * width:
        return None
    tokens = torch.from_numpy(np.asarray(features.tokens, np.float32))
    small = copy.deepcopy(parts.head)
    bases, coordinates = [], []
    with torch.no_grad():
        for i, (norm, layer) in enumerate(zip(parts.head.norms, parts.head.reduce, strict=True)):
            seen = norm(tokens[:, i])  # (F, 2D)
            basis = torch.linalg.qr(seen.T).Q  # (2D, R)
            bases.append(basis)
            coordinates.append(seen @ basis)
            linear = nn.Linear(basis.shape[1], layer.out_features)  # type: ignore[arg-type]
            linear.weight.copy_(layer.weight @ basis)
            linear.bias.copy_(layer.bias)  # type: ignore[arg-type]
            small.reduce[i] = linear
    small.norms = nn.ModuleList(nn.Identity() for _ in bases)
    held = replace(features, tokens=torch.stack(coordinates, dim=1).numpy())
    return Compacted(LearnedParts(small, parts.gate).eval(), held, tuple(bases))


def expand(compacted: Compacted, head: TapHead) -> None:
    """Bring what the compact head learned into the original one, in place; both must have started from the same."""
    small = compacted.parts.head
    if small is None:
        raise ValueError("there is no head to expand")
    with torch.no_grad():
        for layer, learned, basis in zip(head.reduce, small.reduce, compacted.bases, strict=True):
            layer.weight.add_((learned.weight - layer.weight @ basis) @ basis.T)  # type: ignore[operator]
            layer.bias.copy_(learned.bias)  # type: ignore[arg-type,operator]
        head.score.load_state_dict(small.score.state_dict())
