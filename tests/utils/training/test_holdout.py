"""What training never saw, a source, a generator or a family, is measured by a head that really never saw it."""

from __future__ import annotations

import numpy as np
import pytest

from utils.detection.calibration import Calibration, ReliabilityBin
from utils.errors import TrainingDataError
from utils.training.crop_set import PackedCrop
from utils.training.features import Features
from utils.training.holdout import as_figures, holdout_markdown, leave_out_each
from utils.training.loop import Recipe
from utils.training.views import View

pytestmark = pytest.mark.usefixtures("one_thread")
RECIPE = Recipe(epochs=6, batch=16, lr=0.04, average=0.5, patience=6)


class Tokens:
    """Views with made-up tokens in memory, and rows of their own in `rows`.

    `sources` has count, sign (in which direction its fakes lie; 0 for real ones alone) and the fakes' generators.
    """

    def __init__(self, seed: int, sources: dict[str, tuple[int, float, tuple[str, ...]]], rows: list[PackedCrop]):
        rng = np.random.default_rng(seed)
        views, tokens = [], []
        for source, (count, sign, made) in sources.items():
            for i in range(count):
                label = i % 2 if sign else 0
                generator = made[i // 2 % len(made)] if label else "-"
                mean = np.full((4, 48), 0.0)
                mean[:, :24] = sign * (2 * label - 1) * 0.8
                tokens.append(rng.normal(mean, 1.0))
                views.append(View(len(rows), label, source, generator, i))
                rows.append(
                    PackedCrop(
                        row=len(rows), file=f"{seed}-{source}-{i}", frame=0, kind="image", label=label, source=source,
                        group=f"{source}-{i // 2}", generator=generator, split="train", box=(0.0, 0.0, 9.0, 9.0),
                        landmarks=((0.0, 0.0),) * 5, source_px=9.0, detector_score=0.9, picture_px=9,
                    )
                )  # fmt: skip
        self.views = tuple(views)
        self.tokens = np.array(tokens, np.float16)

    def load(self, name: str) -> np.ndarray:
        assert name == "tokens"
        return self.tokens

    def take(self, name: str, rows: np.ndarray) -> np.ndarray:
        return self.load(name)[rows]

    def labels(self) -> np.ndarray:
        return np.array([v.label for v in self.views], np.float32)


def made(sources: dict[str, tuple[int, float, tuple[str, ...]]], count: int = 3) -> tuple[list[Tokens], list]:
    rows: list[PackedCrop] = []
    return [Tokens(seed, sources, rows) for seed in range(count)], rows


def test_a_source_that_lies_the_other_way_is_wrong_when_unseen_and_right_when_known(tmp_path):
    stores, pack_rows = made({"one": (80, 1.0, ("a",)), "two": (80, 1.0, ("a",)), "odd": (80, -1.0, ("b",))})
    # the odd source's tokens are moved away, so that a head that knows it can tell it from the others
    for store in stores:
        odd = np.array([v.source == "odd" for v in store.views])
        store.tokens[odd, :, 24:] += 3
    found = leave_out_each(*stores, None, pack_rows, RECIPE, tmp_path, tiny=True, rounds=50)
    rows = {(r.kind, r.name): r for r in found}
    assert set(rows) == {("source", s) for s in ("one", "two", "odd")} | {("generator", g) for g in "ab"}
    odd = rows["source", "odd"]
    assert odd.auc_unseen.value < 0.4
    assert odd.auc_known.value > 0.6
    assert rows["source", "one"].auc_unseen.value > 0.7
    assert odd.called_real.value > 0.5 > rows["source", "one"].called_real.value
    assert odd.ece_unseen.value > 0.2 > rows["source", "one"].ece_unseen.value, "sure of what is the other way round"
    assert (rows["source", "one"].real, rows["source", "one"].fake) == (40, 40)
    assert (rows["generator", "a"].real, rows["generator", "a"].fake) == (80, 80), "beside the real ones of its sources"
    text = holdout_markdown(found)
    assert text.count("\n") == 7
    assert f"| source odd | 40 / 40 | {odd.auc_known}" in text
    assert set(as_figures(found)) == {"one", "two", "odd", "generator a", "generator b"}


def test_without_a_generator_its_fakes_are_gone_and_the_others_stay(tmp_path, monkeypatch):
    stores, pack_rows = made({"one": (80, 1.0, ("a", "b")), "two": (80, 1.0, ("self-blend", "b"))})
    seen: dict[str, set[str]] = {}

    def watched(train, calib, recipe, folder, *, expert):
        seen[folder.name] = {v.generator for s in (train, calib) for v in s.views}
        return expert

    monkeypatch.setattr("utils.training.holdout.train_vit_head", watched)
    leave_out_each(*stores, None, pack_rows, RECIPE, tmp_path, tiny=True, rounds=50)
    assert seen["all"] == {"-", "a", "b", "self-blend"}
    assert seen["without-a"] == {"-", "b", "self-blend"}
    assert seen["without-one"] == {"-", "b", "self-blend"}
    assert seen["without-two"] == {"-", "a", "b"}


def test_families_of_clips_are_measured_clip_by_clip(tmp_path):
    sources = {"one": (64, 1.0, ("a",)), "two": (64, 1.0, ("x face swap",))}
    stores, pack_rows = made({**sources, "video:talk": (40, 1.0, ("audio-driven",))}, 4)
    clips = stores.pop()
    assert len(clips.views) == 168
    stores[2] = Features([stores[2]], np.array([not v.source.startswith("video") for v in stores[2].views]))
    rows = leave_out_each(*stores, clips, pack_rows, RECIPE, tmp_path, tiny=True, rounds=50)
    by_name = {r.name: r for r in rows if r.kind == "family"}
    assert set(by_name) == {"driven heads", "swaps", "portraits"}
    assert by_name["driven heads"].fake == 20
    assert by_name["driven heads"].real == 84


def test_a_source_of_real_pictures_alone_has_false_alarms_and_no_auc(tmp_path):
    sources = {"one": (64, 1.0, ("a",)), "two": (64, 1.0, ("a",)), "real": (20, 0.0, ())}
    stores, pack_rows = made(sources)
    found = leave_out_each(*stores, None, pack_rows, RECIPE, tmp_path, tiny=True, rounds=50)
    rows = {r.name: r for r in found}
    assert set(rows) == {"one", "two", "real"}, "the only generator cannot be left out"
    assert (rows["real"].real, rows["real"].fake, rows["real"].auc_unseen) == (20, 0, None)
    real = rows["real"]
    assert 0 <= real.alarms_unseen.low <= real.alarms_unseen.value <= 1
    assert real.called_fake.value <= real.alarms_unseen.value <= real.called_fake.value + real.undecided.value
    assert real.called_fake.value > 0, "where the band is narrow, every false alarm is a verdict"
    assert as_figures(found)["real"]["auc_unseen"] is None
    assert (real.ece_unseen, real.called_real) == (None, None)
    assert "| – | – | – |" in holdout_markdown([rows["real"]])


def test_a_wide_band_leaves_real_pictures_of_an_unseen_source_undecided(tmp_path, monkeypatch):
    whole = (ReliabilityBin(0.0, 1.0, 1, 0),)
    wide = Calibration(whole, real_below=0.0001, fake_above=0.9999, figures={})
    monkeypatch.setattr("utils.training.holdout.fit_calibration", lambda *_: wide)
    stores, pack_rows = made({"one": (64, 0.5, ("a",)), "two": (64, 0.5, ("a",)), "real": (20, 0.0, ())})
    found = leave_out_each(*stores, None, pack_rows, RECIPE, tmp_path, tiny=True, rounds=50)
    (real,) = (row for row in found if row.name == "real")
    assert real.undecided.value > 0.8
    assert real.called_fake.value < real.alarms_unseen.value
    assert as_figures(found)["real"]["undecided_unseen"][0] == round(real.undecided.value, 4)


def test_one_source_cannot_be_left_out(tmp_path):
    stores, pack_rows = made({"one": (40, 1.0, ("a",))})
    with pytest.raises(TrainingDataError, match="two sources"):
        leave_out_each(*stores, None, pack_rows, RECIPE, tmp_path, tiny=True, rounds=50)


def test_selected_rows_are_those_that_were_asked_for():
    (store,), _ = made({"one": (6, 1.0, ("a",)), "two": (4, 1.0, ("a",))}, 1)
    keep = np.array([v.source == "two" for v in store.views])
    selected = Features([store], keep)
    assert [v.source for v in selected.views] == ["two"] * 4
    assert np.array_equal(selected.load("tokens"), store.load("tokens")[6:])
    assert np.array_equal(selected.labels(), store.labels()[6:])
