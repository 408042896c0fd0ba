"""The bidirectional LSTM: temporal consistency, read from the ResNeXt-50 features of 16 frames of one person."""

from __future__ import annotations

from torch import Tensor, nn

from models.preprocess import ExpertOutput


class TemporalLSTM(nn.Module):
    """Two bidirectional LSTM layers over frame features; the mean over time is scored.

    Args:
        features: D of one frame.
        hidden: units per direction.
    """

    def __init__(self, *, features: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(features)
        self.lstm = nn.LSTM(features, hidden, num_layers=2, bidirectional=True, batch_first=True, dropout=0.3)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(2 * hidden, 1)

    def forward(self, sequence: Tensor) -> ExpertOutput:
        """Score sequences.

        Args:
            sequence: (B, T, D) frame features in time order; T of 2 and more.
        """
        states, _ = self.lstm(self.norm(sequence))  # (B, T, 2 * hidden)
        feature = states.mean(1)
        return ExpertOutput(logit=self.head(self.dropout(feature)).squeeze(1), feature=feature)


def build_lstm(tiny: bool) -> TemporalLSTM:
    """Hidden size 256 on 2048 features (6.3 M parameters), or 8 on 64."""
    return TemporalLSTM(features=64, hidden=8) if tiny else TemporalLSTM(features=2048, hidden=256)
