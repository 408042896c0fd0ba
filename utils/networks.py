"""The arrays of a version's networks, and the networks in torch, which is imported when the first is made."""

from __future__ import annotations

from collections.abc import Mapping
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
    return own if version.tiny else with_base(name, own, root)


def with_base(name: str, own: Arrays, root: Path) -> Arrays:
    """The arrays of an expert that a version keeps, with those of its base, which the ViT alone has."""
    base = _vit_base(root / "base") if name == "vit" else {}
    return {f"backbone.{held}": array for held, array in base.items()} | own


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
    chosen, why = choose_experts(version, names)
    return build_ensemble({n: read_expert(root, version, n) for n in chosen}, tiny=version.tiny), why


def build_ensemble(arrays: Mapping[str, Arrays], *, tiny: bool) -> Ensemble:
    """The ensemble, in evaluation mode, of whole experts' arrays as `read_expert` gives them."""
    from models.ensemble_model import Ensemble, create_network

    experts = {}
    for name, held in arrays.items():
        experts[name] = create_network(name, tiny=tiny)
        load_into(experts[name], held, what=name)
    return Ensemble(experts=experts, tiny=tiny).eval()
