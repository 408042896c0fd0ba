"""A version may hold LayerNorms of its own beside the ViT's head: torch and the served graph both follow them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from models.cards import EXPERT_NAMES
from models.ensemble_model import create_network
from models.gating import Gate
from utils.base_weights import VIT_FILE
from utils.detection.engines import expert_graph
from utils.detection.openvino_runtime import compile_graph
from utils.networks import load_ensemble
from utils.tensors import Arrays, read_tensors
from utils.weights import Version, publish_version


def own_head() -> Arrays:
    torch.manual_seed(3)
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in create_network("vit").state_dict().items()}
    return {
        name: torch.empty(shape).uniform_(-0.05, 0.05).numpy()
        for name, shape in shapes.items()
        if name.startswith("head.")
    }


def tuned_norms(base: Path) -> Arrays:
    """The base's LayerNorms before and in the blocks, each number moved by some 5 %."""
    rng = np.random.default_rng(0)
    return {
        f"backbone.{name}": (value * (1 + 0.05 * rng.normal(size=value.shape))).astype(np.float32)
        for name, value in read_tensors(base / VIT_FILE).items()
        if name.startswith("norm_pre.") or ".norm1." in name or ".norm2." in name
    }


def answers(root: Path, version: Version) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Logits and tokens of three pictures by torch and by the served graph in fp32."""
    images = torch.randn(3, 3, 224, 224, generator=torch.Generator().manual_seed(5))
    ensemble, _ = load_ensemble(root, version)
    with torch.inference_mode():
        wanted = ensemble.experts["vit"](images)
    request = compile_graph(expert_graph(root, version, "vit", "fp32"), hint="f32", threads=1)
    request.infer({0: images.numpy()})
    served = [request.get_output_tensor(i).data.copy() for i in (0, 2)]
    return [wanted.logit.numpy(), wanted.tokens.numpy()], served


def test_layer_norms_of_a_version_are_followed_by_torch_and_by_the_graph_alike(tmp_path, base_folder):
    (tmp_path / "base").symlink_to(base_folder)
    gate = {k: v.numpy() for k, v in Gate(experts=len(EXPERT_NAMES), quality=4).state_dict().items()}
    head, norms = own_head(), tuned_norms(base_folder)
    assert len(norms) == 2 + 12 * 4
    documents = {"calibration": {}, "card": {}}
    plain = publish_version(tmp_path, "plain", {"vit": head, "gate": gate}, documents)
    tuned = publish_version(tmp_path, "tuned", {"vit": head | norms, "gate": gate}, documents)
    found = {version.name: answers(tmp_path, version) for version in (plain, tuned)}
    for by_torch, by_graph in found.values():
        for wanted, served in zip(by_torch, by_graph, strict=True):
            assert np.abs(served - wanted).max() < 1e-3 * np.abs(wanted).max()
    for before, after in zip(found["plain"], found["tuned"], strict=True):
        assert np.abs(after[1] - before[1]).max() > 0.05 * np.abs(before[1]).max()
        assert np.abs(after[0] - before[0]).max() > 1e-2 * np.abs(before[0]).max()
