"""Drawn portraits: size and coding follow the real crop, what is kept on disk, the views made of them."""

from __future__ import annotations

import dataclasses
import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from utils.errors import TrainingDataError, WeightsMissingError
from utils.training.crop_set import Portrait
from utils.training.portraits import (
    coding_of,
    draw_beside,
    drawn_portraits,
    fetched_portraitist,
    plan_portraits,
    portrait_beside,
    stored_portraits,
)
from utils.training.views import PORTRAIT, SWAP, View, render
from utils.types import Box, Face, MediaKind

MARKS = np.array([[180, 220], [330, 220], [256, 300], [196, 370], [316, 370]], np.float32)
FACE = Face(Box(130, 100, 382, 460), 0.9, MARKS)


class Painter:
    """Paints a new colour each time."""

    def __init__(self) -> None:
        self.drawn = 0

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        self.drawn += 1
        return np.broadcast_to(rng.integers(0, 256, 3).astype(np.uint8), (512, 512, 3)).copy()


class Finder:
    """Finds the same face in every picture, after a number of pictures without one."""

    def __init__(self, blind: int = 0) -> None:
        self.blind = blind

    def detect(self, rgb: np.ndarray) -> tuple[Face, ...]:
        self.blind -= 1
        return () if self.blind >= 0 else (FACE,)


@pytest.fixture
def pack(make_pack):
    return make_pack(24, 2)


def real_rows(pack):
    return [row for row in pack.select("train", MediaKind.IMAGE) if not row.label]


def textured() -> np.ndarray:
    return np.random.default_rng(4).integers(0, 256, (512, 512, 3)).astype(np.uint8)


def saved(path: Path, pixels: np.ndarray, **options: object) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.mark.parametrize("source_px", [40.0, 120.0])
def test_face_is_as_large_as_the_real_one_was(pack, source_px, monkeypatch):
    row = real_rows(pack)[0]
    portrait, finest = (
        portrait_beside(dataclasses.replace(row, source_px=px), textured(), FACE, None, np.random.default_rng(1))
        for px in (source_px, 300.0)
    )
    assert portrait.pixels.shape == (256, 256, 3)
    # what was drawn finely cannot be finer than the real crop was: enlarged pictures have no detail left
    detail, most = (float(np.abs(np.diff(p.pixels.astype(float), axis=1)).mean()) for p in (portrait, finest))
    assert detail < 0.8 * most
    seen: list[Face] = []
    monkeypatch.setattr("utils.training.portraits.crop_face", lambda rgb, face, size: seen.append(face) or portrait)
    portrait_beside(dataclasses.replace(row, source_px=source_px), textured(), FACE, None, np.random.default_rng(1))
    assert max(seen[0].box.width, seen[0].box.height) == pytest.approx(source_px, abs=1)
    assert np.ptp(seen[0].landmarks, axis=0) == pytest.approx(np.ptp(MARKS, axis=0) * source_px / 360, abs=1)
    assert portrait.landmarks.shape == (5, 2)
    box = portrait.box
    assert 256 / 1.35 < max(box.width, box.height) < 256 / 1.25, "cut as the product cuts"


@pytest.mark.parametrize(("quality", "subsampling"), [(95, 0), (75, 2), (40, 1)])
def test_coding_of_the_real_picture_is_used_again(tmp_path, pack, quality, subsampling):
    path = saved(tmp_path / "a.jpg", textured(), quality=quality, subsampling=subsampling)
    coding = coding_of(path)
    again = coding.apply(textured())
    with Image.open(path) as image:
        assert np.array_equal(again, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "grey", "text", "none", "cmyk"])
def test_what_is_no_colour_jpeg_has_no_coding_of_its_own(tmp_path, kind):
    path = tmp_path / "a.jpg"
    if kind == "text":
        path.write_text("no picture")
    elif kind != "none":
        mode = {"grey": "L", "cmyk": "CMYK"}.get(kind, "RGB")
        held = io.BytesIO()
        Image.fromarray(textured()).convert(mode).save(held, "PNG" if kind == "PNG" else "JPEG")
        path.write_bytes(held.getvalue())
    assert coding_of(path) is None


def test_portrait_is_the_same_each_time_and_another_beside_each_crop(pack):
    one, other = real_rows(pack)[:2]
    again = [draw_beside(row, Painter(), Finder()) for row in (one, one, other)]
    assert np.array_equal(again[0].pixels, again[1].pixels)
    assert not np.array_equal(again[0].pixels, again[2].pixels)


def test_portrait_whose_landmarks_lie_on_one_spot_is_drawn_anew(pack, monkeypatch):
    spots = iter([np.full((5, 2), 200, np.float32), MARKS])
    finder = Finder()
    monkeypatch.setattr(finder, "detect", lambda rgb: (dataclasses.replace(FACE, landmarks=next(spots)),))
    painter = Painter()
    assert draw_beside(real_rows(pack)[0], painter, finder) is not None
    assert painter.drawn == 2


def test_portrait_without_a_face_is_drawn_anew_and_given_up_after_a_few(pack):
    row, painter = real_rows(pack)[0], Painter()
    assert draw_beside(row, painter, Finder(blind=2)) is not None
    assert painter.drawn == 3
    with pytest.raises(TrainingDataError, match="--portraits 0"):
        draw_beside(row, Painter(), Finder(blind=99))


def test_a_stopped_run_goes_on_and_a_finished_one_needs_no_generator(pack, tmp_path):
    rows = pack.select("train", MediaKind.IMAGE)
    first = drawn_portraits(rows, 1, tmp_path, Painter, Finder())
    assert set(first) <= {row.row for row in rows if not row.label}
    painter = Painter()
    every = drawn_portraits(rows, 99, tmp_path, lambda: painter, Finder())
    assert painter.drawn == len(every) - len(first) > 0
    assert set(every) == {row.row for row in rows if not row.label}

    def refused():
        raise AssertionError("nothing is left to draw")

    again = drawn_portraits(rows, 99, tmp_path, refused, Finder())
    stored = stored_portraits(tmp_path)
    for number, portrait in every.items():
        for held in (again[number], stored[number]):
            assert np.array_equal(held.pixels, portrait.pixels)
            assert np.array_equal(held.landmarks, portrait.landmarks)
            assert dataclasses.astuple(held.box) == pytest.approx(dataclasses.astuple(portrait.box))


def with_portraits(pack):
    marks = MARKS / 2
    grey = Portrait(np.full((256, 256, 3), 90, np.uint8), marks, Box(30, 20, 226, 216))
    return dataclasses.replace(pack, portraits={row.row: grey for row in real_rows(pack)})


def test_each_portrait_is_shown_whole_and_some_of_their_faces_in_the_crop(pack):
    drawn = with_portraits(pack)
    count = len(drawn.portraits)
    made = {
        (share, whole): plan_portraits(drawn, drawn.rows, seed=3, swaps=share, whole=whole)
        for share in (0.0, 0.5, 1.0)
        for whole in (True, False)
    }
    for (share, whole), views in made.items():
        kinds = Counter(view.redrawn for view in views)
        assert kinds[""] == kinds[PORTRAIT] + kinds[SWAP], "a real one beside each"
        assert kinds[PORTRAIT] == (count if whole else 0)
        assert kinds[SWAP] in {0.0: [0], 0.5: range(1, count), 1.0: [count]}[share]
        assert all(bool(view.redrawn) == bool(view.label) for view in views)
        assert len({view.seed for view in views}) == len(views)
    assert made[0.5, True] == plan_portraits(drawn, drawn.rows, seed=3, swaps=0.5)
    assert plan_portraits(drawn, [], seed=3) == []


def test_portrait_is_shown_whole_and_swap_only_within_the_face(pack):
    drawn = with_portraits(pack)
    row = real_rows(drawn)[0]
    plain, whole, swapped = (
        render(drawn, View(row.row, 1, row.source, "x", 5, clean=True, redrawn=how)) for how in ("", PORTRAIT, SWAP)
    )
    assert np.unique(whole).tolist() == [90]
    changed = np.abs(swapped.astype(int) - plain.astype(int)).max(2) > 2
    assert 0.05 < changed.mean() < 0.9
    corners = [changed[y, x] for y in (0, -1) for x in (0, -1)]
    assert not any(corners), "the rim is the real crop's"


def test_generator_that_cannot_be_had_says_how_to_go_on(tmp_path, monkeypatch):
    def gone(pinned, folder):
        raise WeightsMissingError("no package.")

    monkeypatch.setattr("utils.training.portraits.ensure_files", gone)
    with pytest.raises(WeightsMissingError, match="--portraits 0"):
        fetched_portraitist(tmp_path)
