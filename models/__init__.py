"""The networks: tensors in, dataclasses out. Nothing here knows of files, settings or servers.

Shape letters, the same in every file: B batch, T frames, C channels, H height, W width, E experts, D features,
Q quality measurements, L tapped layers, N tokens.

The names below are imported when they are first used, so that `models.cards` can be read without loading torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.cards import EXPERT_NAMES, NetworkCard
    from models.ensemble_model import Ensemble
    from models.outputs import EnsembleOutput, ExpertOutput
    from models.registry import create_network, get_card, prepare

_HOMES = {
    "EXPERT_NAMES": "models.cards",
    "Ensemble": "models.ensemble_model",
    "EnsembleOutput": "models.outputs",
    "ExpertOutput": "models.outputs",
    "NetworkCard": "models.cards",
    "create_network": "models.registry",
    "get_card": "models.registry",
    "prepare": "models.registry",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


__all__ = [
    "EXPERT_NAMES",
    "Ensemble",
    "EnsembleOutput",
    "ExpertOutput",
    "NetworkCard",
    "create_network",
    "get_card",
    "prepare",
]
