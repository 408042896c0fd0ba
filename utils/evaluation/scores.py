"""Scores of many files side by side: what calibration is fitted on and what score files are written from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ScoreTable:
    """One row per picture or clip.

    Args:
        names: file of each row.
        kinds: `image` or `video`.
        labels: (N,) 1 fake, 0 real.
        sources: data set of each row.
        generators: what made it; `-` for real.
        groups: identity or family.
        logits: (N, E) raw logits in the order of `EXPERT_NAMES`, NaN where an expert does not judge.
        quality: (N, Q).
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    labels: Array
    sources: tuple[str, ...]
    generators: tuple[str, ...]
    groups: tuple[str, ...]
    logits: Array
    quality: Array

    def __post_init__(self) -> None:
        count = len(self.labels)
        columns = (self.names, self.kinds, self.sources, self.generators, self.groups, self.logits, self.quality)
        if any(len(column) != count for column in columns):
            raise ValueError("all columns must be equally long")

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, keep: npt.NDArray[np.bool_]) -> ScoreTable:
        """The rows where `keep` (N,) is true."""
        picked = [i for i, chosen in enumerate(keep) if chosen]

        def of(values: Sequence[str]) -> tuple[str, ...]:
            return tuple(values[i] for i in picked)

        return ScoreTable(
            of(self.names), of(self.kinds), self.labels[keep], of(self.sources), of(self.generators),
            of(self.groups), self.logits[keep], self.quality[keep],
        )  # fmt: skip


def join_tables(tables: Sequence[ScoreTable]) -> ScoreTable:
    """Several tables under each other."""
    return ScoreTable(
        tuple(v for t in tables for v in t.names),
        tuple(v for t in tables for v in t.kinds),
        np.concatenate([t.labels for t in tables]),
        tuple(v for t in tables for v in t.sources),
        tuple(v for t in tables for v in t.generators),
        tuple(v for t in tables for v in t.groups),
        np.concatenate([t.logits for t in tables]),
        np.concatenate([t.quality for t in tables]),
    )
