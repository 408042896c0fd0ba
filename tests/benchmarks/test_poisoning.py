"""The drills in a short form: the attacks and the kills; on tiny networks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from benchmarks.crash_test import easy_items, faults
from benchmarks.learning_benchmark import main, opened, right_of, summary, wrong_of
from benchmarks.poisoning import Arena, AttackResult, markdown, run_drill, signs_of
from benchmarks.poisoning_attacks import ATTACKS
from utils.config import LearningSettings
from utils.errors import TrainingDataError
from utils.feedback.quarantine import STRANGERS_PER_DAY, Status, judge_votes
from utils.feedback.remember import Recipe
from utils.training.features import VIEWS_FILE, FeatureStore
from utils.training.views import View
from utils.weights import set_current, verify_version

ROOT = Path(__file__).resolve().parents[2]


def test_every_attack_is_seen_held_off_and_rolled_back(lineage):
    result = run_drill(lineage.root, "tiny", rounds=5)
    assert [a["key"] for a in result["attacks"]] == ["a", "b", "c", "d", "e"]
    assert result["lowest_auc"] >= result["base_auc"] - 0.003
    assert all(a["signs"] and a["rollback_equal"] and a["trainings"] for a in result["attacks"])
    assert result["passed"]
    assert markdown(result).count("| yes |") == len(ATTACKS)


def test_a_gate_that_lets_everything_pass_fails_the_drill(lineage, monkeypatch):
    """So the drill can fail: without the gate the attack of many users gets through."""
    from utils.feedback.retrain import GateVerdict

    monkeypatch.setattr("utils.feedback.retrain.judge_candidate", lambda *_: GateVerdict(True, "promoted", "open"))
    monkeypatch.setattr("utils.feedback.remember.SHARES", (2.0,))  # every correction reaches everybody
    wild = Recipe(margin=50.0)
    result = run_drill(lineage.root, "tiny", wild, attacks=[a for a in ATTACKS if a.key == "b"])
    assert result["lowest_auc"] < result["base_auc"] - 0.005
    assert not result["passed"]


def test_the_reason_shown_is_that_of_a_rejected_candidate():
    trainings = [
        {"promoted": False, "reason": "The AUC fell.", "accuracy_after": 1.0},
        {"promoted": True, "reason": "Kept its bounds.", "accuracy_after": 1.0},
    ]
    assert signs_of(AttackResult("b", "many", trainings=2, promoted=1, rejected=1), trainings) == [
        "1 candidates rejected, the last: The AUC fell."
    ]


def test_what_the_quarantine_makes_of_each_attack(lineage, tmp_path):
    arena = Arena(lineage.root, "tiny", tmp_path / "arena")
    seen = {}
    for attack in ATTACKS:
        votes = [v for part in attack.rounds(arena.crowd, 3) for v in part]
        seen[attack.key] = [r.status for r in judge_votes(votes, LearningSettings())]
    assert seen["a"].count(Status.QUOTA) == 1000 - STRANGERS_PER_DAY
    assert seen["a"].count(Status.ACCEPTED) == 300
    assert seen["d"].count(Status.ACCEPTED) <= 1
    assert seen["e"].count(Status.OUT_OF_DOMAIN) == 180


def test_kills_at_many_steps_leave_nothing_half(lineage):
    """The command itself, in a process of its own: it forks children that are killed."""
    set_current(lineage.root, "tiny")
    outside = os.environ | {"TELLTALE_WEIGHTS__DIR": str(lineage.root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.crash_test", "--times", "12"]
    done = subprocess.run(command, cwd=ROOT, env=outside, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no fault" in done.stdout
    assert int(done.stdout.strip().splitlines()[-1].split()[0]) >= 10


def test_the_crash_drill_sees_what_it_should(lineage, tmp_path):
    arena = Arena(lineage.root, "tiny", tmp_path / "arena")
    assert faults(arena, (), recovered=True) == []
    assert len(easy_items(arena)) > 0
    assert "a line of the history was lost" in faults(arena, ("f" * 64,), recovered=False)
    (arena.root / "CURRENT").write_text("half\n")
    assert "CURRENT is not valid" in faults(arena, (), recovered=False)[0]
    set_current(arena.root, "tiny")
    (arena.root / "tiny" / "gate.safetensors").write_bytes(b"")
    assert any("half version" in fault for fault in faults(arena, (), recovered=False))


@pytest.mark.parametrize("name", ["golden", "replay"])
def test_shipped_sets_hold_no_pictures(lineage, name):
    """Only tokens, logits, quality, labels and their bookkeeping."""
    held = load_file(lineage.root / "learning" / "tiny" / f"{name}.safetensors")
    assert set(held) == {"tokens", "tokens_low", "tokens_step", "starts", "logits", "quality", "labels"}
    assert verify_version(lineage.root, "tiny").tiny


# What the learning benchmark makes of its scores: goals, table and plot.


def scored(
    source: str, asked: int, wrong: float, verdict: str, auc: float = 0.9, confirmed: int | None = None
) -> dict[str, Any]:
    return {
        "asked": asked, "source": source, "corrections": asked, "confirmed": confirmed, "held_out": 40,
        "right": 0.5 if asked < 20 else 0.45 if source == "two" else 0.7, "wrong": wrong,
        "inconclusive": 0.5 - wrong, "learned_right": 0.4, "auc": auc, "ece": 0.05, "verdict": verdict, "reason": "",
        "seconds": 1.0,
    }  # fmt: skip


ROUNDS = [
    scored("one", 0, 0.4, "base"), scored("one", 20, 0.2, "promoted", 0.898),
    scored("two", 0, 0.2, "base"), scored("two", 20, 0.1, "slice"), scored("two", 20, 0.0, "promoted", confirmed=30),
]  # fmt: skip


def test_verdicts_are_counted_as_the_product_gives_them() -> None:
    outcomes, labels = np.array(["fake", "real", "inconclusive", "real"]), np.array([1, 1, 1, 0], np.float32)
    assert right_of(outcomes, labels).tolist() == [True, False, False, True]
    assert wrong_of(outcomes, labels).tolist() == [False, True, False, False]


def test_a_rejected_candidate_changes_nothing_of_what_is_served() -> None:
    *_, line, confirmed = summary(ROUNDS)
    assert line.startswith("| 20 | 2 | 30.0%, 20.0% | 50.0%, 60.0% | -5.0 points | 1 of 2 | -0.0020, ")
    assert confirmed.startswith("| 20 and *Correct* | 1 | 20.0%, 0.0% |")


def test_table_and_plot_come_from_the_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = tmp_path / "learning.json"
    scores.write_text(json.dumps({"version": "v9", "rounds": ROUNDS}))
    assert main(["show", "--scores", str(scores)]) == 0
    assert "| two | 40 | 50/20 | 45/10 (rejected) |  |  | 45/0 |  |  |" in capsys.readouterr().out
    assert scores.with_suffix(".md").read_text().startswith("# Learning benchmark, version v9")
    assert (tmp_path / "images" / "learning.svg").read_text().count("<path") > 4


def test_a_store_is_read_as_it_is_or_refused_and_never_begun_anew(tmp_path):
    made = FeatureStore(tmp_path / "train", [View(row=0, label=1, source="a", generator="-", seed=3)])
    (made.folder / "tokens.npy").write_bytes(b"features")
    with pytest.raises(TrainingDataError, match="not finished"):
        opened(made.folder)
    (made.folder / "done.txt").write_text("1")
    assert opened(made.folder).views == made.views
    (made.folder / VIEWS_FILE).write_text((made.folder / VIEWS_FILE).read_text().replace(', "processed": false', ""))
    with pytest.raises(TrainingDataError, match="of another form"):
        opened(made.folder)
    assert (made.folder / "tokens.npy").exists()
