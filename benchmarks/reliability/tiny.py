"""A version of tiny untrained networks, for runs where the server is the question and not the verdict."""

from __future__ import annotations

from pathlib import Path

import torch

from models.cards import EXPERT_NAMES
from models.ensemble_model import create_network
from models.gating import Gate
from utils.detection.calibration import Calibration, ReliabilityBin
from utils.faces.crops import QUALITY_NAMES
from utils.weights import publish_version, set_current
from web_app.paths import ROOT

BASE = ROOT / "trained_models" / "base"


def publish_tiny(root: Path) -> Path:
    """Make a folder of versions with `tiny` as the current one; the base weights are linked. Returns the folder."""
    root.mkdir(parents=True)
    (root / "base").symlink_to(BASE)
    torch.manual_seed(7)
    networks = {name: create_network(name, tiny=True) for name in EXPERT_NAMES}
    networks["gate"] = Gate(experts=len(EXPERT_NAMES), quality=len(QUALITY_NAMES))
    tensors = {
        name: {key: value.numpy() for key, value in network.state_dict().items()} for name, network in networks.items()
    }
    calibration = Calibration((ReliabilityBin(0.0, 1.0, 100, 50),), 0.2, 0.8, {}).to_dict()
    publish_version(root, "tiny", tensors, {"calibration": calibration, "card": {"tiny": True}})
    set_current(root, "tiny")
    return root
