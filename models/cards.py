"""What must be known of each network to use its weights rightly. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from utils.config import EXPERTS

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
EXPERT_NAMES = EXPERTS
"""Order of the experts in every (B, E) tensor."""
IMAGE_EXPERTS = ("cnn", "resnext", "vit")
MIN_SEQUENCE = 4
"""The LSTM judges tracks of at least this many frames; shorter ones say nothing about time."""

VIT_HEADS = {False: 12, True: 2}
"""Attention heads of the ViT, and of its tiny variant."""
RESIDUAL_KERNELS = (
    ((0, 0, 0, 0, 0), (0, -1, 2, -1, 0), (0, 2, -4, 2, 0), (0, -1, 2, -1, 0), (0, 0, 0, 0, 0)),
    ((-1, 2, -2, 2, -1), (2, -6, 8, -6, 2), (-2, 8, -12, 8, -2), (2, -6, 8, -6, 2), (-1, 2, -2, 2, -1)),
    ((0, 0, 0, 0, 0), (0, 0, 0, 0, 0), (0, 1, -2, 1, 0), (0, 0, 0, 0, 0), (0, 0, 0, 0, 0)),
)
"""The fixed filters of the CNN, which its weights do not hold, and below what each is divided by."""
RESIDUAL_DIVISORS = (4.0, 12.0, 2.0)
RESIDUAL_LIMIT = 0.06
"""Residuals beyond this share of the brightness range are edges of the picture, not noise, and are cut off."""


@dataclass(frozen=True, kw_only=True)
class NetworkCard:
    """What must be known of a network to use its weights rightly.

    Args:
        name: of the expert, one of `EXPERT_NAMES`, or `speech`.
        looks_at: what it examines, a short phrase.
        input_size: side of the square input, pixels; for the LSTM the length of its sequence, for speech the frames of
            10 ms in a window.
        mean: subtracted per colour channel from 0..1 pixels; `std`: divided by. Other inputs stay as they are.
        feature_size: D of `ExpertOutput.feature`.
        source: paper, and where base weights come from.
    """

    name: str
    title: str
    looks_at: str
    input_size: int
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    feature_size: int
    licence: str
    source: str


CNN = NetworkCard(
    name="cnn",
    title="CNN",
    looks_at="fine pixel patterns and noise",
    input_size=96,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    feature_size=1536,
    licence="MIT",
    source="Own design; fixed residual filters after Fridrich and Kodovsky 2012, rich models for steganalysis.",
)
RESNEXT = NetworkCard(
    name="resnext",
    title="ResNeXt-50",
    looks_at="the structure of the face",
    input_size=112,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    feature_size=2048,
    licence="Apache-2.0 (timm)",
    source="Xie et al. 2017, Aggregated Residual Transformations for Deep Neural Networks; trained by us from scratch.",
)
VIT = NetworkCard(
    name="vit",
    title="ViT-B/16",
    looks_at="the face as a whole and what surrounds it",
    input_size=224,
    mean=CLIP_MEAN,
    std=CLIP_STD,
    feature_size=512,
    licence="MIT (CLIP base weights), Apache-2.0 (timm)",
    source="Dosovitskiy et al. 2021, An Image is Worth 16x16 Words; base weights of Radford et al. 2021 (CLIP).",
)
LSTM = NetworkCard(
    name="lstm",
    title="BiLSTM",
    looks_at="consistency from frame to frame (videos only)",
    input_size=16,
    feature_size=512,
    licence="MIT",
    source="Hochreiter and Schmidhuber 1997; Schuster and Paliwal 1997; on ResNeXt features after Güera and Delp 2018.",
)
SPEECH = NetworkCard(
    name="speech",
    title="Speech network",
    looks_at="the spectrogram of a voice",
    input_size=200,
    feature_size=3328,
    licence="MIT (own layers, and Whisper's)",
    source="First layers of Radford et al. 2022 (Whisper base); LSTM, pooling after Okabe et al. 2018, by us.",
)
CARDS = {card.name: card for card in (CNN, RESNEXT, VIT, LSTM, SPEECH)}
TINY_CARDS = {
    "cnn": replace(CNN, input_size=32, feature_size=16),
    "resnext": replace(RESNEXT, input_size=32, feature_size=64),
    "vit": replace(VIT, input_size=32, feature_size=32),
    "lstm": replace(LSTM, feature_size=16),
    "speech": replace(SPEECH, feature_size=128),
}


def expert_card(name: str, *, tiny: bool = False) -> NetworkCard:
    """The card of one of our experts or of the network of speech (of its tiny variant).

    Raises:
        KeyError: no expert has this name.
    """
    return (TINY_CARDS if tiny else CARDS)[name]
