"""Training the network of speech on sounds that are made here: manifests, views, going on after a stop, a version."""

from __future__ import annotations

import csv
import dataclasses
import datetime as dt
from collections import Counter

import av
import numpy as np
import pytest
import torch

from benchmarks import speech_scorecard
from models.speech_model import build_speech
from tests.speech_fixtures import voice
from utils.errors import TrainingDataError, WeightsError
from utils.feedback.cached_judge import load_parts, logits_of
from utils.feedback.golden import load_lineage
from utils.speech.judge import load_speech
from utils.speech.spectrogram import RATE
from utils.training import speech
from utils.training.publishing import media_key
from utils.training.speech import (
    SpeechPlan,
    all_views,
    encoded,
    fit,
    make_views,
    read_recordings,
    strange,
    untrained,
    with_copies,
)
from utils.training.speech_linear import (
    COPY_WEIGHT,
    PROCESSED_WEIGHT,
    Recording,
    Windows,
    chances_of,
    fit_spread,
    folds_of,
    left_out,
)
from utils.training.speech_sounds import read_sound
from utils.training.speech_version import train_speech

PLAN = SpeechPlan(steps=4, batch=4, copies=1, engine=0, views=2, workers=1)


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
            "file": name, "split": split, "source": f"tests {i // 2 % 2}", "system": "s",
            "label": "fake" if fake else "real",
            "family": fake * ("new" if new else "old"), "world": (not fake) * ("far" if new else "near"),
            "speaker": str(i),
        })  # fmt: skip
    with (root / "speech" / "manifest.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return root


def test_recordings_their_copies_and_an_engine(data, monkeypatch):
    recordings = read_recordings(data)
    assert len(recordings) == 10
    assert [r.kind for r in recordings[-2:]] == ["far", "new"]
    assert strange(recordings) == [False] * 8 + [True] * 2
    copies = with_copies(recordings, PLAN)[10:]
    assert len(copies) == 3
    assert all(c.label == 1 and c.maker and c.split == "train" for c in copies)
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert len(with_copies(recordings, dataclasses.replace(PLAN, engine=2))) == 13
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    spoken = with_copies(recordings, dataclasses.replace(PLAN, engine=2))[13:]
    assert [(r.label, r.split, r.kind, r.speaker) for r in spoken] == [(1, "train", "formant", "espeak-ng")] * 2
    monkeypatch.setattr(speech, "espeak", lambda rng: voice(3.0, pitch=float(rng.integers(90, 200))))
    first, second = (make_views(spoken[0], PLAN, seed) for seed in (1, 2))
    assert len(first[0]) == 240
    assert not np.array_equal(first[0], second[0])


def test_a_missing_file_and_a_missing_class_are_named(data, tmp_path):
    with pytest.raises(TrainingDataError, match="no manifest of recordings"):
        read_recordings(tmp_path)
    (tmp_path / "manifest.csv").write_text((data / "speech" / "manifest.csv").read_text())
    with pytest.raises(TrainingDataError, match=r"line 2: clips/0\.flac is not there"):
        read_recordings(tmp_path)


def test_no_stranger_is_drawn_and_small_families_and_first_views_are_drawn_more_often(data):
    recordings = with_copies(read_recordings(data), PLAN)
    owners = np.array([i for i, r in enumerate(recordings) if r.split == "train" for _ in range(2)])
    real, fake = (chances_of(recordings, owners, label) for label in (0, 1))
    assert real.sum() == pytest.approx(1)
    assert fake.sum() == pytest.approx(1)
    assert not (real * fake).any()
    assert {recordings[i].label for i in owners[real > 0]} == {0}
    assert real[0] * PROCESSED_WEIGHT == pytest.approx(real[1])
    of = {recordings[i].family: chance for i, chance in zip(owners[::2], fake[::2], strict=True) if chance}
    counts = Counter(recordings[i].family for i in owners[::2])
    made = next(r.family for r in recordings if r.maker)
    assert of[made] / of["old"] == pytest.approx(COPY_WEIGHT * np.sqrt(counts["old"] / counts[made]))


def test_the_linear_branch_tells_apart_what_means_and_deviations_tell():
    network = build_speech(True)
    truth = torch.tensor([0.0, 1.0]).repeat(50)
    spreads = torch.randn(100, 96, generator=torch.Generator().manual_seed(0)) + truth[:, None] * torch.arange(96) / 48
    chances = [(truth == label).double().numpy() / 50 for label in (0, 1)]
    fit_spread(network, Windows(spreads, spreads.half(), np.arange(100), truth), chances)
    said = network.spread_head(network.normal(spreads)).squeeze(1) > 0
    assert (said == (truth > 0)).float().mean() > 0.9
    assert not network.spread_head.weight.requires_grad


def test_a_stopped_training_goes_on_and_its_views_are_made_once(data, tmp_path, monkeypatch):
    monkeypatch.setattr(speech, "build_speech", lambda tiny: build_speech(True))
    monkeypatch.setattr(speech, "load_encoder", lambda encoder, folder: None)
    recordings = read_recordings(data)
    views = all_views(recordings, PLAN, tmp_path / "views")
    assert [len(v) for v in views] == [2] * 6 + [4] * 4
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "views").iterdir()}
    again = all_views(recordings, PLAN, tmp_path / "views")
    assert before == {p.name: p.stat().st_mtime_ns for p in (tmp_path / "views").iterdir()}
    assert np.array_equal(again[3][0], views[3][0])
    monkeypatch.setattr(speech, "CHECKPOINT_S", 0.0)
    steps, follow = [0], speech.follow

    def two(*given):
        steps[0] += 1
        if steps[0] == 3:
            raise KeyboardInterrupt
        follow(*given)

    monkeypatch.setattr(speech, "follow", two)
    network = untrained(PLAN, tmp_path)
    windows = encoded(network, recordings, views, 0)
    assert windows.owners.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    with pytest.raises(KeyboardInterrupt):
        fit(network, recordings, windows, PLAN, tmp_path)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 2
    network = fit(untrained(PLAN, tmp_path), recordings, windows, PLAN, tmp_path)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 4
    assert not network.training


def test_each_family_and_world_is_left_out_once(tmp_path):
    """Fakes of all families but one differ from recordings in the same way: only that one is not told apart."""
    kinds = [(0, f"w{i}") for i in range(10)] + [(1, f"f{i}") for i in range(10)]
    recordings = [
        Recording(tmp_path / f"{kind}{i}", label, "train", "", "", kind * label, kind * (not label), f"{kind}{i}")
        for label, kind in kinds
        for i in range(6)
    ]
    folds = folds_of(recordings)
    assert all(len({f for f, r in zip(folds, recordings, strict=True) if r.kind == kind}) == 1 for _, kind in kinds)
    assert sorted(folds) == sorted(list(range(5)) * 24)
    truth = torch.tensor([float(r.label) for r in recordings])
    odd = torch.tensor([r.kind == "f3" for r in recordings])
    spreads = torch.randn(120, 96, generator=torch.Generator().manual_seed(0))
    spreads[:, 0] += 6 * truth * ~odd
    windows = Windows(torch.zeros(120, 1, 1), spreads, np.arange(120), truth)
    found = left_out(build_speech(True), recordings, windows)
    assert 0.8 < float(found["auc"].split()[0]) < 0.99
    assert found["recordings"] == "120"
    spreads[:, 1] += 30 * odd  # nothing but this family has it, so that nobody could learn it
    assert float(left_out(build_speech(True), recordings, windows)["auc"].split()[0]) < 0.99


def judge_of(data, features, judge):
    """What the judge says of the validation recordings of a set of features, by their keys."""
    paths = {media_key(str(r.path)): r.path for r in read_recordings(data)}
    return [
        float(judge.listen(read_sound(paths[key])).features.mean(0) @ judge.weight + judge.bias)
        for key in features.keys
    ]


def test_one_command_trains_a_version_that_judges(data, tmp_path, monkeypatch):
    monkeypatch.setattr(speech, "build_speech", lambda tiny: build_speech(True))
    monkeypatch.setattr(speech, "load_encoder", lambda encoder, folder: None)
    plan = dataclasses.replace(PLAN, steps=2)
    root = tmp_path / "versions"
    root.mkdir()
    today = dt.datetime.now(dt.UTC).date()
    version = train_speech(data, tmp_path / "run", root, "v9", plan, terms=["free"], notes=[])
    assert set(version.card["validation"]) >= {"auc", "eer_known_families", "auc_lost"}
    assert version.card["data"]["terms"] == ["free"]
    assert version.card["made"] in (str(today), str(dt.datetime.now(dt.UTC).date()))  # midnight may come between
    judge = load_speech(root, "v9", threads=1)
    assert judge.judge(voice(3.0)).model_version == "v9"
    lineage = load_lineage(version)
    assert [len(part) for part in (lineage.golden[0].features, lineage.replay)] == [2, 2]
    said, scores = logits_of(load_parts(version), lineage.replay), judge_of(data, lineage.replay, judge)
    assert said == pytest.approx(scores, abs=0.02)
    monkeypatch.setattr("benchmarks.speech_scorecard.SpeechPlan", lambda: plan)
    assert (
        speech_scorecard.main(["--data", str(data), "--run", str(tmp_path / "run"), "--out", str(tmp_path / "p.md")])
        == 0
    )
    page = (tmp_path / "p.md").read_text()
    assert all(f"{name} 0." in page for name in (*speech_scorecard.FACTS, "linear spectral probe"))
    with pytest.raises(WeightsError, match="taken"):
        train_speech(data, tmp_path / "run", root, "v9", plan, terms=[], notes=[])
