"""Cached features of faces: what the golden set, the replay buffer and accepted feedback are made of. No pictures.

An item is a photo's face or one person of a clip: the tapped tokens of the ViT per frame, the raw logits of the other
experts, the quality measurements. The networks that learn from feedback read nothing else, so they learn in seconds.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from utils.errors import TrainingDataError
from utils.tensors import replace_arrays

SCHEMA = "telltale-features-1"
LEVELS = 254
COLUMNS, NAMES = ("logits", "quality", "labels"), ("sources", "generators", "groups", "keys")
"""What a set has one of for each item: arrays, and tuples."""
Tokens = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class FeatureSet:
    """N items of F frames in all.

    Args:
        tokens: (F, L, 2D) float16 or float32, the frames of one item after another.
        starts: (N + 1,) int64; item i has the frames `starts[i]` to `starts[i + 1]`.
        logits: (N, E) float32 raw logits in the order of `EXPERT_NAMES`, averaged over all frames of the medium; NaN
            where an expert is missing. The ViT's column is not read: its logit is computed from the tokens.
        quality: (N, Q) float32.
        labels: (N,) float32, 1 fake, 0 real.
        sources: N names.
        generators: N names; `-` for real ones.
        groups: N names (pseudonyms) of persons or clips.
        keys: N names that tell media apart (sha256 of the file, or a pseudonym).
    """

    tokens: Tokens
    starts: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]
    quality: npt.NDArray[np.float32]
    labels: npt.NDArray[np.float32]
    sources: tuple[str, ...]
    generators: tuple[str, ...]
    groups: tuple[str, ...]
    keys: tuple[str, ...]

    def __post_init__(self) -> None:
        count = len(self.labels)
        if any(len(getattr(self, name)) != count for name in (*COLUMNS, *NAMES)) or len(self.starts) != count + 1:
            raise ValueError("the parts of a feature set must have as many items as there are labels")
        if count and (np.diff(self.starts).min() < 1 or self.starts[0] != 0 or self.starts[-1] != len(self.tokens)):
            raise ValueError("every item has at least one frame, and the frames lie one item after another")
        if not np.isin(self.labels, (0.0, 1.0)).all():
            raise ValueError("labels must be 0 or 1")
        if not np.isfinite(self.tokens).all() or not np.isfinite(self.quality).all():
            raise ValueError("tokens and quality must be finite")

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, chosen: npt.NDArray[Any]) -> FeatureSet:
        """The items of a mask or of a list of indices."""
        picked = np.flatnonzero(chosen) if chosen.dtype == bool else np.asarray(chosen, np.int64)
        frames = [np.arange(self.starts[i], self.starts[i + 1]) for i in picked]
        tokens = self.tokens[np.concatenate(frames)] if frames else self.tokens[:0]
        columns: dict[str, Any] = {name: getattr(self, name)[picked] for name in COLUMNS}
        columns |= {name: tuple(getattr(self, name)[i] for i in picked) for name in NAMES}
        return FeatureSet(tokens=tokens, starts=np.cumsum([0, *map(len, frames)], dtype=np.int64), **columns)


def pseudonym(name: str) -> str:
    """Sixteen digits that stand for a person, a clip or a file; of a file's sha256 they tell whether it is the same."""
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def join_features(parts: Sequence[FeatureSet]) -> FeatureSet:
    """Several sets, one after another; at least one."""
    starts = [np.zeros(1, np.int64)]
    for part in parts:
        starts.append(part.starts[1:] + starts[-1][-1])
    columns: dict[str, Any] = {}
    for name in ("tokens", *COLUMNS):
        columns[name] = np.concatenate([getattr(part, name) for part in parts])
    for name in NAMES:
        columns[name] = tuple(each for part in parts for each in getattr(part, name))
    return FeatureSet(starts=np.concatenate(starts), **columns)


def save_features(path: Path, features: FeatureSet, facts: Mapping[str, str]) -> None:
    """Write a set as safetensors, its tokens as 8-bit steps between the least and the largest value of each dimension.

    Args:
        facts: text stored beside, such as `version` and `experts`.
    """
    tokens = np.asarray(features.tokens, np.float32)
    low = tokens.min(0)
    step = np.maximum((tokens.max(0) - low) / LEVELS, 1e-9).astype(np.float32)
    names = {name: json.dumps(getattr(features, name)) for name in NAMES}
    arrays = {name: getattr(features, name) for name in ("starts", *COLUMNS)}
    arrays |= {"tokens": np.rint((tokens - low) / step).astype(np.uint8), "tokens_low": low, "tokens_step": step}
    save_file(arrays, path, metadata={"schema": SCHEMA, **names, **facts})


def load_features(path: Path) -> tuple[FeatureSet, dict[str, str]]:
    """Read a set and the facts beside it.

    Raises:
        TrainingDataError: it is not there or not a whole feature set.
    """
    try:
        with safe_open(path, framework="np") as held:
            facts = dict(held.metadata() or {})
            if facts.pop("schema", "") != SCHEMA:
                raise TrainingDataError(f"{path.name} is no feature set of this program.")
            arrays = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118 (no iterator)
        names: dict[str, Any] = {name: tuple(json.loads(facts.pop(name))) for name in NAMES}
        tokens = arrays.pop("tokens").astype(np.float32) * arrays.pop("tokens_step") + arrays.pop("tokens_low")
        return FeatureSet(tokens=tokens, **names, **arrays), facts
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise TrainingDataError(f"{path.name} cannot be read as a feature set: {error}") from error


@dataclass(frozen=True)
class CachedItem:
    """One medium that users judged, ready to learn from: features of its deciding face, no picture.

    Args:
        tokens: (T, L, 2D) float16 of its frames.
        logits: (E,) float32 raw logits; NaN where missing.
        quality: (Q,) float32, mean over its frames.
        experts: fingerprint of the networks that made it (`frozen_fingerprint`).
    """

    tokens: npt.NDArray[np.float16]
    logits: npt.NDArray[np.float32]
    quality: npt.NDArray[np.float32]
    experts: str

    def save(self, path: Path) -> None:
        """Write it as .npz, whole or not at all; when this returns, it is on the disk.

        Raises:
            OSError: it could not be written; what was there is as it was.
        """
        replace_arrays(
            path, tokens=self.tokens, logits=self.logits, quality=self.quality, experts=np.array(self.experts)
        )

    @classmethod
    def load(cls, path: Path) -> CachedItem:
        """Read what `save` wrote.

        Raises:
            TrainingDataError: it is not there or damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as held:
                tokens, logits, quality = (np.asarray(held[k]) for k in ("tokens", "logits", "quality"))
                return cls(tokens, logits, quality, str(held["experts"]))
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise TrainingDataError(f"{path.name} cannot be read as cached features: {error}") from error

    def as_features(self, *, label: int, source: str, key: str) -> FeatureSet:
        """It as a feature set of one item."""
        return FeatureSet(
            tokens=self.tokens,
            starts=np.array([0, len(self.tokens)]),
            logits=self.logits[None].astype(np.float32),
            quality=self.quality[None].astype(np.float32),
            labels=np.array([label], np.float32),
            sources=(source,),
            generators=("feedback" if label else "-",),
            groups=(key,),
            keys=(key,),
        )
