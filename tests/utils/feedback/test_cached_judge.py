"""What judges cached features is the ViT's head and the gate as the networks compute them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from utils.config import Settings
from utils.errors import WeightsCorruptError
from utils.feedback.cached_judge import VIT_COLUMN, head_logits, load_parts, logits_of
from utils.feedback.golden import load_lineage
from utils.networks import load_ensemble
from utils.weights import current_name, verify_version, weights_root


def test_head_and_gate_agree_with_the_networks():
    root = weights_root(Settings())
    version = verify_version(root, current_name(root))
    replay = load_lineage(version).replay.select(np.arange(60))
    ensemble, _ = load_ensemble(root, version)
    tokens = np.asarray(replay.tokens, np.float32)
    with torch.inference_mode():
        wanted = ensemble.experts["vit"].head(torch.from_numpy(tokens)).logit.numpy()
        frames = np.add.reduceat(wanted, replay.starts[:-1]) / np.diff(replay.starts)
        logits = replay.logits.copy()
        logits[:, VIT_COLUMN] = frames
        mixed = ensemble.gate(torch.from_numpy(logits), torch.from_numpy(replay.quality)).logit.numpy()
    parts = load_parts(version)
    assert np.abs(head_logits(parts.head, tokens) - wanted).max() < 1e-4
    assert np.abs(logits_of(parts, replay) - mixed).max() < 1e-4


def test_a_vit_without_its_head_is_refused(lineage, monkeypatch):
    monkeypatch.setattr("utils.feedback.cached_judge.read_tensors", lambda path: {"backbone.x": np.zeros(1)})
    with pytest.raises(WeightsCorruptError, match="lack its head"):
        load_parts(lineage.base)
