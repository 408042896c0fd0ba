"""The measure of decoders' traces: real faces decoded again, a direction among tokens, and its place in a head."""

from __future__ import annotations

import copy
import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from models.vision_transformer import TapHead, build_vit
from utils.errors import TrainingDataError
from utils.training.experts import new_network
from utils.training.features import make_stores
from utils.training.planning import CLEAN, RECODED, tiny_plan
from utils.training.traces import FIRST, LAST, LAYER, WEIGHT, Autoencoder, Recoder, Traces, fit_traces, load_autoencoder

WIDTH = 12


def tokens_of(values):
    """(N, 2D) of one layer as stored tokens of four layers."""
    stored = np.zeros((len(values), 4, WIDTH), np.float32)
    stored[:, LAYER] = values
    return stored


def stored(values, *, generator="-", label=0):
    views = [
        SimpleNamespace(row=i, generator=generator, source=f"camera {i % 3}", label=label) for i in range(len(values))
    ]
    labels = np.full(len(values), label, np.float32)
    return SimpleNamespace(views=views, load=lambda name: tokens_of(values), labels=lambda: labels)


@pytest.fixture
def faces():
    """Tokens of 300 real faces, and the direction in which decoding changes them."""
    rng = np.random.default_rng(0)
    direction = rng.normal(size=WIDTH)
    direction -= direction.mean()  # as the layer norm takes the mean away
    return rng.normal(size=(300, WIDTH)), direction / np.linalg.norm(direction)


def measured(traces, values):
    normalised = functional.layer_norm(torch.from_numpy(np.asarray(values, np.float32)), (WIDTH,))
    return (normalised @ traces.weight + traces.bias).numpy()


def test_measure_rises_with_decoding_and_is_a_deviation_of_real_faces(faces):
    real, decoding = faces
    traces = fit_traces(stored(real[:80] + 2 * decoding, generator=RECODED, label=1), stored(real))
    of_real, of_strangers = measured(traces, real), measured(traces, real[100:] + 2 * decoding)
    assert of_real.mean() == pytest.approx(0, abs=1e-4)
    assert of_real.std() == pytest.approx(1, abs=1e-2)
    assert (of_strangers - of_real[100:] > 0.5).all()


def test_written_into_a_head_it_raises_the_logit_between_its_bounds():
    torch.manual_seed(0)
    head = TapHead(taps=4, width=WIDTH // 2, hidden=5).eval()
    with torch.no_grad():  # two features that say nothing
        head.score.weight[0, LAYER * 5 + 1] = head.score.weight[0, LAYER * 5 + 3] = 0
    tokens, traces = torch.randn(400, 4, WIDTH), Traces(2 * torch.randn(WIDTH), 0.7)
    before = head(tokens).logit.detach().numpy()
    traces.write(head)
    rise, found = head(tokens).logit.detach().numpy() - before, measured(traces, tokens[:, LAYER].numpy())
    wanted = WEIGHT * np.clip(found - FIRST, 0, LAST - FIRST)
    assert np.abs(rise - wanted).max() < 0.06
    for part in (found < FIRST - 2, found > LAST + 2):
        assert part.sum() > 10
        assert np.abs(rise - wanted)[part].max() < 1e-3


def test_a_training_that_goes_on_from_a_head_with_the_measure_counts_it_once():
    torch.manual_seed(1)
    head, traces = TapHead(taps=4, width=WIDTH // 2, hidden=6).eval(), Traces(2 * torch.randn(WIDTH), 0.7)
    without = copy.deepcopy(head)
    with torch.no_grad():
        for place in (2, 4):
            without.score.weight[0, LAYER * 6 + place] = head.score.weight[0, LAYER * 6 + place] = 0
    tokens = torch.randn(40, 4, WIDTH)
    traces.write(head)
    assert (head(tokens).logit - without(tokens).logit).abs().max() > 0.3
    traces.erase(head)
    assert torch.equal(head(tokens).logit, without(tokens).logit)


def test_one_real_picture_has_no_deviation(faces):
    real, decoding = faces
    with pytest.raises(TrainingDataError, match="two real pictures"):
        fit_traces(stored(real[:1] + decoding, generator=RECODED, label=1), stored(real[:1]))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("autoencoder") / "taef2.safetensors"
    save_file({name: value.half() for name, value in Autoencoder().state_dict().items()}, path)
    return path


def test_autoencoder_keeps_size_and_range_and_rounds_what_is_stored(weights):
    network = load_autoencoder(weights)
    images = torch.rand(1, 3, 33, 46)
    plain, rounded = network(images), network(images, stored=True)
    assert plain.shape == images.shape
    assert plain.min() >= 0
    assert plain.max() <= 1
    assert 0 < float((plain - rounded).abs().max()) < 0.05


@pytest.mark.parametrize("content", [None, b"no weights", "other"])
def test_a_file_without_the_autoencoder_is_refused(tmp_path, content):
    path = tmp_path / "weights.safetensors"
    if content == "other":
        save_file({"weight": torch.zeros(3)}, path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(TrainingDataError, match="TAEF2"):
        load_autoencoder(path)


def test_stores_hold_recoded_real_crops_only_with_an_autoencoder(make_pack, weights, tmp_path):
    pack, plan = make_pack(pictures=24), dataclasses.replace(tiny_plan(), recoded_per_source=2)
    reference = new_network(build_vit, tiny=True, seed=0)
    network = load_autoencoder(weights)
    stores = make_stores(pack, tmp_path / "with", plan, reference, device="cpu", decoder=network)
    views = stores[RECODED].views
    assert views
    assert {view.generator for view in views} == {RECODED}
    assert all(pack.rows[view.row].label == 0 for view in views)
    assert {view.row for view in views} <= {view.row for view in stores[CLEAN].views}
    again = Recoder(pack, views, network)
    assert np.array_equal(again[0], again[0])
    traces = fit_traces(stores[RECODED], stores[CLEAN])
    assert torch.isfinite(traces.weight).all()
    assert RECODED not in make_stores(pack, tmp_path / "without", plan, reference, device="cpu")
