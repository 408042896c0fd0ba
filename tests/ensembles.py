"""Ensembles with fresh parameters, and a version of tiny ones for runs where the server is the question."""

from __future__ import annotations

from pathlib import Path

import torch

from models.cards import EXPERT_NAMES
from models.ensemble_model import Ensemble, create_network
from models.gating import Gate
from utils.detection.calibration import Calibration, ReliabilityBin
from utils.faces.crops import QUALITY_NAMES
from utils.tensors import Arrays
from utils.weights import publish_version, set_current

BASE = Path(__file__).resolve().parent.parent / "trained_models" / "base"


def build_ensemble(names: tuple[str, ...] = EXPERT_NAMES, *, tiny: bool = False) -> Ensemble:
    """An ensemble of the named experts."""
    experts = {name: create_network(name, tiny=tiny) for name in names}
    return Ensemble(experts=experts, tiny=tiny)


def publish_tiny(root: Path, experts: tuple[str, ...] = EXPERT_NAMES) -> Path:
    """Publish a version `tiny` of the named experts under a root that it makes current, and give the root back."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "base").symlink_to(BASE)
    torch.manual_seed(7)
    networks = {name: create_network(name, tiny=True) for name in EXPERT_NAMES}
    gate = Gate(experts=len(EXPERT_NAMES), quality=len(QUALITY_NAMES))
    gate.scale.fill_(25.0)  # untrained networks hardly tell faces apart; so their differences show
    networks["gate"] = gate
    tensors: dict[str, Arrays] = {
        name: {k: v.numpy() for k, v in network.state_dict().items()}
        for name, network in networks.items()
        if name in (*experts, "gate")
    }
    calibration = Calibration((ReliabilityBin(0.0, 1.0, 100, 50),), 0.2, 0.8, {}).to_dict()
    publish_version(root, "tiny", tensors, {"calibration": calibration, "card": {"tiny": True}})
    set_current(root, "tiny")
    return root
