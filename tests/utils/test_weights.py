"""Versions on disk: published whole or not at all, verified byte by byte, and never filled up with random weights."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from models.cards import EXPERT_NAMES
from models.ensemble_model import create_network
from utils import weights
from utils.base_weights import FACE_FILE, VIT_FILE
from utils.detection.engine import read_gate
from utils.errors import TelltaleError, WeightsCorruptError, WeightsError, WeightsMissingError
from utils.networks import load_ensemble
from utils.tensors import read_tensors
from utils.weights import (
    CALIBRATION_FILE,
    CARD_FILE,
    CHECKSUMS,
    CURRENT,
    GATE_FILE,
    current_name,
    publish_version,
    read_document,
    set_current,
    verify_current,
    verify_version,
    weights_root,
)

FILES = (*(f"{name}.safetensors" for name in EXPERT_NAMES), GATE_FILE, CALIBRATION_FILE, CARD_FILE)
TENSOR_FILES = FILES[:5]
GATE = {"quality_mean": np.zeros(4, np.float32)}
DOCUMENTS = {"calibration": {}, "card": {"tiny": True}}


def reseal(root: Path, name: str = "tiny") -> None:
    """Make the checksums fit what is there, as someone would who publishes bad files with right sums."""
    folder = root / name
    files = [p for p in sorted(folder.iterdir()) if p.name != CHECKSUMS]
    sums = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    (folder / CHECKSUMS).write_text(json.dumps(sums))


# Publishing


def test_published_version_is_whole_and_readable(tiny_root):
    version = verify_version(tiny_root, "tiny")
    assert version.experts == EXPERT_NAMES
    assert version.tiny
    assert len(version.sha256) == 64
    assert {p.name for p in version.folder.iterdir()} == {*FILES, CHECKSUMS}
    assert {p.stat().st_mode & 0o777 for p in version.folder.iterdir()} == {0o644}
    assert current_name(tiny_root) == "tiny"


@pytest.mark.parametrize("name", ["v1", "", "..", "../v2", "a/b", ".hidden", "with space", CURRENT, "line\n", "nul\0"])
def test_taken_and_unfit_names_are_refused(tmp_path, name):
    publish_version(tmp_path, "v1", {"gate": GATE}, DOCUMENTS)
    before = sorted(p.name for p in tmp_path.rglob("*"))
    with pytest.raises(WeightsError, match=r"taken|cannot name") as caught:
        publish_version(tmp_path, name, {"gate": GATE}, DOCUMENTS)
    assert caught.value.code == "weights"
    assert sorted(p.name for p in tmp_path.rglob("*")) == before


def test_interrupted_publishing_leaves_no_version_and_can_be_repeated(tmp_path, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", lambda number: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            publish_version(tmp_path, "v1", {"gate": GATE}, DOCUMENTS)
    assert not (tmp_path / "v1").exists()
    with pytest.raises(WeightsMissingError):
        verify_version(tmp_path, ".v1.tmp")
    assert publish_version(tmp_path, "v1", {"gate": GATE}, DOCUMENTS).name == "v1"
    assert [p.name for p in tmp_path.iterdir()] == ["v1"]


@pytest.mark.parametrize("left_out", ["gate", "calibration", "card"])
def test_version_without_gate_calibration_or_card_does_not_verify(tmp_path, left_out):
    tensors = {} if left_out == "gate" else {"gate": GATE}
    documents = {k: v for k, v in DOCUMENTS.items() if k != left_out}
    with pytest.raises(WeightsCorruptError, match=f"does not list {left_out}"):
        publish_version(tmp_path, "v1", tensors, documents)


# The pointer


def test_pointer_changes_only_to_a_version_that_verifies(own_root):
    publish_version(own_root, "other", {"gate": GATE}, DOCUMENTS)
    set_current(own_root, "other")
    assert current_name(own_root) == "other"
    (own_root / "tiny" / GATE_FILE).write_bytes(b"damaged")
    with pytest.raises(WeightsCorruptError):
        set_current(own_root, "tiny")
    assert current_name(own_root) == "other"


def test_interrupted_pointer_change_keeps_the_old_one(own_root, monkeypatch):
    publish_version(own_root, "other", {"gate": GATE}, DOCUMENTS)
    with monkeypatch.context() as broken:
        broken.setattr(Path, "replace", lambda *a: (_ for _ in ()).throw(OSError("no power")))
        with pytest.raises(OSError, match="no power"):
            set_current(own_root, "other")
    assert current_name(own_root) == "tiny"


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"none", b"..", b".", b"../outside", b"/etc", b"tiny/../tiny", b"tiny\nbase", b"\xff\xfe", b"a\0b"],
)
def test_pointer_to_nothing_or_out_of_the_folder_is_refused(own_root, content):
    (own_root.parent / "outside").mkdir()
    (own_root / CURRENT).write_bytes(content)
    with pytest.raises(WeightsMissingError) as caught:
        current_name(own_root)
    assert caught.value.code == "weights_missing"


def test_missing_pointer_is_named(own_root):
    (own_root / CURRENT).unlink()
    with pytest.raises(WeightsMissingError, match=f"{CURRENT} is missing"):
        current_name(own_root)


@pytest.mark.parametrize("name", ["..", "../trained_models/tiny", "", ".", "none"])
def test_version_outside_the_folder_is_refused(own_root, settings_for, name):
    with pytest.raises(WeightsMissingError):
        verify_version(own_root, name)
    with pytest.raises(WeightsMissingError):
        set_current(own_root, name)
    assert current_name(own_root) == "tiny"


# Damage


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, flip_bit, empty])
@pytest.mark.parametrize("file_name", FILES)
def test_changed_file_is_refused_and_named(own_root, settings_for, file_name, damage):
    damage(own_root / "tiny" / file_name)
    with pytest.raises(WeightsCorruptError, match=file_name) as caught:
        verify_current(settings_for(own_root))
    assert caught.value.code == "weights_corrupt"


@pytest.mark.parametrize("file_name", [*FILES, CHECKSUMS])
def test_missing_file_is_refused_and_named(own_root, settings_for, file_name):
    (own_root / "tiny" / file_name).unlink()
    with pytest.raises(WeightsMissingError, match=file_name) as caught:
        verify_current(settings_for(own_root))
    assert caught.value.code == "weights_missing"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"text"', b"\xff", b"{}", b'{"../../etc/passwd": "0"}', b"7"])
def test_damaged_checksum_list_is_refused(own_root, content):
    (own_root / "tiny" / CHECKSUMS).write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        verify_version(own_root, "tiny")
    assert caught.value.code in ("weights_corrupt", "weights_missing")


def test_list_without_the_card_is_refused_even_when_the_card_is_gone(own_root):
    (own_root / "tiny" / CARD_FILE).unlink()
    reseal(own_root)
    with pytest.raises(WeightsCorruptError, match="does not list card"):
        verify_version(own_root, "tiny")


@pytest.mark.parametrize("content", ["[]", "7", "no json", ""])
@pytest.mark.parametrize("file_name", [CARD_FILE, CALIBRATION_FILE])
def test_document_that_is_no_json_object_is_refused_despite_right_sums(own_root, file_name, content):
    (own_root / "tiny" / file_name).write_text(content)
    reseal(own_root)
    with pytest.raises(WeightsCorruptError, match=file_name):
        read_document(own_root / "tiny" / file_name)
    if file_name == CARD_FILE:
        with pytest.raises(WeightsCorruptError, match=file_name):
            verify_version(own_root, "tiny")


def rename_tensor(tensors: dict) -> None:
    tensors["something.else"] = tensors.pop(sorted(tensors)[0])


def add_tensor(tensors: dict) -> None:
    tensors["something.else"] = np.zeros(3, np.float32)


def drop_tensor(tensors: dict) -> None:
    del tensors[sorted(tensors)[-1]]


def reshape_tensor(tensors: dict) -> None:
    name = max(tensors, key=lambda n: tensors[n].size)
    tensors[name] = np.concatenate([tensors[name], tensors[name]])


@pytest.mark.parametrize("change", [rename_tensor, add_tensor, drop_tensor, reshape_tensor])
@pytest.mark.parametrize("file_name", TENSOR_FILES)
def test_names_and_shapes_that_do_not_fit_are_refused_despite_right_sums(own_root, file_name, change):
    path = own_root / "tiny" / file_name
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    reseal(own_root)
    version = verify_version(own_root, "tiny")
    with pytest.raises(WeightsCorruptError) as caught:
        read_gate(version) if file_name == GATE_FILE else load_ensemble(own_root, version)
    assert caught.value.code == "weights_corrupt"
    assert path.stem in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no tensors", bytes(8), b"\xff" * 64], ids=["empty", "text", "nul", "ones"])
def test_file_that_is_no_safetensors_is_refused(tmp_path, content):
    (tmp_path / "cnn.safetensors").write_bytes(content)
    with pytest.raises(WeightsCorruptError, match=r"cnn\.safetensors cannot be read"):
        read_tensors(tmp_path / "cnn.safetensors")


def test_scales_that_do_not_fit_their_matrix_are_refused(tmp_path):
    stored = {"w": np.ones((4, 4), np.int8), "w::scale": np.ones(3, np.float32)}
    save_file(stored, tmp_path / "cnn.safetensors")
    with pytest.raises(WeightsCorruptError):
        read_tensors(tmp_path / "cnn.safetensors")


def test_damaged_base_weights_are_refused(own_root, settings_for):
    (own_root / "base").unlink()
    with pytest.raises(WeightsMissingError, match=FACE_FILE):
        verify_current(settings_for(own_root))
    (own_root / "base").mkdir()
    (own_root / "base" / FACE_FILE).write_bytes(b"another detector")
    with pytest.raises(WeightsCorruptError, match=FACE_FILE):
        verify_current(settings_for(own_root))


def test_only_tiny_versions_do_without_the_vits_base(own_root, settings_for):
    face_detector = (own_root / "base" / FACE_FILE).resolve()
    (own_root / "base").unlink()
    (own_root / "base").mkdir()
    (own_root / "base" / FACE_FILE).symlink_to(face_detector)
    assert verify_current(settings_for(own_root)).tiny
    publish_version(own_root, "real", {"gate": GATE}, {"calibration": {}, "card": {}})
    set_current(own_root, "real")
    with pytest.raises(WeightsMissingError, match=VIT_FILE):
        verify_current(settings_for(own_root))


# Loading


def test_loaded_networks_have_exactly_the_published_weights(tiny_root):
    ensemble, why = load_ensemble(tiny_root, verify_version(tiny_root, "tiny"))
    assert why == {}
    assert not ensemble.training
    for name in EXPERT_NAMES:
        state = ensemble.experts[name].state_dict()
        stored = load_file(tiny_root / "tiny" / f"{name}.safetensors")
        assert state.keys() == stored.keys()
        assert all(np.array_equal(state[k].numpy(), stored[k]) for k in stored)


@pytest.mark.parametrize("absent", EXPERT_NAMES)
def test_each_missing_expert_is_named(tmp_path, publish_tiny: Callable[..., Path], absent):
    root = publish_tiny(tmp_path / "w", tuple(n for n in EXPERT_NAMES if n != absent))
    ensemble, why = load_ensemble(root, verify_version(root, "tiny"))
    assert why[absent] == "Version tiny does not contain it."
    assert set(why) == ({"resnext", "lstm"} if absent == "resnext" else {absent})
    assert set(ensemble.experts) == set(EXPERT_NAMES) - set(why)


def test_expert_whose_file_is_not_listed_is_not_loaded(own_root):
    """A file beside the list is nobody's: it is reported as missing, not read."""
    sums = json.loads((own_root / "tiny" / CHECKSUMS).read_text())
    del sums["cnn.safetensors"]
    (own_root / "tiny" / CHECKSUMS).write_text(json.dumps(sums))
    ensemble, why = load_ensemble(own_root, verify_version(own_root, "tiny"))
    assert (set(ensemble.experts), set(why)) == (set(EXPERT_NAMES) - {"cnn"}, {"cnn"})


def test_switched_off_experts_are_named_and_none_left_is_an_error(tiny_root):
    version = verify_version(tiny_root, "tiny")
    _, why = load_ensemble(tiny_root, version, ("cnn", "lstm"))
    assert "switched off" in why["vit"]
    assert "switched off" in why["resnext"]
    assert "needs ResNeXt-50" in why["lstm"]
    with pytest.raises(WeightsError, match="None of the wanted experts"):
        load_ensemble(tiny_root, version, ("lstm",))


@pytest.fixture(scope="module")
def own_vit_tensors() -> dict[str, np.ndarray]:
    """What a version stores of a full-size ViT: the head, and some that there are also trained LayerNorms."""
    torch.manual_seed(0)
    with torch.device("meta"):
        named = dict(create_network("vit").named_parameters())
    rng = np.random.default_rng(0)
    return {
        n: rng.normal(size=tuple(p.shape)).astype(np.float32)
        for n, p in named.items()
        if n.startswith("head.") or ".norm1." in n
    }


def publish_full_vit(root: Path, base: Path, tensors: dict[str, np.ndarray]) -> weights.Version:
    root.mkdir()
    (root / "base").symlink_to(base)
    gate = {k: v.numpy() for k, v in weights_of_gate().items()}
    return publish_version(root, "v1", {"vit": tensors, "gate": gate}, {"calibration": {}, "card": {}})


def weights_of_gate() -> dict[str, torch.Tensor]:
    from models.gating import Gate

    return Gate(experts=4, quality=4).state_dict()


@pytest.mark.parametrize("lost", ["head.", "head.score.weight", "head.norms.2.bias"])
def test_vit_without_its_trained_head_is_refused_rather_than_random(tmp_path, base_folder, own_vit_tensors, lost):
    kept = {n: v for n, v in own_vit_tensors.items() if not n.startswith(lost)}
    assert len(kept) < len(own_vit_tensors)
    version = publish_full_vit(tmp_path / "w", base_folder, kept)
    with pytest.raises(WeightsCorruptError, match="weights of vit do not fit"):
        load_ensemble(tmp_path / "w", version)


def test_full_vit_is_base_and_own_weights_together(tmp_path, base_folder, own_vit_tensors):
    version = publish_full_vit(tmp_path / "w", base_folder, own_vit_tensors)
    ensemble, _ = load_ensemble(tmp_path / "w", version)
    state = ensemble.experts["vit"].state_dict()
    base = read_tensors(base_folder / VIT_FILE)
    for name, value in state.items():
        own = own_vit_tensors.get(name)
        wanted = own if own is not None else base.get(name.removeprefix("backbone."), np.zeros(512, np.float32))
        assert np.array_equal(value.numpy(), wanted), name


def test_every_refusal_tells_what_to_do(own_root, settings_for):
    (own_root / "tiny" / GATE_FILE).unlink()
    with pytest.raises(TelltaleError, match="make setup") as caught:
        verify_current(settings_for(own_root))
    assert caught.value.to_problem()["status"] == 503


def test_relative_folder_starts_at_the_repository(settings_for, tmp_path):
    assert weights_root(settings_for(Path("trained_models"))) == Path(weights.__file__).parents[1] / "trained_models"
    assert weights_root(settings_for(tmp_path)) == tmp_path


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_finite_numbers_are_refused(tmp_path, value):
    broken = {"gate": {**GATE, "more": np.array([0.0, value], np.float32)}}
    version = publish_version(tmp_path, "v1", broken, DOCUMENTS)
    with pytest.raises(WeightsCorruptError, match="more that are no finite numbers"):
        read_tensors(version.folder / "gate.safetensors")
