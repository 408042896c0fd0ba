"""The network of speech: convolutions over a log-mel spectrogram, two bidirectional LSTM layers, attentive pooling.

It is no expert of faces and no gate weighs it; `utils/speech` runs it on windows of two seconds.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.preprocess import ExpertOutput

STEM_STRIDE = 2
STRIDES = ((1, 2), (2, 2), (1, 2))
"""Of time and frequency: 100 frames a second become 25, 80 bands become 5."""


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
    """Spectrogram in, logit of fake out.

    Args:
        bands: of the spectrogram, a multiple of 16.
        channels: of the stem and the three convolution blocks.
        hidden: units of the LSTM per direction.
    """

    def __init__(self, *, bands: int, channels: tuple[int, int, int, int], hidden: int) -> None:
        super().__init__()
        stem = nn.Conv2d(1, channels[0], 5, stride=STEM_STRIDE, padding=2, bias=False)
        layers: list[nn.Module] = [stem, nn.BatchNorm2d(channels[0]), nn.ReLU()]
        for before, after, stride in zip(channels, channels[1:], STRIDES, strict=False):
            layers += [
                nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
                nn.Dropout2d(0.1),
            ]
        self.blocks = nn.Sequential(*layers)
        self.narrow = nn.Sequential(nn.Linear(channels[-1] * bands // 16, hidden * 3 // 2), nn.ReLU())
        self.lstm = nn.LSTM(hidden * 3 // 2, hidden, num_layers=2, bidirectional=True, batch_first=True, dropout=0.2)
        self.pooling = AttentivePooling(features=2 * hidden)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(4 * hidden, 1)

    def forward(self, spectrogram: Tensor) -> ExpertOutput:
        """Score windows.

        Args:
            spectrogram: (B, T, bands) float32, prepared by `utils.speech.spectrogram.prepare`.
        """
        maps = self.blocks(spectrogram.unsqueeze(1))  # (B, C, T / 4, bands / 16)
        frames = self.narrow(maps.permute(0, 2, 1, 3).flatten(2))  # (B, T / 4, 1.5 * hidden)
        states, _ = self.lstm(frames)  # (B, T / 4, 2 * hidden)
        feature = self.pooling(states)
        return ExpertOutput(logit=self.head(self.dropout(feature)).squeeze(1), feature=feature)


def build_speech(tiny: bool) -> SpeechNetwork:
    """Hidden size 128 (1.0 M parameters), or 8 on narrow convolutions."""
    if tiny:
        return SpeechNetwork(bands=80, channels=(4, 4, 8, 8), hidden=8)
    return SpeechNetwork(bands=80, channels=(32, 64, 96, 128), hidden=128)
