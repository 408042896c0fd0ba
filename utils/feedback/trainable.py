"""The parts of a version that feedback may change: the head of the ViT and the gate, on cached features.

CNN, ResNeXt-50, BiLSTM and the ViT's backbone stay exactly as they are: their answers are cached, so neither their
weights nor their batch-norm statistics can move. `frozen_fingerprint` says which networks made a cache.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.cards import EXPERT_NAMES
from models.gating import Gate
from models.vision_transformer import TapHead
from utils.errors import WeightsCorruptError
from utils.feedback.feature_set import FeatureSet
from utils.tensors import Arrays, load_into, read_tensors
from utils.weights import GATE_FILE, Version

VIT_COLUMN = EXPERT_NAMES.index("vit")


class LearnedParts(nn.Module):
    """Head of the ViT and gate: cached features in, calibrated logit of fake out, as the product computes it.

    Args:
        head: of the ViT; None for versions without a ViT.
        gate: of the version.
    """

    def __init__(self, head: TapHead | None, gate: Gate) -> None:
        super().__init__()
        self.head = head
        self.gate = gate

    def forward(self, tokens: Tensor, owner: Tensor, logits: Tensor, quality: Tensor) -> Tensor:
        """Score items.

        Args:
            tokens: (F, L, 2D) float32 of all frames.
            owner: (F,) int64, the item of each frame.
            logits: (B, E) raw logits; the ViT's column is replaced.
            quality: (B, Q).

        Returns:
            (B,) calibrated logits.
        """
        if self.head is not None:
            frames = self.head(tokens).logit  # (F,)
            sums = torch.zeros(len(logits), dtype=frames.dtype).index_add(0, owner, frames)
            counts = torch.bincount(owner, minlength=len(logits)).to(frames.dtype)
            column = torch.arange(logits.shape[1]) == VIT_COLUMN
            logits = torch.where(column, (sums / counts)[:, None], logits)
        out: Tensor = self.gate(logits, quality).logit
        return out

    def learning(self) -> dict[str, Tensor]:
        """The tensors that learn, by name and switched to learning; all others are switched off.

        They are the linear layers of the ViT's head; in a version without a ViT, the mixing layer, the shift of each
        expert and of the mixture in the gate. What the gate shifts, it shifts for every face alike, so that the head,
        which can tell this face from others, goes first. Scales stay: no expert can be turned around.
        """
        chosen = {}
        of_head, of_gate = ("head.reduce.", "head.score."), ("gate.mix.", "gate.shift", "gate.offset")
        for name, tensor in (dict(self.named_parameters()) | dict(self.named_buffers())).items():
            wanted = name.startswith(of_gate if self.head is None else of_head)
            tensor.requires_grad_(wanted)
            if wanted:
                chosen[name] = tensor
        return chosen

    def arrays(self) -> dict[str, Arrays]:
        """The tensors as `vit` and `gate` files of a version store them (of the ViT only the head)."""
        state = {name: value.detach().cpu().numpy() for name, value in self.state_dict().items()}
        out = {"gate": {k.removeprefix("gate."): v for k, v in state.items() if k.startswith("gate.")}}
        if self.head is not None:
            out["vit"] = {k: v for k, v in state.items() if k.startswith("head.")}
        return out


def load_parts(version: Version) -> LearnedParts:
    """The learning parts of a verified version, in evaluation mode (dropout is off: learning here is deterministic).

    Raises:
        WeightsCorruptError: its weights do not fit.
    """
    head = None
    if "vit" in version.experts:
        tensors = read_tensors(version.folder / "vit.safetensors")
        own = {k.removeprefix("head."): v for k, v in tensors.items() if k.startswith("head.")}
        if "reduce.0.weight" not in own:
            raise WeightsCorruptError("The weights of the ViT lack its head.")
        hidden, width = own["reduce.0.weight"].shape  # the whole ViT takes seconds to build, its head nothing
        head = TapHead(taps=sum(k.startswith("reduce.") for k in own) // 2, width=width // 2, hidden=hidden)
        load_into(head, own, what="the ViT's head")
    tensors = read_tensors(version.folder / GATE_FILE)
    if "quality_mean" not in tensors:
        raise WeightsCorruptError("The weights of the gate lack quality_mean.")
    gate = Gate(experts=len(EXPERT_NAMES), quality=len(tensors["quality_mean"]))
    load_into(gate, tensors, what="the gate")
    return LearnedParts(head, gate).eval()


def tensors_of(features: FeatureSet) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tokens, owner, logits and quality as `LearnedParts.forward` takes them."""
    owner = np.repeat(np.arange(len(features)), np.diff(features.starts))
    return (
        torch.from_numpy(np.asarray(features.tokens, np.float32)),
        torch.from_numpy(owner),
        torch.from_numpy(np.asarray(features.logits, np.float32)),
        torch.from_numpy(np.asarray(features.quality, np.float32)),
    )


def probabilities(parts: LearnedParts, features: FeatureSet) -> npt.NDArray[np.float64]:
    """(N,) calibrated probabilities of fake."""
    with torch.inference_mode():
        logits = parts(*tensors_of(features)).double()
    return np.asarray(logits.sigmoid().numpy())
