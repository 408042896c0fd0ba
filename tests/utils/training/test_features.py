"""The feature store continues where it was stopped, starts anew for other views."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.ensemble_model import create_network
from models.vision_transformer import ViTExpert
from utils.training import features
from utils.training.features import Features, FeatureStore, OpenVinoFeaturizer, TorchFeaturizer, batches
from utils.training.planning import plan_balanced
from utils.training.views import render
from utils.types import MediaKind


class Countdown:
    """A cheap featurizer that stops with an error after some batches."""

    def __init__(self, batches_left: int = 10**9) -> None:
        self.left = batches_left
        self.seen = 0

    def __call__(self, batch):
        if self.left == 0:
            raise InterruptedError("stopped")
        self.left -= 1
        self.seen += len(batch)
        means = batch.reshape(len(batch), -1).mean(1)
        return np.stack([means, -means], 1).astype(np.float16)[:, None]


@pytest.fixture
def small(monkeypatch, make_pack):
    monkeypatch.setattr(features, "BATCH", 3)
    monkeypatch.setattr(features, "SAVE_EVERY", 2)
    pack = make_pack(pictures=16)
    return pack, plan_balanced(pack.select("train", MediaKind.IMAGE), 14, seed=1)


def test_stopped_extraction_goes_on_and_gives_what_one_go_gives(small, tmp_path):
    pack, views = small
    whole = FeatureStore(tmp_path / "whole", views)
    whole.extract(pack, Countdown())
    FeatureStore(tmp_path / "parts", views)
    with pytest.raises(InterruptedError):
        FeatureStore(tmp_path / "parts", views).extract(pack, Countdown(3))
    resumed = FeatureStore(tmp_path / "parts", views)
    assert resumed.done == 6 < len(views)
    rest = Countdown()
    resumed.extract(pack, rest)
    assert rest.seen == len(views) - 6
    for name in ("pixels", "tokens", "quality"):
        assert np.array_equal(whole.load(name), resumed.load(name))
    assert np.array_equal(whole.labels(), np.array([v.label for v in views], np.float32))


def test_rows_belong_to_their_views(small, tmp_path):
    pack, views = small
    store = FeatureStore(tmp_path / "s", views)
    store.extract(pack, Countdown())
    assert len(views) == store.done
    assert np.array_equal(store.load("pixels")[5], render(pack, views[5]))


def test_finished_store_runs_no_featurizer(small, tmp_path):
    pack, views = small
    FeatureStore(tmp_path / "s", views).extract(pack, Countdown())
    FeatureStore(tmp_path / "s", views).extract(pack, Countdown(0))


def test_other_views_start_anew(small, tmp_path):
    pack, views = small
    FeatureStore(tmp_path / "s", views).extract(pack, Countdown())
    assert FeatureStore(tmp_path / "s", views[:-1]).done == 0
    assert list((tmp_path / "s").glob("*.npy")) == []


def test_rows_of_several_stores_lie_one_after_another(small, tmp_path):
    pack, views = small
    parts = [FeatureStore(tmp_path / "a", views[:4]), FeatureStore(tmp_path / "b", views[4:])]
    for part in parts:
        part.extract(pack, Countdown())
    joined = Features(parts)
    assert joined.views == tuple(views)
    assert len(joined.load("tokens")) == len(joined.labels()) == len(views)


def test_rows_are_taken_from_whichever_part_holds_them(small, tmp_path):
    pack, views = small
    parts = [FeatureStore(tmp_path / f"{i}", views[low : low + 4]) for i, low in enumerate((0, 4, 8))]
    for part in parts:
        part.extract(pack, Countdown())
    joined = Features(parts)
    wanted = np.array([9, 0, 4, 3, 8, 4])
    for name in ("pixels", "quality"):
        assert np.array_equal(joined.take(name, wanted), joined.load(name)[wanted])
    some = Features([joined], np.arange(len(joined.views)) % 2 == 0)
    assert np.array_equal(some.take("tokens", np.array([4, 1])), joined.load("tokens")[[8, 2]])


def test_batches_are_full_random_and_without_repeats():
    drawn = list(batches(10, 3, np.random.default_rng(0)))
    assert [len(b) for b in drawn] == [3, 3, 3]
    assert len(set(np.concatenate(drawn).tolist())) == 9
    assert [len(b) for b in batches(2, 5, np.random.default_rng(0))] == [2]


def test_tiny_reference_gives_tokens_of_the_head(make_pack):
    vit = create_network("vit", tiny=True)
    assert isinstance(vit, ViTExpert)
    tokens = TorchFeaturizer(vit, tiny=True)(make_pack(pictures=2).pixels)
    assert tokens.dtype == np.float16
    with torch.inference_mode():
        assert vit.head(torch.from_numpy(tokens.astype(np.float32))).logit.shape == (2,)


def test_mixed_precision_and_openvino_are_near_the_reference(make_pack):
    vit = create_network("vit", tiny=True)
    assert isinstance(vit, ViTExpert)
    pixels = make_pack(pictures=4).pixels
    exact, mixed = (TorchFeaturizer(vit, tiny=True, bfloat16=b)(pixels).astype(np.float32) for b in (False, True))
    quick = OpenVinoFeaturizer(vit, tiny=True, threads=1)(pixels)
    assert quick.dtype == np.float16
    assert not np.array_equal(exact, mixed)
    for other in (mixed, quick.astype(np.float32)):
        assert np.abs(exact - other).max() < 0.05 * np.abs(exact).max()
