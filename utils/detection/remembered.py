"""Corrections that a version remembers: how much what users said about faces like this one moves its score.

A correction is kept as the direction in which the ViT sees its face at one depth, less the mean of all faces. It moves
the logits of faces whose direction lies within its reach, the nearer the more; everybody else's score stays what it
was, to the bit. Where several corrections reach a face, it is moved by their weighted mean (Nadaraya 1964; Watson 1964;
limited reach after Reilly et al. 1982, "A neural model for category learning") and by a linear rule that all of them
together fitted at a later depth, which tells their real faces from their fakes; never further than the strongest of
them asks for. Only numpy: the worker needs no torch for it. `utils.feedback.remember` makes what is kept here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cached_property
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
RULE_DEPTH = 2
"""That of the rule: the third tells best what is real from what is fake, among pictures that come from one place."""
DOUBT = 0.1
"""Weight of the answer that the networks give, beside those of the corrections, each 0..1."""
COPY = 0.92
"""Cosine from which a face is as good as the corrected one (coded anew, resized): it gets all that was asked for."""
COPY_DOUBT = 0.02


def _nothing() -> Floats:
    return np.zeros(0, np.float32)


@dataclass(frozen=True)
class Remembered:
    """N corrected faces; several where the correction was about a clip.

    Args:
        mean: (D,) float32 of the tokens at `DEPTH`, over the replay buffer.
        directions: (N, D) float16, each of length 1.
        reach: (N,) float32 cosines, -1..1: faces below it are not moved.
        pull: (N,) float32 logits that the correction asks for.
        rest: (N,) float32 logits that it lacks still where the others outvote it, for copies of its face.
        rule_mean: (D,) float32 of the tokens at `RULE_DEPTH`, over the replay buffer; (0,) where there is no rule, as
            in versions that learned before there was one.
        rule: (D,) float32 logits along the direction of a face at that depth.
        rule_start: (1,) float32 logits beside; (0,) where there is no rule.
    """

    mean: Floats
    directions: npt.NDArray[np.float16]
    reach: Floats
    pull: Floats
    rest: Floats
    rule_mean: Floats = field(default_factory=_nothing)
    rule: Floats = field(default_factory=_nothing)
    rule_start: Floats = field(default_factory=_nothing)

    def __post_init__(self) -> None:
        count = len(self.directions)
        shapes = {self.reach.shape, self.pull.shape, self.rest.shape}
        ruled = self.rule_mean.shape, self.rule.shape, self.rule_start.shape
        fits = ruled in (((0,),) * 3, (self.mean.shape, self.mean.shape, (1,)))
        if shapes != {(count,)} or self.directions.shape != (count, *self.mean.shape) or not fits:
            raise WeightsCorruptError("The remembered corrections do not fit together.")

    def shift(self, tokens: Floats) -> Floats:
        """By how many logits each of T crops is moved.

        Args:
            tokens: (T, L, D) as the engine gives them.

        Returns:
            (T,) float32, 0 where no correction reaches.
        """
        ruled = np.zeros(len(tokens), np.float32)
        if len(self.rule):
            ruled = directions_of(tokens, self.rule_mean, RULE_DEPTH) @ self.rule + self.rule_start
        return self.shift_alike(directions_of(tokens, self.mean) @ self._columns, ruled)

    @cached_property
    def _columns(self) -> Floats:
        return self.directions.astype(np.float32).T

    def shift_alike(self, alike: Floats, ruled: Floats) -> Floats:
        """`shift` from the cosines of T crops to the N corrections, (T, N), and from what the rule says, (T,)."""
        most = np.abs(self.pull).max(initial=0)
        wide = np.clip(blend(nearness(alike, self.reach), self.pull, DOUBT, ruled), -most, most)
        return wide + blend(nearness(alike, np.maximum(self.reach, np.float32(COPY))), self.rest, COPY_DOUBT)

    def shift_items(self, tokens: Floats, starts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """(N,) logits by which items are moved: the mean over the frames `starts[i]` to `starts[i + 1]` of each."""
        return mean_of_items(self.shift(tokens), starts)

    def arrays(self) -> Arrays:
        """As a version stores it."""
        return dict(asdict(self))


def mean_of_items(frames: Floats, starts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """(N,) means over the frames `starts[i]` to `starts[i + 1]` of each item."""
    return np.asarray(np.add.reduceat(frames.astype(np.float64), starts[:-1]) / np.diff(starts))


def directions_of(tokens: npt.NDArray[np.floating[Any]], mean: Floats, depth: int = DEPTH) -> Floats:
    """(T, D) directions of length 1 in which T crops differ from the mean at a depth, from their (T, L, D) tokens."""
    flat = np.asarray(at_depth(tokens, depth), np.float32) - mean
    out: Floats = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), np.float32(1e-9))
    return out


def at_depth(tokens: npt.NDArray[np.floating[Any]], depth: int) -> npt.NDArray[np.floating[Any]]:
    """(T, D) of (T, L, D) tokens at a depth, or at the last where there are fewer."""
    return tokens[:, min(depth, tokens.shape[1] - 1)]


def nearness(alike: Floats, reach: Floats) -> Floats:
    """(T, N) weights of N corrections for T crops, 0 beyond their reach and 1 for the very face, from cosines."""
    beyond = (alike - reach) / np.maximum(1 - reach, np.float32(1e-6))
    return np.asarray(np.clip(beyond, 0, None) ** 2, np.float32)


def blend(weights: Floats, pull: Floats, doubt: float, ruled: Floats | float = 0.0) -> Floats:
    """(T,) means of the N pulls, each with what the rule adds, and of nothing, which has the weight of the doubt."""
    near = weights.sum(1)
    out: Floats = ((weights @ pull + near * ruled) / (near + np.float32(doubt))).astype(np.float32)
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
