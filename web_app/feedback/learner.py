"""What the learning asks of the networks; tests put another in its place.

What an analysis gives to learn from is kept for a while; media of before are looked at with what the worker has loaded.
A training, and the verdicts of a version on all corrections, run in a process of their own with one thread: the
worker's memory stays what the analyses need, they get the processor first, and whatever goes wrong in a training ends
with its process. It ends with the worker, too; what it was doing is then put right as after any crash.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.config import Settings
from utils.errors import TelltaleError, TrainingDataError, error_of
from utils.feedback.quarantine import VOICE, LearningItem
from utils.feedback.versions import prune_rejected
from utils.log import configure_logging, get_logger
from utils.types import MediaKind
from utils.weights import current_speech, current_version, verify_version, weights_root
from web_app.paths import branches

if TYPE_CHECKING:
    from utils.detection.people import People
    from utils.detection.pipeline import Scores
    from utils.feedback.cached_judge import Said
    from utils.feedback.items import Part, Prepared
    from utils.types import Media, Report
    from web_app.feedback.model_handle import ModelHandle

Progress = Callable[[str, float], None]
Task = Callable[..., Any]
LOOK_S = 0.2
"""The worker looks so often whether the job was cancelled or it shall end itself."""
NICE = 19
"""How much later than the analyses the system lets the learning run."""
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
AT_ONCE = 64
"""Analyses that run at the same time, at most."""
KEPT_BYTES = 32_000_000
"""Of features of the last analyses: of some 2,000 photos."""
KEPT_REJECTED = 5
"""Candidates that the golden sets rejected are deleted beyond so many, the oldest first."""

log = get_logger(__name__)


class Learner:
    def __init__(self, settings: Settings, served: ModelHandle) -> None:
        self._settings, self._served = settings, served
        self._root = weights_root(settings)
        self._log = settings.server.log_level, settings.server.log_format
        self._fingerprint = ("", "")
        self._kept: OrderedDict[Path, tuple[str, Prepared]] = OrderedDict()
        self._bytes = 0  # of all that is kept
        self._hashes: OrderedDict[Path, list[int]] = OrderedDict()

    def keep_hash(self, path: Path, media: Media) -> None:
        """Note the perceptual hash of a file that is being analysed."""
        from utils.feedback.items import hash_of

        self._hashes[path] = hash_of(media)
        if len(self._hashes) > AT_ONCE:
            self._hashes.popitem(last=False)  # of an analysis that failed

    def keep(self, path: Path, people: People, scores: Scores, report: Report) -> None:
        """Keep what an analysis gives to learn from, in memory, so that a vote on it costs no second analysis."""
        from utils.feedback.items import prepared

        if report.media.kind is MediaKind.AUDIO:
            return
        phash, experts = next(iter(self._hashes.pop(path, ())), None), self.fingerprint()
        self._forget(path)
        found = prepared(people, scores, report, phash, self._served.analyser.engine, experts)
        self._kept[path], self._bytes = (experts, found), self._bytes + _size(found)
        while self._bytes > KEPT_BYTES:
            self._forget(next(iter(self._kept)))

    def look(self, path: Path, faces: Sequence[Part]) -> Prepared:
        """Look at faces of a file: by their numbers in the report, None for the deciding one; or at its `VOICE`."""
        from utils.feedback.items import chosen, prepare_faces, prepare_voice

        if VOICE in faces:
            return prepare_voice(path, self._served.analyser)
        experts, found = self._forget(path)
        if found is not None and experts == self.fingerprint():
            return chosen(found, faces)
        return prepare_faces(path, self._served.analyser, faces, self.fingerprint())

    def _forget(self, path: Path) -> tuple[str, Prepared | None]:
        experts, found = self._kept.pop(path, ("", None))
        self._bytes -= 0 if found is None else _size(found)
        return experts, found

    def fingerprint(self) -> str:
        """Of the networks that look; features of others are made anew while the file is there."""
        from utils.weights import frozen_fingerprint

        analyser = self._served.analyser
        networks = analyser.networks or analyser.version
        if networks != self._fingerprint[0]:
            self._fingerprint = (networks, frozen_fingerprint(verify_version(self._root, analyser.version)))
        return self._fingerprint[1]

    def voice_fingerprint(self) -> str:
        """As `fingerprint`, of the network that listens; empty without one."""
        from utils.weights import frozen_fingerprint

        speech = self._served.analyser.speech
        return "" if speech is None else frozen_fingerprint(speech.version)

    def is_whole(self, features: Path) -> bool:
        """Whether a file of features can be learned from."""
        from utils.feedback.feature_set import CachedItem

        try:
            CachedItem.load(features).as_features(label=0, source="", key="")
        except (TrainingDataError, ValueError):
            return False
        return True

    def train(
        self, items: Sequence[LearningItem], progress: Progress, job: str, digest: str, voices: bool = False
    ) -> dict[str, Any]:
        """Train a candidate and put it to the golden sets.

        Args:
            voices: of the network of speech.
            job: public id; a second attempt of it gives what the first one brought about.

        Returns:
            The line of the history, which names job and digest; `version` and `promoted` at least.
        """
        _, root, history, golden = branches(self._settings)[voices]
        outcome: dict[str, Any] = call(
            train, progress, self._log, items=items, root=root, history=history, own_golden=golden, job=job,
            digest=digest,
        )  # fmt: skip
        for name in prune_rejected(root, KEPT_REJECTED):
            log.info("the rejected candidate %s is deleted", name)
        return outcome

    def check(self, items: Sequence[LearningItem], progress: Progress) -> tuple[str, list[Said]]:
        """The version in use, and what it says of accepted items."""
        version, speech = current_version(self._settings) or "", current_speech(self._settings)
        return version, call(check, progress, self._log, items=items, root=self._root, name=version, speech=speech)


def _size(prepared: Prepared) -> int:
    """Bytes that it takes, about; a medium without a face takes some, too."""
    own = (item for face, item in prepared.faces.items() if face is not None)
    return 1000 + sum(item.tokens.nbytes for item in own if not isinstance(item, str))


def call(task: Task, progress: Progress, log: tuple[str, str], **values: Any) -> Any:
    """Run a task in a process of its own; what `progress` raises ends it.

    Args:
        progress: told the stage and how much of it is done, 0..1.
        values: what is handed on; it is pickled, as is the result.

    Returns:
        What the task returned.

    Raises:
        TelltaleError: what the task raised, or that its process ended without a result.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(task, there, log, NICE, values), daemon=True)
    with one_thread():
        process.start()
    there.close()
    said: tuple[Any, ...] = ("progress", "start", 0.0)
    try:
        while said[0] == "progress":
            progress(*said[1:])
            if here.poll(LOOK_S):
                said = here.recv()
    except EOFError as error:
        process.join()
        raise TelltaleError(f"The learning process ended with code {process.exitcode}, without a result.") from error
    finally:
        process.kill()
        process.join()
        here.close()
    if said[0] == "error":
        raise error_of(*said[1:])
    return said[1]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Processes that are started in here compute with one thread."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _work(task: Task, worker: Connection, log: tuple[str, str], nice: int, values: dict[str, Any]) -> None:
    os.nice(nice)
    configure_logging(*log)
    threading.Thread(target=_end_with_worker, daemon=True).start()
    try:
        result = task(progress=lambda stage, done: worker.send(("progress", stage, done)), **values)
    except TelltaleError as error:
        worker.send(("error", error.code, error.detail))
    else:
        worker.send(("result", result))


def _end_with_worker() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def train(**values: Any) -> dict[str, Any]:
    from utils.feedback.retrain import train_version

    return train_version(**values)


def check(progress: Progress, **values: Any) -> list[Any]:
    from utils.feedback.cached_judge import check_items

    return check_items(**values)
