"""The model page prints a version's card; what a card leaves out is left out of the page."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask import Flask

from tests.web_app.helpers import make_settings
from utils.config import WeightsSettings
from web_app.pages import decimal, engine_sentence, golden_plot, percent
from web_app.texts import text

CARD: dict[str, Any] = {
    "made": "2026-01-02",
    "notes": ["A note."],
    "data": {"terms": ["Research."], "crops": {"train lab fake": 7, "train lab real": 5, "calib video:my_lab real": 2}},
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


def page_of(make_app: Callable[..., Flask], folder: Path, card: dict[str, Any]) -> str:
    """The words of the page of a version with this card, a line per row of a table."""
    (folder / "v9").mkdir()
    (folder / "v9" / "card.json").write_text(json.dumps(card))
    (folder / "CURRENT").write_text("v9\n")
    app = make_app(dataclasses.replace(make_settings(folder), weights=WeightsSettings(dir=str(folder))))
    page = re.sub(r"<[^>]*>", " ", re.sub(r"<tr>|</tr>|<p|</p>", "\n", app.test_client().get("/model").text))
    return "\n".join(" ".join(line.split()) for line in page.replace("\u00a0", " ").splitlines())


def test_the_card_is_on_the_page(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    page = page_of(make_app, tmp_path, CARD)
    for line in (
        "lab 40 30 .900 (.850 to 1.000) 64 % 3.4 % (1.0 to 7.0) 25.0 % (0.0 to 50.0)",
        "All pictures 9 0 – 50 % – –",
        "lab 40 3.4 % (1.0 to 7.0) 20.0 % (10.0 to 30.0)",
        "lab 5 7 0 0",
        "Clips: my lab 0 0 2 0",
    ):
        assert f"\n{line}\n" in page
    assert page.index("lab 40") < page.index("All pictures"), "joined sets stand last"
    assert page.index("lab 5 7") < page.index("Clips: my lab"), "and clips too"
    assert re.search(r"lab \.800 \(\.700 to \.900\)\n", page)
    for words in ("v9", "2026-01-02", "A note.", "Research.", "ViT", "A paper.", "MIT"):
        assert words in page


def test_sources_that_a_training_left_out(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    figures = {"auc_known": None, "auc_unseen": [0.7, 0.6, 0.8], "called_real_unseen": [0.38, 0.33, 0.44]}
    figures |= {"called_fake_unseen": [0.02, 0.01, 0.04]}
    page = page_of(make_app, tmp_path, {"validation_of_unseen_sources": {"lfw": figures}})
    assert "LFW photos – .700 (.600 to .800) 2.0 % (1.0 to 4.0) – 38.0 % (33.0 to 44.0)\n" in page


def test_an_empty_card_gives_an_empty_page(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    page = page_of(make_app, tmp_path, {"tiny": True})
    assert "v9" in page
    assert text("model.none") in page


def test_the_page_says_what_each_network_is_computed_with() -> None:
    other = {"model_version": "v8", "engine": "torch", "precisions": {"vit": "fp32"}}
    own = {"model_version": "v9", "engine": "openvino", "precisions": {"cnn": "fp32", "vit": "bf16"}}
    assert "the engine openvino: CNN fp32, ViT-B/16 bf16." in engine_sentence([other, own], "v9")
    assert engine_sentence([other], "v9") == engine_sentence([{"model_version": "v9"}], "v9") == ""


def test_figures_as_text() -> None:
    assert percent(None) == decimal(None) == "–"
    assert percent([0.5, 0.4, 0.6]).replace("\u00a0", " ") == "50.0 % (40.0 to 60.0)"


# The plot of golden figures: everything inside its panel, better is higher, rejected candidates beside the curve.


def point(version: str, auc: float | None, ece: float = 0.05, promoted: bool = True) -> dict[str, Any]:
    return {"version": version, "auc": auc, "ece": ece, "worst_slice": auc and auc - 0.1, "promoted": promoted}


def test_without_figures_there_is_no_plot() -> None:
    assert golden_plot([]) is None
    assert golden_plot([point("a", None)]) is None


def test_points_lie_where_they_belong() -> None:
    plot = golden_plot([point("a", 0.9), point("b", 0.7, promoted=False), point("c", 0.95)])
    assert plot is not None
    upper, lower = plot["panels"]
    assert list(upper["curves"]) == ["auc", "worst_slice"]
    assert list(lower["curves"]) == ["ece"]
    auc = upper["curves"]["auc"]
    assert [dot["filled"] for dot in auc] == [True, False, True]
    assert auc[1]["y"] > auc[0]["y"] > auc[2]["y"]
    for panel in plot["panels"]:
        dots = [dot for curve in panel["curves"].values() for dot in curve]
        assert all(panel["top"] <= d["y"] <= panel["bottom"] and plot["left"] < d["x"] < plot["right"] for d in dots)
    assert upper["bottom"] < lower["top"] < lower["bottom"] < plot["height"]


def test_one_flat_point_and_very_many() -> None:
    one = golden_plot([point("a", 1.0, ece=0.0)])
    assert one is not None
    assert len(one["names"]) == 1
    many = golden_plot([point(f"v{i}", 0.9) for i in range(200)])
    assert many is not None
    assert len(many["names"]) <= 12
