"""Files are scored by the product's own pipeline, one row each, whatever comes of them; a stopped run goes on."""

from __future__ import annotations

import csv
import dataclasses

import numpy as np
import pytest
from PIL import Image

from utils.detection.pipeline import analyse
from utils.errors import TrainingDataError
from utils.evaluation import score_file as module
from utils.evaluation.layouts import Sample
from utils.evaluation.score_file import FAILED, ScoreTable, join_tables, read_scores, score_files
from utils.evaluation.scorecard import main
from utils.types import MediaKind


@pytest.fixture(scope="module")
def samples(tmp_path_factory, photo):
    """Two portraits, one picture without a face and one that cannot be read."""
    folder = tmp_path_factory.mktemp("files")
    Image.fromarray(photo).save(folder / "one.png")
    Image.fromarray(photo[:, ::-1]).save(folder / "two.jpg", quality=80)
    Image.fromarray(np.full((200, 200, 3), 90, np.uint8)).save(folder / "grey.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing more")
    return [
        Sample(folder / name, MediaKind.IMAGE, label, "shots", name, "made" if label else "-", "val")
        for name, label in (("one.png", 0), ("two.jpg", 1), ("grey.png", 0), ("broken.jpg", 1))
    ]


def rows_of(path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_every_file_gets_a_row_and_those_without_a_score_no_numbers(samples, analyser, tmp_path):
    path = tmp_path / "scores.csv"
    score_files(samples, analyser, path)
    rows = rows_of(path)
    assert [r["outcome"] for r in rows[2:]] == ["no_face", FAILED]
    assert all(not r["probability"] for r in rows[2:])
    report = analyse(samples[0].path, analyser)
    assert float(rows[0]["probability"]) == pytest.approx(report.verdict.probability, abs=1e-6)
    assert rows[0]["outcome"] == report.verdict.outcome.value
    face = report.faces[0]
    assert float(rows[0]["quality_sharpness_log"]) == pytest.approx(face.quality["sharpness_log"], abs=1e-4)
    gate = analyser.engine.gate
    z = float(gate.scale[2]) * float(rows[0]["logit_vit"]) + float(gate.shift[2])
    assert 1 / (1 + np.exp(-z)) == pytest.approx(face.experts[2].probability, abs=1e-4), "the raw logit is stored"
    assert rows[0]["logit_lstm"] == ""
    assert len(read_scores(path)) == 2
    assert "one" not in path.read_text(), "files are not named"


def test_stopped_run_goes_on_behind_its_last_whole_row(samples, analyser, tmp_path, monkeypatch):
    path = tmp_path / "scores.csv"
    score_files(samples, analyser, path)
    whole = path.read_bytes()
    cut = whole.index(b"\n", whole.index(b"\n") + 1) + 1
    path.write_bytes(whole[: cut + 25])
    seen = []
    monkeypatch.setattr(module, "analyse", lambda file, a: (seen.append(file.name), analyse(file, a))[1])
    score_files(samples, analyser, path)
    assert seen == ["two.jpg", "grey.png", "broken.jpg"]
    assert path.read_bytes() == whole
    score_files(samples, analyser, path)
    assert len(seen) == 3, "a finished run analyses nothing"


def test_scores_of_another_version_are_not_mixed_in(samples, analyser, tmp_path):
    path = tmp_path / "scores.csv"
    score_files(samples[2:], analyser, path)
    other = dataclasses.replace(analyser, version="other")
    with pytest.raises(TrainingDataError, match="another version"):
        score_files(samples, other, path)
    with pytest.raises(TrainingDataError, match="no files"):
        score_files([], analyser, path)


def test_command_scores_a_folder(tiny_root, photo, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TELLTALE_WEIGHTS__DIR", str(tiny_root))
    monkeypatch.setenv("TELLTALE_DETECTION__THREADS", "1")
    for label, gain in (("real", 1.0), ("fake", 0.7)):
        (tmp_path / "data" / label).mkdir(parents=True)
        for i in range(2):
            lit = np.clip(photo * (gain - 0.05 * i), 0, 255).astype(np.uint8)
            Image.fromarray(lit).save(tmp_path / "data" / label / f"{i}.png")
    out = tmp_path / "out" / "card.md"
    assert main(["--data", str(tmp_path / "data"), "--out", str(out), "--rounds", "20"]) == 0
    text = out.read_text(encoding="utf-8")
    assert "all files of `data` (4)" in text
    assert "| data | 2 / 2 |" in text
    assert (out.parent / "images" / "outcomes.png").is_file()
    assert len(rows_of(out.parent / "scores.csv")) == 4
    assert "4/4" in capsys.readouterr().err


def table(count: int, start: int = 0) -> ScoreTable:
    numbers = np.arange(start, start + count)
    text = tuple(str(i) for i in numbers)
    return ScoreTable(
        text, ("image",) * count, numbers % 2.0, text, text, text, np.ones((count, 4)), np.ones((count, 4))
    )


def test_columns_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="equally long"):
        dataclasses.replace(table(3), names=("one",))


def test_selection_keeps_rows_together():
    picked = table(5).select(np.array([False, True, False, True, True]))
    assert picked.names == picked.groups == ("1", "3", "4")
    assert picked.labels.tolist() == [1, 1, 0]
    assert len(picked) == 3


def test_joined_tables_follow_each_other():
    joined = join_tables([table(2), table(3, 2)])
    assert joined.names == ("0", "1", "2", "3", "4")
    assert joined.logits.shape == (5, 4)
