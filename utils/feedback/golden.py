"""The golden set: features of faces that nothing was trained or calibrated on, and what a version makes of them.

It is fixed and has a name; the gate of promotion (`retrain`) compares figures made here. It lies beside the
versions in `<weights>/learning/<version>/golden.safetensors` and belongs to the networks whose answers it holds.

    python -m utils.feedback.golden show
    python -m utils.feedback.golden add --name mine --real FILE... --fake FILE... --out instance/golden
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from utils.config import Settings, load_settings
from utils.errors import TelltaleError, TrainingDataError
from utils.feedback.cached_judge import CachedJudge, load_parts, probabilities
from utils.feedback.feature_set import FeatureSet, join_features, load_features, pseudonym, save_features
from utils.files import file_sha256
from utils.metrics import accuracy, auc, ece
from utils.weights import Version, current_name, frozen_fingerprint, read_document, verify_version, weights_root

GOLDEN_FILE = "golden.safetensors"
REPLAY_FILE = "replay.safetensors"
"""Features of calibration data: what corrections must not change."""
CHECKSUM_FILE = "checksums.json"
LEARNING_FOLDER = "learning"
EXIT_FAILED = 3
LEAST = 10
"""An own set with fewer real or fake items could be passed or failed by chance."""
MIN_SLICE = 8
"""A slice with fewer items of its own says nothing that could be told from chance, so it is left out."""

ALIKE = 0.72
"""Cosine between the tapped tokens of two faces, less the mean of the set, from which they are of one picture. Of 24
golden pictures of v6, all that were coded anew with quality 60, enlarged by half or cropped by up to a tenth reach it,
and at least 22 of half the size; 99 of 100 of 437 calibration items stay below."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class GoldenFigures:
    """What a version makes of a golden set.

    Args:
        auc: over all items.
        ece: over all items, 10 equally full bins.
        accuracy: at 50 %.
        slices: AUC per slice: `source X` its own real against its own fakes, `manipulation G` the fakes of generator G
            against all real ones, `real X` the real ones of source X against all fakes.
        count: items.
    """

    auc: float
    ece: float
    accuracy: float
    slices: Mapping[str, float]
    count: int

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values, rounded to six digits."""
        plain = asdict(self)
        rounded = {k: round(v, 6) if isinstance(v, float) else v for k, v in plain.items()}
        return rounded | {"slices": {k: round(v, 6) for k, v in self.slices.items()}}


@dataclass(frozen=True)
class Bounds:
    """By how much AUC may fall, the calibration error rise, and the AUC of any slice fall."""

    auc: float
    ece: float
    slice_loss: float

    def broken(self, new: GoldenFigures, old: GoldenFigures) -> tuple[str, str] | None:
        """Code and sentence of the first bound that is broken; comparisons are written so that NaN breaks them."""
        if not new.auc >= old.auc - self.auc:
            return "auc", f"the AUC fell from {old.auc:.4f} to {new.auc:.4f} (allowed: {self.auc:g})"
        if not new.ece <= old.ece + self.ece:
            return "ece", f"the calibration error rose from {old.ece:.4f} to {new.ece:.4f} (allowed: {self.ece:g})"
        for name, before in old.slices.items():
            after = new.slices.get(name, math.nan)
            if not after >= before - self.slice_loss:
                return "slice", f"the slice {name} fell from {before:.4f} to {after:.4f} (allowed: {self.slice_loss:g})"
        return None


@dataclass(frozen=True)
class GoldenSet:
    """A named golden set.

    Args:
        name: of the set, with its number.
        sha256: of its file.
        features: with both labels.
        experts: fingerprint of the networks that made it.
    """

    name: str
    sha256: str
    features: FeatureSet
    experts: str

    def __post_init__(self) -> None:
        if len(np.unique(self.features.labels)) != 2:
            raise TrainingDataError(f"The golden set {self.name} needs real and fake items.")


@dataclass(frozen=True)
class Lineage:
    """What belongs to a trained version and to all that learned from it: the base itself, golden set, replay.

    Args:
        base: the trained version.
        golden: the shipped set first, then the user's own ones.
        replay: features of its training data.
    """

    base: Version
    golden: tuple[GoldenSet, ...]
    replay: FeatureSet


def load_lineage(base: Version, own: Path | None = None) -> Lineage:
    """Golden sets and replay buffer of a trained version, checked against it.

    Args:
        base: the trained version; its root holds `learning/<name>/`.
        own: folder with the user's own golden sets (`*.safetensors`), or None.

    Raises:
        TrainingDataError: a file of it is missing, it is damaged, or it was made with other networks.
    """
    folder = base.folder.parent / LEARNING_FOLDER / base.name
    for name in (GOLDEN_FILE, REPLAY_FILE, CHECKSUM_FILE):
        if not (folder / name).is_file():
            raise TrainingDataError(
                f"There is no {name} for version {base.name}, so nothing can be learned from feedback; "
                "docs/learning.md says how to build a golden set."
            )
    checksums = read_document(folder / CHECKSUM_FILE)
    for name in (GOLDEN_FILE, REPLAY_FILE):
        if checksums.get(name) != file_sha256(folder / name):
            raise TrainingDataError(f"{base.name}/{name} is not the file that {CHECKSUM_FILE} lists.")
    fingerprint = frozen_fingerprint(base)
    sets = [read_golden(folder / GOLDEN_FILE, fingerprint)]
    for path in sorted(own.glob("*.safetensors")) if own is not None and own.is_dir() else []:
        sets.append(read_golden(path, fingerprint))
    replay, facts = load_features(folder / REPLAY_FILE)
    _check_experts(facts, fingerprint, REPLAY_FILE)
    return Lineage(base, tuple(sets), replay)


def read_golden(path: Path, fingerprint: str) -> GoldenSet:
    """Read a golden set that was made with the networks of `fingerprint`.

    Raises:
        TrainingDataError: it is damaged, of other networks, or has only one label.
    """
    features, facts = load_features(path)
    _check_experts(facts, fingerprint, path.name)
    return GoldenSet(facts.get("name", path.stem), file_sha256(path), features, facts["experts"])


def _check_experts(facts: Mapping[str, str], fingerprint: str, what: str) -> None:
    if facts.get("experts") != fingerprint:
        raise TrainingDataError(
            f"{what} holds answers of other networks than those of the version in use; build it again for this version."
        )


def known_again(features: FeatureSet, golden: GoldenSet) -> npt.NDArray[np.bool_]:
    """(N,) which items are of a picture in a golden set: the same file, or a face that looks the same to the ViT.

    The face that the networks see is cut out and aligned first, so that a picture is known again when it is coded anew,
    resized or cropped around the face. No picture and no hash of one has to be kept for it.
    """
    keys = set(golden.features.keys)
    same = np.array([bool(keys & {key, pseudonym(key)}) for key in features.keys])
    mean = np.asarray(golden.features.tokens, np.float32).mean(0)
    mine, own = (_directions(each.tokens, mean) for each in (features, golden.features))
    closest = (mine @ own.T).max(1)
    return same | (np.maximum.reduceat(closest, features.starts[:-1]) >= ALIKE)


def _directions(tokens: npt.NDArray[np.floating[Any]], mean: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    flat = (np.asarray(tokens, np.float32) - mean).reshape(len(tokens), -1)
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9))


def score_golden(parts: CachedJudge, golden: GoldenSet) -> GoldenFigures:
    """Figures of a version on a golden set."""
    return figures(golden.features, probabilities(parts, golden.features))


def figures(features: FeatureSet, scores: Array) -> GoldenFigures:
    """Figures of given probabilities.

    Args:
        features: labels, sources and generators.
        scores: (N,) probabilities of fake.
    """
    labels = features.labels.astype(np.float64)
    return GoldenFigures(
        auc=auc(labels, scores),
        ece=ece(labels, scores),
        accuracy=accuracy(labels, scores),
        slices=_slices(features, labels, scores),
        count=len(features),
    )


def _slices(features: FeatureSet, labels: Array, scores: Array) -> dict[str, float]:
    sources = np.array(["video" if s.startswith("video") else s for s in features.sources])
    generators = np.array([g.split(" (")[0] for g in features.generators])
    real, fake = labels == 0, labels == 1
    masks: dict[str, npt.NDArray[np.bool_]] = {}
    for source in np.unique(sources):
        of_source = sources == source
        if (of_source & real).sum() >= MIN_SLICE and (of_source & fake).sum() >= MIN_SLICE:
            masks[f"source {source}"] = of_source
        if (of_source & real).sum() >= MIN_SLICE:
            masks[f"real {source}"] = (of_source & real) | fake
    for generator in np.unique(generators[fake]):
        chosen = (generators == generator) & fake
        if chosen.sum() >= MIN_SLICE:
            masks[f"manipulation {generator}"] = chosen | real
    return {name: auc(labels[mask], scores[mask]) for name, mask in masks.items()}


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
    from utils.feedback.items import prepare_faces

    if not name or not all(c.isalnum() or c in "-_" for c in name):
        raise TrainingDataError(f"The name {name!r} is not allowed; take letters, digits, hyphens and underscores.")
    settings = settings or load_settings()
    analyser = load_analyser(settings)
    version = verify_version(weights_root(settings), analyser.version)
    lines: list[str] = []
    items: list[FeatureSet] = []
    for label, paths in ((0, real), (1, fake)):
        for path in paths:
            found = prepare_faces(path, analyser).faces[None]
            if isinstance(found, str):
                lines.append(f"{path.name} is left out: {found}")
            else:
                items.append(found.as_features(label=label, source=f"own {name}", key=file_sha256(path)))
    for label, what in ((0, "real"), (1, "fake")):
        count = sum(int(item.labels[0]) == label for item in items)
        if count < LEAST:
            raise TrainingDataError(f"Only {count} {what} files can be used; a golden set needs {LEAST} of each label.")
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"name": f"own-{name}", "version": version.name, "experts": frozen_fingerprint(version)}
    save_features(folder / f"{name}.safetensors", join_features(items), facts)
    return "\n".join([*lines, f"wrote {folder / name}.safetensors with {len(items)} items"])


def show(root: Path, name: str) -> str:
    """The golden figures of a version as text."""
    version = verify_version(root, name)
    lineage = load_lineage(verify_version(root, version.base))
    parts = load_parts(version)
    lines = [f"{name}: replay buffer of {len(lineage.replay)} items"]
    for golden in lineage.golden:
        figures = score_golden(parts, golden)
        lines.append(
            f"{golden.name} ({golden.sha256[:12]}): {figures.count} items, AUC {figures.auc:.4f}, "
            f"ECE {figures.ece:.4f}, accuracy {figures.accuracy:.4f}"
        )
        lines += [f"  {slice_name}: {value:.4f}" for slice_name, value in sorted(figures.slices.items())]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Entry point of `python -m utils.feedback.golden`."""
    parser = argparse.ArgumentParser(prog="python -m utils.feedback.golden", description="Golden sets.")
    commands = parser.add_subparsers(dest="command", required=True)
    see = commands.add_parser("show", help="figures of a version on its golden sets")
    own = commands.add_parser("add", help="a golden set of your own files")
    own.add_argument("--name", required=True, help="of the set")
    own.add_argument("--real", type=Path, nargs="*", default=[], help="files that are real")
    own.add_argument("--fake", type=Path, nargs="*", default=[], help="files that are fake")
    own.add_argument("--out", type=Path, required=True, help="folder of your golden sets")
    see.add_argument("--version", default="", help="name of the version (default: the one in use)")
    chosen = parser.parse_args(arguments)
    try:
        root = weights_root(load_settings())
        if chosen.command == "add":
            print(add_own(chosen.out, chosen.name, chosen.real, chosen.fake))
            return 0
        print(show(root, chosen.version or current_name(root)))
    except TelltaleError as error:
        print(error, file=sys.stderr)
        return EXIT_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
