"""A source that training never saw is measured by a head that really never saw it."""

from __future__ import annotations

import numpy as np
import pytest

from utils.errors import TrainingDataError
from utils.learning.features import SelectedStore
from utils.learning.holdout import as_figures, holdout_markdown, leave_one_source_out
from utils.learning.loop import Recipe
from utils.learning.views import View

RECIPE = Recipe(epochs=12, batch=16, lr=0.02, average=0.5, patience=12)


class Tokens:
    """Views with made-up tokens in memory; `sign` says in which direction a source's fakes lie."""

    def __init__(self, seed: int, sources: dict[str, tuple[int, float]]) -> None:
        rng = np.random.default_rng(seed)
        views, tokens = [], []
        for source, (count, sign) in sources.items():
            for i in range(count):
                label = i % 2 if sign else 0
                mean = np.full((4, 48), 0.0)
                mean[:, :24] = sign * (2 * label - 1) * 0.8
                tokens.append(rng.normal(mean, 1.0))
                views.append(View(len(views), label, source, "made" if label else "-", i))
        self.views = tuple(views)
        self._tokens = np.array(tokens, np.float16)

    def load(self, name: str) -> np.ndarray:
        assert name == "tokens"
        return self._tokens

    def labels(self) -> np.ndarray:
        return np.array([v.label for v in self.views], np.float32)


def test_a_source_that_lies_the_other_way_is_wrong_when_unseen_and_right_when_known(tmp_path):
    sources = {"one": (80, 1.0), "two": (80, 1.0), "odd": (80, -1.0)}
    # the odd source's tokens are moved away, so that a head that knows it can tell it from the others
    stores = [Tokens(seed, sources) for seed in range(3)]
    for store in stores:
        odd = np.array([v.source == "odd" for v in store.views])
        store._tokens[odd, :, 24:] += 3
    groups = [f"{v.source}-{v.row // 2}" for v in stores[2].views]
    rows = {r.source: r for r in leave_one_source_out(*stores, groups, RECIPE, tmp_path, tiny=True)}
    assert set(rows) == set(sources)
    assert rows["odd"].auc_unseen.value < 0.4
    assert rows["odd"].auc_known.value > 0.6
    assert rows["one"].auc_unseen.value > 0.7
    assert (rows["one"].real, rows["one"].fake) == (40, 40)
    text = holdout_markdown(list(rows.values()))
    assert text.count("\n") == 5
    assert f"{rows['odd'].auc_unseen.value:.3f}" in text


def test_a_source_of_real_pictures_alone_has_false_alarms_and_no_auc(tmp_path):
    stores = [Tokens(seed, {"one": (64, 1.0), "two": (64, 1.0), "real": (20, 0.0)}) for seed in range(3)]
    groups = [str(v.row) for v in stores[2].views]
    rows = {r.source: r for r in leave_one_source_out(*stores, groups, RECIPE, tmp_path, tiny=True)}
    assert (rows["real"].real, rows["real"].fake, rows["real"].auc_unseen) == (20, 0, None)
    assert 0 <= rows["real"].alarms_unseen.low <= rows["real"].alarms_unseen.value <= 1
    assert as_figures(list(rows.values()))["real"]["auc_unseen"] is None
    assert "| – | – |" in holdout_markdown([rows["real"]])


def test_one_source_cannot_be_left_out(tmp_path):
    stores = [Tokens(seed, {"one": (40, 1.0)}) for seed in range(3)]
    with pytest.raises(TrainingDataError, match="two sources"):
        leave_one_source_out(*stores, ["g"] * 40, RECIPE, tmp_path, tiny=True)


def test_selected_rows_are_those_that_were_asked_for():
    store = Tokens(0, {"one": (6, 1.0), "two": (4, 1.0)})
    keep = np.array([v.source == "two" for v in store.views])
    selected = SelectedStore(store, keep)
    assert [v.source for v in selected.views] == ["two"] * 4
    assert np.array_equal(selected.load("tokens"), store.load("tokens")[6:])
    assert np.array_equal(selected.labels(), store.labels()[6:])
