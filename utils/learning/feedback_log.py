"""`feedback_log.jsonl`: one line per judgement of a user, on the disk before the user is thanked.

The log is the truth about feedback; the database's rows can be made again from it. It is append-only: a user who
changes their mind adds a line. Each line is written by one `write` under a lock and brought to the disk. A line that a
crash has torn is skipped and reported by the reader, and the next line starts on a line of its own.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from utils.types import Outcome

try:
    import fcntl
except ImportError:  # Windows has no flock; there only one process may write
    fcntl = None  # type: ignore[assignment]

SCHEMA_VERSION = 1
JUDGEMENTS = ("correct", "incorrect")
LABELS = (Outcome.REAL.value, Outcome.FAKE.value)
CATEGORIES = ("false_alarm", "miss", "confirmation", "other")
MAX_NOTE_CHARACTERS = 1000

Judgement = Literal["correct", "incorrect"]
Label = Literal["real", "fake"]
Category = Literal["false_alarm", "miss", "confirmation", "other"]


@dataclass(frozen=True, kw_only=True)
class FeedbackEntry:
    """One judgement about one analysis.

    Args:
        time: when it was given, with zone.
        detection_id: public id of the analysis.
        client_id: anonymous id of who gave it.
        media_sha256: of the analysed file.
        model_version: that made the verdict.
        prediction: the verdict that was shown, as in `Outcome`.
        fake_probability: the calibrated probability that was shown, 0..1.
        judgement: `correct` or `incorrect`.
        actual: what the medium really is according to the user, `real` or `fake`.
        category: `false_alarm`, `miss`, `confirmation` or `other`.
        note: free text of at most 1,000 characters, or None.
    """

    time: dt.datetime
    detection_id: str
    client_id: str
    media_sha256: str
    model_version: str
    prediction: str
    fake_probability: float
    judgement: str
    actual: str
    category: str
    note: str | None = None

    def __post_init__(self) -> None:
        if self.time.tzinfo is None:
            raise ValueError("time must have a zone")
        if self.prediction not in (Outcome.FAKE, Outcome.REAL, Outcome.INCONCLUSIVE):
            raise ValueError(f"prediction takes no feedback: {self.prediction}")
        if not 0.0 <= self.fake_probability <= 1.0:
            raise ValueError(f"fake_probability must lie in 0..1: {self.fake_probability}")
        for name, value, allowed in (
            ("judgement", self.judgement, JUDGEMENTS),
            ("actual", self.actual, LABELS),
            ("category", self.category, CATEGORIES),
        ):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}: {value}")
        if self.note is not None and len(self.note) > MAX_NOTE_CHARACTERS:
            raise ValueError(f"note must have at most {MAX_NOTE_CHARACTERS} characters")

    def to_line(self) -> bytes:
        """The entry as one line of JSON with its line feed."""
        plain = {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self)}
        plain["time"] = self.time.astimezone(dt.UTC).isoformat()
        return json.dumps(plain, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace") + b"\n"

    @classmethod
    def from_dict(cls, plain: Any) -> FeedbackEntry:
        """The entry of a parsed line.

        Raises:
            ValueError: the line is of another schema, lacks a field, has an unknown one or a value of the wrong kind.
        """
        if not isinstance(plain, dict):
            raise ValueError("the line is no JSON object")
        values = dict(plain)
        if values.pop("schema_version", None) != SCHEMA_VERSION:
            raise ValueError(f"schema_version is not {SCHEMA_VERSION}")
        known = {field.name for field in dataclasses.fields(cls)}
        if unexpected := set(values) - known:
            raise ValueError(f"unknown fields: {', '.join(sorted(unexpected))}")
        texts = known - {"fake_probability", "note"}
        if wrong := sorted(name for name in texts if not isinstance(values.get(name), str)):
            raise ValueError(f"missing or no text: {', '.join(wrong)}")
        if not isinstance(values.get("fake_probability"), (int, float)):
            raise ValueError("fake_probability is missing or no number")
        if not isinstance(values.get("note"), (str, type(None))):
            raise ValueError("note is no text")
        values["time"] = dt.datetime.fromisoformat(values["time"])
        return cls(**values)


@dataclass(frozen=True)
class DamagedLine:
    """A line that could not be read: its number, from 1, and why."""

    number: int
    why: str


@dataclass(frozen=True)
class FeedbackLog:
    """What a log holds: the readable entries in the order of writing, and the lines that were skipped."""

    entries: tuple[FeedbackEntry, ...]
    damaged: tuple[DamagedLine, ...]


def append_feedback(path: Path, entry: FeedbackEntry) -> None:
    """Write one entry behind the others; when this returns, the line is on the disk.

    Args:
        path: of the log; it is created if there is none.
        entry: what to write.

    Raises:
        OSError: the line could not be written; the log is then as it was.
    """
    is_new = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        with _locked(descriptor):
            size = os.fstat(descriptor).st_size
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            line = (b"\n" if torn else b"") + entry.to_line()
            try:
                written = os.write(descriptor, line)
                if written != len(line):
                    raise OSError(f"only {written} of {len(line)} bytes could be written to {path.name}")
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, size)
                raise
    finally:
        os.close(descriptor)
    if is_new:
        _fsync_folder(path.parent)


def read_feedback_log(path: Path) -> FeedbackLog:
    """Read a log, skipping and reporting what is damaged; a log that does not exist is empty.

    Args:
        path: of the log.

    Raises:
        OSError: the file exists and cannot be read.
    """
    entries: list[FeedbackEntry] = []
    damaged: list[DamagedLine] = []
    if not path.exists():
        return FeedbackLog((), ())
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                entries.append(FeedbackEntry.from_dict(json.loads(line.decode("utf-8"))))
            except (ValueError, RecursionError) as error:  # JSON and UTF-8 errors are ValueErrors
                damaged.append(DamagedLine(number, str(error)))
    return FeedbackLog(tuple(entries), tuple(damaged))


@contextmanager
def _locked(descriptor: int) -> Iterator[None]:
    """Keep other processes from writing; closing the file ends the lock."""
    if fcntl is not None:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
