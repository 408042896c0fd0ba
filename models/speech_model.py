"""The network of speech: convolutions over a log-mel spectrogram, two bidirectional LSTM layers, attentive pooling, and
beside them how each band varies.

It is no expert of faces and no gate weighs it; `utils/speech` runs it on windows of two seconds.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

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


class Texture(nn.Module):
    """How a spectrogram varies, band by band over the whole window: what synthesis smooths or roughens, whoever speaks.

    Args:
        width: D of what comes out.
    """

    def __init__(self, *, bands: int, width: int) -> None:
        super().__init__()
        measures = 8 * bands - 4
        self.norm = nn.BatchNorm1d(measures, affine=False)
        self.layers = nn.Sequential(nn.Dropout(0.2), nn.Linear(measures, width), nn.ReLU(), nn.Dropout(0.5))

    def forward(self, centred: Tensor, along: Tensor, across: Tensor) -> Tensor:
        """(B, width) from the spectrogram less its mean over time, and its differences along time and across bands."""
        turn, spread = along[:, 1:] - along[:, :-1], along.square().mean(1)
        power = centred.square().mean(1)
        neighbours = (centred[:, :, 1:] * centred[:, :, :-1]).mean(1) / (power[:, 1:] * power[:, :-1] + 1e-4).sqrt()
        measures = [
            (power + 1e-5).sqrt(),
            (along.abs().mean(1) + 0.01).log(),
            (across.abs().mean(1) + 0.01).log(),
            (turn.abs().mean(1) + 0.01).log(),
            (along[:, 1:] * along[:, :-1]).mean(1) / (spread + 1e-3),
            along.abs().pow(3).mean(1) / ((spread + 1e-4).pow(1.5) + 1e-3),
            neighbours,
            ((across[:, :, 1:] - across[:, :, :-1]).square().mean(1) + 1e-5).sqrt(),
        ]
        out: Tensor = self.layers(self.norm(torch.cat(measures, 1)).clamp(-5, 5))
        return out


class SpeechNetwork(nn.Module):
    """Spectrogram in, logit of fake out.

    Args:
        bands: of the spectrogram, a multiple of 16.
        channels: of the stem and the three convolution blocks.
        hidden: units of the LSTM per direction.
        texture: width of the branch that reads no sequence.
    """

    def __init__(self, *, bands: int, channels: tuple[int, int, int, int], hidden: int, texture: int) -> None:
        super().__init__()
        stem = nn.Conv2d(3, channels[0], 5, stride=STEM_STRIDE, padding=2, bias=False)
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
        self.texture = Texture(bands=bands, width=texture)
        self.head = nn.Linear(4 * hidden + texture, 1)

    def forward(self, spectrogram: Tensor) -> ExpertOutput:
        """Score windows.

        Args:
            spectrogram: (B, T, bands) float32, prepared by `utils.speech.spectrogram.prepare`.
        """
        centred = spectrogram - spectrogram.mean(1, keepdim=True)
        along = spectrogram[:, 1:] - spectrogram[:, :-1]
        across = centred[:, :, 1:] - centred[:, :, :-1]
        planes = [centred, functional.pad(along, (0, 0, 1, 0)), functional.pad(across, (1, 0))]
        maps = self.blocks(torch.stack(planes, 1))  # (B, C, T / 4, bands / 16)
        frames = self.narrow(maps.permute(0, 2, 1, 3).flatten(2))  # (B, T / 4, 1.5 * hidden)
        states, _ = self.lstm(frames)  # (B, T / 4, 2 * hidden)
        pooled = self.dropout(self.pooling(states))
        if self.training:  # half of the time the texture must do alone: the sequence learns voices by heart sooner
            pooled = pooled * (torch.rand(len(pooled), 1, device=pooled.device) < 0.5)
        feature = torch.cat([pooled, self.texture(centred, along, across)], 1)
        return ExpertOutput(logit=self.head(feature).squeeze(1), feature=feature)


def build_speech(tiny: bool) -> SpeechNetwork:
    """Hidden size 128 (1.1 M parameters), or 8 on narrow convolutions."""
    if tiny:
        return SpeechNetwork(bands=80, channels=(4, 4, 8, 8), hidden=8, texture=16)
    return SpeechNetwork(bands=80, channels=(32, 64, 96, 128), hidden=128, texture=96)
