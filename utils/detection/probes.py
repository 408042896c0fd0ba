"""What a face is beside real or fake: likely covered, or no photograph at all.

A cover hides a manipulation as well as it looks like one, and of paintings, drawings, statues and negatives the
networks know nothing. Linear probes read both from the tokens that the ViT computes anyway; docs/models.md says how
they were fitted.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.base_weights import require_file
from utils.metrics import sigmoid
from utils.tensors import read_tensors
from utils.types import Floats, Notice


@dataclass(frozen=True)
class Probe:
    """A linear rule on the tokens of the ViT's frozen backbone, which outlives versions; those with LayerNorms of their
    own give it tokens that it was not fitted on.

    Args:
        path: of its weights, (L, 2D), and offset.
        sha256: of the file that its command made; with other bytes nothing is analysed.
        notice: what is said of a face from a probability of .5.
    """

    path: Path
    sha256: str
    notice: Notice

    def probability(self, tokens: Floats | None) -> float:
        """The mean over a person's crops, 0..1; 0 without tokens of the real ViT."""
        held = read_probe(self.path, self.sha256)
        if tokens is None or tokens.shape[1:] != held["weight"].shape:
            return 0.0
        logits = np.tensordot(tokens.astype(np.float32), held["weight"], 2) + float(held["bias"][0])
        return float(np.mean([sigmoid(float(v)) for v in logits]))

    def says(self, tokens: Floats | None) -> Notice | None:
        """The notice, where it is likely."""
        return self.notice if self.probability(tokens) >= 0.5 else None


COVER = Probe(
    Path(__file__).with_name("cover.safetensors"),
    "22501c22e4f7be65597072b916afe381ffd29a25902690aa241208008d50c8a5",
    Notice("face_covered", "Something seems to cover part of the face, such as sunglasses, a mask or a hand."),
)
"""Fitted by `python -m benchmarks.fit_cover`; such a face is not called fake."""
NO_PHOTO = Probe(
    Path(__file__).with_name("no_photo.safetensors"),
    "f6b39febcd17823296dec9656aabb7a512554e23997fa6935b00fc7f49f7959d",
    Notice("no_photograph", "This looks like a painting, a drawing, a statue or a negative and not like a photo."),
)
"""Fitted by `python -m benchmarks.fit_no_photo`; such a face is not judged."""


@functools.cache
def read_probe(path: Path, sha256: str) -> dict[str, Floats]:
    """A probe's weights and offset.

    Raises:
        WeightsError: the file is missing or has other bytes.
    """
    return read_tensors(require_file(path, sha256))
