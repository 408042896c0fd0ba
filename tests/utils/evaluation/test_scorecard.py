"""Score files come back as they were written; figures and tables are right for sets of one class, too."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from models.cards import EXPERT_NAMES
from models.gating import Gate
from utils.detection.calibration import Calibration, ReliabilityBin
from utils.detection.engine import NumericGate
from utils.errors import TrainingDataError
from utils.evaluation.figures import count_verdicts, figures_of, generators, measures, real_sources, split_into_sets
from utils.evaluation.plots import draw_all, reliability_points
from utils.evaluation.score_file import ScoreTable, join_tables, read_scores, write_scores
from utils.evaluation.scorecard import breakdown_markdown, main, scorecard_markdown
from utils.metrics import auc
from utils.weights import publish_version, set_current

CALIBRATION = Calibration((ReliabilityBin(0.0, 1.0, 100, 50),), 0.3, 0.7, {"ece_before": 0.2})


def table(source: str, reals: int, fakes: int, *, kind: str = "image", seed: int = 0) -> ScoreTable:
    rng = np.random.default_rng(seed)
    labels = np.array([0.0] * reals + [1.0] * fakes)
    count = len(labels)
    logits = (2 * labels[:, None] - 1) * 2 + rng.normal(0, 1.5, (count, len(EXPERT_NAMES)))
    if kind == "image":
        logits[:, EXPERT_NAMES.index("lstm")] = np.nan
    return ScoreTable(
        names=tuple(f"folder/{source}-{i}.png" for i in range(count)),
        kinds=(kind,) * count,
        labels=labels,
        sources=(source,) * count,
        generators=tuple("gan, v2" if label else "-" for label in labels),
        groups=tuple(f"{source}{i // 2}" for i in range(count)),
        logits=logits,
        quality=np.zeros((count, 4)),
    )


def arrays() -> dict[str, np.ndarray]:
    return {k: v.detach().numpy() for k, v in Gate(experts=len(EXPERT_NAMES), quality=4).state_dict().items()}


def gate() -> NumericGate:
    return NumericGate(arrays())


@pytest.fixture
def scores(tmp_path):
    path = tmp_path / "scores.csv"
    clips = table("video:x", 10, 10, kind="video", seed=3)
    write_scores(path, join_tables([table("mixed", 40, 40), table("reals", 30, 0, seed=1), clips]), gate())
    return path


def test_score_file_comes_back(tmp_path):
    given = table("set, with comma", 5, 4)
    write_scores(tmp_path / "deep" / "scores.csv", given, gate())
    rows = read_scores(tmp_path / "deep" / "scores.csv")
    text = (tmp_path / "deep" / "scores.csv").read_text(encoding="utf-8")
    assert len({r["file"] for r in rows}) == 9
    assert ".png" not in text, "files are not named"
    assert not {r["group"] for r in rows} & set(given.groups), "nor are people"
    assert [r["label"] for r in rows] == ["real"] * 5 + ["fake"] * 4
    assert {r["source"] for r in rows} == {"set, with comma"}
    firsts = [given.groups.index(g) for g in given.groups]
    assert [[r["group"] for r in rows].index(r["group"]) for r in rows] == firsts, "groups stay together"
    for e, name in enumerate(EXPERT_NAMES):
        held = [float(r[f"logit_{name}"]) if r[f"logit_{name}"] else np.nan for r in rows]
        assert np.allclose(held, given.logits[:, e], atol=1e-5, equal_nan=True)
    expected = torch.sigmoid(torch.tensor(np.nanmean(given.logits, axis=1)))
    assert np.allclose([float(r["probability"]) for r in rows], expected, atol=1e-5)
    weights = np.array([[float(r[f"weight_{name}"]) for name in EXPERT_NAMES] for r in rows])
    assert np.allclose(weights.sum(1), 1, atol=1e-3)


def test_figures_of_each_set_and_of_all_pictures(scores):
    figures = figures_of(scores, CALIBRATION, rounds=50)
    assert set(figures) == {"mixed", "reals", "clips", "pictures"}
    assert (figures["pictures"]["real"], figures["pictures"]["fake"]) == (70, 40)
    assert set(figures["mixed"]["experts"]) == {"cnn", "resnext", "vit"}
    assert set(figures["clips"]["experts"]) == set(EXPERT_NAMES)
    rows = [r for r in read_scores(scores) if r["source"] == "mixed"]
    logits = np.array([[float(r[f"logit_{n}"]) for n in ("cnn", "resnext", "vit")] for r in rows])
    mean = auc(np.array([r["label"] == "fake" for r in rows], float), logits.mean(1))
    assert figures["mixed"]["plain_mean"][0] == pytest.approx(mean, abs=1e-4)
    assert "plain_mean" not in figures["reals"]
    value, low, high = figures["mixed"]["auc"]
    assert 0.9 < value <= 1
    assert low <= value <= high
    assert 0 <= figures["mixed"]["coverage"] <= 1
    json.loads(json.dumps(figures, allow_nan=False))
    mixed = figures["mixed"]
    shown = f"{mixed['ece_before']:.3f} → {mixed['ece'][0]:.3f} ({mixed['ece_by_chance']:.3f})"
    assert shown in scorecard_markdown(figures, "v1")


def test_set_of_real_ones_alone_has_no_auc_and_no_misses(scores):
    figures = figures_of(scores, CALIBRATION, rounds=50)["reals"]
    assert (figures["real"], figures["fake"]) == (30, 0)
    assert not {"auc", "eer", "misses", "ece", "ece_before", "ece_by_chance"} & set(figures)
    assert figures["experts"] == {}
    rows = [r for r in read_scores(scores) if r["source"] == "reals"]
    alarms = np.mean([float(r["probability"]) >= 0.5 for r in rows])
    assert figures["false_alarms"][0] == pytest.approx(alarms, abs=1e-4)
    assert figures["accuracy"][0] == pytest.approx(1 - alarms, abs=1e-4)


def test_set_of_fakes_alone_has_misses_and_no_false_alarms(tmp_path):
    write_scores(tmp_path / "s.csv", table("fakes", 0, 20), gate())
    figures = figures_of(tmp_path / "s.csv", CALIBRATION, rounds=20)
    assert "misses" in figures["fakes"]
    assert not {"false_alarms", "false_alarms_decided", "auc"} & set(figures["fakes"])
    json.dumps(figures, allow_nan=False)


def test_source_with_the_name_of_a_joined_set_stays_apart(tmp_path):
    both = [table("clips", 4, 4), table("pictures", 4, 4), table("video:x", 3, 3, kind="video")]
    write_scores(tmp_path / "s.csv", join_tables(both), gate())
    figures = figures_of(tmp_path / "s.csv", CALIBRATION, rounds=5)
    counts = {name: f["real"] for name, f in figures.items()}
    assert counts == {"clips (source)": 4, "pictures (source)": 4, "clips": 3, "pictures": 8}


def test_coverage_counts_what_lies_outside_the_band(scores):
    rows = [r for r in read_scores(scores) if r["source"] == "mixed"]
    probabilities = np.array([float(r["probability"]) for r in rows])
    decided = ((probabilities <= 0.3) | (probabilities >= 0.7)).mean()
    assert figures_of(scores, CALIBRATION, rounds=5)["mixed"]["coverage"] == pytest.approx(decided, abs=1e-4)


def test_markdown_has_every_set_in_tables_of_even_rows(scores):
    figures = figures_of(scores, CALIBRATION, rounds=20)
    text = scorecard_markdown(figures, "v9", {"ROC": "images/roc.png"})
    lines = text.splitlines()
    assert lines[0] == "# Scorecard of v9"
    for name in figures:
        assert sum(line.startswith(f"| {name} |") for line in lines) == (2 if "auc" in figures[name] else 1)
    rows = [line for line in lines if line.startswith("|")]
    assert len({line.count("|") for line in rows[:6]}) == 1
    assert len({line.count("|") for line in rows[6:]}) == 1
    assert "nan" not in text
    assert "![ROC](images/roc.png)" in lines


def rewritten(path, change):
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    change(rows[1])
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize(
    "change",
    [
        {"probability": "1.2"}, {"probability": "nan"}, {"probability": ""}, {"label": "maybe"}, {"kind": "sound"},
        {"logit_cnn": "much"}, {"logit_cnn": "", "logit_resnext": "", "logit_vit": ""},
    ],
)  # fmt: skip
def test_damaged_row_is_refused_by_line(scores, change):
    rewritten(scores, lambda row: row.update(change))
    with pytest.raises(TrainingDataError, match=r"scores.csv, line 3"):
        read_scores(scores)


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\xff\xfe\x00", b"file,split,source,label,group,generator\n"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "other.csv").write_bytes(content)
    with pytest.raises(TrainingDataError, match=r"other.csv"):
        read_scores(tmp_path / "other.csv")


def test_header_alone_and_missing_file_are_refused(scores, tmp_path):
    scores.write_text(scores.read_text().splitlines()[0] + "\n")
    with pytest.raises(TrainingDataError, match="holds no scores"):
        read_scores(scores)
    with pytest.raises(TrainingDataError, match="cannot be read"):
        read_scores(tmp_path / "gone.csv")


@pytest.fixture
def version(tmp_path, monkeypatch):
    root = tmp_path / "weights"
    publish_version(root, "v9", {"gate": arrays()}, {"calibration": CALIBRATION.to_dict(), "card": {"name": "v9"}})
    set_current(root, "v9")
    monkeypatch.setenv("TELLTALE_WEIGHTS__DIR", str(root))
    return root / "v9"


FEW = ("--rounds", "10")


def test_command_writes_page_and_plots(scores, version, tmp_path, capsys):
    out = tmp_path / "docs" / "scorecard.md"
    out.parent.mkdir()
    assert main(["--scores", str(scores), "--out", str(out), *FEW]) == 0
    text = out.read_text()
    assert text.startswith("# Scorecard of v9")
    assert capsys.readouterr().out.strip() == text.strip()
    for name in ("roc", "reliability", "probabilities", "outcomes"):
        assert f"(images/{name}.png)" in text
        assert (out.parent / "images" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_command_takes_the_score_file_of_the_version(scores, version, tmp_path):
    (version / "scores.csv").write_bytes(scores.read_bytes())
    assert main(["--version", "v9", "--out", str(tmp_path / "card.md"), *FEW]) == 0


def test_command_ends_with_a_coded_error(version, tmp_path, capsys):
    assert main(["--scores", str(tmp_path / "gone.csv"), "--out", str(tmp_path / "card.md")]) == 3
    assert "[training_data]" in capsys.readouterr().err
    assert main(["--version", "v0", "--out", str(tmp_path / "card.md")]) == 3
    assert "[weights_missing]" in capsys.readouterr().err
    assert not (tmp_path / "card.md").exists()


def test_files_without_a_score_are_left_out_of_the_figures_and_counted(scores):
    with scores.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        row["outcome"] = "inconclusive"
    for row, outcome in zip(rows[:3], ("no_face", "failed", "no_face"), strict=True):
        row.update({"outcome": outcome, "probability": "", "logit_cnn": "", "logit_resnext": "", "logit_vit": ""})
    with scores.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert len(read_scores(scores)) == len(rows) - 3
    assert len(read_scores(scores, judged=False)) == len(rows)
    counts = count_verdicts(rows, CALIBRATION)
    assert "Without a score: 2 no face, 1 failed." in breakdown_markdown({"mixed": rows}, CALIBRATION, rounds=5)
    assert counts["real"] == {"no_face": 2, "failed": 1, "inconclusive": sum(r["label"] == "real" for r in rows) - 3}


def test_breakdown_measures_each_generator_beside_the_real_ones_of_its_source(scores):
    sets = split_into_sets(read_scores(scores))
    found = generators(sets)
    assert set(found) == {"gan, v2", "clips, portraits"}
    assert {r["source"] for r in found["gan, v2"]} == {"mixed"}
    assert sum(r["label"] == "real" for r in found["gan, v2"]) == 40
    assert {name: len(rows) for name, rows in real_sources(sets).items()} == {
        "mixed": 40,
        "reals": 30,
        "1 sources of less than 15": 10,
    }
    text = "\n".join(breakdown_markdown(sets, CALIBRATION, rounds=20))
    expected = measures(found["gan, v2"], CALIBRATION, 20)
    assert f"| gan, v2 | 40 / 40 | {expected['auc'][0]:.3f}" in text
    assert "nan" not in text
    assert "Without a score" not in text
    assert "| 1 sources of less than 15 | 10 |" in text
    assert "| reals | 30 |" not in text, "it has a row of its own in the first table"


def test_verdicts_without_a_column_follow_from_the_band(scores):
    rows = read_scores(scores)
    counts = count_verdicts(rows, CALIBRATION)
    above = sum(float(r["probability"]) >= 0.7 for r in rows if r["label"] == "fake")
    assert counts["fake"]["fake"] == above
    assert sum(sum(of_label.values()) for of_label in counts.values()) == len(rows)
    found = measures([r for r in rows if r["label"] == "real"], CALIBRATION, 20)
    assert set(found) == {"accuracy", "decided", "false_alarms", "called_fake", "cleared"}
    assert found["cleared"][0] == pytest.approx(counts["real"].get("real", 0) / sum(counts["real"].values()), abs=1e-4)
    assert found["called_fake"][0] == pytest.approx(
        counts["real"].get("fake", 0) / sum(counts["real"].values()), abs=1e-4
    )


def test_real_sources_of_a_few_come_together(tmp_path):
    tables = [table("many", 22, 0), *(table(f"video:{i}", 2, 0, kind="video", seed=i) for i in range(3))]
    write_scores(tmp_path / "s.csv", join_tables(tables), gate())
    found = real_sources(split_into_sets(read_scores(tmp_path / "s.csv")))
    assert {name: len(rows) for name, rows in found.items()} == {"many": 22, "3 sources of less than 15": 6}


# What is drawn is right, whatever classes a set has; the same scores give the same bytes.


def drawn(seed: int = 0, count: int = 400):
    rng = np.random.default_rng(seed)
    labels = (rng.random(count) < 0.5).astype(np.float64)
    return labels, np.round(np.clip(0.5 + (labels - 0.5) * 0.4 + rng.normal(0, 0.2, count), 0, 1), 2)


def test_reliability_of_honest_probabilities_lies_on_the_diagonal():
    rng = np.random.default_rng(1)
    probabilities = rng.random(20_000)
    labels = (rng.random(20_000) < probabilities).astype(np.float64)
    points = reliability_points(labels, probabilities)
    assert len(points) == 10
    for stated, share, low, high in points:
        assert low <= share <= high
        assert share == pytest.approx(stated, abs=0.04)


def test_all_pictures_are_drawn_for_sets_of_any_classes(tmp_path):
    labels, probabilities = drawn()
    reals = labels == 0
    sets = {"both": (labels, probabilities), "real alone": (labels[reals], probabilities[reals])}
    first = draw_all(sets, tmp_path / "images")
    assert [p.name for p in first.values()] == ["roc.png", "reliability.png", "probabilities.png"]
    again = draw_all(sets, tmp_path / "again")
    for title, path in first.items():
        assert path.read_bytes() == again[title].read_bytes()
        with Image.open(path) as picture:
            assert min(picture.size) > 200
            assert len(picture.convert("RGB").getcolors(10**6)) > 10
    only = draw_all({"real alone": sets["real alone"]}, tmp_path / "only")
    assert all(path.is_file() for path in only.values())
