"""The networks: tensors in, dataclasses out. Nothing here knows of files, settings or servers.

Shape letters, the same in every file: B batch, T frames, C channels, H height, W width, E experts, D features,
Q quality measurements, L tapped layers, N tokens.
"""

from models.ensemble_model import Ensemble
from models.outputs import EnsembleOutput, ExpertOutput
from models.registry import EXPERT_NAMES, NetworkCard, create_network, get_card, prepare

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
