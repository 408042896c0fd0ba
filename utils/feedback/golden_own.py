"""A golden set of the user's own files: features only, made by the networks in use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from utils.config import Settings, load_settings
from utils.errors import TrainingDataError
from utils.feedback.feature_set import FeatureSet, join_features, save_features
from utils.feedback.items import prepare_item
from utils.files import file_sha256
from utils.weights import frozen_fingerprint, verify_version, weights_root

LEAST = 10
"""A set with fewer real or fake items could be passed or failed by chance."""


def add_own(
    folder: Path, name: str, real: Sequence[Path], fake: Sequence[Path], settings: Settings | None = None
) -> str:
    """Write `<name>.safetensors` into the folder of own golden sets.

    Args:
        folder: of own golden sets; `[learning]` names it to the server.
        name: letters, digits, hyphens and underscores.
        real: files that are real.
        fake: files that are fake.
        settings: None reads `config.ini`.

    Returns:
        What was done, one line per file that was left out.

    Raises:
        TrainingDataError: the name is not allowed, or fewer than ten files of a label can be used.
    """
    from utils.detection.pipeline import load_analyser

    if not name or not all(c.isalnum() or c in "-_" for c in name):
        raise TrainingDataError(f"The name {name!r} is not allowed; take letters, digits, hyphens and underscores.")
    settings = settings or load_settings()
    analyser = load_analyser(settings)
    version = verify_version(weights_root(settings), analyser.version)
    lines: list[str] = []
    items: list[FeatureSet] = []
    for label, paths in ((0, real), (1, fake)):
        for path in paths:
            prepared = prepare_item(path, analyser)
            if prepared.item is None:
                lines.append(f"{path.name} is left out: {prepared.reason}")
            else:
                items.append(prepared.item.as_features(label=label, source=f"own {name}", key=file_sha256(path)))
    for label, what in ((0, "real"), (1, "fake")):
        count = sum(int(item.labels[0]) == label for item in items)
        if count < LEAST:
            raise TrainingDataError(f"Only {count} {what} files can be used; a golden set needs {LEAST} of each label.")
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"name": f"own-{name}", "version": version.name, "experts": frozen_fingerprint(version)}
    save_features(folder / f"{name}.safetensors", join_features(items), facts)
    return "\n".join([*lines, f"wrote {folder / name}.safetensors with {len(items)} items"])
