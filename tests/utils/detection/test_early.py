"""Early answer: nothing is skipped that could change a verdict, and what is skipped is named."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models import EXPERT_NAMES
from models.ensemble_model import build_ensemble
from utils.detection import early, early_check
from utils.detection.early import EarlyScorer, Plan, finding_file, is_settled, judging, read_plan
from utils.detection.pipeline import analyse, load_analyser
from utils.detection.torch_engine import TorchEngine
from utils.detection.verdict import SKIPPED, outcome_of, sigmoid
from utils.faces.crops import QUALITY_NAMES
from utils.types import Floats, Outcome, Pixels
from utils.weights import verify_version

Q = len(QUALITY_NAMES)
ORDER = ("vit", "cnn", "resnext", "lstm")
ANYTHING = dict.fromkeys(EXPERT_NAMES, (-1e4, 1e4))
HARMLESS = dict.fromkeys(EXPERT_NAMES, (-0.01, 0.01))


class Recording(TorchEngine):
    """Notes which expert was asked about how many crops."""

    asked: list[tuple[str, int]]

    def image_logits(self, crops: Pixels, only: Collection[str] | None = None) -> tuple[Floats, Floats | None]:
        self.asked += [(name, len(crops)) for name in only or ()]
        return super().image_logits(crops, only)


@pytest.fixture
def engine() -> Recording:
    """Tiny networks and a gate that takes their plain mean, far apart enough to be sure."""
    torch.manual_seed(3)
    ensemble = build_ensemble(quality=Q, tiny=True)
    ensemble.gate.scale.fill_(100.0)
    made = Recording(ensemble.eval(), device="cpu", threads=1)
    made.asked = []
    return made


def person(seed: int, frames: int) -> tuple[list[Pixels], Floats]:
    rng = np.random.default_rng(seed)
    return list(rng.integers(0, 256, (frames, 40, 40, 3), dtype=np.uint8)), rng.random((frames, Q), dtype=np.float32)


def test_nothing_is_skipped_where_the_others_may_say_anything(engine):
    people = [person(1, 1), person(2, 6)]
    tracks, quality = [p[0] for p in people], [p[1] for p in people]
    found = EarlyScorer(engine, Plan(ORDER, ANYTHING)).score(tracks, quality, [(0.4, 0.6)] * 2)
    for early_one, full in zip(found, engine.score(tracks, quality), strict=True):
        assert (early_one.skipped, early_one.bounds) == ((), None)
        assert early_one.logit == pytest.approx(full.logit, abs=1e-3)
        assert np.allclose(early_one.expert_logits, full.expert_logits, atol=1e-3, equal_nan=True)
        assert np.allclose(early_one.frame_logits, full.frame_logits, atol=1e-3)
    assert sum(count for _, count in engine.asked) == 3 * 7


def test_what_cannot_change_the_verdict_is_skipped_and_bounded(engine):
    crops, quality = person(2, 6)
    (full,) = engine.score([crops], [quality])
    plan = Plan(ORDER, {**HARMLESS, "vit": (-9.0, 9.0)})
    known = np.full(len(EXPERT_NAMES), np.nan, np.float32)
    known[2] = full.expert_logits[2] / 100
    low, high = plan.bounds(engine.gate, known, EXPERT_NAMES, quality.mean(0))
    band = (sigmoid(low - 2), sigmoid(low - 1))  # all that is possible lies above it: fake
    (found,) = EarlyScorer(engine, plan).score([crops], [quality], [band])
    assert found.skipped == ("cnn", "resnext", "lstm")
    assert engine.asked == [("vit", 6)]
    assert found.bounds == pytest.approx((low, high), abs=1e-2)
    assert low < found.logit < high
    assert outcome_of(sigmoid(found.logit), band) is Outcome.FAKE
    assert np.isfinite(found.frame_logits).all()
    assert found.weights.tolist() == [0, 0, 1, 0]


def test_only_those_who_are_open_are_asked_about_further(engine):
    people = [person(4, 3), person(5, 5)]
    tracks, quality = [p[0] for p in people], [p[1] for p in people]
    plan = Plan(ORDER, HARMLESS)
    bands = [(0.0, 0.0), (0.5, 0.5 + 1e-9)]
    # everything is fake for the first; for the second the verdict hangs on where its logit lies
    (first, second) = EarlyScorer(engine, plan).score(tracks, quality, [bands[0], (0.0, 1.0)])
    assert first.skipped == ("cnn", "resnext")  # three frames are too few for the LSTM
    assert second.skipped == ("cnn", "resnext", "lstm")
    engine.asked.clear()
    (first, second) = EarlyScorer(engine, Plan(ORDER, {**ANYTHING, "vit": (-1, 1)})).score(tracks, quality, bands)
    assert (first.skipped, second.skipped) == (("cnn", "resnext"), ())
    assert engine.asked == [("vit", 8), ("cnn", 5), ("resnext", 5)]


def test_a_crop_that_two_people_share_gives_each_their_own_answer(engine):
    crops, quality = person(6, 2)
    tracks, measured = [[crops[0]], [crops[0], crops[1]]], [quality[:1], quality]
    (alone, open_one) = EarlyScorer(engine, Plan(ORDER, ANYTHING)).score(tracks, measured, [(0.0, 0.0), (0.3, 0.7)])
    assert (alone.skipped, alone.bounds) == ((), None)  # its one crop was asked about for the other's sake
    assert open_one.skipped == ()
    full = engine.score(tracks, measured)
    assert [alone.logit, open_one.logit] == pytest.approx([one.logit for one in full], abs=1e-3)


@pytest.mark.parametrize(
    ("bounds", "settled"),
    [((2.0, 3.0), True), ((-3.0, -2.0), True), ((-0.1, 0.1), True), ((0.1, 2.0), False), ((-3.0, 3.0), False)],
)
def test_settled_is_what_lies_on_one_side(bounds, settled):
    assert is_settled(bounds, (0.3, 0.7)) is settled


def test_who_judges_depends_on_the_frames_and_on_who_is_loaded():
    assert judging(EXPERT_NAMES, 1) == ("cnn", "resnext", "vit")
    assert judging(EXPERT_NAMES, 4) == EXPERT_NAMES
    assert judging(("vit", "lstm"), 9) == ("vit",)


@pytest.mark.parametrize(
    ("order", "ranges"),
    [
        (("lstm", "resnext", "vit", "cnn"), ANYTHING),
        (ORDER[:3], ANYTHING),
        (ORDER, {**ANYTHING, "vit": (1.0, 0.0)}),
        (ORDER, {**ANYTHING, "vit": (0.0, float("nan"))}),
        (ORDER, {"vit": (0.0, 1.0)}),
    ],
)
def test_a_plan_that_is_none_is_refused(order, ranges):
    with pytest.raises(ValueError, match="must"):
        Plan(order, ranges)


# The finding on file, and the setting


def write_finding(root: Path, **changes: object) -> Path:
    version = verify_version(root, "tiny")
    document = {
        "format": early.FORMAT, "version_sha256": version.sha256, "changed": 0, "items": 100, "order": ORDER,
        "ranges": HARMLESS, **changes,
    }  # fmt: skip
    path = finding_file(root, version)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"changed": 1}, "changed 1 verdicts"),
        ({"items": 99}, "100 media are needed"),
        ({"version_sha256": "0" * 64}, "not of these weights"),
        ({"order": None}, "cannot be read"),
        ({"order": ["lstm", "resnext", "vit", "cnn"]}, "must come behind"),
    ],
)
def test_a_check_that_did_not_pass_gives_no_plan(own_root, changes, why):
    path, version = write_finding(own_root, **changes), verify_version(own_root, "tiny")
    with pytest.raises(ValueError, match=why):
        read_plan(path, version)
    path.unlink()
    with pytest.raises(ValueError, match="not been checked"):
        read_plan(path, version)


def test_without_a_check_the_setting_is_not_followed_and_that_is_said(own_root, settings_for, caplog):
    with caplog.at_level("WARNING"):
        assert load_analyser(settings_for(own_root, early_answer="on")).early is None
    assert "early_answer stays off: It has not been checked on data for tiny" in caplog.text
    write_finding(own_root)
    caplog.clear()
    assert load_analyser(settings_for(own_root)).early is None
    assert load_analyser(settings_for(own_root, early_answer="on")).early is not None
    assert not caplog.text


def test_the_report_names_what_was_skipped_and_the_verdict_is_the_same(own_root, settings_for, photo, tmp_path):
    path = tmp_path / "one.png"
    Image.fromarray(photo).save(path)
    full = load_analyser(settings_for(own_root, threshold=0.5))
    write_finding(own_root, ranges=dict.fromkeys(EXPERT_NAMES, (-0.5, 0.5)))
    analyser = load_analyser(settings_for(own_root, early_answer="on"))
    # so wide that every answer is inconclusive: whoever is asked first settles it
    wide = dataclasses.replace(analyser.calibration, real_below=0.0, fake_above=1.0)
    report = analyse(path, dataclasses.replace(analyser, calibration=wide))
    experts = {e.name: e for e in report.faces[0].experts}
    assert [name for name, e in experts.items() if e.skipped] == ["cnn", "resnext"]
    assert experts["cnn"].missing_because == SKIPPED
    (notice,) = [r.text for r in report.verdict.reasons if r.code == "answered_early"]
    assert "CNN and ResNeXt-50 were skipped" in notice
    assert "expert_missing" not in {r.code for r in report.verdict.reasons}
    low, high = report.verdict.interval
    assert low <= report.verdict.probability <= high
    assert report.settings["early_answer"] == "on"
    assert report.verdict.outcome is analyse(path, dataclasses.replace(full, calibration=wide)).verdict.outcome


# The check


@pytest.fixture
def pictures(photo: Pixels, tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(6):
        Image.fromarray(np.clip(photo * (0.7 + 0.1 * number), 0, 255).astype(np.uint8)).save(folder / f"{number}.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


def test_the_check_writes_what_the_server_reads(own_root, pictures, monkeypatch, capsys, settings_for):
    monkeypatch.setenv("TELLTALE_WEIGHTS__DIR", str(own_root))
    monkeypatch.setattr(early_check, "LEAST_FOR_RANGE", 2)
    version = verify_version(own_root, "tiny")
    assert early_check.main([str(pictures), "--dry"]) == 1
    assert not finding_file(own_root, version).exists()
    assert early_check.main([str(pictures)]) == 1, "six pictures are too few to switch it on"
    said = capsys.readouterr()
    assert "too few" in said.out
    assert "broken.jpg is left out" in said.err
    with pytest.raises(ValueError, match="among 6 media"):
        read_plan(finding_file(own_root, version), version)
    monkeypatch.setattr(early, "MIN_ITEMS", 6)
    monkeypatch.setattr(early_check, "MIN_ITEMS", 6)
    assert early_check.main([str(pictures)]) == 0
    plan = read_plan(finding_file(own_root, version), version)
    assert plan.ranges["lstm"] == early_check.UNKNOWN, "photos say nothing of it, so it is always asked"
    assert load_analyser(settings_for(own_root, early_answer="on")).early is not None


def judged(engine: Recording, logits: list[float]) -> early_check.Judged:
    bands = tuple((t / 2, (1 + t) / 2) for t in (*early_check.THRESHOLDS, 0.5))
    whole = np.array([*logits, np.nan], np.float32)
    return early_check.Judged(whole, np.zeros(Q, np.float32), ("cnn", "resnext", "vit"), 1, bands)


def test_a_word_outside_its_range_is_found_as_a_changed_verdict(engine):
    plan = Plan(ORDER, HARMLESS)
    costs = dict.fromkeys(EXPERT_NAMES, 1.0)
    usual, surprise = judged(engine, [0.0, 0.0, 0.05]), judged(engine, [0.0, -0.3, 0.05])
    assert early_check.simulate(usual, plan, engine, costs)[1] == 0
    assert early_check.simulate(surprise, plan, engine, costs)[1] > 0


def test_the_order_that_costs_least_is_chosen(engine):
    sure, unsure = judged(engine, [0.0, 0.0, 9.0]), judged(engine, [0.0, 0.0, 0.0])
    costs = {"cnn": 1.0, "resnext": 2.0, "vit": 10.0, "lstm": 0.0}
    plan = Plan(ORDER, {**HARMLESS, "vit": (-9.0, 9.0)})
    assert early_check.simulate(sure, plan, engine, costs)[0] == 10.0, "the ViT alone decides"
    cheap_first = Plan(("cnn", "resnext", "lstm", "vit"), plan.ranges)
    assert early_check.simulate(sure, cheap_first, engine, costs)[0] == 13.0
    assert early_check.simulate(unsure, plan, engine, costs)[0] <= 13.0


def test_every_order_puts_the_lstm_behind_its_features():
    assert len(early_check.orders()) == len(set(early_check.orders())) == 12
    assert all(Plan(order, ANYTHING) for order in early_check.orders())
