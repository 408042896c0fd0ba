"""The whole analysis on a version of tiny networks: real decoder, detector, tracking, gate and verdict."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from models.cards import EXPERT_NAMES
from tests.utils.media.films import write_clip
from utils.detection.engine import Answers, TrackScores
from utils.detection.face_report import NO_PHOTO
from utils.detection.pipeline import Analyser, Scores, analyse, examine, load_analyser, make_report
from utils.detection.verdict import NOT_FOR_PHOTOS, TOO_SHORT
from utils.errors import ConfigError, JobCancelledError, MediaCorruptError, UnsupportedMediaError, WeightsError
from utils.media.limits import NOTICE_TEXTS
from utils.metrics import logit
from utils.tensors import read_tensors
from utils.types import Notice, Outcome, Pixels, Report
from utils.weights import CALIBRATION_FILE, publish_version, set_current

FLAT = {"prediction", "fake_probability", "real_probability", "confidence", "experts", "timeline"}
FRAMES = 12


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, photo: Pixels) -> Path:
    """`one.jpg`, `two.png`, `none.webp`, and `clip.mp4` in which the person moves to the right."""
    folder = tmp_path_factory.mktemp("media")
    Image.fromarray(photo).save(folder / "one.jpg", quality=95)
    small = cv2.resize(photo, (256, 256), interpolation=cv2.INTER_AREA)
    two = np.zeros((512, 768, 3), np.uint8)
    two[:, :512], two[:256, 512:] = photo, small
    Image.fromarray(two).save(folder / "two.png")
    ramp = np.tile(np.linspace(30, 220, 200, dtype=np.uint8)[:, None], (160, 1, 3))
    Image.fromarray(ramp).save(folder / "none.webp")
    write_clip(folder / "clip.mp4", [np.roll(small, 4 * i, axis=1) for i in range(FRAMES)])
    write_clip(folder / "short.mp4", [small] * 2)
    return folder


@pytest.fixture(scope="module")
def reports(analyser: Analyser, files: Path) -> dict[str, Report]:
    return {path.stem: analyse(path, analyser) for path in sorted(files.iterdir())}


def numbers(value: Any) -> list[float]:
    """All numbers of nested JSON values."""
    if isinstance(value, dict):
        return [n for v in value.values() for n in numbers(v)]
    if isinstance(value, list):
        return [n for v in value for n in numbers(v)]
    return [value] if isinstance(value, float) else []


@pytest.mark.parametrize("name", ["one", "two", "none", "clip", "short"])
def test_every_report_is_sound_json_with_the_flat_fields(reports, files, name):
    document = reports[name].to_dict()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert set(document) >= FLAT
    assert all(math.isfinite(n) for n in numbers(document))
    (path,) = files.glob(f"{name}.*")
    assert document["media"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert set(document["times_ms"]) == {"decode", "detect", "experts", "decide", "total"}
    assert (document["model_version"], document["threshold"]) == ("tiny", 0.5)
    for face in document["faces"]:
        assert [e["name"] for e in face["experts"]] == list(EXPERT_NAMES)
        assert sum(e["weight"] for e in face["experts"]) == pytest.approx(1, abs=1e-5)
        low, high = face["verdict"]["interval"]
        assert 0 <= low <= face["verdict"]["probability"] <= high <= 1
    if document["faces"]:
        assert document["fake_probability"] + document["real_probability"] == pytest.approx(1)


def test_photo_of_one_person(reports):
    report = reports["one"]
    (face,) = report.faces
    assert report.deciding_face == face.id == 0
    assert report.verdict is face.verdict
    assert report.verdict.outcome in (Outcome.FAKE, Outcome.REAL, Outcome.INCONCLUSIVE)
    (frame,) = face.frames
    assert abs(frame.box.centre[0] - 225) < 15
    assert face.quality["face_px"] == pytest.approx(120, abs=12)
    lstm = face.experts[3]
    assert (lstm.available, lstm.weight, lstm.missing_because) == (False, 0.0, NOT_FOR_PHOTOS)
    assert "expert_missing" not in {r.code for r in report.verdict.reasons}


def test_photo_of_two_people(reports):
    report = reports["two"]
    large, small = report.faces
    assert large.frames[0].box.width > 1.5 * small.frames[0].box.width
    deciding = max(report.faces, key=lambda f: f.verdict.probability)
    assert report.deciding_face == deciding.id
    assert report.verdict is deciding.verdict
    peak = max(f.frames[0].probability for f in report.faces)
    assert [p["probability"] for p in report.to_dict()["timeline"]] == [peak]


def test_person_has_the_same_score_with_and_without_company(reports, analyser, files, settings_for, tiny_root):
    few = dataclasses.replace(analyser, settings=settings_for(tiny_root, max_faces=1))
    report = analyse(files / "two.png", few)
    (alone,) = report.faces
    (notice,) = report.notices
    assert (notice.code, notice.text.split(" people")[0]) == ("people_left_out", "2")
    shared, other = reports["two"].faces
    assert alone.frames[0].box == shared.frames[0].box
    assert alone.verdict.probability == pytest.approx(shared.verdict.probability, abs=1e-4)
    assert abs(shared.verdict.probability - other.verdict.probability) > 1e-3


def test_picture_without_a_face_has_no_probability(reports):
    report = reports["none"]
    assert (report.verdict.outcome, report.verdict.probability) == (Outcome.NO_FACE, None)
    assert (report.faces, report.deciding_face) == ((), None)
    document = report.to_dict()
    assert (document["prediction"], document["fake_probability"]) == ("no_face", None)


def test_clip_follows_the_person_and_all_experts_judge(reports):
    (face,) = reports["clip"].faces
    assert all(e.available and e.missing_because is None for e in face.experts)
    assert [f.frame for f in face.frames] == list(range(FRAMES))
    times, places = [f.time_s for f in face.frames], [f.box.centre[0] for f in face.frames]
    assert times == pytest.approx(np.arange(FRAMES) / 10, abs=0.01)
    assert np.diff(places) == pytest.approx(np.full(FRAMES - 1, 4), abs=3)
    assert len(reports["clip"].to_dict()["timeline"]) == FRAMES
    assert reports["clip"].media.duration_s == pytest.approx(1.2, abs=0.15)


def test_person_seen_too_briefly_is_not_judged_by_the_lstm(reports):
    lstm = reports["short"].faces[0].experts[3]
    assert (lstm.available, lstm.missing_because) == (False, TOO_SHORT)


@pytest.mark.parametrize("name", ["one.jpg", "none.webp", "clip.mp4"])
def test_progress_goes_through_all_stages_and_never_back(analyser, files, name):
    told: list[tuple[str, float]] = []
    analyse(files / name, analyser, progress=lambda stage, done: told.append((stage, done)))
    stages = list(dict.fromkeys(stage for stage, _ in told))
    shares = [done for _, done in told]
    assert stages == ["decode", "detect", "experts", "decide"]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)


@pytest.mark.parametrize("at", ["decode", "detect", "experts", "decide"])
def test_progress_can_cancel_at_every_stage(analyser, files, at):
    def cancel(stage: str, done: float) -> None:
        if stage == at:
            raise JobCancelledError

    with pytest.raises(JobCancelledError):
        analyse(files / "one.jpg", analyser, progress=cancel)


class SuspectsTheSecond:
    """Finds the second crop much more suspicious than all others."""

    name, precisions = "torch", {"cnn": "fp32"}

    def run(self, crops, on_batch=None):
        return [4.0 if i == 1 else -9.0 for i in range(len(crops))]

    def mix(self, answers, quality, remembered=None):
        share, v = np.array([0.25, 0.25, 0.5, 0.0], np.float32), answers[0]
        return TrackScores(v, share, np.array([v, v, v, np.nan], np.float32), np.full(len(quality), v))


def test_what_corrections_moved_has_no_interval(analyser, files):
    """It was measured of what the networks give, and the moved probability may lie outside it."""
    people = examine(files / "one.jpg", analyser)
    share = np.full(len(EXPERT_NAMES), 0.25, np.float32)
    score = TrackScores(1.0, share, share, np.zeros(1, np.float32))
    for recalled in (0.0, 2.0):
        report = make_report(people, Scores([dataclasses.replace(score, recalled=recalled)], 0.0), analyser)
        for verdict in (report.verdict, report.faces[0].verdict):
            assert verdict.probability == pytest.approx(0.731, abs=1e-3)
            assert (verdict.interval is None) == bool(recalled)
        assert (report.to_dict()["verdict"]["interval"] is None) == bool(recalled)


def test_what_is_no_photograph_is_not_judged_however_much_the_networks_suspect_it(analyser, files):
    people = examine(files / "one.jpg", analyser)
    share = np.full(len(EXPERT_NAMES), 0.25, np.float32)
    weight = read_tensors(NO_PHOTO.path)["weight"]
    for sign, judged in ((1, False), (-1, True)):
        tokens = (sign * 99 * weight / np.square(weight).sum())[None]
        score = TrackScores(9.0, share, share, np.zeros(1, np.float32), answers=Answers(share[None], None, tokens))
        (face,) = make_report(people, Scores([score], 0.0), analyser).faces
        assert face.judged == judged
        assert (face.verdict.reasons[0] == NO_PHOTO.notice) == (not judged)
        assert judged or face.verdict.outcome is Outcome.INCONCLUSIVE


def test_small_face_is_reported_and_a_larger_one_decides(analyser, files, settings_for, tiny_root):
    settings = settings_for(tiny_root, min_face_px=80)
    assert analyse(files / "two.png", dataclasses.replace(analyser, engine=SuspectsTheSecond())).deciding_face == 1
    strict = dataclasses.replace(analyser, settings=settings, engine=SuspectsTheSecond())
    large, small = (report := analyse(files / "two.png", strict)).faces
    assert small.verdict.outcome is Outcome.INCONCLUSIVE
    assert small.verdict.reasons[0].code == "small_face"
    assert report.deciding_face == large.id


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda face: cv2.GaussianBlur(face, (0, 0), 3), "face_unsharp"),
        (lambda face: cv2.resize(cv2.resize(face, (60, 60), interpolation=cv2.INTER_AREA), (256, 256)), "face_unsharp"),
        (lambda face: np.roll(face, 146, axis=1), "face_cut"),
    ],
)
def test_bystander_who_cannot_be_judged_does_not_decide(analyser, photo, tmp_path, spoil, code):
    both = np.full((512, 768, 3), 120, np.uint8)
    both[:, :512] = photo
    both[:256, 512:] = spoil(cv2.resize(photo, (256, 256), interpolation=cv2.INTER_AREA))
    both[:, 512:560] = 120  # what was rolled in on the other side
    Image.fromarray(both).save(tmp_path / "both.png")
    report = analyse(tmp_path / "both.png", dataclasses.replace(analyser, engine=SuspectsTheSecond()))
    whole, other = report.faces
    assert (other.judged, other.verdict.reasons[0].code) == (False, code)
    assert report.deciding_face == whole.id
    assert (report.verdict.outcome, report.verdict.probability) == (whole.verdict.outcome, whole.verdict.probability)
    assert "not_judged" in {reason.code for reason in report.verdict.reasons}
    assert [face["judged"] for face in report.to_dict()["faces"]] == [True, False]
    assert report.to_dict()["timeline"][0]["probability"] == whole.verdict.probability


def crowd(photo: Pixels, columns: int, rows: int) -> Pixels:
    head = cv2.resize(photo[20:220, 125:325], (160, 160), interpolation=cv2.INTER_AREA)
    return np.tile(head, (rows, columns, 1))


def test_everybody_in_a_group_is_judged_and_nobody_left_out_is_called_real(
    analyser, photo, tmp_path, settings_for, tiny_root
):
    Image.fromarray(crowd(photo, 3, 3)).save(tmp_path / "nine.png")
    assert sum(face.judged for face in analyse(tmp_path / "nine.png", analyser).faces) == 9
    few = dataclasses.replace(analyser, settings=settings_for(tiny_root, max_faces=1), engine=SuspectsTheSecond())
    report = analyse(tmp_path / "nine.png", few)
    assert report.verdict.outcome is Outcome.INCONCLUSIVE
    assert report.verdict.reasons[0].code == "people_left_out"
    assert report.faces[0].verdict.outcome is Outcome.REAL
    assert [n.text[-38:] for n in report.notices] == [" Any of the others may be manipulated."]


def test_a_small_face_of_a_large_photo_is_judged(analyser, photo, tmp_path):
    """In the whole photo, which is searched at 640 pixels, it would not be found."""
    large = np.full((2000, 3000, 3), 120, np.uint8)
    large[1400:1490, 2200:2290] = cv2.resize(photo[20:220, 125:325], (90, 90), interpolation=cv2.INTER_AREA)
    Image.fromarray(large).save(tmp_path / "large.png")
    (face,) = analyse(tmp_path / "large.png", analyser).faces
    assert face.frames[0].box.centre == pytest.approx((2245, 1445), abs=15)


def test_whoever_cannot_be_judged_is_left_out_first(analyser, photo, tmp_path, settings_for, tiny_root):
    both = np.full((512, 768, 3), 120, np.uint8)
    both[:, :512] = cv2.GaussianBlur(photo, (0, 0), 7)
    both[:256, 512:] = cv2.resize(photo, (256, 256), interpolation=cv2.INTER_AREA)
    Image.fromarray(both).save(tmp_path / "both.png")
    few = dataclasses.replace(analyser, settings=settings_for(tiny_root, max_faces=1))
    (sharp,) = (report := analyse(tmp_path / "both.png", few)).faces
    assert sharp.judged
    assert sharp.frames[0].box.x0 > 512
    (told,) = report.notices
    assert (told.code, told.text[-40:]) == ("people_left_out", "too small, cut by the border or unsharp.")
    assert "people_left_out" not in {reason.code for reason in report.verdict.reasons}


def test_a_crowd_in_a_clip_is_judged_by_fewer_frames(analyser, photo, tmp_path):
    write_clip(tmp_path / "crowd.mp4", [np.roll(crowd(photo, 4, 3), i, axis=1) for i in range(8)])
    report = analyse(tmp_path / "crowd.mp4", analyser)
    assert [len(face.frames) for face in report.faces] == [8] * 8 + [4] * (len(report.faces) - 8)
    assert len(report.faces) > 8
    assert all(face.experts[3].available for face in report.faces), "the LSTM judges all of them"


def test_threshold_is_that_of_the_settings(analyser, files, settings_for, tiny_root):
    strict = dataclasses.replace(analyser, settings=settings_for(tiny_root, threshold=0.9))
    assert analyse(files / "one.jpg", strict).threshold == 0.9


def test_hdr_asks_for_more_before_it_is_called_fake(analyser, files):
    people = examine(files / "one.jpg", analyser)
    hdr = dataclasses.replace(
        people, media=dataclasses.replace(people.media, notices=(Notice("hdr", NOTICE_TEXTS["hdr"]),))
    )
    edge = logit(analyser.calibration.band(analyser.settings.detection.threshold, 0)[1])
    share = np.full(len(EXPERT_NAMES), 0.25, np.float32)
    for over, of_hdr in ((0.2, Outcome.INCONCLUSIVE), (0.9, Outcome.INCONCLUSIVE), (1.3, Outcome.FAKE)):
        found = Scores([TrackScores(edge + over, share, share, np.zeros(1, np.float32))], 0.0)
        assert make_report(people, found, analyser).verdict.outcome is Outcome.FAKE
        assert make_report(hdr, found, analyser).verdict.outcome is of_hdr


def test_unsuitable_files_are_refused_with_their_code(analyser, files, tmp_path):
    (tmp_path / "text.jpg").write_bytes(b"no picture at all")
    with pytest.raises(UnsupportedMediaError):
        analyse(tmp_path / "text.jpg", analyser)
    (tmp_path / "cut.jpg").write_bytes((files / "one.jpg").read_bytes()[:40])
    with pytest.raises(MediaCorruptError):
        analyse(tmp_path / "cut.jpg", analyser)


# Loading


def test_loaded_analyser_names_what_is_in_it(analyser):
    assert (analyser.version, analyser.experts, analyser.missing) == ("tiny", EXPERT_NAMES, {})
    assert analyser.tiny
    assert len(analyser.version_sha256) == 64


@pytest.mark.parametrize("by_setting", [True, False])
def test_chosen_experts_are_loaded_and_the_others_named_in_the_report(tiny_root, settings_for, files, by_setting):
    keys = {"experts": "vit, cnn"} if by_setting else {}
    chosen = load_analyser(settings_for(tiny_root, **keys), experts=None if by_setting else ("cnn", "vit"))
    assert (chosen.experts, set(chosen.missing)) == (("cnn", "vit"), {"resnext", "lstm"})
    report = analyse(files / "one.jpg", chosen)
    experts = {e.name: e for e in report.faces[0].experts}
    assert [n for n, e in experts.items() if e.available] == ["cnn", "vit"]
    assert "switched off" in experts["resnext"].missing_because
    assert [r.code for r in report.verdict.reasons].count("expert_missing") == 1, "an LSTM is not missed on a photo"


def test_missing_expert_of_the_version_is_named_in_the_report(tmp_path, publish_tiny, settings_for, files):
    root = publish_tiny(tmp_path / "w", ("cnn", "resnext", "lstm"))
    report = analyse(files / "clip.mp4", load_analyser(settings_for(root)))
    vit = report.faces[0].experts[2]
    assert (vit.available, vit.weight) == (False, 0.0)
    assert vit.missing_because == "Version tiny does not contain it."


@pytest.mark.parametrize("text", ["xception", "cnn,xception", "CNN"])
def test_unknown_expert_is_a_config_error(tiny_root, settings_for, text):
    with pytest.raises(ConfigError, match="known are cnn, resnext, vit, lstm"):
        load_analyser(settings_for(tiny_root, experts=text))


@pytest.mark.parametrize("text", ["", " , "])
def test_no_expert_at_all_is_an_error(tiny_root, settings_for, text):
    with pytest.raises((ConfigError, WeightsError)):
        load_analyser(settings_for(tiny_root, experts=text))


def test_version_with_a_damaged_calibration_is_not_loaded(own_root, settings_for):
    from safetensors.numpy import load_file

    stems = (*EXPERT_NAMES, "gate")
    tensors = {stem: load_file(own_root / "tiny" / f"{stem}.safetensors") for stem in stems}
    publish_version(own_root, "bad", tensors, {"calibration": {"bins": []}, "card": {"tiny": True}})
    set_current(own_root, "bad")
    with pytest.raises(WeightsError, match=CALIBRATION_FILE):
        load_analyser(settings_for(own_root))


def test_boxes_of_a_large_video_are_in_its_own_pixels(analyser, tmp_path, photo):
    """Frames above 1920 pixels are decoded smaller; the report speaks of the video as it is."""
    large = np.zeros((1440, 2560, 3), np.uint8)
    large[400:1424, 1500:2524] = cv2.resize(photo, (1024, 1024), interpolation=cv2.INTER_CUBIC)
    write_clip(tmp_path / "large.mp4", [large] * 4)
    report = analyse(tmp_path / "large.mp4", analyser)
    assert report.media.width == 2560
    (face,) = [f for f in report.faces if f.quality["face_px"] > 200]
    assert all(1500 < s.box.x0 < s.box.x1 < 2524 and 400 < s.box.y0 < s.box.y1 < 1424 for s in face.frames)


def test_networks_tell_how_far_they_are(analyser, files):
    told = []
    analyse(files / "clip.mp4", analyser, progress=lambda stage, done: told.append((stage, done)))
    assert ("experts", 0.5) in told
    assert max(done for stage, done in told if stage == "experts") == pytest.approx(0.95)


def test_lstm_that_is_not_loaded_is_not_missed_on_a_photo(tiny_root, settings_for, files):
    without = load_analyser(settings_for(tiny_root), experts=("cnn", "resnext", "vit"))
    report = analyse(files / "one.jpg", without)
    assert all(reason.code != "expert_missing" for face in report.faces for reason in face.verdict.reasons)
