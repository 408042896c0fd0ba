"""The audit finds leaks that were put there, and finds none where there are none."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from benchmarks.leak_audit import (
    PROBES,
    Finding,
    audit,
    audit_markdown,
    face_outline,
    failures,
    probe,
    recipes,
    rim_features,
    rim_mask,
)
from utils.metrics import Figure
from utils.training.crop_set import Pack
from utils.training.planning import TrainingPlan
from utils.training.views import View, render

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def filed(make_pack):
    """A pack of 96 training crops, fakes of which change only the face."""
    pack = make_pack(pictures=192, seed=3)
    pixels, rows = np.array(pack.pixels), []
    for row in pack.rows:
        view = View(row.row, 0, "s", "-", 0, clean=True)
        if row.label:  # the tint of the fixture, inside the face alone
            untinted = np.clip(pack.pixels[row.row] / np.array([1.25, 0.8, 0.9]), 0, 255)
            rim = cv2.resize(rim_mask(pack, view).astype(np.uint8), (256, 256)).astype(bool)
            pixels[row.row][rim] = untinted[rim]
        rows.append(dataclasses.replace(row, source_px=100.0, generator="swap" if row.label else "-"))
    return Pack(pixels, tuple(rows), ())


def findings(pack: Pack, name: str = "whole batches") -> dict[str, Finding]:
    return {f.probe: f for f in audit(pack, recipes(pack, 120, TrainingPlan())[name], name, rounds=20)}


def test_rim_follows_the_face_through_framing_and_flip(filed):
    for seed in range(6):
        view = View(0, 0, "s", "-", seed)
        outline, rim = face_outline(filed, view), rim_mask(filed, view)
        centre = outline.mean(0).round().astype(int)
        assert not rim[centre[1], centre[0]]
        assert 0.02 < rim.mean() < 0.9
    pixels = render(filed, View(0, 0, "s", "-", 1))
    rim = rim_mask(filed, View(0, 0, "s", "-", 1))
    changed = np.array(pixels)
    changed[~rim] = 7
    assert np.allclose(rim_features(pixels, rim)[: 3 * 144], rim_features(changed, rim)[: 3 * 144]), "no face is seen"


def test_self_blends_pass_and_every_probe_is_asked(filed):
    found = findings(filed, "self-blends")
    assert set(found) == set(PROBES)
    assert found["sizes"].passes
    assert found["rim"].linear.value < 0.7


def test_leaks_at_the_rim_and_in_sizes_are_found(filed):
    pixels = np.array(filed.pixels)
    fake = [r.row for r in filed.rows if r.label]
    pixels[fake] = np.clip(pixels[fake] * 0.7, 0, 255)
    rows = tuple(dataclasses.replace(r, source_px=100.0 - 40 * r.label) for r in filed.rows)
    found = findings(Pack(pixels, rows, ()))
    assert found["statistics"].linear.value > 0.9, "darker"
    assert found["rim"].linear.value > 0.9
    assert found["sizes"].boosted.value > 0.95
    assert {"rim", "sizes"} <= set(failures(list(found.values()))["whole batches"])


def test_probe_of_noise_is_at_chance_and_of_the_label_is_sure():
    rng = np.random.default_rng(0)
    labels = (np.arange(200) % 2).astype(float)
    groups = [str(i // 2) for i in range(200)]
    noise = rng.normal(0, 1, (200, 5))
    assert all(0.35 < figure.value < 0.65 for figure in probe(noise, labels, groups, rounds=40))
    assert all(figure.value > 0.95 for figure in probe(noise + 3 * labels[:, None], labels, groups, rounds=40))


def test_recipes_hold_both_labels_alike_and_keep_rims_in_place(make_pack):
    pack = make_pack(pictures=192, clips=64, frames=2)
    found = recipes(pack, 80, TrainingPlan())
    head = found.pop("all that the head learns")
    assert {(view.clean, view.processed) for view in head} == {(True, False), (True, True), (False, True)}
    assert set(found) == {"shots", "self-blends", "whole batches", "whole batches, clips"}
    for name, views in found.items():
        assert np.mean([v.label for v in views]) == pytest.approx(0.5, abs=0.1), name
        assert not any(v.processed for v in views)


def test_report_names_what_fails():
    good, bad = Figure(0.5, 0.46, 0.54), Figure(0.8, 0.7, 0.9)
    maybe = Figure(0.57, 0.49, 0.65)
    found = [
        Finding("a", "rim", 10, good, good),
        Finding("b", "sizes", 10, bad, maybe),
        Finding("c", "rim", 10, good, maybe),
    ]
    text = audit_markdown(found, "made up.", "A note.\n")
    assert "2 of 3 fail, 1 of them surely" in text
    assert "| a | 0.50, 0.50 | — | — |" in text
    assert "| b | — | — | **0.80, 0.57** |" in text
    assert "| c | **0.50, 0.57** * | — | — |" in text
    assert text.endswith("A note.\n")
    assert failures(found) == {"b": ["sizes"]}
