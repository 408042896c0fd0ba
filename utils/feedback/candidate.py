"""A candidate as a version on disk: what learned is written anew, everything else is that of the base."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.feedback.trainable import LearnedParts
from utils.tensors import read_tensors
from utils.weights import CALIBRATION_FILE, FROZEN, Version, publish_version, read_document


def publish_candidate(
    root: Path, name: str, base: Version, parts: LearnedParts, training: Mapping[str, Any]
) -> Version:
    """Write a candidate as an immutable version: the learned parts anew, everything else as in the base.

    Args:
        root: the folder with the versions.
        name: from `next_name`.
        base: the trained version that it learned from.
        parts: what learned.
        training: its entry for the history; it goes into the card too, so that the line can be written again.
    """
    tensors = parts.arrays()
    if "vit" in tensors:  # what a tiny version or trained LayerNorms store beside the head stays
        tensors["vit"] = read_tensors(base.folder / "vit.safetensors") | tensors["vit"]
    kept = {f"{e}.safetensors": base.folder / f"{e}.safetensors" for e in FROZEN if e in base.experts}
    card = {k: v for k, v in base.card.items() if k not in ("validation", "selftest")}
    # the figures of the base's scorecard are not the candidate's; its own ones are those of the golden set
    card |= {"name": name, "learning": {"base": base.name, "training": dict(training)}}
    calibration = read_document(base.folder / CALIBRATION_FILE)
    return publish_version(root, name, tensors, {"calibration": calibration, "card": card}, kept, link=True)
