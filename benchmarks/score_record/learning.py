"""What learning gives: features of two files, and the candidate of a training on four fixed items, as hashes.

`python -m benchmarks.score_record.learning ROOT FILE...` prints them with the modules that it imported; it runs
in a process of its own, so that the list is that of a worker which learns and of nothing else.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

FEEDBACK = (("real", 0), ("real", 1), ("fake", 0), ("fake", 1))
"""The items of the training: so many of the replay buffer's real and fake ones, with the other label."""


def array_hash(arrays: Mapping[str, np.ndarray[Any, Any]]) -> str:
    """Sha256 over names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def learn(root: Path, files: list[Path]) -> dict[str, Any]:
    """Features of the files, and a training in a copy of the version in use.

    Args:
        root: the folder with the versions; it is not changed.
    """
    import torch

    from utils.config import load_settings
    from utils.detection.pipeline import load_analyser
    from utils.feedback.items import prepare_faces
    from utils.feedback.retrain import train_version
    from utils.tensors import read_tensors
    from utils.weights import current_name

    torch.set_num_threads(1)
    name = current_name(root)
    chosen = {"WEIGHTS__DIR": str(root), "DETECTION__THREADS": "1"}
    settings = load_settings(environ={f"TELLTALE_{key}": value for key, value in chosen.items()})
    analyser = load_analyser(settings)
    features = {}
    for file in files:
        found = prepare_faces(file, analyser)
        item = found.faces[None]
        reason = item if isinstance(item, str) else ""
        held = None if isinstance(item, str) else {k: getattr(item, k) for k in ("tokens", "logits", "quality")}
        features[file.name] = {
            "features": held and array_hash(held),
            "reason": reason,
            "phash": found.phash,
            "face": None if reason else found.deciding,
        }
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "versions"
        shutil.copytree(root / name, copy / name)
        shutil.copytree(root / "learning" / name, copy / "learning" / name)
        shutil.copy(root / "CURRENT", copy)
        (copy / "base").symlink_to(root.resolve() / "base")
        items = _items(copy, name, Path(scratch))
        done = train_version(items, copy, Path(scratch) / "history.jsonl")
        outcome = {key: value for key, value in done.items() if key not in ("seconds", "settings")}
        arrays = {path.stem: array_hash(read_tensors(path)) for path in (copy / done["version"]).glob("*.safetensors")}
    return {"features": features, "outcome": outcome, "candidate": dict(sorted(arrays.items()))}


def _items(root: Path, name: str, folder: Path) -> list[Any]:
    """Four items out of the replay buffer, as a server would have made them of uploads."""
    from utils.feedback.feature_set import CachedItem, load_features
    from utils.feedback.golden import REPLAY_FILE
    from utils.feedback.quarantine import LearningItem
    from utils.weights import frozen_fingerprint, verify_version

    replay, _ = load_features(root / "learning" / name / REPLAY_FILE)
    made_with = frozen_fingerprint(verify_version(root, name))
    items = []
    for number, (kind, nth) in enumerate(FEEDBACK):
        chosen = replay.select(np.flatnonzero(replay.labels == (kind == "fake"))[nth : nth + 1])
        path = folder / f"{number}.npz"
        CachedItem(chosen.tokens.astype(np.float16), chosen.logits[0], chosen.quality[0], made_with).save(path)
        label = 1 if kind == "real" else 0
        items.append(LearningItem(f"{number:064d}", label, path, f"user-{number % 2}"))  # type: ignore[arg-type]
    return items


def main() -> int:
    """Print the result and what was imported for it, as one JSON object."""
    root, *files = map(Path, sys.argv[1:])
    print(json.dumps({**learn(root, files), "modules": sorted(sys.modules)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
