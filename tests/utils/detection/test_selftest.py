"""The self-test passes on sound parts and names the broken one; decoders and sandbox are the real ones."""

from __future__ import annotations

import dataclasses
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import inference
from tests.web_app.helpers import make_report
from utils.base_weights import FACE_FILE, VIT_FILE
from utils.config import MediaSettings, Settings, WeightsSettings
from utils.detection import selftest
from utils.errors import WeightsCorruptError
from utils.types import Outcome, Report
from utils.weights import publish_version, set_current

SMALL = dataclasses.replace(Settings(), media=MediaSettings(frames=4))


def report(probability: float | None) -> Report:
    outcome = Outcome.NO_FACE if probability is None else Outcome.REAL
    return make_report(outcome=outcome, probability=probability)


class FakePipeline(types.ModuleType):
    """Finds a face in everything but pictures named no_face; `load_error` stands for broken weights."""

    def __init__(self) -> None:
        super().__init__("utils.detection.pipeline")
        self.load_error: Exception | None = None
        self.probability: float | None = 0.2
        self.no_face: float | None = None
        self.missing: dict[str, str] = {}

    def load_analyser(self, settings, *, device=None, experts=None):
        if self.load_error:
            raise self.load_error
        engine = types.SimpleNamespace(name="torch", precisions={"cnn": "fp32", "vit": "fp32"})
        return types.SimpleNamespace(version="t", experts=("cnn", "vit"), missing=self.missing, engine=engine)

    def analyse(self, path, analyser, *, progress=None):
        return report(self.no_face if path.stem == "no_face" else self.probability)


@pytest.fixture
def pipeline(monkeypatch, tmp_path) -> FakePipeline:
    fake = FakePipeline()
    monkeypatch.setitem(sys.modules, "utils.detection.pipeline", fake)
    monkeypatch.setenv("TELLTALE_WEIGHTS__DIR", str(tmp_path / "weights"))
    publish(tmp_path / "weights")
    return fake


def publish(root: Path, *, tiny: bool = False) -> None:
    """A version `t` with nothing but a gate, a card and a calibration, and the pointer to it."""
    gate = {"quality_mean": np.zeros(3, np.float32)}
    publish_version(root, "t", {"gate": gate}, {"calibration": {}, "card": {"tiny": tiny}})
    set_current(root, "t")


def settings_of(root: Path) -> Settings:
    return dataclasses.replace(SMALL, weights=WeightsSettings(dir=str(root)))


PAIR = {
    "astronaut.png": {"probability": 0.21, "tolerance": 0.02},
    "astronaut_blended.png": {"probability": 0.21, "tolerance": 0.02},
}


def write_reference(tmp_path: Path, text: str | None = None) -> Path:
    path = tmp_path / "selftest.json"
    path.write_text(json.dumps(PAIR) if text is None else text)
    return path


def known_pair(pipeline: FakePipeline, tmp_path: Path, text: str | None = None) -> list[selftest.Check]:
    checks = selftest.check_known_pictures(pipeline.load_analyser(SMALL), write_reference(tmp_path, text), tmp_path)
    return list(checks)[1:]


def test_real_decoders_give_the_known_colours_back(tmp_path):
    checks = list(selftest.check_decoders(SMALL, tmp_path))
    assert [(c.name, c.passed) for c in checks] == [(f"decoder {n}", True) for n in ("jpg", "png", "webp", "mp4")], (
        checks
    )
    assert checks[-1].text.startswith("frames: 4 of 96 x 96")


def test_decoder_that_gives_other_colours_fails(tmp_path, monkeypatch):
    def write_inverse(path: Path) -> None:
        selftest.write_picture(path, 255 - selftest.colour_field())

    monkeypatch.setattr(selftest, "_SAMPLES", {"png": write_inverse})
    (check,) = selftest.check_decoders(SMALL, tmp_path)
    assert check.passed is False


def test_undecodable_sample_fails_with_its_code(tmp_path, monkeypatch):
    monkeypatch.setattr(selftest, "_SAMPLES", {"png": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))})
    (check,) = selftest.check_decoders(SMALL, tmp_path)
    assert check.passed is False
    assert check.text.startswith("[media_")


def test_sandbox_is_described():
    check = selftest.check_sandbox()
    assert check.passed
    assert "protections" in check.text


def test_base_weights_missing_and_changed_fail(tmp_path):
    (tmp_path / VIT_FILE).write_bytes(b"not the weights")
    changed, missing, another = selftest.check_base_weights(tmp_path)
    assert (changed.passed, missing.passed, another.passed) == (False, False, False)
    assert "[weights_corrupt]" in changed.text
    assert f"[weights_missing] {FACE_FILE}" in missing.text


def test_version_is_checked_file_by_file(tmp_path):
    publish(tmp_path)
    assert selftest.check_version(settings_of(tmp_path)).passed
    (tmp_path / "t" / "gate.safetensors").write_bytes(b"other bytes")
    check = selftest.check_version(settings_of(tmp_path))
    assert check.passed is False
    assert "[weights_corrupt] gate.safetensors" in check.text


def test_version_of_tiny_networks_or_none_at_all_fails(tmp_path):
    assert selftest.check_version(settings_of(tmp_path)).passed is False
    publish(tmp_path, tiny=True)
    assert "mean nothing" in selftest.check_version(settings_of(tmp_path)).text


def test_colour_field_is_the_same_everywhere():
    field = selftest.colour_field()
    assert (field.shape, field.dtype) == ((96, 96, 3), np.uint8)
    assert field[0, 0].tolist() == [40, 30, 200]
    assert field[-1, -1].tolist() == [220, 150, 50]


@pytest.mark.parametrize(("probability", "passed"), [(0.2, True), (0.26, False), (None, False)])
def test_known_pair_is_compared_with_the_recorded_probabilities(pipeline, tmp_path, probability, passed):
    pipeline.probability = probability
    real, fake = known_pair(pipeline, tmp_path)
    assert (real.name, real.passed) == ("known real picture", passed)
    assert (fake.name, fake.passed) == ("known fake picture", passed)


def test_what_is_recorded_passes_the_check(pipeline, tmp_path):
    pipeline.probability = 0.8765432109
    recorded = selftest.record_known_pair(pipeline.load_analyser(SMALL))
    assert [check.passed for check in known_pair(pipeline, tmp_path, json.dumps(recorded))] == [True, True]


def test_known_pair_is_skipped_with_a_reason(pipeline, tmp_path):
    absent = selftest.check_known_pictures(pipeline.load_analyser(SMALL), tmp_path / "none.json", tmp_path)
    assert "no selftest.json" in list(absent)[-1].text
    pipeline.missing = {"lstm": "not trained"}
    assert {check.passed for check in known_pair(pipeline, tmp_path)} == {None}


def test_missing_and_changed_pictures_fail(pipeline, tmp_path, monkeypatch):
    monkeypatch.setattr(selftest, "KNOWN_FOLDER", tmp_path)
    (tmp_path / "astronaut.png").write_bytes(b"another picture")
    real, fake = known_pair(pipeline, tmp_path)
    assert (real.passed, fake.passed) == (False, False)
    assert "other bytes" in real.text or "sha256" in real.text
    assert "[weights_missing]" in fake.text


@pytest.mark.parametrize("text", ["{}", "no json", '{"astronaut.png": {"probability": "high", "tolerance": 1}}', "[]"])
def test_unreadable_reference_fails(pipeline, tmp_path, text):
    assert known_pair(pipeline, tmp_path, text)[0].passed is False


def test_shipped_pair_differs_in_the_face_alone():
    real, fake = (np.asarray(Image.open(selftest.KNOWN_FOLDER / p.file)).astype(int) for p in selftest.KNOWN_PAIR)
    changed = np.abs(fake - real).max(2) > 20
    assert changed.any()
    assert not changed[:16].any()
    assert not changed[-16:].any()


def test_face_where_there_is_none_fails(pipeline, tmp_path):
    pipeline.no_face = 0.7
    first, *_ = selftest.check_known_pictures(pipeline.load_analyser(SMALL), tmp_path / "none.json", tmp_path)
    assert (first.passed, first.text) == (False, "the outcome is real")


def stub_slow_checks(monkeypatch) -> None:
    monkeypatch.setattr(selftest, "check_base_weights", lambda folder: [selftest.Check("base weights", True, "right")])
    monkeypatch.setattr(selftest, "check_decoders", lambda settings, scratch: [])


def test_command_line_prints_the_list_and_leaves_with_0(pipeline, tmp_path, monkeypatch, capsys):
    stub_slow_checks(monkeypatch)
    (tmp_path / "weights" / "t" / "selftest.json").write_text(json.dumps(PAIR))
    assert inference.main(["--selftest"]) == 0
    out = capsys.readouterr().out
    assert "ok    trained weights: version t: 3 files have their recorded sha256" in out
    assert "ok    networks: cnn, vit loaded" in out
    assert "ok    known fake picture: astronaut_blended.png: you should see P(fake) 0.210" in out
    assert out.endswith("All is well: Telltale can be used.\n")


def test_command_line_names_broken_weights_and_leaves_with_3(pipeline, monkeypatch, capsys):
    stub_slow_checks(monkeypatch)
    pipeline.load_error = WeightsCorruptError("cnn.safetensors has other bytes.")
    assert inference.main(["--selftest"]) == 3
    out = capsys.readouterr().out
    assert "FAIL  networks: [weights_corrupt] cnn.safetensors has other bytes." in out
    assert "skip  known pictures: there are no networks" in out
    assert out.endswith("5 checks, 1 failed.\n")
