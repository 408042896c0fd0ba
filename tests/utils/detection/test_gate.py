"""The gate in numpy computes what the gate in torch does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.cards import EXPERT_NAMES
from models.gating import Gate
from utils.detection.gate import NumericGate
from utils.errors import WeightsCorruptError

E, Q = len(EXPERT_NAMES), 4


def random_gate(seed: int) -> Gate:
    generator = torch.Generator().manual_seed(seed)
    gate = Gate(experts=E, quality=Q)
    for tensor in gate.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator))
    gate.quality_std.abs_().add_(0.1)
    return gate


def numeric(gate: Gate) -> NumericGate:
    return NumericGate({key: value.numpy() for key, value in gate.state_dict().items()})


@pytest.mark.parametrize("seed", range(5))
def test_both_gates_agree_whoever_is_missing(seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 5, (64, E)).astype(np.float32)
    logits[rng.random((64, E)) < 0.4] = np.nan
    logits[np.isnan(logits).all(1), 0] = 1.0
    quality = rng.normal(0, 3, (64, Q)).astype(np.float32)
    gate = random_gate(seed)
    with torch.no_grad():
        wanted = gate(torch.from_numpy(logits), torch.from_numpy(quality))
    found = numeric(gate).mix(logits, quality)
    for name in ("logit", "weights", "calibrated"):
        reference = getattr(wanted, name).numpy()
        assert np.allclose(getattr(found, name), reference, rtol=1e-4, atol=1e-5, equal_nan=True), name
    assert (found.weights[np.isnan(logits)] == 0).all()


def test_row_without_any_expert_is_refused():
    with pytest.raises(ValueError, match="at least one expert"):
        numeric(random_gate(0)).mix(np.full((1, E), np.nan, np.float32), np.zeros((1, Q), np.float32))


@pytest.mark.parametrize("change", ["lacks", "extra", "shape"])
def test_arrays_that_are_no_gate_are_refused(change):
    arrays = {key: value.numpy() for key, value in random_gate(0).state_dict().items()}
    if change == "lacks":
        del arrays["scale"]
    elif change == "extra":
        arrays["other"] = np.zeros(1)
    else:
        arrays["shift"] = np.zeros(E + 1, np.float32)
    with pytest.raises(WeightsCorruptError, match="gate"):
        NumericGate(arrays)
