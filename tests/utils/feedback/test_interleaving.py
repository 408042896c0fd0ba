"""Rollbacks, promotions and killed trainings beside each other: the pointer and its lines never contradict."""

from __future__ import annotations

import dataclasses
import itertools
import multiprocessing
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.utils.feedback.beside import change_often
from utils.errors import ConflictError, NothingNewError
from utils.feedback import retrain
from utils.feedback.feature_set import load_features, save_features
from utils.feedback.history import read_history, verify_history
from utils.feedback.retrain import train_version
from utils.feedback.versions import next_name, pointer_lock, prune_rejected, recover, rollback, serving
from utils.files import file_sha256
from utils.training.publishing import media_key
from utils.weights import current_name, list_versions, publish_version, remove_scratch, set_current


def learn(lineage, items, **more):
    return train_version(items, lineage.root, lineage.history, **more)


def test_rollbacks_beside_each_other_keep_pointer_and_lines_together(lineage):
    outcome = learn(lineage, lineage.corrections())
    names = ("tiny", outcome["version"])
    context = multiprocessing.get_context("spawn")
    children = [context.Process(target=change_often, args=(lineage.root, lineage.history, names)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
        assert child.exitcode == 0
    moves = [e for e in read_history(lineage.history).entries if e["event"] == "activation"]
    assert len(moves) > 2
    assert all(before["to"] == after["from"] for before, after in itertools.pairwise(moves))
    assert moves[-1]["to"] == current_name(lineage.root)
    assert verify_history(lineage.history).ok
    assert not list(lineage.root.glob(".CURRENT.*"))


def test_a_rollback_waits_for_whoever_moves_the_pointer(lineage):
    outcome = learn(lineage, lineage.corrections())
    done = threading.Event()

    def go_back() -> None:
        rollback(lineage.root, lineage.history)
        done.set()

    with pointer_lock(lineage.root):
        thread = threading.Thread(target=go_back)
        thread.start()
        assert not done.wait(0.3)
        assert current_name(lineage.root) == outcome["version"]
    thread.join(30)
    assert done.is_set()
    assert current_name(lineage.root) == "tiny"


def test_the_pointers_scratch_files_go_away(lineage):
    (lineage.root / ".CURRENT.17-ab.tmp").write_text("tiny\n")
    assert remove_scratch(lineage.root) == (".CURRENT.17-ab.tmp",)


def test_a_rollback_during_a_training_is_not_overruled(lineage):
    first = learn(lineage, lineage.corrections(8))
    assert first["promoted"]
    moved = []

    def tell(stage: str, done: float) -> None:
        if stage == "publish" and not moved:
            moved.append(rollback(lineage.root, lineage.history).name)

    set_current(lineage.root, "tiny")
    set_current(lineage.root, first["version"])
    second = learn(lineage, lineage.corrections(14), progress=tell)
    assert moved == ["tiny"]
    assert (second["promoted"], second["code"]) in ((False, "moved"), (False, "no_correction"))
    assert current_name(lineage.root) == "tiny"


def test_a_candidate_that_passed_is_rejected_when_the_version_in_use_changed(lineage, monkeypatch):
    other = learn(lineage, lineage.corrections(8))
    rollback(lineage.root, lineage.history)

    def tell(stage: str, done: float) -> None:
        if stage == "publish":
            rollback(lineage.root, lineage.history, other["version"])

    outcome = learn(lineage, lineage.corrections(), progress=tell)
    assert (outcome["promoted"], outcome["code"]) == (False, "moved")
    assert f"from tiny to {other['version']}" in outcome["reason"]
    assert current_name(lineage.root) == other["version"]
    with pytest.raises(ConflictError, match="rejected"):
        rollback(lineage.root, lineage.history, outcome["version"])


def test_a_killed_job_finds_what_it_did(lineage, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(*arguments: object) -> None:
        raise Killed

    items = lineage.corrections()
    with monkeypatch.context() as patch:
        patch.setattr(retrain, "activate", kill)
        with pytest.raises(Killed):
            learn(lineage, items, job="j1", digest="d1")
    assert current_name(lineage.root) == "tiny"
    again = learn(lineage, [], job="j1", digest="d2")
    assert (again["job"], again["digest"], again["promoted"]) == ("j1", "d1", True)
    assert current_name(lineage.root) == again["version"] == "tiny-r0001"
    lines = read_history(lineage.history).entries
    assert [e["event"] for e in lines] == ["training", "activation"]
    assert again.items() <= dict(lines[0]).items()
    with pytest.raises(NothingNewError):
        learn(lineage, [], job="j2")


def test_damaged_features_are_left_out(lineage):
    items = lineage.corrections(8)
    items[0].features.write_bytes(b"PK no archive")
    outcome = learn(lineage, items)
    assert (outcome["damaged"], outcome["items"]) == (1, 7)


def test_uploads_of_golden_files_are_held_out(lineage, tmp_path):
    picture = tmp_path / "golden.png"
    picture.write_bytes(b"the bytes of a golden picture")
    assert media_key(str(tmp_path / "gone.png")) != media_key(str(picture))
    own = tmp_path / "own"
    own.mkdir()
    features, facts = load_features(lineage.root / "learning" / "tiny" / "golden.safetensors")
    mine = features.select(np.arange(40))
    keyed = dataclasses.replace(mine, keys=(media_key(str(picture)), *mine.keys[1:]))
    save_features(own / "mine.safetensors", keyed, {"experts": facts["experts"], "name": "own-mine"})
    items = lineage.corrections(12)
    items[0] = dataclasses.replace(items[0], media_sha256=file_sha256(picture))
    assert learn(lineage, items, own_golden=own)["held_out"] == 1


def test_serving_names_base_and_current(lineage):
    before = serving(lineage.root)
    assert (before.current, before.base) == ("tiny", "tiny")
    outcome = learn(lineage, lineage.corrections())
    after = serving(lineage.root)
    assert (after.current, after.base, after.base_sha256) == (outcome["version"], "tiny", lineage.base.sha256)
    (lineage.root / "CURRENT").unlink()
    assert serving(lineage.root).current == ""


# Candidates that the golden sets rejected are deleted beyond a number; everything else stays.


def publish(root: Path, name: str, base: str = "", promoted: bool = False) -> None:
    training = {"event": "training", "version": name, "base": base, "promoted": promoted}
    learned = {"learning": {"base": base, "training": training}} if base else {}
    publish_version(root, name, {"gate": {"weight": np.zeros(3, np.float32)}}, {"calibration": {}, "card": learned})


def several(root: Path) -> None:
    root.mkdir()
    for base in ("v1", "v2"):
        publish(root, base)
    for number in (1, 2, 3, 9, 10):
        publish(root, f"v1-r{number:04d}", "v1", promoted=number == 2)
    publish(root, "v2-r0001", "v2")
    set_current(root, "v1-r0002")


def test_the_newest_of_each_base_stay_and_names_are_not_given_twice(tmp_path: Path) -> None:
    root = tmp_path / "versions"
    several(root)
    assert prune_rejected(root, 2) == ("v1-r0001", "v1-r0003")
    assert list_versions(root) == ("v1", "v1-r0002", "v1-r0009", "v1-r0010", "v2", "v2-r0001")
    assert prune_rejected(root, 1) == ("v1-r0009",)
    assert prune_rejected(root, 0) == ()
    assert (next_name(root, "v1"), next_name(root, "v2")) == ("v1-r0011", "v2-r0002")


def test_what_a_crash_leaves_of_a_deletion_is_removed(tmp_path: Path) -> None:
    root = tmp_path / "versions"
    several(root)
    (root / "v1-r0001").rename(root / ".v1-r0001.tmp")
    recover(root, tmp_path / "history.jsonl")
    assert not (root / ".v1-r0001.tmp").exists()
