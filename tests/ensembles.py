"""Ensembles with fresh parameters."""

from __future__ import annotations

from models.cards import EXPERT_NAMES
from models.ensemble_model import Ensemble, create_network
from models.gating import Gate


def build_ensemble(names: tuple[str, ...] = EXPERT_NAMES, *, quality: int = 4, tiny: bool = False) -> Ensemble:
    """An ensemble of the named experts and a gate over `quality` measurements."""
    experts = {name: create_network(name, tiny=tiny) for name in names}
    return Ensemble(experts=experts, gate=Gate(experts=len(EXPERT_NAMES), quality=quality), tiny=tiny)
