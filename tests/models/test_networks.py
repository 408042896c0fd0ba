"""One suite for all networks: each expert, the gate and the ensemble keep the same promises."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from models.cards import EXPERT_NAMES, MIN_SEQUENCE, expert_card
from models.cnn_model import HighPassResidual
from models.ensemble_model import BUILDERS, Ensemble, create_network
from models.gating import Gate
from models.preprocess import prepare
from tests.ensembles import build_ensemble
from utils.base_weights import SCALE_SUFFIX
from utils.errors import WeightsCorruptError
from utils.tensors import INT8_MIN_ELEMENTS, load_into, pack_tensors, unpack_tensors

NETWORKS = (*EXPERT_NAMES, "speech", "gate", "ensemble")
QUALITY = 4
SUBSETS = [s for n in range(1, 5) for s in itertools.combinations(EXPERT_NAMES, n)]


def network(name: str, seed: int = 0) -> nn.Module:
    """A tiny network in evaluation mode, by name, `gate` or `ensemble`."""
    torch.manual_seed(seed)
    if name == "gate":
        return random_gate()
    built = build_ensemble(tiny=True) if name == "ensemble" else create_network(name, tiny=True)
    return built.eval()


def random_gate() -> Gate:
    """A gate whose mixture depends on everything it sees."""
    gate = Gate(experts=len(EXPERT_NAMES), quality=QUALITY)
    nn.init.normal_(gate.mix.weight)
    gate.scale.copy_(torch.tensor([1.5, 0.5, 2.0, 1.0]))
    gate.shift.copy_(torch.tensor([0.1, -0.2, 0.3, 0.0]))
    return gate


def inputs(name: str, batch: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(batch)
    if name == "gate":
        shapes: list[tuple[int, ...]] = [(batch, len(EXPERT_NAMES)), (batch, QUALITY)]
    elif name == "lstm":
        shapes = [(batch, 6, 64)]
    elif name == "speech":
        shapes = [(batch, expert_card(name, tiny=True).input_size, 80)]
    else:
        side = 40 if name == "ensemble" else expert_card(name, tiny=True).input_size
        shapes = [(batch, 3, side, side)]
    return tuple(torch.rand(shape, generator=generator) for shape in shapes)


def run(name: str, module: nn.Module, batch: int) -> tuple[Tensor, Tensor]:
    """Logits (B,) and a second output with B rows, of any of the networks."""
    given = inputs(name, batch)
    if isinstance(module, Ensemble):
        logits, features, _ = module.expert_logits(given[0])
        assert features is not None
        sequence = module.sequence_logit(features.repeat(MIN_SEQUENCE, 1))
        logits = torch.cat([logits[:, :3], sequence.expand(batch, 1)], dim=1)
        return logits.mean(1), logits
    output = module(*given)
    return output.logit, output.weights if name == "gate" else output.feature


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_shapes_and_no_nan(name, batch):
    with torch.no_grad():
        logit, second = run(name, network(name), batch)
    width = len(EXPERT_NAMES) if name in ("gate", "ensemble") else expert_card(name, tiny=True).feature_size
    assert logit.shape == (batch,)
    assert second.shape == (batch, width)
    assert logit.dtype == second.dtype == torch.float32
    assert torch.isfinite(logit).all()
    assert torch.isfinite(second).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_every_trainable_parameter_gets_a_gradient_and_no_frozen_one(name):
    module = network(name)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():  # zeroed residual branches and biases would stop the gradient behind them
                parameter.uniform_(0.5, 1.5)
    logit, second = run(name, module, 3)
    (logit.sum() + (logit * second[:, 0]).sum()).backward()
    trained = {n: p.grad for n, p in module.named_parameters() if p.requires_grad}
    without = [n for n, grad in trained.items() if grad is None or not grad.any() or not torch.isfinite(grad).all()]
    assert trained
    assert without == []
    assert [n for n, p in module.named_parameters() if not p.requires_grad and p.grad is not None] == []


def test_of_the_vit_only_the_head_is_trained():
    for name, parameter in network("vit").named_parameters():
        assert parameter.requires_grad == name.startswith("head."), name


@pytest.mark.parametrize("name", NETWORKS)
def test_saved_and_loaded_it_answers_bit_for_bit_the_same(name, tmp_path):
    first, second = network(name, seed=1), network(name, seed=2)
    state = {k: v.numpy() for k, v in first.state_dict().items()}
    save_file(pack_tensors(state, int8=False), tmp_path / "n.safetensors")
    with torch.no_grad():
        wanted = run(name, first, 3)
        if name != "gate":
            assert not torch.equal(run(name, second, 3)[0], wanted[0])
        load_into(second, unpack_tensors(load_file(tmp_path / "n.safetensors")), what=name)
        assert all(torch.equal(a, b) for a, b in zip(run(name, second, 3), wanted, strict=True))


@pytest.mark.parametrize("name", [*EXPERT_NAMES, "speech", "gate"])
def test_batch_composition_does_not_matter(name):
    module, given = network(name), inputs(name, 3)
    with torch.no_grad():
        whole = module(*given).logit
        alone = torch.cat([module(*(x[i : i + 1] for x in given)).logit for i in range(3)])
    assert torch.allclose(whole, alone, atol=1e-5)


def test_int8_error_is_at_most_half_a_step_and_small_or_flat_tensors_stay():
    rng = np.random.default_rng(3)
    tensors = {
        "matrix": rng.normal(0, 0.1, (256, 300)).astype(np.float32) * np.linspace(0, 5, 256, dtype=np.float32)[:, None],
        "filters": rng.normal(size=(64, 32, 6, 6)).astype(np.float32),
        "small": rng.normal(size=(64, 64)).astype(np.float32),
        "flat": rng.normal(size=INT8_MIN_ELEMENTS).astype(np.float32),
    }
    packed = pack_tensors(tensors, int8=True)
    back = unpack_tensors(packed)
    assert set(back) == set(tensors)
    assert {n for n, v in packed.items() if v.dtype == np.int8} == {"matrix", "filters"}
    for name in ("matrix", "filters"):
        half_step = packed[name + SCALE_SUFFIX].reshape(-1, *[1] * (tensors[name].ndim - 1)) / 2
        assert (np.abs(back[name] - tensors[name]) <= half_step * (1 + 1e-4)).all()
        assert np.abs(back[name] - tensors[name]).max() > 0
    for name in ("small", "flat"):
        assert np.array_equal(back[name], tensors[name])


@pytest.mark.parametrize("tiny", [False, True])
@pytest.mark.parametrize("name", EXPERT_NAMES)
def test_cards_are_complete(name, tiny):
    card = expert_card(name, tiny=tiny)
    assert card.name == name
    assert all(getattr(card, f.name) for f in dataclasses.fields(card) if f.name not in ("mean", "std"))
    assert len(card.mean) == len(card.std) == 3
    assert min(card.std) > 0


def full_size(name: str) -> nn.Module:
    """The product's network without memory for its parameters."""
    with torch.device("meta"):
        return create_network(name)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_full_size_networks_are_those_of_the_documentation():
    assert count(full_size("cnn")) == pytest.approx(2e6, rel=0.05)
    vit, lstm, resnext = (full_size(name) for name in ("vit", "lstm", "resnext"))
    assert (len(vit.backbone.blocks), vit.backbone.blocks[0].attn.num_heads) == (12, 12)
    assert count(vit.backbone) == pytest.approx(86e6, rel=0.01)
    assert (lstm.lstm.num_layers, lstm.lstm.bidirectional) == (2, True)
    assert (lstm.lstm.input_size, lstm.lstm.hidden_size) == (2048, 256)
    assert (resnext.backbone.num_features, resnext.head.in_features) == (2048, 2048)
    assert count(resnext.backbone) == pytest.approx(23e6, rel=0.01)
    heads = {"cnn": 1536, "resnext": 2048, "vit": 512, "lstm": 512}
    assert heads == {name: expert_card(name).feature_size for name in EXPERT_NAMES}


def test_residual_is_blind_to_brightness_and_slopes_and_sees_noise():
    filters = HighPassResidual()
    slope = torch.linspace(-1, 1, 32).expand(1, 3, 32, 32)
    inside = (..., slice(4, -4), slice(4, -4))
    assert filters(torch.full((1, 3, 32, 32), 0.3))[inside].abs().max() < 1e-5
    assert filters(slope)[inside].abs().max() < 1e-4
    noise = filters(torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert noise.abs().max() == 1.0


def test_prepare_resizes_and_normalises_per_channel():
    card = dataclasses.replace(expert_card("cnn", tiny=True), mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 1.0), input_size=8)
    out = prepare(torch.full((2, 3, 20, 20), 0.6), card)
    assert out.shape == (2, 3, 8, 8)
    for channel, value in enumerate((1.0, 1.6, 0.3)):
        assert torch.allclose(out[:, channel], torch.tensor(value), atol=1e-5)


def test_every_expert_has_a_builder_and_nothing_else():
    assert tuple(BUILDERS) == (*EXPERT_NAMES, "speech")


# Gate: every subset of experts


def logits_with(present: tuple[str, ...]) -> Tensor:
    row = torch.tensor([[1.0, -2.0, 3.0, 0.5], [0.0, 4.0, -1.0, -3.0]])
    absent = torch.tensor([name not in present for name in EXPERT_NAMES])
    return row.masked_fill(absent, float("nan"))


@pytest.mark.parametrize("present", SUBSETS, ids="+".join)
def test_gate_shares_one_among_the_experts_that_are_present(present):
    gate, quality = random_gate(), torch.rand(2, QUALITY)
    output = gate(logits_with(present), quality)
    absent = [i for i, name in enumerate(EXPERT_NAMES) if name not in present]
    assert torch.allclose(output.weights.sum(1), torch.ones(2), atol=1e-6)
    assert (output.weights[:, absent] == 0).all()
    assert torch.isnan(output.calibrated[:, absent]).all()
    assert torch.isfinite(output.logit).all()
    calibrated = (gate.scale * logits_with(present) + gate.shift).nan_to_num(0)
    assert torch.allclose(output.logit, (output.weights * calibrated).sum(1), atol=1e-5)


@pytest.mark.parametrize("present", SUBSETS[:-1], ids="+".join)
def test_nothing_about_a_missing_expert_changes_the_answer(present):
    """Its scale, its shift and how the others' weights look at its logit are of no effect while it is missing."""
    torch.manual_seed(5)
    gate, quality = random_gate(), torch.rand(2, QUALITY)
    before = gate(logits_with(present), quality)
    with torch.no_grad():
        for i, name in enumerate(EXPERT_NAMES):
            if name not in present:
                gate.scale[i], gate.shift[i] = 77.0, -55.0
                gate.mix.weight[:, [i, len(EXPERT_NAMES) + i]] += 3.0  # its logit and its presence, both 0
                gate.mix.weight[i] += 5.0
                gate.mix.bias[i] += 9.0
    after = gate(logits_with(present), quality)
    assert torch.equal(before.logit, after.logit)
    assert torch.equal(before.weights, after.weights)


def test_new_gate_is_the_plain_mean():
    gate = Gate(experts=4, quality=QUALITY)
    output = gate(logits_with(EXPERT_NAMES), torch.rand(2, QUALITY))
    assert torch.allclose(output.logit, logits_with(EXPERT_NAMES).mean(1))


def test_gate_without_any_expert_in_a_row_raises():
    gate, rows = random_gate(), logits_with(EXPERT_NAMES).clone()
    rows[1] = float("nan")
    with pytest.raises(ValueError, match="at least one expert"):
        gate(rows, torch.rand(2, QUALITY))


# Ensemble


@pytest.mark.parametrize("present", SUBSETS, ids="+".join)
def test_ensemble_leaves_out_the_missing(present):
    ensemble = build_ensemble(present, tiny=True).eval()
    with torch.no_grad():
        logits, features, tokens = ensemble.expert_logits(torch.rand(5, 3, 32, 32))
        sequence = ensemble.sequence_logit(features)
    judged = [n for n in EXPERT_NAMES if torch.isfinite(logits[:, EXPERT_NAMES.index(n)]).all()]
    assert judged == [n for n in present if n != "lstm"]
    assert (features is None) == ("resnext" not in present)
    assert (tokens is None) == ("vit" not in present)
    assert bool(torch.isfinite(sequence)) == ({"lstm", "resnext"} <= set(present))


def test_sequence_of_fewer_than_four_frames_is_not_judged():
    ensemble = build_ensemble(tiny=True).eval()
    assert torch.isnan(ensemble.sequence_logit(torch.rand(MIN_SEQUENCE - 1, 64)))
    assert torch.isfinite(ensemble.sequence_logit(torch.rand(MIN_SEQUENCE, 64)))


def test_weights_of_another_shape_or_name_do_not_fit():
    state = {k: v.numpy() for k, v in network("cnn").state_dict().items()}
    with pytest.raises(WeightsCorruptError, match="do not fit"):
        load_into(network("cnn"), {**state, "head.weight": np.zeros((1, 3), np.float32)}, what="cnn")
    with pytest.raises(WeightsCorruptError, match="unknown names"):
        load_into(network("cnn"), {"tail.weight": np.zeros(3, np.float32)}, what="cnn", strict=False)
