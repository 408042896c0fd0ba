"""The command line over the real pipeline: decoding child, face detector and tiny networks with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

import inference
from tests.utils.media.films import write_clip
from utils.detection.selftest import write_picture
from utils.errors import UnsupportedMediaError


@pytest.fixture
def media(tmp_path: Path, tiny_root: Path, monkeypatch) -> Path:
    """A photo, a picture without a face, a clip of the photo, and a file that is cut off."""
    monkeypatch.setenv("TELLTALE_WEIGHTS__DIR", str(tiny_root))
    monkeypatch.setenv("TELLTALE_DETECTION__THREADS", "1")
    photo = Image.fromarray(astronaut())
    photo.save(tmp_path / "photo.jpg", quality=92)
    write_picture(tmp_path / "wall.png")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "photo.jpg").read_bytes()[:30])
    write_clip(tmp_path / "clip.mp4", [np.asarray(photo.resize((256, 256)))] * 8)
    return tmp_path


def test_folder_gives_verdicts_of_the_real_pipeline(media, capsys):
    assert inference.main(["--json", "--device", "cpu", str(media)]) == 1
    document = json.loads(capsys.readouterr().out)
    found = {Path(entry["file"]).name: entry for entry in document["results"]}
    assert found["cut.jpg"]["error"]["code"] == "media_corrupt"
    assert found["wall.png"]["report"]["prediction"] == "no_face"
    photo, clip = found["photo.jpg"]["report"], found["clip.mp4"]["report"]
    for report in (photo, clip):
        assert report["model_version"] == "tiny"
        assert 0 < report["fake_probability"] < 1
        assert sum(expert["weight"] for expert in report["experts"]) == pytest.approx(1, abs=1e-5)
    assert [e["available"] for e in photo["experts"]] == [True, True, True, False]
    assert [e["available"] for e in clip["experts"]] == [True, True, True, True]
    assert len(clip["timeline"]) == 8


def test_chosen_expert_alone_carries_the_verdict(media):
    detector = inference.DeepfakeDetector(device="cpu", experts=["cnn"])
    report = detector.predict_image(media / "photo.jpg")
    assert [(e.name, e.weight) for e in report.faces[0].experts if e.available] == [("cnn", pytest.approx(1.0))]
    with pytest.raises(UnsupportedMediaError, match="use predict_video"):
        detector.predict_image(media / "clip.mp4")


def test_selftest_refuses_tiny_networks(media, capsys):
    assert inference.main(["--selftest", "--device", "cpu"]) == 3
    lines = capsys.readouterr().out.splitlines()
    failed = [line for line in lines if line.startswith("FAIL")]
    assert len(failed) == 1
    assert "tiny test networks" in failed[0]
    assert "ok    picture without a face: the outcome is no_face" in lines
