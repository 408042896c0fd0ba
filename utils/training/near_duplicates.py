"""Leaks between splits: the same picture, or one that is nearly the same, in training and in validation.

Groups keep a person's files together (`datasets.check_groups`); this finds what the groups do not know: a photo that
lies in a data set twice, under two names. A perceptual hash finds candidates. Aligned faces of different people also
get hashes that are alike, so a candidate counts only when small grey versions of both crops agree.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from utils.errors import TrainingDataError
from utils.evaluation.datasets import is_of
from utils.phash import perceptual_hash
from utils.training.crop_set import Pack, PackedCrop
from utils.types import MediaKind

NEAR_BITS = 10
"""Crops are compared closely when their hashes differ in at most so many of 64 bits."""
SMALL_PX, SAME = 32, 0.93
"""Crops are of the same picture when the correlation of their small grey versions reaches this."""
LEFT_OUT = "left out"
"""The split of a crop that is in none."""


@dataclass(frozen=True)
class Twin:
    """Two crops of different splits that show the same picture.

    Args:
        left_out: row of the pack in the less protected split (training before calibration before validation).
        kept: row of the pack in the other split.
        correlation: of their small grey versions, up to 1.
    """

    left_out: int
    kept: int
    correlation: float


def find_twins(pack: Pack) -> list[Twin]:
    """Crops of pictures that are also in a more protected split; each is named once, with its nearest twin."""
    rows = {split: pack.select(split, MediaKind.IMAGE) for split in ("train", "calib", "val")}
    seen = {split: _look_at(pack, of_split) for split, of_split in rows.items()}
    twins = []
    for split, protected in (("calib", ("val",)), ("train", ("calib", "val"))):
        others = [row for name in protected for row in rows[name]]
        if not others or not rows[split]:
            continue
        hashes = np.concatenate([seen[name][0] for name in protected])
        small = np.concatenate([seen[name][1] for name in protected])
        for row, own_hash, own in zip(rows[split], *seen[split], strict=True):
            near = np.flatnonzero(np.bitwise_count(hashes ^ own_hash) <= NEAR_BITS)
            if len(near):
                agreement = small[near] @ own
                best = int(agreement.argmax())
                if agreement[best] >= SAME:
                    twins.append(Twin(row.row, others[near[best]].row, round(float(agreement[best]), 4)))
    return twins


def without_twins(pack: Pack, twins: Sequence[Twin]) -> Pack:
    """The pack with the named crops moved out of their split; rows keep their numbers."""
    out = {twin.left_out for twin in twins}
    rows = tuple(replace(row, split=LEFT_OUT) if row.row in out else row for row in pack.rows)
    return replace(pack, rows=rows)


def without_names(pack: Pack, names: Collection[str]) -> Pack:
    """The pack with all crops of these sources, generators and families moved out of training and calibration.

    Names are those of `families.is_of`. Validation keeps the crops: they are what is measured.

    Raises:
        TrainingDataError: no crop of training or calibration has one of the names.
    """
    wanted = set(names)
    found: set[str] = set()
    rows = []
    for row in pack.rows:
        own = {name for name in wanted if is_of(name, row.source, row.generator)}
        if own and row.split in ("train", "calib"):
            found |= own
            row = replace(row, split=LEFT_OUT)
        rows.append(row)
    if wanted - found:
        raise TrainingDataError(
            f"No training file is of the source, generator or family {', '.join(sorted(wanted - found))}."
        )
    return replace(pack, rows=tuple(rows))


def _look_at(pack: Pack, rows: Sequence[PackedCrop]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.float32]]:
    """(N,) perceptual hashes and (N, 1024) small grey versions with mean 0 and length 1."""
    hashes, small = np.zeros(len(rows), np.uint64), np.zeros((len(rows), SMALL_PX**2), np.float32)
    for i, row in enumerate(rows):
        pixels = np.asarray(pack.pixels[row.row])
        hashes[i] = perceptual_hash(pixels)
        grey = cv2.resize(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), (SMALL_PX, SMALL_PX), interpolation=cv2.INTER_AREA)
        flat = grey.astype(np.float32).ravel() - grey.mean()
        small[i] = flat / max(float(np.linalg.norm(flat)), 1e-6)
    return hashes, small
