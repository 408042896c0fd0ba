"""Candidates that the golden sets rejected are deleted beyond a number; everything else stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from utils.feedback.versions import next_name, prune_rejected, recover
from utils.weights import list_versions, publish_version, set_current


def publish(root: Path, name: str, base: str = "", promoted: bool = False) -> None:
    training = {"event": "training", "version": name, "base": base, "promoted": promoted}
    learned = {"learning": {"base": base, "training": training}} if base else {}
    publish_version(root, name, {"gate": {"weight": np.zeros(3, np.float32)}}, {"calibration": {}, "card": learned})


def lineage(root: Path) -> None:
    root.mkdir()
    for base in ("v1", "v2"):
        publish(root, base)
    for number in (1, 2, 3, 9, 10):
        publish(root, f"v1-r{number:04d}", "v1", promoted=number == 2)
    publish(root, "v2-r0001", "v2")
    set_current(root, "v1-r0002")


def test_the_newest_of_each_base_stay_and_names_are_not_given_twice(tmp_path: Path) -> None:
    root = tmp_path / "versions"
    lineage(root)
    assert prune_rejected(root, 2) == ("v1-r0001", "v1-r0003")
    assert list_versions(root) == ("v1", "v1-r0002", "v1-r0009", "v1-r0010", "v2", "v2-r0001")
    assert prune_rejected(root, 1) == ("v1-r0009",)
    assert prune_rejected(root, 0) == ()
    assert (next_name(root, "v1"), next_name(root, "v2")) == ("v1-r0011", "v2-r0002")


def test_what_a_crash_leaves_of_a_deletion_is_removed(tmp_path: Path) -> None:
    root = tmp_path / "versions"
    lineage(root)
    (root / "v1-r0001").rename(root / ".v1-r0001.tmp")
    recover(root, tmp_path / "history.jsonl")
    assert not (root / ".v1-r0001.tmp").exists()
