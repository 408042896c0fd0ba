"""The replay buffer: features of training data that are learned again beside feedback, so that nothing is forgotten."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from utils.feedback.feature_set import FeatureSet, load_features

REPLAY_FILE = "replay.safetensors"


def load_replay(folder: Path) -> tuple[FeatureSet, dict[str, str]]:
    """The replay buffer of a lineage and the facts beside it.

    Raises:
        TrainingDataError: it is not there or damaged.
    """
    return load_features(folder / REPLAY_FILE)


def balanced_draws(features: FeatureSet, count: int, rng: np.random.Generator) -> Iterator[npt.NDArray[np.int64]]:
    """Endless draws in which real and fake come equally often, and within each label every source equally often.

    However many items one label or one source has, it cannot crowd out the others.

    Args:
        features: to draw from; at least one item.
        count: of items per draw; some come more than once where there are few.
        rng: of the draws.

    Yields:
        (count,) indices.
    """
    cells: dict[float, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for i, (label, source) in enumerate(zip(features.labels, features.sources, strict=True)):
        cells[float(label)][source].append(i)
    labels = [[np.array(items) for items in sources.values()] for _, sources in sorted(cells.items())]
    while True:
        picked = np.empty(count, np.int64)
        for k in range(count):
            sources = labels[k % len(labels)]
            items = sources[int(rng.integers(len(sources)))]
            picked[k] = items[int(rng.integers(len(items)))]
        yield picked
