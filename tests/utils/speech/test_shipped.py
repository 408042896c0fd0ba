"""The network of speech in the repository: whole, small enough, and no more certain than its figures allow."""

from __future__ import annotations

from pathlib import Path

from tests.speech_fixtures import voice
from utils.speech.judge import load_speech
from utils.types import Outcome
from utils.weights import SPEECH_FOLDER

ROOT = Path(__file__).resolve().parents[3] / "trained_models" / SPEECH_FOLDER


def test_it_loads_and_judges_a_voice():
    judge = load_speech(ROOT, threads=1)
    report = judge.judge(voice(3.0))
    assert report.verdict.outcome in (Outcome.REAL, Outcome.FAKE, Outcome.INCONCLUSIVE)
    assert report.model_version == (ROOT / "CURRENT").read_text().strip()
    assert sum(path.stat().st_size for path in judge.version.folder.iterdir()) < 6_000_000


def test_its_card_says_what_it_learned_from_and_how_well():
    card = load_speech(ROOT, threads=1).version.card
    assert not card.get("tiny")
    assert card["data"]["terms"]
    assert 0.5 < float(card["validation"]["auc"].split()[0]) < 1
    assert card["validation"]["eer_left_out_families"]
    assert sum(card["data"]["recordings"].values()) > 1400
    assert float(card["left_out_in_turn"]["auc"].split()[0]) > 0.75
