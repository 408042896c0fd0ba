"""Versions of weights on disk: safetensors, a card, checksums, and the pointer `CURRENT`.

A version is a folder that is never changed: `cnn.safetensors`, `resnext.safetensors`, `vit.safetensors`,
`lstm.safetensors`, `gate.safetensors`, `calibration.json`, `card.json`, and `checksums.json` with the sha256 of each.
Nothing is used before its checksum was compared, and nothing is ever unpickled. A missing expert is named to the
caller; a damaged one is refused.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from utils.base_weights import FACE_FILE, PINNED, SCALE_SUFFIX, VIT_FILE, VIT_SHA256, file_sha256, require_file
from utils.config import Settings
from utils.errors import WeightsCorruptError, WeightsError, WeightsMissingError

if TYPE_CHECKING:
    from models.ensemble_model import Ensemble

CHECKSUMS = "checksums.json"
CURRENT = "CURRENT"
GATE_FILE = "gate.safetensors"
CALIBRATION_FILE = "calibration.json"
CARD_FILE = "card.json"
INT8_MIN_ELEMENTS = 65536
"""Matrices at least this large are stored as int8 with one scale per output channel, where a version asks for it."""

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Version:
    """A verified version on disk.

    Args:
        name: of the folder.
        folder: where it is.
        sha256: of its checksum list, and so of everything in it.
        card: the model card.
        experts: registry names of the experts that are in it.
    """

    name: str
    folder: Path
    sha256: str
    card: Mapping[str, Any]
    experts: tuple[str, ...]

    @property
    def tiny(self) -> bool:
        """Made of tiny test networks, never to be served to people."""
        return bool(self.card.get("tiny", False))


def weights_root(settings: Settings) -> Path:
    """The folder with the versions; relative ones start at the repository's root."""
    chosen = Path(settings.weights.dir)
    return chosen if chosen.is_absolute() else Path(__file__).resolve().parent.parent / chosen


def current_name(root: Path) -> str:
    """The version that the pointer file names.

    Raises:
        WeightsMissingError: there is no pointer, or it names no folder.
    """
    pointer = root / CURRENT
    if not pointer.is_file():
        raise WeightsMissingError(f"{root.name}/{CURRENT} is missing, so no version is chosen.")
    name = pointer.read_text(encoding="utf-8", errors="replace").strip()
    if not _is_name(name) or not (root / name).is_dir():
        raise WeightsMissingError(f"{root.name}/{CURRENT} names {name!r}, and there is no such version.")
    return name


def _is_name(name: str) -> bool:
    """Whether `name` can be a version's: one folder inside the root, never a path and never hidden."""
    return bool(name) and all(c.isalnum() or c in "._-" for c in name) and not name.startswith(".")


def set_current(root: Path, name: str) -> None:
    """Point `CURRENT` at a version, atomically.

    Raises:
        WeightsError: the version is not there or does not verify.
    """
    verify_version(root, name)
    partial = root / f"{CURRENT}.tmp"
    with partial.open("w", encoding="utf-8") as stream:
        stream.write(name + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(root / CURRENT)


def verify_version(root: Path, name: str) -> Version:
    """Check every file of a version against its checksums.

    Raises:
        WeightsMissingError: the version or a listed file is not there.
        WeightsCorruptError: a file has other bytes, or the list cannot be read.
    """
    folder = root / name
    listing = folder / CHECKSUMS
    if not _is_name(name) or not listing.is_file():
        raise WeightsMissingError(f"{root.name}/{name}/{CHECKSUMS} is missing.")
    try:
        checksums = json.loads(listing.read_text(encoding="utf-8"))
        for file_name, sha256 in checksums.items():
            require_file(folder / Path(file_name).name, sha256)
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
        raise WeightsCorruptError(f"{root.name}/{name}/{CHECKSUMS} is damaged: {error}.") from error
    for needed in (GATE_FILE, CALIBRATION_FILE, CARD_FILE):
        if needed not in checksums:
            raise WeightsCorruptError(f"{root.name}/{name}/{CHECKSUMS} does not list {needed}.")
    card = read_document(folder / CARD_FILE)
    experts = tuple(e for e in ("cnn", "resnext", "vit", "lstm") if f"{e}.safetensors" in checksums)
    return Version(name, folder, file_sha256(listing), card, experts)


def read_document(path: Path) -> dict[str, Any]:
    """A JSON document of a verified version.

    Raises:
        WeightsCorruptError: it is not a JSON object.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise WeightsCorruptError(f"{path.name} is not JSON: {error}.") from error
    if not isinstance(document, dict):
        raise WeightsCorruptError(f"{path.name} is not a JSON object.")
    return document


def verify_current(settings: Settings) -> Version:
    """Verify the version that the settings choose, and the base weights it stands on.

    Raises:
        WeightsError: something is missing or has other bytes; the message names it.
    """
    root = weights_root(settings)
    version = verify_version(root, settings.weights.version or current_name(root))
    base = root / "base"
    require_file(base / FACE_FILE, PINNED[1].member_sha256)
    if not version.tiny:
        require_file(base / VIT_FILE, VIT_SHA256)
    return version


def pack_tensors(tensors: Mapping[str, npt.NDArray[Any]], *, int8: bool) -> Arrays:
    """Tensors as they are stored: large matrices as int8 with scales where asked for, the rest unchanged.

    Args:
        tensors: float32 or integer arrays by name.
        int8: round matrices of `INT8_MIN_ELEMENTS` and more to 255 steps per output channel (axis 0).
    """
    out: Arrays = {}
    for name, value in tensors.items():
        if int8 and value.ndim >= 2 and value.size >= INT8_MIN_ELEMENTS:
            flat = np.abs(value.reshape(len(value), -1)).max(1)
            scale = np.maximum(flat / 127, 1e-12).astype(np.float32)
            shaped = scale.reshape(-1, *[1] * (value.ndim - 1))
            out[name] = np.clip(np.rint(value / shaped), -127, 127).astype(np.int8)
            out[name + SCALE_SUFFIX] = scale
        else:
            out[name] = np.asarray(value, order="C")
    return out


def unpack_tensors(stored: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    """The inverse of `pack_tensors`: int8 matrices become float32 again."""
    out: Arrays = {}
    for name, value in stored.items():
        if name.endswith(SCALE_SUFFIX):
            continue
        scale = stored.get(name + SCALE_SUFFIX)
        if scale is None:
            out[name] = value
        else:
            out[name] = value.astype(np.float32) * scale.reshape(-1, *[1] * (value.ndim - 1))
    return out


def read_tensors(path: Path) -> Arrays:
    """The unpacked tensors of a safetensors file.

    Raises:
        WeightsCorruptError: it is not a whole safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return unpack_tensors(load_file(path))
    except (SafetensorError, ValueError, OSError) as error:
        raise WeightsCorruptError(f"{path.name} cannot be read: {error}.") from error


def load_into(module: Any, tensors: Mapping[str, npt.NDArray[Any]], *, what: str, strict: bool = True) -> None:
    """Copy tensors into a torch module.

    Args:
        module: a `torch.nn.Module`.
        tensors: by parameter name.
        what: named in errors.
        strict: the names must be exactly the module's; otherwise they must be among them.

    Raises:
        WeightsCorruptError: a name or a shape does not fit.
    """
    import torch

    try:
        result = module.load_state_dict({k: torch.from_numpy(v) for k, v in tensors.items()}, strict=strict)
    except RuntimeError as error:
        raise WeightsCorruptError(f"The weights of {what} do not fit its network: {error}") from error
    if result.unexpected_keys:
        raise WeightsCorruptError(f"The weights of {what} hold unknown names: {result.unexpected_keys[:3]}")


def load_vit_base(module: Any, base: Path) -> None:
    """Put the verified CLIP weights into a `ViTExpert`'s backbone.

    Raises:
        WeightsMissingError: they are not there.
        WeightsCorruptError: they have other bytes.
    """
    tensors = read_tensors(require_file(base / VIT_FILE, VIT_SHA256))
    tensors["head.bias"] = np.zeros(512, np.float32)
    load_into(module.backbone, tensors, what="the ViT's base")


def load_ensemble(
    root: Path, version: Version, names: tuple[str, ...] | None = None
) -> tuple[Ensemble, dict[str, str]]:
    """Build the ensemble of a verified version.

    Args:
        root: the folder with the versions and `base/`.
        version: from `verify_version`.
        names: experts that are wanted; None for all.

    Returns:
        The ensemble in evaluation mode, and for each expert that is not in it a sentence why.

    Raises:
        WeightsError: no wanted expert is there, or weights do not fit.
    """
    from models.ensemble_model import Ensemble
    from models.gating import Gate
    from models.registry import EXPERT_NAMES, create_network

    experts, why = {}, {}
    for name in EXPERT_NAMES:
        if names is not None and name not in names:
            why[name] = "It was switched off by the setting `experts`."
        elif name not in version.experts:
            why[name] = f"Version {version.name} does not contain it."
        elif name == "lstm" and "resnext" in why:
            why[name] = "It needs ResNeXt-50, which is missing."
        else:
            expert = create_network(name, tiny=version.tiny)
            own = read_tensors(version.folder / f"{name}.safetensors")
            if name == "vit" and not version.tiny:
                load_vit_base(expert, root / "base")
                load_into(expert, own, what=name, strict=False)
                unset = {n for n, _ in expert.named_parameters() if n.startswith("head.")} - set(own)
                if unset:
                    raise WeightsCorruptError(f"The weights of vit lack {sorted(unset)[:3]}.")
            else:
                load_into(expert, own, what=name)
            experts[name] = expert
    if not experts:
        raise WeightsError("None of the wanted experts is in this version.")
    tensors = read_tensors(version.folder / GATE_FILE)
    if "quality_mean" not in tensors:
        raise WeightsCorruptError("The weights of the gate lack quality_mean.")
    gate = Gate(experts=len(EXPERT_NAMES), quality=len(tensors["quality_mean"]))
    load_into(gate, tensors, what="the gate")
    return Ensemble(experts=experts, gate=gate, tiny=version.tiny).eval(), why


def publish_version(
    root: Path,
    name: str,
    tensors: Mapping[str, Arrays],
    documents: Mapping[str, Mapping[str, Any]],
    files: Mapping[str, Path] | None = None,
) -> Version:
    """Write a new version: everything into a scratch folder, checksums last, then one rename.

    Args:
        root: the folder with the versions.
        name: of the new version; letters, digits, dots, hyphens and underscores.
        tensors: stored arrays per file stem (`cnn`, ..., `gate`), as `pack_tensors` gives them.
        documents: JSON documents per file stem (`calibration`, `card`, ...).
        files: further files to copy, by the name they get.

    Raises:
        WeightsError: the name is taken or not allowed.
    """
    from safetensors.numpy import save_file

    target = root / name
    if not _is_name(name) or name == CURRENT or target.exists():
        raise WeightsError(f"The version name {name!r} is taken or not allowed.")
    scratch = root / f".{name}.tmp"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    for stem, arrays in tensors.items():
        save_file({k: np.asarray(v, order="C") for k, v in sorted(arrays.items())}, scratch / f"{stem}.safetensors")
    for stem, document in documents.items():
        text = json.dumps(document, indent=2, sort_keys=True) + "\n"
        (scratch / f"{stem}.json").write_text(text, encoding="utf-8")
    for file_name, source in (files or {}).items():
        shutil.copyfile(source, scratch / file_name)
    checksums = {path.name: file_sha256(path) for path in sorted(scratch.iterdir())}
    (scratch / CHECKSUMS).write_text(json.dumps(checksums, indent=2) + "\n", encoding="utf-8")
    for path in scratch.iterdir():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        path.chmod(0o644)
    scratch.rename(target)
    return verify_version(root, name)
