"""ResNeXt-50 32x4d: facial structure. Its 2048-d feature is also what the LSTM reads, frame by frame."""

from __future__ import annotations

import timm
from torch import Tensor, nn

from models.preprocess import ExpertOutput


class ResNeXtExpert(nn.Module):
    """A ResNeXt backbone and a linear head on its pooled feature.

    Args:
        backbone: maps (B, 3, S, S) to (B, D) pooled features.
    """

    def __init__(self, *, backbone: nn.Module, feature_size: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(feature_size, 1)

    def forward(self, images: Tensor) -> ExpertOutput:
        """Score face crops.

        Args:
            images: (B, 3, S, S) float32, prepared with the card.
        """
        feature = self.backbone(images)  # (B, D)
        return ExpertOutput(logit=self.head(self.dropout(feature)).squeeze(1), feature=feature)


def build_resnext(tiny: bool) -> ResNeXtExpert:
    """ResNeXt-50 32x4d (23 M parameters), or a ResNeXt of four narrow blocks."""
    if tiny:
        from timm.models.resnet import Bottleneck, ResNet

        backbone = ResNet(
            Bottleneck, (1, 1, 1, 1), num_classes=0, channels=(2, 4, 8, 16), cardinality=2, base_width=32, stem_width=8
        )
    else:
        backbone = timm.create_model("resnext50_32x4d", num_classes=0)
    return ResNeXtExpert(backbone=backbone, feature_size=int(backbone.num_features))
