"""What training never saw, a source or a generator, is measured by a head that really never saw it."""

from __future__ import annotations

import numpy as np
import pytest

from models.cards import EXPERT_NAMES
from models.gating import Gate
from utils.detection.calibration import Calibration, ReliabilityBin
from utils.evaluation.score_file import ScoreTable
from utils.metrics import auc
from utils.training.crop_set import PackedCrop
from utils.training.features import Features
from utils.training.loop import Recipe
from utils.training.strangers import (
    Strangers,
    Unseen,
    cross_fitted,
    folds_of,
    of_generator,
    of_source,
    relatives,
    stranger_figures,
)
from utils.training.views import View

pytestmark = pytest.mark.usefixtures("one_thread")
RECIPE = Recipe(epochs=6, batch=16, lr=0.04, average=0.5, patience=6)
WHOLE = (ReliabilityBin(0.0, 1.0, 1, 0),)


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


def test_relatives_share_a_fold():
    assert relatives("video:resyncer_page") == relatives("frames_resyncer_back") == "resyncer"
    fold = folds_of(["a"] * 9 + ["b"] * 5 + ["c"] * 2 + ["d"], 2)
    assert fold == {"a": 0, "b": 1, "c": 1, "d": 0}


def test_a_source_that_lies_the_other_way_is_wrong_by_the_head_that_has_not_seen_it(tmp_path):
    packed: list[PackedCrop] = []
    kinds = {"one": (160, 1.0, ("a",)), "two": (160, 1.0, ("a",)), "odd": (60, -1.0, ("b",))}
    train, calib, held = (Tokens(seed, kinds, packed) for seed in range(3))
    for store in (train, calib, held):  # moved away, so that a head that knows it can tell it
        store.tokens[[view.source == "odd" for view in store.views], :, 24:] += 3
    found = cross_fitted(train, calib, {"held": held}, packed, RECIPE, tmp_path, folds=3, tiny=True)
    logits, labels = found.of_own("held"), held.labels()
    odd = np.array([view.source == "odd" for view in held.views])
    assert auc(labels[~odd], logits[~odd]) > 0.65
    assert auc(labels[odd], logits[odd]) < 0.45
    by_generator = cross_fitted(
        train, calib, {"held": held}, packed, RECIPE, tmp_path, folds=2, name_of=of_generator, tiny=True
    )
    assert set(by_generator.fold) == {"a", "b"}
    assert np.isnan(by_generator.of_own("held"))[labels == 0].all(), "a real picture is of no generator"


def test_without_a_generator_its_fakes_are_gone_and_its_real_pictures_stay(tmp_path, monkeypatch):
    packed: list[PackedCrop] = []
    kinds = {"one": (80, 1.0, ("a", "b")), "two": (80, 1.0, ("c", "b"))}
    train, calib = (Tokens(seed, kinds, packed) for seed in range(2))
    seen: dict[str, set[str]] = {}

    def watched(train, calib, recipe, folder, *, expert, weights, axes, traces):
        seen[folder.name] = {f"{v.source} {v.generator}" for s in (train, calib) for v in s.views}
        return expert

    monkeypatch.setattr("utils.training.strangers.train_vit_head", watched)
    found = {
        name_of: cross_fitted(train, calib, {}, packed, RECIPE, tmp_path, folds=n, name_of=name_of, tiny=True).fold
        for name_of, n in ((of_generator, 3), (of_source, 2))
    }
    everything = {"one -", "one a", "one b", "two -", "two c", "two b"}
    for name, fold in found[of_generator].items():
        assert seen[f"of_generator-{fold}"] == everything - {f"one {name}", f"two {name}"}
    for name, fold in found[of_source].items():
        assert seen[f"of_source-{fold}"] == {pair for pair in everything if not pair.startswith(name)}


def strangers(logits: np.ndarray, by_generator: dict[str, np.ndarray]) -> Strangers:
    """Made-up logits of heads that have not seen a source, and of heads that have not seen a generator."""
    own = Unseen({}, {"val": logits[None]}, {"val": np.zeros(len(logits), np.int64)})
    fold = {name: number for number, name in enumerate(by_generator)}
    return Strangers(own, Unseen(fold, {"val": np.array(list(by_generator.values()))}, {}))


def table(labels: list[int], sources: list[str], generators: list[str], logits: np.ndarray) -> ScoreTable:
    raw = np.full((len(labels), len(EXPERT_NAMES)), np.nan)
    raw[:, EXPERT_NAMES.index("vit")] = logits
    names = tuple(map(str, range(len(labels))))
    return ScoreTable(
        names, ("image",) * len(names), np.array(labels, float), tuple(sources), tuple(generators), names, raw,
        np.zeros((len(names), 4)),
    )  # fmt: skip


def test_rows_hold_figures_of_heads_that_know_and_of_heads_that_do_not():
    rng = np.random.default_rng(0)
    labels = [0, 1] * 20 + [1] * 10 + [0] * 12
    sources = ["both"] * 40 + ["fakes"] * 10 + ["reals"] * 12
    generators = ["-", "a"] * 20 + ["b"] * 10 + ["-"] * 12
    sign = 2 * np.array(labels) - 1
    known = 3.0 * sign + rng.normal(0, 0.1, len(labels))
    held = table(labels, sources, generators, known)
    gate = Gate(experts=len(EXPERT_NAMES), quality=4).eval()
    narrow = Calibration(WHOLE, real_below=0.5, fake_above=0.5, figures={})
    found = stranger_figures(held, strangers(-known, {"a": known, "b": -known}), gate, narrow)
    assert list(found) == ["both", "fakes", "reals", "generator a", "generator b"]
    assert (found["both"]["auc_known"], found["both"]["auc_unseen"]) == ([1.0] * 3, [0.0] * 3)
    assert found["both"]["called_real_unseen"] == found["both"]["called_fake_unseen"] == [1.0] * 3
    assert found["both"]["false_alarms_known"] == [0.0] * 3
    assert found["fakes"]["auc_known"][0] == 1.0, "beside all real pictures"
    assert (found["reals"]["auc_unseen"], found["reals"]["ece_unseen"]) == (None, None)
    assert found["generator a"]["auc_unseen"][0] == 1.0
    assert found["generator b"]["auc_unseen"][0] < 1.0


def test_a_wide_band_leaves_real_pictures_of_an_unseen_source_undecided():
    labels, sources = [0] * 20 + [1] * 20, ["one"] * 40
    held = table(labels, sources, ["-"] * 20 + ["a"] * 20, np.linspace(-2, 2, 40))
    wide = Calibration(WHOLE, real_below=0.0001, fake_above=0.9999, figures={})
    gate = Gate(experts=len(EXPERT_NAMES), quality=4).eval()
    found = stranger_figures(held, strangers(np.full(40, 1.0), {}), gate, wide)["one"]
    assert found["undecided_unseen"][0] == 1.0
    assert found["false_alarms_unseen"][0] == 1.0
    assert found["called_fake_unseen"][0] == 0.0


def test_selected_rows_are_those_that_were_asked_for():
    store = Tokens(0, {"one": (6, 1.0, ("a",)), "two": (4, 1.0, ("a",))}, [])
    keep = np.array([v.source == "two" for v in store.views])
    selected = Features([store], keep)
    assert [v.source for v in selected.views] == ["two"] * 4
    assert np.array_equal(selected.load("tokens"), store.load("tokens")[6:])
    assert np.array_equal(selected.labels(), store.labels()[6:])
