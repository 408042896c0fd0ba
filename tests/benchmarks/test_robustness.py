"""Degradations do what they are called, and their cost is counted on the same files."""

from __future__ import annotations

import csv

import cv2
import numpy as np
import pytest
from PIL import Image

from benchmarks.corruptions import CLEAN, CONDITIONS, degraded
from benchmarks.robustness import choose, compare_conditions, read_conditions, score_conditions, write_robustness
from utils.detection.calibration import Calibration, ReliabilityBin
from utils.detection.pipeline import load_analyser
from utils.errors import TrainingDataError
from utils.evaluation.layouts import Sample
from utils.media.images import decode_image
from utils.media.limits import MediaLimits
from utils.media.video import decode_video
from utils.types import MediaKind

CALIBRATION = Calibration((ReliabilityBin(0.0, 1.0, 100, 50),), 0.3, 0.7, {})
BY_NAME = {condition.name: condition for condition in CONDITIONS}


@pytest.fixture(scope="module")
def picture(tmp_path_factory, photo):
    path = tmp_path_factory.mktemp("picture") / "photo.png"
    Image.fromarray(photo).save(path)
    return path


def pixels_of(path):
    if path.suffix == ".mp4":
        return decode_video(path, 16, MediaLimits())[0][0].pixels
    return decode_image(path, MediaLimits())[0].pixels


@pytest.mark.parametrize("name", [c.name for c in CONDITIONS if c.name != CLEAN])
def test_each_condition_changes_the_picture_and_not_what_it_shows(picture, photo, tmp_path, name):
    changed = pixels_of(degraded(picture, MediaKind.IMAGE, BY_NAME[name], tmp_path, frames=16))
    back = cv2.resize(changed, photo.shape[1::-1]).astype(int)
    difference = np.abs(back - photo).mean()
    assert 0.1 < difference < 60
    assert np.corrcoef(back.ravel(), photo.ravel())[0, 1] > 0.9


def test_worse_is_worse(picture, photo, tmp_path):
    def loss(name: str) -> float:
        path = degraded(picture, MediaKind.IMAGE, BY_NAME[name], tmp_path, frames=16)
        return float(np.abs(cv2.resize(pixels_of(path), photo.shape[1::-1]).astype(int) - photo).mean())

    assert loss("JPEG 95") < loss("JPEG 50") < loss("JPEG 30")
    assert loss("scale 1/2") < loss("scale 1/4")
    assert loss("H.264 CRF 23") < loss("H.264 CRF 40")
    assert degraded(picture, MediaKind.IMAGE, BY_NAME[CLEAN], tmp_path, frames=16) == picture


def test_clips_stay_clips_and_no_jpeg_is_made_of_them(picture, tmp_path):
    first = degraded(picture, MediaKind.IMAGE, BY_NAME["H.264 CRF 23"], tmp_path, frames=16)
    clip = first.rename(tmp_path / "clip.mp4")
    again = degraded(clip, MediaKind.VIDEO, BY_NAME["scale 1/2"], tmp_path, frames=16)
    assert pixels_of(again).shape == (256, 256, 3)
    assert not BY_NAME["JPEG 50"].applies_to(MediaKind.VIDEO)
    assert BY_NAME["blur 1 px"].applies_to(MediaKind.VIDEO)


def sample(path, label: int, source: str = "shots", kind: MediaKind = MediaKind.IMAGE) -> Sample:
    return Sample(path, kind, label, source, str(path), "made" if label else "-", "val")


def test_choice_is_balanced_and_a_larger_one_holds_the_smaller(tmp_path):
    files = [sample(tmp_path / f"{i}.png", int(i >= 7)) for i in range(20)]
    files += [sample(tmp_path / f"real{i}.png", 0, "reals") for i in range(9)]
    files += [sample(tmp_path / f"{i}.mp4", i % 2, "video:x", MediaKind.VIDEO) for i in range(8)]
    small, large = choose(files, 3, 2), choose(files, 20)
    counts = [(s, label, sum(f.source == s and f.label == label for f in large)) for s in ("shots", "reals")
              for label in (0, 1)]  # fmt: skip
    assert counts == [("shots", 0, 7), ("shots", 1, 7), ("reals", 0, 9), ("reals", 1, 0)]
    assert {f.path for f in small} <= {f.path for f in large}
    assert len(small) == 3 * 3 + 4


def row(file: str, label: str, probability: float | None, outcome: str) -> dict[str, str]:
    number = "" if probability is None else str(probability)
    return {"file": file, "label": label, "probability": number, "outcome": outcome, "group": file, "kind": "image"}


def test_loss_and_flips_count_the_same_files():
    clean = [row("a", "real", 0.1, "real"), row("b", "real", 0.2, "real"), row("c", "fake", 0.9, "fake"),
             row("d", "fake", 0.8, "fake")]  # fmt: skip
    worse = [row("a", "real", 0.85, "fake"), row("b", "real", 0.2, "real"), row("c", "fake", 0.9, "fake"),
             row("d", "fake", None, "no_face")]  # fmt: skip
    held = compare_conditions(clean, worse, CALIBRATION, rounds=50)
    assert (held.files, held.unjudged) == (4, 1)
    assert held.auc.value == 1.0
    assert held.alarms.value == 0.5
    assert held.flips == 0.25
    assert held.changed == 0.5
    swapped = [row("a", "real", 0.95, "fake"), *clean[1:]]
    assert compare_conditions(clean, swapped, CALIBRATION, rounds=50).loss.value == pytest.approx(0.5)
    same = compare_conditions(clean, clean, CALIBRATION, rounds=50)
    assert (same.loss.value, same.loss.low, same.loss.high, same.changed) == (0, 0, 0, 0)


def test_command_line_way_from_files_to_page(tiny_root, settings_for, picture, photo, tmp_path, monkeypatch):
    analyser = load_analyser(settings_for(tiny_root))
    few = tuple(BY_NAME[name] for name in (CLEAN, "JPEG 50", "H.264 CRF 32"))
    monkeypatch.setattr("benchmarks.robustness.CONDITIONS", few)
    Image.fromarray(photo[:, ::-1]).save(tmp_path / "other.png")
    files = [sample(picture, 0), sample(tmp_path / "other.png", 1)]
    scores = tmp_path / "runs" / "scores.csv"
    told: list[tuple[int, int]] = []
    score_conditions(files, analyser, scores, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (6, 6)
    before = scores.read_bytes()
    score_conditions(files, analyser, scores)
    assert scores.read_bytes() == before, "a finished run goes on with nothing"
    out = tmp_path / "robustness.md"
    text = write_robustness(scores, "tiny", CALIBRATION, out, "Two files.")
    assert [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")][1:] == [
        "| clean", "| JPEG 50", "| H.264 CRF 32"
    ]  # fmt: skip


def test_scores_without_clean_files_are_refused(tmp_path):
    with pytest.raises(TrainingDataError, match="cannot be read"):
        read_conditions(tmp_path / "gone.csv")
    with (tmp_path / "s.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerows([["condition", "file"], ["JPEG 50", "a"]])
    with pytest.raises(TrainingDataError, match="no scores of clean"):
        read_conditions(tmp_path / "s.csv")
