"""A measure of decoders' traces inside the ViT's head, fitted without a single fake.

The mean difference between real faces decoded again by an autoencoder and their originals (`recoding`) is a direction
among the tokens of the ViT's block 6. Fakes of generators that no training has seen lie along it as well, while among
real photos it says nothing that the head says. A head learned from it in common with all fakes drowns it; so it stands
beside what the head learned, with a weight of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from models.vision_transformer import TapHead
from utils.errors import TrainingDataError
from utils.training.features import Stored, normalised

LAYER = 1
"""The tapped layer that is read: block 6. In the others the direction carries over to fewer generators."""
WEIGHT, FIRST, LAST = 0.6, 1.0, 2.5
"""How much the head's logit rises with each deviation of real training pictures along the direction, and between which
deviations: below, it is how photos differ; above, how strongly one was smoothed."""
SHARPNESS = 2.0
"""How abruptly the rise begins and ends, as a factor before the head's rounded steps."""


@dataclass(frozen=True)
class Traces:
    """A linear measure of one layer's normalised tokens: mean 0 and deviation 1 over real training pictures.

    Args:
        weight: (2D,).
    """

    weight: Tensor
    bias: float

    def write(self, head: TapHead) -> None:
        """Let a head's logit rise with this measure, by two features in the place of those that matter least.

        One begins to count at `FIRST`, the other takes it back from `LAST` on. The head's own norms must do nothing, as
        `HeadAxes.write` leaves them.
        """
        reduce: nn.Linear = head.reduce[LAYER]  # type: ignore[assignment]
        hidden = reduce.out_features
        with torch.no_grad():
            score = head.score.weight[0, LAYER * hidden : (LAYER + 1) * hidden]
            least = (score.abs() * reduce.weight.norm(dim=1)).argsort()[:2]
            for place, sign, begins in zip(least.tolist(), (1.0, -1.0), (FIRST, LAST), strict=True):
                reduce.weight[place], reduce.bias[place] = SHARPNESS * self.weight, SHARPNESS * (self.bias - begins)
                score[place] = sign * WEIGHT / SHARPNESS

    @staticmethod
    def erase(head: TapHead) -> None:
        """Take away what `write` wrote into a head: two features with one weight that count against each other."""
        reduce: nn.Linear = head.reduce[LAYER]  # type: ignore[assignment]
        hidden = reduce.out_features
        with torch.no_grad():
            score = head.score.weight[0, LAYER * hidden : (LAYER + 1) * hidden]
            twins = (reduce.weight[:, None] == reduce.weight[None]).all(2) & (score[:, None] == -score[None])
            score[twins.any(1)] = 0


def fit_traces(recoded: Stored, clean: Stored) -> Traces:
    """The direction from real pictures to the same ones decoded again, sources by the root of their number.

    Args:
        recoded: tokens of recoded real crops; their views keep the crop's row.
        clean: of training pictures as they come, among them the originals.

    Raises:
        TrainingDataError: there is one real picture alone, so that nothing says how photos differ.
    """
    at = {view.row: number for number, view in enumerate(clean.views)}
    plain = normalised(np.asarray(clean.load("tokens"))[:, LAYER])
    decoded = normalised(np.asarray(recoded.load("tokens"))[:, LAYER])
    both = torch.cat([plain, decoded])
    mean, deviation = both.mean(0), both.std(0) + 1e-3
    plain, decoded = ((values - mean) / deviation for values in (plain, decoded))
    real = plain[torch.from_numpy(clean.labels() < 0.5)]
    if len(real) < 2:
        raise TrainingDataError("The measure of decoders' traces (--autoencoder) needs two real pictures or more.")

    moved = decoded - plain[[at[view.row] for view in recoded.views]]
    _, codes, counts = np.unique([view.source for view in recoded.views], return_inverse=True, return_counts=True)
    weights = torch.from_numpy(1 / np.sqrt(counts[codes])).float()
    direction = (weights[:, None] * moved).sum(0)
    measured = real @ direction
    direction, middle = direction / measured.std(), float(measured.mean() / measured.std())
    return Traces(direction / deviation, -float((mean / deviation) @ direction) - middle)
