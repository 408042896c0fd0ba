"""Versions that learned: promoted by one pointer, rolled back, and put right after a crash. Loads no torch.

The order is always: version folder, its line in the history, `CURRENT`, the line of the activation. Each step is on the
disk before the next begins, so a crash leaves at most the later steps undone; `recover` does them. The last two happen
under `pointer_lock`, so that a rollback beside a training, or two rollbacks, come one after the other. `root` is always
the folder with the versions, `history` the path of the training history.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.detection.remembered import REMEMBERED
from utils.errors import ConflictError, WeightsError, WeightsMissingError
from utils.feedback.history import append_training, read_history
from utils.files import file_sha256, locked
from utils.log import get_logger
from utils.tensors import Arrays
from utils.weights import (
    CALIBRATION_FILE,
    CARD_FILE,
    CHECKSUMS,
    GATE_FILE,
    SPEECH_FILE,
    SPEECH_HEAD_FILE,
    Version,
    base_name,
    current_name,
    list_versions,
    publish_version,
    read_document,
    remove_scratch,
    set_current,
    verify_version,
)

log = get_logger(__name__)
LOCK_FILE = ".learning.lock"
POINTER_LOCK_FILE = ".pointer.lock"


@dataclass(frozen=True)
class Serving:
    """What `CURRENT` names and where it comes from; empty texts where no version is chosen.

    Args:
        current: name of the version in use.
        base: name of the trained version that it goes back to.
        base_sha256: of that one's checksum list, and so of everything in it.
    """

    current: str
    base: str
    base_sha256: str


@contextmanager
def learning_lock(root: Path) -> Iterator[None]:
    """Keep every other process from training and recovering under `root`; it is held as long as a training takes.

    Raises:
        ConflictError: another one is at it.
    """
    with ExitStack() as held:
        try:
            held.enter_context(locked(root / LOCK_FILE, wait=False))
        except BlockingIOError as error:
            raise ConflictError("Another training is going on.") from error
        yield


def pointer_lock(root: Path) -> AbstractContextManager[None]:
    """Wait until nobody else moves `CURRENT`, and keep others from it; for moments only, and not within itself."""
    return locked(root / POINTER_LOCK_FILE)


def next_name(root: Path, base: str) -> str:
    """A free name for a candidate: that of the base, `-r` and a number."""
    pattern = re.compile(re.escape(base) + r"-r(\d+)$")
    taken = [int(found[1]) for path in root.iterdir() if (found := pattern.match(path.name))]
    return f"{base}-r{max(taken, default=0) + 1:04d}"


def _number(name: str) -> tuple[int, str]:
    """What candidates of one base are ordered by."""
    digits = name.rpartition("-r")[2]
    return int(digits) if digits.isdecimal() else 0, name


def serving(root: Path) -> Serving:
    """What is served now; nothing is verified.

    Raises:
        WeightsError: the card of the version in use or the list of its base is damaged or missing.
    """
    try:
        current = current_name(root)
    except WeightsMissingError:
        return Serving("", "", "")
    base = base_name(root, current)
    listing = root / base / CHECKSUMS
    if not listing.is_file():
        raise WeightsMissingError(f"{root.name}/{base}/{CHECKSUMS} is missing.")
    return Serving(current, base, file_sha256(listing))


def publish_candidate(root: Path, name: str, base: Version, remembered: Arrays, training: Mapping[str, Any]) -> Version:
    """Write a candidate as an immutable version: what it remembers anew, everything else as in the base.

    Args:
        name: from `next_name`.
        training: its entry for the history; it goes into the card too, so that the line can be written again.
    """
    files = (GATE_FILE, SPEECH_FILE, SPEECH_HEAD_FILE, *(f"{e}.safetensors" for e in base.experts))
    kept = {file: base.folder / file for file in files if (base.folder / file).is_file()}
    card = {k: v for k, v in base.card.items() if k not in ("validation", "selftest")}
    # the figures of the base's scorecard are not the candidate's; its own ones are those of the golden set
    card |= {"name": name, "learning": {"base": base.name, "training": dict(training)}}
    calibration = read_document(base.folder / CALIBRATION_FILE)
    documents = {"calibration": calibration, "card": card}
    return publish_version(root, name, {REMEMBERED: remembered}, documents, kept, link=True)


def rollback(root: Path, history: Path, to: str | None = None) -> Version:
    """Serve an earlier version again; nothing is computed and nothing is deleted, so its scores are what they were.

    Args:
        to: name of a version; None for the one that was served before the present one.

    Raises:
        ConflictError: there is none before it, the gate rejected it, or it is served already.
        WeightsError: it is not there or damaged.
    """
    with pointer_lock(root):
        current = current_name(root)
        target = to or _served_before(root, history, current)
        if target == current:
            raise ConflictError(f"Version {current} is the one in use.")
        return activate(root, target, history, "rollback")


def activate(root: Path, name: str, history: Path, why: str) -> Version:
    """Point `CURRENT` at a version and write the line of it; the caller holds `pointer_lock`.

    Raises:
        ConflictError: the gate rejected it.
        WeightsError: it is not there or damaged; `CURRENT` is then as it was.
    """
    version = verify_version(root, name)
    training = version.card.get("learning", {}).get("training", {})
    if version.card.get("learning") and not training.get("promoted"):
        raise ConflictError(f"Version {name} was rejected: {training.get('reason', 'it has no verdict')}")
    try:
        before = current_name(root)
    except WeightsMissingError:
        before = ""
    set_current(root, name)
    append_training(history, {"event": "activation", "why": why, "from": before, "to": name})
    return version


def _served_before(root: Path, history: Path, current: str) -> str:
    for entry in reversed(read_history(history).entries):
        if entry["event"] == "activation" and entry.get("to") == current and entry.get("from"):
            return str(entry["from"])
    learned = read_document(root / current / CARD_FILE).get("learning", {})
    before = learned.get("training", {}).get("parent") or learned.get("base")
    if not before:
        raise ConflictError(f"Version {current} learned from nothing before it, so there is nothing to go back to.")
    return str(before)


def prune_rejected(root: Path, keep: int) -> tuple[str, ...]:
    """Delete all but the newest candidates that the golden sets rejected; their lines in the history stay.

    Args:
        keep: how many stay of each base, 1 or more: names are numbered on from the newest, so that none is given twice.

    Returns:
        The names of those that are gone.
    """
    with pointer_lock(root):
        current = serving(root).current
        rejected: dict[str, list[str]] = {}
        for name in list_versions(root):
            training = read_document(root / name / CARD_FILE).get("learning", {}).get("training")
            if training and not training.get("promoted") and name != current:
                rejected.setdefault(str(training.get("base", "")), []).append(name)
        gone = tuple(name for names in rejected.values() for name in sorted(names, key=_number)[: -max(keep, 1)])
        for name in gone:
            (root / name).rename(root / f".{name}.tmp")  # whole or gone; a crash in between leaves it to `recover`
            shutil.rmtree(root / f".{name}.tmp")
    return gone


def recover(root: Path, history: Path) -> tuple[str, ...]:
    """Put right what a crash left between two steps; does nothing where nothing is wrong.

    Scratch folders go away; a version whose line in the history is missing gets it from its card; a promotion that was
    decided and not done is done; a pointer that moved without its line gets the line.

    Returns:
        One sentence per repair.

    Raises:
        ConflictError: a training is going on.
    """
    with learning_lock(root):
        return recover_locked(root, history)


def recover_locked(root: Path, history: Path) -> tuple[str, ...]:
    """As `recover`, for a caller that holds `learning_lock`."""
    done: list[str] = []
    with pointer_lock(root):
        done += [f"Removed {name}, which an interrupted training left." for name in remove_scratch(root)]
        known = {e.get("version") for e in read_history(history).entries if e["event"] == "training"}
        for name in list_versions(root):
            training = read_document(root / name / CARD_FILE).get("learning", {}).get("training")
            if training and name not in known:
                append_training(history, {**training, "recovered": True})
                done.append(f"Wrote the line of {name}, which an interrupted training had left out.")
        done += _finish_activation(root, history)
    for sentence in done:
        log.warning(sentence)
    return tuple(done)


def _finish_activation(root: Path, history: Path) -> list[str]:
    entries = read_history(history).entries
    try:
        current = current_name(root)
    except WeightsMissingError:
        return []  # nothing is served and nothing was
    last = entries[-1] if entries else {}
    if last.get("event") == "training" and last.get("promoted") and last.get("parent") == current:
        try:
            activate(root, str(last["version"]), history, "promotion")
        except WeightsError as error:  # it was damaged since; the one in use goes on
            return [f"The promotion of {last['version']} cannot be finished: {error.detail}"]
        return [f"Finished the promotion of {last['version']}."]
    activations = [e for e in entries if e["event"] == "activation"]
    before = str(activations[-1]["to"]) if activations else verify_version(root, current).base
    if before != current:
        append_training(history, {"event": "activation", "why": "found", "from": before, "to": current})
        return [f"Wrote the line of the change from {before} to {current}."]
    return []
