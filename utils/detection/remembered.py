"""Corrections that a version remembers: how much what users said about faces like this one moves its score.

A correction is kept as the direction in which the ViT sees its face at one depth, less the mean of all faces. It moves
the logits of faces whose direction lies within its reach, the nearer the more; everybody else's score stays what it
was, to the bit. Where several corrections reach a face, it is moved by their weighted mean: never further than the
strongest of them asks for (Nadaraya 1964; Watson 1964; limited reach after Reilly et al. 1982, "A neural model for
category learning"). Only numpy: the worker needs no torch for it. `utils.feedback.remember` makes what is kept here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from utils.errors import WeightsCorruptError
from utils.tensors import Arrays, read_tensors
from utils.types import Floats
from utils.weights import Version

REMEMBERED = "remembered"
"""Stem of the file within a version that learned; versions without it remember nothing."""
DEPTH = 1
"""Which of the tapped depths: the second of four knows where a picture comes from, later ones what it shows."""
DOUBT = 0.1
"""Weight of the answer that the networks give, beside those of the corrections, each 0..1."""
COPY = 0.92
"""Cosine from which a face is as good as the corrected one (coded anew, resized): it gets all that was asked for."""
COPY_DOUBT = 0.02


@dataclass(frozen=True)
class Remembered:
    """N corrected faces; several where the correction was about a clip.

    Args:
        mean: (D,) float32 of the tokens at `DEPTH`, over the replay buffer.
        directions: (N, D) float16, each of length 1.
        reach: (N,) float32 cosines, -1..1: faces below it are not moved.
        pull: (N,) float32 logits that the correction asks for.
        rest: (N,) float32 logits that it lacks still where the others outvote it, for copies of its face.
    """

    mean: Floats
    directions: npt.NDArray[np.float16]
    reach: Floats
    pull: Floats
    rest: Floats

    def __post_init__(self) -> None:
        count = len(self.directions)
        shapes = {self.reach.shape, self.pull.shape, self.rest.shape}
        if shapes != {(count,)} or self.directions.shape != (count, *self.mean.shape):
            raise WeightsCorruptError("The remembered corrections do not fit together.")

    def shift(self, tokens: Floats) -> Floats:
        """By how many logits each of T crops is moved.

        Args:
            tokens: (T, L, D) as the engine gives them.

        Returns:
            (T,) float32, 0 where no correction reaches.
        """
        return self.shift_alike(directions_of(tokens, self.mean) @ self.directions.astype(np.float32).T)

    def shift_alike(self, alike: Floats) -> Floats:
        """`shift` from the cosines of T crops to the N corrections, (T, N)."""
        wide = _blend(alike, self.reach, self.pull, DOUBT)
        return wide + _blend(alike, np.maximum(self.reach, np.float32(COPY)), self.rest, COPY_DOUBT)

    def shift_items(self, tokens: Floats, starts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """(N,) logits by which items are moved: the mean over the frames `starts[i]` to `starts[i + 1]` of each."""
        return mean_of_items(self.shift(tokens), starts)

    def arrays(self) -> Arrays:
        """As a version stores it."""
        return dict(asdict(self))


def mean_of_items(frames: Floats, starts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """(N,) means over the frames `starts[i]` to `starts[i + 1]` of each item."""
    return np.asarray(np.add.reduceat(frames.astype(np.float64), starts[:-1]) / np.diff(starts))


def directions_of(tokens: npt.NDArray[np.floating[Any]], mean: Floats) -> Floats:
    """(T, D) directions of length 1 in which T crops differ from the mean, from their (T, L, D) tokens."""
    flat = np.asarray(at_depth(tokens), np.float32) - mean
    out: Floats = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), np.float32(1e-9))
    return out


def at_depth(tokens: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    """(T, D) of (T, L, D) tokens, at the depth at which faces are compared."""
    return tokens[:, min(DEPTH, tokens.shape[1] - 1)]


def _blend(alike: Floats, reach: Floats, pull: Floats, doubt: float) -> Floats:
    weights = (np.clip((alike - reach) / np.maximum(1 - reach, np.float32(1e-6)), 0, None)) ** 2  # (T, N)
    out: Floats = ((weights @ pull) / (weights.sum(1) + np.float32(doubt))).astype(np.float32)
    return out


def read_remembered(version: Version) -> Remembered | None:
    """What a verified version remembers; None where it learned nothing this way.

    Raises:
        WeightsCorruptError: its file does not hold what it must.
    """
    path = version.folder / f"{REMEMBERED}.safetensors"
    if not path.is_file():
        return None
    try:
        return Remembered(**read_tensors(path))
    except TypeError as error:
        raise WeightsCorruptError(f"{path.name} of {version.name} does not hold what it must: {error}.") from error
