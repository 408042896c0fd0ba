"""The experts by name, and the ensemble: whichever of them are at hand."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor, nn

from models.cards import EXPERT_NAMES, IMAGE_EXPERTS, MIN_SEQUENCE, expert_card
from models.cnn_model import build_cnn
from models.lstm_model import build_lstm
from models.preprocess import prepare
from models.resnext_model import build_resnext
from models.speech_model import build_speech
from models.vision_transformer import build_vit

BUILDERS: Mapping[str, Callable[[bool], nn.Module]] = {
    "cnn": build_cnn,
    "resnext": build_resnext,
    "vit": build_vit,
    "lstm": build_lstm,
    "speech": build_speech,
}
"""`build(tiny)` of each expert of `EXPERT_NAMES`, and of the network of speech."""


def create_network(name: str, *, tiny: bool = False) -> nn.Module:
    """A new network with fresh parameters; `tiny` gives a variant that runs in milliseconds, for tests.

    Raises:
        KeyError: no network has this name.
    """
    return BUILDERS[name](tiny)


class Ensemble(nn.Module):
    """The experts as one network.

    Args:
        experts: the experts at hand, by name; any subset that is not empty.
        tiny: the experts are tiny variants (their cards differ).
    """

    def __init__(self, *, experts: Mapping[str, nn.Module], tiny: bool = False) -> None:
        super().__init__()
        self.experts = nn.ModuleDict(dict(experts))
        self.tiny = tiny

    def expert_logits(
        self, images: Tensor, only: Collection[str] | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Run the image experts; the backbone of ResNeXt-50 runs once and also serves the LSTM.

        Args:
            images: (T, 3, H, W) float32, RGB, 0..1: the crops of one person in time order, or any batch.
            only: names of the experts that are asked; None asks all.

        Returns:
            (T, E) raw logits, NaN for experts that are missing, not asked or judge only sequences; the (T, D) features
            of ResNeXt-50 and the (T, L, 2D) tokens of the ViT, each None without it.
        """
        logits = torch.full((len(images), len(EXPERT_NAMES)), float("nan"), device=images.device)
        features = tokens = None
        for column, name in enumerate(EXPERT_NAMES):
            if name in IMAGE_EXPERTS and name in self.experts and (only is None or name in only):
                output = self.experts[name](prepare(images, expert_card(name, tiny=self.tiny)))
                logits[:, column] = output.logit
                if name == "resnext":
                    features = output.feature
                if name == "vit":
                    tokens = output.tokens
        return logits, features, tokens

    def sequence_logit(self, features: Tensor | None) -> Tensor:
        """The LSTM's raw logit, (), of one track's (T, D) features; NaN when it cannot judge."""
        if "lstm" not in self.experts or features is None or len(features) < MIN_SEQUENCE:
            return torch.tensor(float("nan"))
        logit: Tensor = self.experts["lstm"](features.unsqueeze(0)).logit[0]
        return logit
