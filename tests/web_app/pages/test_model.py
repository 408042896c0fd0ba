"""The model page's rows, out of a card; what a card leaves out is left out of the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from utils.config import Settings, WeightsSettings
from web_app.pages.model import decimal, percent, read_model

CARD: dict[str, Any] = {
    "made": "2026-01-02",
    "notes": ["A note."],
    "data": {"terms": ["Research."], "crops": {"train lab fake": 7, "train lab real": 5, "calib video:x real": 2}},
    "experts": {"vit": {"title": "ViT", "looks_at": "all", "source": "A paper.", "licence": "MIT"}},
    "validation": {
        "pictures": {"real": 9, "fake": 0, "experts": {}, "coverage": 0.5},
        "lab": {
            "real": 40, "fake": 30, "auc": [0.9, 0.85, 1.0], "coverage": 0.642, "false_alarms": [0.2, 0.1, 0.3],
            "false_alarms_decided": [0.034, 0.01, 0.07], "misses": [0.25, 0.0, 0.5],
            "experts": {"vit": [0.8, 0.7, 0.9]},
        },
    },
}  # fmt: skip


def settings_of(folder: Path, card: dict[str, Any]) -> Settings:
    (folder / "v9").mkdir()
    (folder / "v9" / "card.json").write_text(json.dumps(card))
    (folder / "CURRENT").write_text("v9\n")
    return Settings(weights=WeightsSettings(dir=str(folder)))


def test_card_becomes_rows(tmp_path: Path) -> None:
    model = read_model(settings_of(tmp_path, CARD))
    assert (model.version, model.made, model.notes, model.terms) == ("v9", "2026-01-02", ("A note.",), ("Research.",))
    assert [row.name for row in model.scores] == ["lab", "All pictures"], "joined sets stand last"
    lab, joined = model.scores
    assert (lab.auc, lab.called_fake.replace("\u00a0", " ")) == (".900 (.850 to 1.000)", "3.4 % (1.0 to 7.0)")
    assert lab.decided.replace("\u00a0", " ") == "64 %"
    assert (joined.auc, joined.misses) == ("–", "–")
    assert [(row.name, row.train_real, row.train_fake, row.calib_real) for row in model.sources] == [
        ("lab", 5, 7, 0), ("Clips: x", 0, 0, 2),
    ]  # fmt: skip
    assert model.experts[0].aucs == (("lab", ".800 (.700 to .900)"),)


def test_sources_that_a_training_left_out(tmp_path: Path) -> None:
    figures = {"auc_known": None, "auc_unseen": [0.7, 0.6, 0.8], "called_real_unseen": [0.38, 0.33, 0.44]}
    figures |= {"called_fake_unseen": [0.02, 0.01, 0.04]}
    (row,) = read_model(settings_of(tmp_path, {"validation_of_unseen_sources": {"lfw": figures}})).unseen
    assert (row.name, row.auc_known, row.auc_unseen) == ("LFW photos", "–", ".700 (.600 to .800)")
    assert row.called_real_unseen.replace("\u00a0", " ") == "38.0 % (33.0 to 44.0)"
    assert (row.called_fake_unseen.replace("\u00a0", " "), row.undecided_unseen) == ("2.0 % (1.0 to 4.0)", "–")


def test_empty_card_gives_an_empty_page(tmp_path: Path) -> None:
    model = read_model(settings_of(tmp_path, {"tiny": True}))
    assert (model.scores, model.unseen, model.sources, model.experts, model.made) == ((), (), (), (), "–")


def test_the_page_says_what_each_network_is_computed_with(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, CARD)
    other = {"model_version": "v8", "engine": "torch", "precisions": {"vit": "fp32"}}
    own = {"model_version": "v9", "engine": "openvino", "precisions": {"cnn": "fp32", "vit": "bf16"}}
    engine = read_model(settings, [other, own]).engine
    assert "the engine openvino: CNN fp32, ViT-B/16 bf16." in engine
    assert read_model(settings, [other]).engine == read_model(settings, [{"model_version": "v9"}]).engine == ""


def test_figures_as_text() -> None:
    assert percent(None) == decimal(None) == "–"
    assert percent([0.5, 0.4, 0.6]).replace("\u00a0", " ") == "50.0 % (40.0 to 60.0)"
