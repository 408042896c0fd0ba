"""What the gate is fitted on: degraded pictures are marked, so that temperature and intervals leave them out."""

from __future__ import annotations

import numpy as np
import pytest

from utils.evaluation.score_file import ScoreTable
from utils.training import publishing


def scores(name: str, count: int) -> ScoreTable:
    return ScoreTable(
        names=tuple(f"{name}{i}" for i in range(count)),
        kinds=("image",) * count,
        labels=np.arange(count) % 2.0,
        sources=(name,) * count,
        generators=("-",) * count,
        groups=tuple(f"{name}{i}" for i in range(count)),
        logits=np.zeros((count, 4)),
        quality=np.zeros((count, 4)),
    )


@pytest.fixture
def tables(monkeypatch):
    for kind in ("image_table", "clip_table"):
        monkeypatch.setattr(publishing, kind, lambda ensemble, pack, store, device: store)
    return {"calib": scores("plain", 4), "calib_hard": scores("hard", 3), "calib_clips": scores("clip", 2)}


def test_only_degraded_pictures_are_not_as_they_come(tables):
    held, as_come = publishing.calibration_table(None, None, tables, "cpu")
    assert [s for s, plain in zip(held.sources, as_come, strict=True) if not plain] == ["hard"] * 3
    assert len(held) == len(as_come) == 9


def test_without_clips_and_degraded_pictures_all_are_as_they_come(tables):
    held, as_come = publishing.calibration_table(None, None, {"calib": tables["calib"]}, "cpu")
    assert as_come.all()
    assert len(held) == 4
