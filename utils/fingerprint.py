"""Which networks made a cache of features. Free of torch, for a worker asks at every look for new feedback."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

from utils.base_weights import VIT_SHA256
from utils.tensors import read_tensors
from utils.weights import CHECKSUMS, Version, read_document

FROZEN = ("cnn", "resnext", "lstm")


def frozen_fingerprint(version: Version) -> str:
    """Sha256 of everything of a version that cached features depend on; versions that share it share their caches."""
    checksums = read_document(version.folder / CHECKSUMS)
    facts: dict[str, Any] = {name: checksums.get(f"{name}.safetensors", "") for name in FROZEN}
    facts["base"] = "tiny" if version.tiny else VIT_SHA256
    backbone = hashlib.sha256()
    if "vit" in version.experts:
        tensors = read_tensors(version.folder / "vit.safetensors")
        for name in sorted(n for n in tensors if not n.startswith("head.")):
            backbone.update(name.encode() + np.ascontiguousarray(tensors[name]).tobytes())
    return hashlib.sha256(json.dumps(facts | {"vit": backbone.hexdigest()}, sort_keys=True).encode()).hexdigest()
