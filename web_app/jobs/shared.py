"""What each process of a server works with, and what many machines have in common: versions, history, keys.

Small files (which version serves, the training history, secret, keys of reports) are rows of the table `shared`, each
with a number that grows; versions lie in the bucket, every file once, under its hash. Each process looks at the rows
every two seconds and brings its own folder up to them. Who changes versions (a training, a rollback) does so between
`acting` and its end: it begins with what is shared, works on its own folder as on one machine, and what it did is
published in one transaction, unless somebody else was faster: so the history has one order and its chain no branch.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from utils import weights
from utils.base_weights import require_file
from utils.config import Settings
from utils.errors import ConflictError, TelltaleError, WeightsCorruptError, WeightsError
from utils.files import file_sha256, replace_file
from utils.log import get_logger
from web_app.db.models import SharedRow
from web_app.db.session import Database
from web_app.jobs.queue import JobQueue
from web_app.paths import InstancePaths
from web_app.storage.bucket import Bucket, BucketStore, open_store
from web_app.storage.files import MediaStore

LOOK_S = 2.0
WEIGHTS, VERSIONS = "weights/", "versions/"  # keys of the bucket

log = get_logger(__name__)


class _Place(NamedTuple):
    """Versions of faces or of speech, with their history; `of` begins the names of what is shared of them."""

    root: Path
    history: Path
    of: str = ""

    @property
    def pointer(self) -> str:
        return self.of + weights.CURRENT

    @property
    def versions(self) -> str:
        return self.of + VERSIONS


class Shared:
    """What this machine has in common with others; on one machine everything here does nothing, or `make` alone."""

    def __init__(self, settings: Settings, paths: InstancePaths, database: Database, store: MediaStore) -> None:
        self._pinned = bool(settings.weights.version)
        root = weights.weights_root(settings)
        self._places = [
            _Place(root, paths.training_history),
            _Place(root / weights.SPEECH_FOLDER, paths.speech_history, "speech/"),
        ]
        self._database = database
        self._bucket = store.bucket if isinstance(store, BucketStore) else None
        histories = (place.history for place in self._places)
        self._small = {path.name: path for path in (*histories, paths.report_keys)}
        self._seen: dict[str, int] = {}
        self._look_at = 0.0
        self._lock = threading.RLock()

    @property
    def on(self) -> bool:
        """Whether there are other machines."""
        return self._bucket is not None

    def once(self, path: Path, make: Callable[[], object]) -> None:
        """Have a small file that all machines have alike: the shared one, or what `make` writes and is shared then."""
        if not self.on:
            make()
            return
        with self._database.write() as session:
            row = session.get(SharedRow, path.name)
            if row is not None:
                replace_file(path, row.content, mode=0o600)
                return
            make()
            _store(session, path.name, path.read_bytes())

    def again(self, path: Path) -> None:
        """Share the present content of a small file."""
        if self.on:
            with self._database.write() as session:
                _store(session, path.name, path.read_bytes())

    def follow(self) -> None:
        """Bring the folders of this machine up to what is shared, at most every two seconds; trouble is only logged."""
        if not self.on or time.monotonic() < self._look_at or not self._lock.acquire(blocking=False):
            return  # who is `acting` here has the lock
        try:
            self._look_at = time.monotonic() + LOOK_S
            self._take_over()
        except (TelltaleError, OSError, SQLAlchemyError) as error:
            log.warning(
                "what other machines have changed cannot be taken over yet: %s",
                error if isinstance(error, TelltaleError) else type(error).__name__,
            )
        finally:
            self._lock.release()

    @contextlib.contextmanager
    def acting(self) -> Iterator[None]:
        """Change versions and history of this machine, and have all others follow at the block's end.

        Raises:
            ConflictError: another machine has changed them meanwhile; this one follows it at its next look.
            BucketAwayError: nothing was changed, or nobody knows of it yet: it is published with the next change.
        """
        if not self.on:
            yield
            return
        with self._lock:
            self._seen = {}
            self._take_over()
            try:
                yield
            finally:
                self._publish()

    def _take_over(self) -> None:
        with self._database.read() as session:
            numbers = dict(session.execute(sa.select(SharedRow.name, SharedRow.number)).all())
            changed = [name for name in numbers if numbers[name] != self._seen.get(name)]
            rows = {row.name: row for row in session.scalars(sa.select(SharedRow).where(SharedRow.name.in_(changed)))}
        for name, row in rows.items():
            if name in self._small:
                replace_file(self._small[name], row.content, mode=0o600)
        for place in self._places:
            if place.pointer in rows and self._bucket is not None and not self._pinned:
                self._follow_place(self._bucket, place, rows[place.pointer].content)
        self._seen |= {name: row.number for name, row in rows.items()}

    def _follow_place(self, bucket: Bucket, place: _Place, pointer: bytes) -> None:
        there = {key.removeprefix(place.versions) for key, _ in bucket.keys(place.versions)}
        for name in there - set(weights.list_versions(place.root)):
            self._fetch(bucket, place, name)
        chosen, sha256 = pointer.decode().split()
        if file_sha256(place.root / chosen / weights.CHECKSUMS) != sha256:  # two machines have learned, each by itself
            raise WeightsCorruptError(f"The version {chosen} of this machine is another one than is shared.")
        if not (place.root / weights.CURRENT).is_file() or weights.current_name(place.root) != chosen:
            weights.set_current(place.root, chosen)
            log.info("version %s is chosen", chosen)

    def _publish(self) -> None:
        own = {place: place.history.read_bytes() if place.history.exists() else b"" for place in self._places}
        chosen = {place: self._send_all(place) for place in self._places}
        with self._database.write() as session:
            for place, content in own.items():
                row = session.get(SharedRow, place.history.name)
                if row is not None and not content.startswith(row.content):
                    raise ConflictError("Another machine has changed the versions meanwhile; ask again.")
                _store(session, place.history.name, content)
                if chosen[place]:
                    _store(session, place.pointer, chosen[place])

    def _send_all(self, place: _Place) -> bytes:
        """Send what others may choose; gives name and checksum of the version in use, nothing without one."""
        for name in weights.list_versions(place.root):
            learned = weights.read_document(place.root / name / weights.CARD_FILE).get("learning", {})
            rejected = learned and not learned.get("training", {}).get("promoted")  # which nobody can choose
            if self._bucket is not None and not rejected:
                try:
                    self._send(self._bucket, place, name)
                except WeightsError as error:
                    log.error("version %s stays here: %s", name, error)
        with contextlib.suppress(WeightsError):
            version = weights.verify_version(place.root, weights.current_name(place.root))
            return f"{version.name} {version.sha256}".encode()
        return b""

    def _send(self, bucket: Bucket, place: _Place, name: str) -> None:
        """Send the files of a version that the bucket has not, and then the list that names them."""
        if bucket.size(place.versions + name) is not None:
            return
        folder = weights.verify_version(place.root, name).folder
        for file_name, sha256 in weights.read_document(folder / weights.CHECKSUMS).items():
            if bucket.size(WEIGHTS + sha256) is None:
                bucket.put(folder / file_name, WEIGHTS + sha256)
        bucket.put(folder / weights.CHECKSUMS, place.versions + name)

    def _fetch(self, bucket: Bucket, place: _Place, name: str) -> None:
        """Bring a version here, whole and verified or not at all; files that another version has are linked."""
        have = {
            sha256: place.root / other / file_name
            for other in weights.list_versions(place.root)
            for file_name, sha256 in weights.read_document(place.root / other / weights.CHECKSUMS).items()
        }
        scratch = place.root / f".{name}.{os.getpid()}.coming"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        try:
            bucket.get(place.versions + name, scratch / weights.CHECKSUMS)
            for untrusted_name, sha256 in weights.read_document(scratch / weights.CHECKSUMS).items():
                target = scratch / Path(untrusted_name).name
                if sha256 in have:
                    os.link(have[sha256], target)
                else:
                    bucket.get(WEIGHTS + sha256, target)
                require_file(target, sha256)
            with contextlib.suppress(OSError):  # another process of this machine was faster
                scratch.rename(place.root / name)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _store(session: Session, name: str, content: bytes) -> None:
    row = session.get(SharedRow, name)
    if row is None:
        session.add(SharedRow(name=name, number=1, content=content))
    elif row.content != content:
        row.number, row.content = row.number + 1, content


@dataclass(frozen=True)
class Instance:
    """The settings of a process, and what they name; `close` gives the database connections back."""

    settings: Settings
    paths: InstancePaths
    database: Database
    store: MediaStore
    queue: JobQueue
    shared: Shared

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """By the settings alone: nothing is created, and nothing is asked of the database yet."""
        database = Database.of(settings)
        paths, store = InstancePaths.of(settings), open_store(settings)
        shared = Shared(settings, paths, database, store)
        return cls(settings, paths, database, store, JobQueue(database, settings.jobs), shared)

    def close(self) -> None:
        self.database.close()
