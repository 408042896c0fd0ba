"""ViT-B/16 on CLIP base weights: the global context. Only the head is ours to train.

The head reads four depths of the network, since early layers keep the traces of generators and blending that the
last one, trained to name things, has dropped.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from models.cards import VIT_HEADS
from models.preprocess import ExpertOutput


class TapHead(nn.Module):
    """Reads class token and mean patch token of several layers.

    Source: the idea of Koutlis and Papadopoulos 2024, "Leveraging Representations from Intermediate Encoder-Blocks
    for Synthetic Image Detection".

    Args:
        hidden: features kept per layer; the head's feature has L times as many.
    """

    def __init__(self, *, taps: int, width: int, hidden: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(2 * width) for _ in range(taps))
        self.reduce = nn.ModuleList(nn.Linear(2 * width, hidden) for _ in range(taps))
        self.dropout = nn.Dropout(0.5)
        self.score = nn.Linear(taps * hidden, 1)

    def forward(self, tokens: Tensor) -> ExpertOutput:
        """Score tapped tokens.

        Args:
            tokens: (B, L, 2D) class token and mean patch token of each tapped layer.
        """
        parts = [
            reduce(norm(tokens[:, i])) for i, (norm, reduce) in enumerate(zip(self.norms, self.reduce, strict=True))
        ]
        feature = nn.functional.gelu(torch.cat(parts, dim=1))  # (B, L * hidden)
        return ExpertOutput(logit=self.score(self.dropout(feature)).squeeze(1), feature=feature)


class ViTExpert(nn.Module):
    """A vision transformer whose tokens are tapped at several depths.

    The backbone's weights are frozen.

    Args:
        taps: indices of the blocks that are read, from 0.
    """

    def __init__(self, *, backbone: VisionTransformer, taps: tuple[int, ...], hidden: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.taps = taps
        width = int(backbone.embed_dim)
        self.head = TapHead(taps=len(taps), width=width, hidden=hidden)
        backbone.requires_grad_(False)

    def tap(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) prepared images give (B, L, 2D): class token and mean patch token per tapped layer."""
        layers = self.backbone.forward_intermediates(
            images, indices=list(self.taps), return_prefix_tokens=True, output_fmt="NLC", intermediates_only=True
        )
        pairs = [torch.cat([prefix[:, 0], patches.mean(1)], dim=1) for patches, prefix in layers]
        return torch.stack(pairs, dim=1)

    def forward(self, images: Tensor) -> ExpertOutput:
        """Score face crops.

        Args:
            images: (B, 3, S, S) float32, prepared with the card.
        """
        tokens = self.tap(images)
        output: ExpertOutput = self.head(tokens)
        return replace(output, tokens=tokens)


def build_vit(tiny: bool) -> ViTExpert:
    """ViT-B/16 with 12 layers and 12 heads (86 M parameters), or one of four narrow layers."""
    if tiny:
        small = VisionTransformer(
            img_size=32, patch_size=8, embed_dim=24, depth=4, num_heads=VIT_HEADS[True], num_classes=16,
            pre_norm=True, norm_layer=partial(nn.LayerNorm, eps=1e-5), act_layer="quick_gelu",
        )  # fmt: skip
        return ViTExpert(backbone=small, taps=(0, 1, 2, 3), hidden=8)
    backbone = timm.create_model("vit_base_patch16_clip_quickgelu_224", num_classes=512)
    nn.init.zeros_(backbone.head.bias)  # CLIP's projection has no bias
    return ViTExpert(backbone=backbone, taps=(2, 5, 8, 11), hidden=128)
