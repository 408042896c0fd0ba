"""The audit finds leaks that were put there, and finds none where there are none."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from benchmarks.leak_audit import (
    MATCHED,
    PLAIN,
    PROBES,
    Finding,
    audit,
    audit_markdown,
    audit_views,
    failures,
    fold_of,
    probe,
    recipes,
)
from benchmarks.shortcut_features import face_outline, file_facts, rim_features, rim_mask
from utils.metrics import Figure
from utils.training.crop_set import Pack, Portrait
from utils.training.views import View, plan_views, render

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def filed(make_pack, tmp_path_factory):
    """A pack of 64 training crops whose files are there, all of one size and quality; fakes change only the face."""
    pack = make_pack(pictures=128, seed=3)
    folder = tmp_path_factory.mktemp("files")
    pixels, rows = np.array(pack.pixels), []
    plain = pack.pixels
    for row in pack.rows:
        view = View(row.row, 0, "s", "-", 0, clean=True)
        if row.label:  # the tint of the fixture, inside the face alone
            untinted = np.clip(plain[row.row] / np.array([1.25, 0.8, 0.9]), 0, 255)
            rim = cv2.resize(rim_mask(pack, view).astype(np.uint8), (256, 256)).astype(bool)
            pixels[row.row][rim] = untinted[rim]
        path = folder / f"{row.row}.jpg"
        if row.split == "train":
            Image.fromarray(np.full((64, 64, 3), 128, np.uint8)).save(path, quality=75)
        rows.append(dataclasses.replace(row, file=str(path), source_px=100.0, generator="swap" if row.label else "-"))
    return Pack(pixels, tuple(rows), ())


def findings(pack: Pack, name: str = "native, shots", draw: str = MATCHED) -> dict[str, Finding]:
    views = recipes(pack, 32, matched=draw == MATCHED)[name]
    return {f.probe: f for f in audit_views(pack, views, name, draw, rounds=20)}


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


def test_clean_recipes_pass_and_files_are_compared(filed):
    found = findings(filed, "self-blends, shots")
    assert set(found) == set(PROBES)
    for name in ("file size", "quantisation", "picture size"):
        assert found[name].passes, found[name]
    assert found["rim"].linear.value < 0.7


@pytest.mark.parametrize(
    ("name", "leak"),
    [
        ("file size", lambda row, path: path.write_bytes(path.read_bytes() + b"\0" * (400 * row.label))),
        ("quantisation", lambda row, path: Image.new("RGB", (64, 64)).save(path, quality=75 - 30 * row.label)),
    ],
)
def test_leaks_in_files_are_found(filed, tmp_path, name, leak):
    rows = []
    for row in filed.rows:
        path = tmp_path / f"{row.row}.jpg"
        if row.split == "train":
            path.write_bytes(Path(row.file).read_bytes())
            leak(row, path)
        rows.append(dataclasses.replace(row, file=str(path)))
    pack = Pack(filed.pixels, tuple(rows), ())
    found = findings(pack)
    assert found[name].worst.value > 0.95
    assert name in failures(list(found.values()))["native, shots"]


def test_leak_at_the_rim_is_found_and_one_of_size_is_mended_by_matching(filed, make_pack):
    pixels = np.array(filed.pixels)
    fake = [r.row for r in filed.rows if r.label]
    pixels[fake] = np.clip(pixels[fake] * 0.7, 0, 255)
    # half the fakes are of small faces that no real one has
    rows = tuple(
        dataclasses.replace(r, source_px=30.0 if r.label and r.row % 4 == 1 else 100.0 + r.row // 2 % 8)
        for r in filed.rows
    )
    pack = Pack(pixels, rows, ())
    matched, plain = findings(pack), findings(pack, draw=PLAIN)
    assert matched["rim"].worst.value > 0.9
    assert plain["picture size"].worst.value > 0.6
    assert abs(matched["picture size"].worst.value - 0.5) < abs(plain["picture size"].worst.value - 0.5) - 0.05


def test_probe_of_noise_is_at_chance_and_of_the_label_is_sure():
    rng = np.random.default_rng(0)
    labels = (np.arange(200) % 2).astype(float)
    groups = [str(i // 2) for i in range(200)]
    noise = rng.normal(0, 1, (200, 5))
    assert all(0.35 < figure.value < 0.65 for figure in probe(noise, labels, groups, rounds=40))
    assert all(figure.value > 0.95 for figure in probe(noise + 3 * labels[:, None], labels, groups, rounds=40))


def test_recipes_hold_both_labels_and_whole_batches_are_balanced(make_pack):
    pack = make_pack(pictures=64, clips=32, frames=2)
    found = recipes(pack, 20, matched=True)
    assert {"native, shots", "self-blends, shots", "native, clips", "whole batches", "whole batches, clips"} <= set(
        found
    )
    for views in found.values():
        assert np.mean([v.label for v in views]) == pytest.approx(0.5, abs=0.01)


def test_report_names_what_fails():
    good, bad = Figure(0.5, 0.46, 0.54), Figure(0.8, 0.7, 0.9)
    maybe = Figure(0.57, 0.49, 0.65)
    found = [
        Finding("a", PLAIN, "rim", 10, bad, good),
        Finding("a", MATCHED, "rim", 10, good, good),
        Finding("b", MATCHED, "file size", 10, bad, maybe),
        Finding("c", MATCHED, "rim", 10, good, maybe),
    ]
    text = audit_markdown(found, "made up.", ["A note."])
    assert "2 of 3 probes fail, 1 of them surely" in text
    assert f"| a | 10 / 10 | **{bad}** | {good} | {good} | {good} |" in text
    assert f"**{maybe}** *" in text
    assert text.endswith("A note.\n")
    assert failures(found) == {"b": ["file size"]}


def test_facts_of_pictures(tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg", quality=50)
    Image.new("RGB", (40, 30)).save(tmp_path / "b.png")
    jpeg, png = (file_facts(str(tmp_path / name), "image") for name in ("a.jpg", "b.png"))
    assert (jpeg.width, jpeg.height, jpeg.codec) == (40, 30, "JPEG")
    assert jpeg.size == (tmp_path / "a.jpg").stat().st_size
    assert jpeg.tables[0] > 0
    assert not any(png.tables)


def test_matched_views_pair_blends_with_their_originals_and_sizes_with_each_other(make_pack):
    pack = make_pack(pictures=64)
    rows = [dataclasses.replace(r, source_px=50.0 + 10 * (r.row % 16) + 40 * r.label) for r in pack.rows]
    views = plan_views(rows, per_class=24, blends=6, seed=5, matched=True)
    real, fake = ([v for v in views if v.label == label] for label in (0, 1))
    assert len(real) == len(fake)
    blended = sorted(v.row for v in views if v.blended)
    assert len(blended) == 6
    originals = [v.row for v in real]
    assert all(row in originals for row in blended)
    sizes = {r.row: r.source_px for r in rows}
    means = [np.mean([sizes[v.row] for v in part if not v.blended]) for part in (real, fake)]
    assert abs(means[0] - means[1]) < 25


def test_stopped_audit_goes_on_with_its_findings(filed, tmp_path, monkeypatch):
    kept, asked = tmp_path / "findings.jsonl", []

    def counted(pack, views, name, draw, *, rounds):
        asked.append((name, draw))
        return [Finding(name, draw, "rim", len(views), Figure(0.5, 0.4, 0.6), Figure(0.6, 0.5, 0.7))]

    monkeypatch.setattr("benchmarks.leak_audit.audit_views", counted)
    first = next(audit(filed, 16, kept=kept))
    assert {f.draw for f in first} == {PLAIN, MATCHED}
    *_, whole = audit(filed, 16, kept=kept)
    assert whole[: len(first)] == first
    assert len(asked) == len(set(asked)) == len(whole)
    list(audit(filed, 16, seed=1, kept=kept))
    assert len(asked) == 2 * len(whole), "findings of another draw are not taken"


def test_swapped_faces_and_faces_of_portraits_are_recipes(filed):
    grey = Portrait(np.full((256, 256, 3), 120, np.uint8), filed.rows[0].marks(), filed.rows[0].face_box())
    pack = dataclasses.replace(filed, portraits={r.row: grey for r in filed.rows if not r.label})
    drawn = recipes(pack, 40, matched=True)
    assert {v.redrawn for v in drawn["faces of portraits"]} == {"", "swap"}
    assert {v.redrawn for v in drawn["swapped faces"]} == {"", "donated"}
    assert all(fold_of(pack.rows[v.donor].group) == fold_of(pack.rows[v.row].group)
               for v in drawn["swapped faces"] if v.label)  # fmt: skip
    assert "faces of portraits" not in recipes(filed, 40, matched=True)


def test_redrawn_faces_are_a_recipe_and_whole_crops_are_none(filed):
    assert "redrawn faces" not in recipes(filed, 4, matched=True)
    pack = dataclasses.replace(filed, redrawn={r.row: 255 - filed.pixels[r.row] for r in filed.rows if not r.label})
    views = recipes(pack, 4, matched=True)["redrawn faces"]
    assert {v.redrawn for v in views} == {"", "face"}
    assert "redrawn faces" not in recipes(pack, 4, matched=False), "pairs of one crop have no other draw"
    whole = recipes(pack, 10**6, matched=True)["redrawn faces"]
    assert len(views) <= 2 * 4 < len(whole), "at most so many of a source"
    found = findings(pack, "redrawn faces")
    assert found["rim"].linear.value < 0.7
    assert found["file size"].passes
