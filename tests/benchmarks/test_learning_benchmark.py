"""What the learning benchmark makes of its scores: goals, table and plot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.learning_benchmark import main, opened, right_of, summary, wrong_of
from utils.errors import TrainingDataError
from utils.training.features import VIEWS_FILE, FeatureStore
from utils.training.views import View


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
