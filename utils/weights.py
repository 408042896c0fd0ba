"""Versions of weights on disk: safetensors, a card, checksums, and the pointer `CURRENT`.

A version is a folder that is never changed: a safetensors file per expert and one of the gate, `calibration.json`,
`card.json`, and `checksums.json` with the sha256 of each. A version of speech, below `speech/`, holds its network as
ONNX and its head instead of experts and gate.
Nothing is used before its checksum was compared, and nothing is ever unpickled. A missing expert is named to the
caller; a damaged one is refused.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.cards import EXPERT_NAMES
from utils.base_weights import FACE_FILE, PINNED, VIT_FILE, VIT_SHA256, require_file
from utils.config import Settings
from utils.errors import WeightsCorruptError, WeightsError, WeightsMissingError
from utils.files import file_sha256, fsync_folder, fsync_tree, replace_file
from utils.log import get_logger
from utils.tensors import Arrays, read_tensors

log = get_logger(__name__)

CHECKSUMS = "checksums.json"
CURRENT = "CURRENT"
GATE_FILE = "gate.safetensors"
SPEECH_FOLDER = "speech"
"""Of the versions of the network of speech, inside the folder with those of faces, and of the same layout."""
SPEECH_FILE, SPEECH_HEAD_FILE = "speech.onnx", "head.safetensors"
CALIBRATION_FILE = "calibration.json"
CARD_FILE = "card.json"
NETWORK_FILES = frozenset({
    GATE_FILE, CALIBRATION_FILE, SPEECH_FILE, SPEECH_HEAD_FILE, *(f"{name}.safetensors" for name in EXPERT_NAMES),
})  # fmt: skip
FROZEN = tuple(name for name in EXPERT_NAMES if name != "vit")
"""Experts that cached features stand on, beside the ViT's backbone."""


@dataclass(frozen=True)
class Version:
    """A verified version on disk.

    Args:
        sha256: of its checksum list, and so of everything in it.
        experts: names of the experts that are in it.
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

    @property
    def base(self) -> str:
        """Name of the trained version that it goes back to: itself, or what its card names."""
        return str(self.card.get("learning", {}).get("base", self.name))


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
        there = ", ".join(sorted(card.parent.name for card in root.glob(f"*/{CARD_FILE}")))
        remedy = f"Write one of those that are there into it: {there}." if there else None
        raise WeightsMissingError(f"{root.name}/{CURRENT} names {name!r}, and there is no such version.", remedy=remedy)
    return name


def current_version(settings: Settings) -> str | None:
    """The version that new analyses use: the setting, or what the pointer file says; None without either."""
    try:
        return settings.weights.version or current_name(weights_root(settings))
    except WeightsError:
        return None


def has_speech(root: Path) -> bool:
    """Whether a version of speech is chosen below the folder of versions; it is not verified."""
    return (root / SPEECH_FOLDER / CURRENT).is_file()


def base_name(root: Path, name: str) -> str:
    """The trained version that a version goes back to: itself, or what its card names; nothing is verified.

    Raises:
        WeightsError: its card is damaged or missing.
    """
    card = root / name / CARD_FILE
    if not card.is_file():
        raise WeightsMissingError(f"{root.name}/{name}/{CARD_FILE} is missing.")
    return str(read_document(card).get("learning", {}).get("base", name))


def speech_name(settings: Settings) -> str:
    """What `CURRENT` names of speech or, where `[weights] version` pins one of faces, the base of that.

    Raises:
        WeightsError: there is none, or its card is damaged or missing.
    """
    root = weights_root(settings) / SPEECH_FOLDER
    name = current_name(root)
    return base_name(root, name) if settings.weights.version else name


def current_speech(settings: Settings) -> str | None:
    """The version of speech that new analyses use; None without one."""
    try:
        return speech_name(settings)
    except WeightsError:
        return None


def _is_name(name: str) -> bool:
    """Whether `name` can be a version's: one folder inside the root, never a path and never hidden."""
    return bool(name) and all(c.isalnum() or c in "._-" for c in name) and not name.startswith(".")


def set_current(root: Path, name: str) -> None:
    """Point `CURRENT` at a version, atomically.

    Raises:
        WeightsError: the version is not there or does not verify.
    """
    verify_version(root, name)
    replace_file(root / CURRENT, f"{name}\n".encode())


def list_versions(root: Path) -> tuple[str, ...]:
    """Names of the folders that hold a version (a checksum list), in alphabetical order; none of them is verified."""
    if not root.is_dir():
        return ()
    folders = (path.parent for path in root.glob(f"*/{CHECKSUMS}"))
    return tuple(sorted(f.name for f in folders if _is_name(f.name) and (f / CARD_FILE).is_file()))


def remove_scratch(root: Path) -> tuple[str, ...]:
    """Remove what an interrupted `publish_version` or `set_current` left behind; gives the names.

    No other process may be publishing or moving the pointer under `root` at the same time.
    """
    pointers = {*root.glob(f".{CURRENT}.*.tmp"), *root.glob(f"{CURRENT}.tmp")}  # the second is of earlier releases
    left = sorted(path for path in {*root.glob(".*.tmp"), *pointers} if path.is_dir() or path in pointers)
    for path in left:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    return tuple(path.name for path in left)


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
    parts = (SPEECH_FILE, SPEECH_HEAD_FILE) if SPEECH_FILE in checksums else (GATE_FILE,)
    for needed in (*parts, CALIBRATION_FILE, CARD_FILE):
        if needed not in checksums:
            raise WeightsCorruptError(f"{root.name}/{name}/{CHECKSUMS} does not list {needed}.")
    card = read_document(folder / CARD_FILE)
    experts = tuple(e for e in EXPERT_NAMES if f"{e}.safetensors" in checksums)
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


def networks_of(root: Path, version: Version) -> Version:
    """The version whose networks, gate and calibration a verified version has: the one it learned from, or itself.

    What learned from feedback changes nothing of them, so that they need not be loaded a second time.
    """
    if version.base == version.name or not (root / version.base / CHECKSUMS).is_file():
        return version
    mine, others = (read_document(folder / CHECKSUMS) for folder in (version.folder, root / version.base))
    same = all(mine.get(file) == others.get(file) for file in (*mine, *others) if file in NETWORK_FILES)
    return verify_version(root, version.base) if same else version


def frozen_fingerprint(version: Version) -> str:
    """Sha256 of everything of a version that cached features depend on; versions that share it share their caches."""
    checksums = read_document(version.folder / CHECKSUMS)
    if SPEECH_FILE in checksums:
        return str(checksums[SPEECH_FILE])  # already sha256, and all that the head reads comes from it
    facts: dict[str, Any] = {name: checksums.get(f"{name}.safetensors", "") for name in FROZEN}
    facts["base"] = "tiny" if version.tiny else VIT_SHA256
    backbone = hashlib.sha256()
    if "vit" in version.experts:
        tensors = read_tensors(version.folder / "vit.safetensors")
        for name in sorted(n for n in tensors if not n.startswith("head.")):
            backbone.update(name.encode() + np.ascontiguousarray(tensors[name]).tobytes())
    return hashlib.sha256(json.dumps(facts | {"vit": backbone.hexdigest()}, sort_keys=True).encode()).hexdigest()


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


def choose_experts(version: Version, names: tuple[str, ...] | None = None) -> tuple[tuple[str, ...], dict[str, str]]:
    """The wanted experts that a version has, in order, and for each other one a sentence why it is missing.

    Args:
        names: experts that are wanted; None for all.

    Raises:
        WeightsError: no wanted expert is there.
    """
    why: dict[str, str] = {}
    for name in EXPERT_NAMES:
        if names is not None and name not in names:
            why[name] = "It was switched off by the setting `experts`."
        elif name not in version.experts:
            why[name] = f"Version {version.name} does not contain it."
        elif name == "lstm" and "resnext" in why:
            why[name] = "It needs ResNeXt-50, which is missing."
    chosen = tuple(name for name in EXPERT_NAMES if name not in why)
    if not chosen:
        raise WeightsError("None of the wanted experts is in this version.")
    return chosen, why


def require_new_name(root: Path, name: str) -> None:
    """Refuse a name that a new version cannot have.

    Raises:
        WeightsError: it is taken, or it is no plain name.
    """
    if not _is_name(name) or name == CURRENT:
        raise WeightsError(f"{name!r} cannot name a version: letters, digits, dots, hyphens and underscores only.")
    if (root / name).exists():
        raise WeightsError(f"The version name {name!r} is taken; choose another with --name.")


def publish_version(
    root: Path,
    name: str,
    tensors: Mapping[str, Arrays],
    documents: Mapping[str, Mapping[str, Any]],
    files: Mapping[str, Path] | None = None,
    *,
    link: bool = False,
) -> Version:
    """Write a new version: everything into a scratch folder, checksums last, then one rename.

    Args:
        name: of the new version; letters, digits, dots, hyphens and underscores.
        tensors: stored arrays per file stem (`cnn`, ..., `gate`), as `pack_tensors` gives them.
        documents: JSON documents per file stem (`calibration`, `card`, ...).
        files: further files to copy, by the name they get.
        link: let `files` be hard links where the file system can; for files that are as immutable as this version.

    Raises:
        WeightsError: the name is taken or not allowed.
    """
    from safetensors.numpy import save_file

    require_new_name(root, name)
    target = root / name
    scratch = root / f".{name}.tmp"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    for stem, arrays in tensors.items():
        save_file({k: np.asarray(v, order="C") for k, v in sorted(arrays.items())}, scratch / f"{stem}.safetensors")
    for stem, document in documents.items():
        text = json.dumps(document, indent=2, sort_keys=True) + "\n"
        (scratch / f"{stem}.json").write_text(text, encoding="utf-8")
    for file_name, source in (files or {}).items():
        _copy(source, scratch / file_name, link=link)
    checksums = {path.name: file_sha256(path) for path in sorted(scratch.iterdir())}
    (scratch / CHECKSUMS).write_text(json.dumps(checksums, indent=2) + "\n", encoding="utf-8")
    for path in scratch.iterdir():
        path.chmod(0o644)
    fsync_tree(scratch)
    scratch.rename(target)
    fsync_folder(root)
    return verify_version(root, name)


def _copy(source: Path, target: Path, *, link: bool) -> None:
    if link:
        try:
            target.hardlink_to(source)
            return
        except OSError as error:
            log.debug("%s is copied: %s", target.name, error)  # another file system, or one without links
    shutil.copyfile(source, target)
