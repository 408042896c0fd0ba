"""The arrays of a version's networks, and the networks in torch, which is imported when the first is made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.base_weights import VIT_FILE, VIT_SHA256, require_file
from utils.tensors import Arrays, load_into, read_tensors
from utils.weights import Version, choose_experts

if TYPE_CHECKING:
    from models.ensemble_model import Ensemble


def load_vit_base(module: Any, base: Path) -> None:
    """Put the verified CLIP weights into a `ViTExpert`'s backbone.

    Raises:
        WeightsMissingError: they are not there.
        WeightsCorruptError: they have other bytes.
    """
    load_into(module.backbone, _vit_base(base), what="the ViT's base")


def _vit_base(base: Path) -> Arrays:
    tensors = read_tensors(require_file(base / VIT_FILE, VIT_SHA256))
    return tensors | {"head.bias": np.zeros(512, np.float32)}


def read_expert(root: Path, version: Version, name: str) -> Arrays:
    """All arrays of an expert of a verified version, by the names of its parameters; those of the ViT with its base.

    Raises:
        WeightsError: they cannot be read, or the base is not the pinned one.
    """
    own = read_tensors(version.folder / f"{name}.safetensors")
    if name != "vit" or version.tiny:
        return own
    return {f"backbone.{held}": array for held, array in _vit_base(root / "base").items()} | own


def load_ensemble(
    root: Path, version: Version, names: tuple[str, ...] | None = None
) -> tuple[Ensemble, dict[str, str]]:
    """Build the ensemble of a verified version.

    Args:
        names: experts that are wanted; None for all.

    Returns:
        The ensemble in evaluation mode, and for each expert that is not in it a sentence why.

    Raises:
        WeightsError: no wanted expert is there, or weights do not fit.
    """
    from models.ensemble_model import Ensemble, create_network

    chosen, why = choose_experts(version, names)
    experts = {}
    for name in chosen:
        expert = create_network(name, tiny=version.tiny)
        load_into(expert, read_expert(root, version, name), what=name)
        experts[name] = expert
    return Ensemble(experts=experts, tiny=version.tiny).eval(), why
