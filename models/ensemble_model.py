"""The ensemble: whichever experts are at hand, one gate, and the names of those that are missing."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from models import cnn_model, lstm_model, resnext_model, vision_transformer  # noqa: F401 (they register themselves)
from models.cards import EXPERT_NAMES, IMAGE_EXPERTS, MIN_SEQUENCE
from models.gating import Gate
from models.outputs import EnsembleOutput
from models.registry import create_network, get_card, prepare


class Ensemble(nn.Module):
    """Experts and gate as one network.

    Args:
        experts: the experts at hand, by registry name; any subset that is not empty.
        gate: built for all of `EXPERT_NAMES`.
        tiny: the experts are tiny variants (their cards differ).

    Raises:
        ValueError: no expert, or one whose name is unknown.
    """

    def __init__(self, *, experts: Mapping[str, nn.Module], gate: Gate, tiny: bool = False) -> None:
        super().__init__()
        unknown = set(experts) - set(EXPERT_NAMES)
        if unknown or not experts:
            raise ValueError(f"experts must be some of {EXPERT_NAMES}, not {tuple(experts)}")
        self.experts = nn.ModuleDict(dict(experts))
        self.gate = gate
        self.tiny = tiny

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the experts that are not there, in order."""
        return tuple(name for name in EXPERT_NAMES if name not in self.experts)

    def expert_logits(self, images: Tensor, only: Collection[str] | None = None) -> tuple[Tensor, Tensor | None]:
        """Run the image experts; the backbone of ResNeXt-50 runs once and also serves the LSTM.

        Args:
            images: (T, 3, H, W) float32, RGB, 0..1: the crops of one person in time order, or any batch.
            only: names of the experts that are asked; None asks all.

        Returns:
            (T, E) raw logits, NaN for experts that are missing, not asked or judge only sequences, and the (T, D)
            features of ResNeXt-50 (None without it).
        """
        logits = torch.full((len(images), len(EXPERT_NAMES)), float("nan"), device=images.device)
        features = None
        for column, name in enumerate(EXPERT_NAMES):
            if name in IMAGE_EXPERTS and name in self.experts and (only is None or name in only):
                output = self.experts[name](prepare(images, get_card(name, tiny=self.tiny)))
                logits[:, column] = output.logit
                if name == "resnext":
                    features = output.feature
        return logits, features

    def sequence_logit(self, features: Tensor | None) -> Tensor:
        """The LSTM's raw logit, (), of one track's (T, D) features; NaN when it cannot judge."""
        if "lstm" not in self.experts or features is None or len(features) < MIN_SEQUENCE:
            return torch.tensor(float("nan"))
        logit: Tensor = self.experts["lstm"](features.unsqueeze(0)).logit[0]
        return logit

    def forward(self, logits: Tensor, quality: Tensor) -> EnsembleOutput:
        """Mix raw logits (B, E), NaN where missing, with the quality (B, Q) of the crops."""
        output: EnsembleOutput = self.gate(logits, quality)
        return output


def build_ensemble(names: tuple[str, ...] = EXPERT_NAMES, *, quality: int = 4, tiny: bool = False) -> Ensemble:
    """A new ensemble with fresh parameters, for training and for tests."""
    experts = {name: create_network(name, tiny=tiny) for name in names}
    return Ensemble(experts=experts, gate=Gate(experts=len(EXPERT_NAMES), quality=quality), tiny=tiny)


__all__ = ["EXPERT_NAMES", "IMAGE_EXPERTS", "MIN_SEQUENCE", "Ensemble", "build_ensemble"]
