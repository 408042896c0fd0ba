"""Photos and clips that lie on their side or stand on their head, without a tag that says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.utils.media.films import write_clip
from utils.config import Settings
from utils.detection import pipeline
from utils.detection.closeup import look_closer
from utils.detection.pipeline import Analyser, analyse, load_analyser
from utils.types import Box, Outcome, Pixels


@pytest.fixture(scope="module")
def analyser(tiny_root: Path, settings_for: Callable[..., Settings]) -> Analyser:
    return load_analyser(settings_for(tiny_root))


def saved(path: Path, pixels: Pixels, turn: int) -> Path:
    Image.fromarray(np.ascontiguousarray(np.rot90(pixels, turn))).save(path)
    return path


def turned_box(box: Box, pixels: Pixels, turn: int) -> tuple[int, int, int, int]:
    """Where a box of a picture lies once the picture is turned, in whole pixels."""
    place = np.zeros(pixels.shape[:2], bool)
    place[round(box.y0) : round(box.y1), round(box.x0) : round(box.x1)] = True
    rows, columns = np.nonzero(np.rot90(place, turn))
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_turned_photo_gets_the_score_of_the_upright_one(analyser, photo, tmp_path, turn):
    wide = photo[:400]
    upright = analyse(saved(tmp_path / "upright.png", wide, 0), analyser)
    turned = analyse(saved(tmp_path / "turned.png", wide, turn), analyser)
    assert turned.verdict.probability == upright.verdict.probability
    assert ([n.code for n in turned.notices], upright.notices) == (["turned"], ())
    assert (turned.media.width, turned.media.height) == ((400, 512) if turn % 2 else (512, 400))
    box = turned.faces[0].frames[0].box
    where = turned_box(upright.faces[0].frames[0].box, wide, turn)
    assert (box.x0, box.y0, box.x1, box.y1) == pytest.approx(where, abs=1)


def test_turned_clip_without_a_matrix_is_judged_upright(analyser, photo, tmp_path):
    small = cv2.resize(photo, (256, 256), interpolation=cv2.INTER_AREA)
    write_clip(tmp_path / "turned.mp4", [np.rot90(np.roll(small, 3 * i, axis=1)) for i in range(6)])
    report = analyse(tmp_path / "turned.mp4", analyser)
    assert "turned" in {n.code for n in report.notices}
    (face,) = report.faces
    assert len(face.frames) == 6
    assert all(f.box.width > f.box.height for f in face.frames), "the box lies as the head does in the clip"


def test_head_that_no_turn_sets_upright_is_not_judged(analyser, photo, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "find_turn", lambda *given: 0)
    report = analyse(saved(tmp_path / "lies.png", photo, 1), analyser)
    assert (report.verdict.outcome, report.verdict.reasons[0].code) == (Outcome.INCONCLUSIVE, "face_turned")


def test_closer_look_lies_over_the_photo_as_it_is_shown(tiny_root, settings_for, photo, tmp_path):
    torch = load_analyser(settings_for(tiny_root, engine="torch"))
    upright, *others = (look_closer(saved(tmp_path / f"{n}.png", photo, n), torch, 0) for n in range(4))
    for turn, turned in enumerate(others, start=1):
        square = turned.square
        assert (square.x0, square.y0, square.x1, square.y1) == turned_box(upright.square, photo, turn)
        for lying, standing in zip(turned.maps, upright.maps, strict=True):
            if standing.grid is not None:
                assert np.array_equal(lying.grid, np.rot90(standing.grid, turn))
