"""What a version says of cached features: by the head of its ViT, its gate, and the corrections that it remembers.

No network changes by feedback; the answers of CNN, ResNeXt-50, BiLSTM and the ViT's backbone are cached, and
`frozen_fingerprint` says which of them made a cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.cards import EXPERT_NAMES
from models.gating import Gate
from models.vision_transformer import TapHead
from utils.detection.remembered import Remembered, read_remembered
from utils.errors import WeightsCorruptError
from utils.feedback.feature_set import FeatureSet
from utils.metrics import sigmoids
from utils.tensors import load_into, read_tensors
from utils.weights import GATE_FILE, Version

VIT_COLUMN = EXPERT_NAMES.index("vit")


class CachedJudge(nn.Module):
    """Head of the ViT and gate: cached features in, calibrated logit of fake out, as the product computes it.

    Args:
        head: of the ViT; None for versions without a ViT.
        gate: of the version.
        remembered: corrections, which move what `logits_of` gives; None for none.
    """

    def __init__(self, head: TapHead | None, gate: Gate, remembered: Remembered | None = None) -> None:
        super().__init__()
        self.head = head
        self.gate = gate
        self.remembered = remembered

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


def load_parts(version: Version) -> CachedJudge:
    """What of a verified version judges cached features, in evaluation mode.

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
    return CachedJudge(head, gate, read_remembered(version)).eval()


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch computes with one thread in here: the layers are small, so more of them wait more than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def tensors_of(features: FeatureSet) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tokens, owner, logits and quality as `CachedJudge.forward` takes them."""
    owner = np.repeat(np.arange(len(features)), np.diff(features.starts))
    return (
        torch.from_numpy(np.asarray(features.tokens, np.float32)),
        torch.from_numpy(owner),
        torch.from_numpy(np.asarray(features.logits, np.float32)),
        torch.from_numpy(np.asarray(features.quality, np.float32)),
    )


def logits_of(parts: CachedJudge, features: FeatureSet) -> npt.NDArray[np.float64]:
    """(N,) calibrated logits of fake, with what is remembered."""
    with torch.inference_mode():
        logits = parts(*tensors_of(features)).double().numpy()
    if parts.remembered is not None:
        logits = logits + parts.remembered.shift_items(np.asarray(features.tokens, np.float32), features.starts)
    return np.asarray(logits)


def probabilities(parts: CachedJudge, features: FeatureSet) -> npt.NDArray[np.float64]:
    """(N,) calibrated probabilities of fake."""
    return sigmoids(logits_of(parts, features))
