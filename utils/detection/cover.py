"""Is a face likely covered: by sunglasses, a mask, a hand, a sticker, a bar, or made of large squares?

A cover is no manipulation, and hides one as well as it looks like one: whoever is likely covered is not called fake. A
linear probe reads it from the tokens that the ViT computes anyway; docs/models.md says how it was fitted.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from utils.base_weights import require_file
from utils.metrics import sigmoid
from utils.tensors import read_tensors
from utils.types import Floats, Notice

PROBE = Path(__file__).with_name("cover.safetensors")
PROBE_SHA256 = "22501c22e4f7be65597072b916afe381ffd29a25902690aa241208008d50c8a5"
"""Of the file that `python -m benchmarks.fit_cover` made; with other bytes nothing is analysed."""
LIKELY = 0.5
"""A face is likely covered from this probability: 1 % of uncovered faces are, and 97 % of those with a drawn cover."""
NOTICE = Notice("face_covered", "Something seems to cover part of the face, such as sunglasses, a mask or a hand.")


def cover_probability(tokens: Floats | None) -> float:
    """Probability that a person's face is covered, 0..1: the mean over the crops; 0 without tokens of the real ViT.

    Args:
        tokens: (T, L, 2D) of the crops.
    """
    probe = read_probe()
    if tokens is None or tokens.shape[1:] != probe["weight"].shape:
        return 0.0
    logits = np.tensordot(tokens.astype(np.float32), probe["weight"], 2) + float(probe["bias"][0])
    return float(np.mean([sigmoid(float(v)) for v in logits]))


@functools.cache
def read_probe() -> dict[str, Floats]:
    """The probe's weights and offset.

    Raises:
        WeightsError: the file is missing or has other bytes.
    """
    return read_tensors(require_file(PROBE, PROBE_SHA256))
