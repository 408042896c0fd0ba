"""The network of speech: the first layers of a recogniser of speech over a log-mel spectrogram, two bidirectional LSTM
layers with attentive pooling on what they find, and beside them how that is spread over the window.

The recogniser heard 680,000 hours and is not trained further: what synthesis does to speech shows in its first layers,
whoever speaks, whereas a network that learns from hundreds of recordings alone learns voices by heart. It is no expert
of faces and no gate weighs it; `utils/speech` runs it on windows of two seconds.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.preprocess import ExpertOutput

SEQUENCE_SHARE = 0.3
"""Of the recurrent branch in the logit: more costs on families that were left out, it learns voices by heart sooner."""


class Encoder(nn.Module):
    """Two convolutions and one transformer block.

    Source: Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision" (Whisper).

    Args:
        width: D of each of its three layers.
        heads: of the attention.
        frames: most that come out of the convolutions, half of those that go in.
    """

    def __init__(self, *, bands: int, width: int, heads: int, frames: int) -> None:
        super().__init__()
        self.heads = heads
        self.conv1 = nn.Conv1d(bands, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.place: Tensor
        self.register_buffer("place", torch.zeros(frames, width))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.joined = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, spectrogram: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What each layer makes of (B, T, bands): (B, D, T), (B, D, T / 2), (B, D, T / 2)."""
        first = functional.gelu(self.conv1(spectrogram.transpose(1, 2)))
        second = functional.gelu(self.conv2(first))
        states = second.transpose(1, 2) + self.place
        parts = self.qkv(self.norm1(states)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        heard = functional.scaled_dot_product_attention(parts[0], parts[1], parts[2])
        states = states + self.joined(heard.transpose(1, 2).flatten(2))
        states = states + self.narrow(functional.gelu(self.wide(self.norm2(states))))
        return first, second, states.transpose(1, 2)


class AttentivePooling(nn.Module):
    """Mean and standard deviation over time, weighted by what a small network finds worth it.

    Source: Okabe et al. 2018, "Attentive Statistics Pooling for Deep Speaker Embedding".

    Args:
        features: D of one frame.
    """

    def __init__(self, *, features: int) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(features, features // 4), nn.Tanh(), nn.Linear(features // 4, 1))

    def forward(self, states: Tensor) -> Tensor:
        """(B, T, D) to (B, 2D)."""
        weight = self.score(states).softmax(1)  # (B, T, 1)
        mean = (weight * states).sum(1)
        spread = (weight * (states - mean.unsqueeze(1)).square()).sum(1)
        return torch.cat([mean, (spread + 1e-5).sqrt()], 1)


class SpeechNetwork(nn.Module):
    """Spectrogram in, logit of fake out: a recurrent and a linear opinion on what the encoder finds.

    Args:
        bands: of the spectrogram.
        frames: of a window.
        width: D of the encoder.
        hidden: units of the LSTM per direction.
    """

    def __init__(self, *, bands: int, frames: int, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.encoder = Encoder(bands=bands, width=width, heads=heads, frames=frames // 2).requires_grad_(False)
        self.frame_norm = nn.BatchNorm1d(3 * width, affine=False)
        self.narrow = nn.Sequential(nn.Dropout(0.2), nn.Linear(3 * width, hidden * 3 // 2), nn.ReLU(), nn.Dropout(0.3))
        self.lstm = nn.LSTM(hidden * 3 // 2, hidden, num_layers=2, bidirectional=True, batch_first=True, dropout=0.2)
        self.pooling = AttentivePooling(features=2 * hidden)
        self.sequence_head = nn.Linear(4 * hidden, 1)
        self.spread_mean: Tensor
        self.spread_scale: Tensor
        self.register_buffer("spread_mean", torch.zeros(6 * width))
        self.register_buffer("spread_scale", torch.ones(6 * width))
        self.spread_head = nn.Linear(6 * width, 1).requires_grad_(False)

    @torch.no_grad()
    def encode(self, spectrogram: Tensor) -> tuple[Tensor, Tensor]:
        """What the encoder says of windows, which no training changes.

        Args:
            spectrogram: (B, T, bands) float32, prepared by `utils.speech.spectrogram.prepare`.

        Returns:
            (B, T / 4, 3D) its layers side by side, and (B, 6D) their means and standard deviations over the window.
        """
        layers = self.encoder(spectrogram)
        frames = [functional.avg_pool1d(layer, 4 if i == 0 else 2) for i, layer in enumerate(layers)]
        spread = [(layer - layer.mean(2, keepdim=True)).square().mean(2).sqrt() for layer in layers]
        return torch.cat(frames, 1).transpose(1, 2), torch.cat([layer.mean(2) for layer in layers] + spread, 1)

    def pooled(self, frames: Tensor) -> Tensor:
        """What the recurrent branch makes of the encoder's frames, (B, 4 * hidden)."""
        normal = self.frame_norm(frames.transpose(1, 2)).clamp(-5, 5).transpose(1, 2)
        states, _ = self.lstm(self.narrow(normal))  # (B, T / 4, 2 * hidden)
        found: Tensor = self.pooling(states)
        return found

    def normal(self, spread: Tensor) -> Tensor:
        """Means and deviations in units of the training data."""
        return ((spread - self.spread_mean) / self.spread_scale).clamp(-5, 5)

    def head(self) -> tuple[Tensor, Tensor]:
        """Weight (D,) and bias (1,) of both opinions, on what `forward` calls the feature."""
        parts = ((self.sequence_head, SEQUENCE_SHARE), (self.spread_head, 1 - SEQUENCE_SHARE))
        weight = torch.cat([part.weight[0] * share for part, share in parts])
        return weight, sum((part.bias * share for part, share in parts), torch.zeros(1))

    def forward(self, spectrogram: Tensor) -> ExpertOutput:
        """Score windows, as `encode` takes them."""
        frames, spread = self.encode(spectrogram)
        feature = torch.cat([self.pooled(frames), self.normal(spread)], 1)
        weight, bias = self.head()
        return ExpertOutput(logit=feature @ weight + bias, feature=feature)


def build_speech(tiny: bool) -> SpeechNetwork:
    """Whisper base's first layers and a hidden size of 64 (4.5 M parameters), or all of it narrow."""
    if tiny:
        return SpeechNetwork(bands=80, frames=200, width=16, heads=2, hidden=8)
    return SpeechNetwork(bands=80, frames=200, width=512, heads=8, hidden=64)
