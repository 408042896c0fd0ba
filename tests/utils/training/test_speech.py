"""Training the network of speech on sounds that are made here: manifests, views, going on after a stop, a version."""

from __future__ import annotations

import csv
import dataclasses

import av
import numpy as np
import pytest
import torch

from benchmarks import speech_scorecard
from models.speech_model import build_speech
from tests.speech_fixtures import voice
from utils.errors import TrainingDataError, WeightsError
from utils.speech.judge import load_speech
from utils.speech.spectrogram import RATE, WINDOW_FRAMES
from utils.training import speech
from utils.training.speech import SpeechPlan, all_views, batches, fit, read_recordings, strange, with_copies
from utils.training.speech_version import train_speech

PLAN = SpeechPlan(steps=4, batch=4, copies=1, views=2, workers=1)


def write_flac(path, sound):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("flac", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray((sound[None] * 32767).astype(np.int16), format="s16", layout="mono")
        frame.sample_rate = RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Ten voices, half called fake, in two splits; one family and one world only in the second."""
    root = tmp_path_factory.mktemp("data")
    rows = []
    for i in range(10):
        split, fake, new = ("train" if i < 6 else "val"), i % 2 == 1, i >= 8
        name = f"clips/{i}.flac"
        write_flac(root / "speech" / name, voice(2.1, pitch=100 + 10 * i, seed=i))
        rows.append({
            "file": name, "split": split, "source": "tests", "label": "fake" if fake else "real", "system": "s",
            "family": fake * ("new" if new else "old"), "world": (not fake) * ("far" if new else "near"),
            "speaker": str(i),
        })  # fmt: skip
    with (root / "speech" / "manifest.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return root


def test_recordings_and_their_copies(data):
    recordings = read_recordings(data)
    assert len(recordings) == 10
    assert [r.kind for r in recordings[-2:]] == ["far", "new"]
    assert strange(recordings) == [False] * 8 + [True] * 2
    copies = with_copies(recordings, PLAN)[10:]
    assert len(copies) == 3
    assert all(c.label == 1 and c.maker and c.split == "train" for c in copies)


def test_a_missing_file_and_a_missing_class_are_named(data, tmp_path):
    with pytest.raises(TrainingDataError, match="no manifest of recordings"):
        read_recordings(tmp_path)
    (tmp_path / "manifest.csv").write_text((data / "speech" / "manifest.csv").read_text())
    with pytest.raises(TrainingDataError, match=r"line 2: clips/0\.flac is not there"):
        read_recordings(tmp_path)


def test_batches_are_half_real_and_no_stranger_is_in_them(data):
    recordings = read_recordings(data)
    views = [[np.full((WINDOW_FRAMES + 5, 80), float(i), np.float32)] for i in range(10)]
    windows, labels = next(batches(recordings, views, PLAN, np.random.default_rng(0)))
    assert windows.shape == (4, WINDOW_FRAMES, 80)
    assert np.isfinite(windows).all()
    assert labels.sum() == 2


def test_a_stopped_training_goes_on_and_its_views_are_made_once(data, tmp_path, monkeypatch):
    monkeypatch.setattr(speech, "build_speech", lambda tiny: build_speech(True))
    recordings = read_recordings(data)
    views = all_views(recordings, PLAN, tmp_path / "views")
    assert [len(v) for v in views] == [2] * 6 + [4] * 4
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "views").iterdir()}
    again = all_views(recordings, PLAN, tmp_path / "views")
    assert before == {p.name: p.stat().st_mtime_ns for p in (tmp_path / "views").iterdir()}
    assert np.array_equal(again[3][0], views[3][0])
    monkeypatch.setattr(speech, "CHECKPOINT_S", 0.0)
    endless = speech.batches

    def two(*given):
        for i, batch in enumerate(endless(*given)):
            if i == 2:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(speech, "batches", two)
    with pytest.raises(KeyboardInterrupt):
        fit(recordings, views, PLAN, tmp_path)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 2
    network = fit(recordings, views, PLAN, tmp_path)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 4
    assert not network.training


def test_one_command_trains_a_version_that_judges(data, tmp_path, monkeypatch):
    monkeypatch.setattr(speech, "build_speech", lambda tiny: build_speech(True))
    plan = dataclasses.replace(PLAN, steps=2)
    root = tmp_path / "versions"
    root.mkdir()
    version = train_speech(data, tmp_path / "run", root, "v9", plan, terms=["free"], notes=[])
    assert set(version.card["validation"]) >= {"auc", "eer_known_families", "auc_lost"}
    assert version.card["data"]["terms"] == ["free"]
    judge = load_speech(root, "v9", threads=1)
    assert judge.judge(voice(3.0)).model_version == "v9"
    monkeypatch.setattr("benchmarks.speech_scorecard.SpeechPlan", lambda: plan)
    assert (
        speech_scorecard.main(["--data", str(data), "--run", str(tmp_path / "run"), "--out", str(tmp_path / "p.md")])
        == 0
    )
    page = (tmp_path / "p.md").read_text()
    assert all(f"{name} 0." in page for name in (*speech_scorecard.FACTS, "linear spectral probe"))
    with pytest.raises(WeightsError, match="taken"):
        train_speech(data, tmp_path / "run", root, "v9", plan, terms=[], notes=[])
