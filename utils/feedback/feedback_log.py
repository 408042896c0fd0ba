"""`feedback_log.jsonl`: one line per judgement of a user, on the disk before the user is thanked.

The log is the truth about feedback; the database's rows can be made again from it. It is append-only: a user who
changes their mind, or takes their word back, adds a line; so does a moderator who decides. Each line is written by one
`write` under a lock and brought to the disk. A line that a crash has torn is skipped and reported by the reader, and
the next line starts on a line of its own. Lines of schema 1 (no withdrawals, no labels per face, no decisions) are
still read.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from utils.files import DamagedLine, append_line, read_lines
from utils.types import Outcome

SCHEMA_VERSION = 2
READABLE_VERSIONS = (1, 2)
DECISION = "decision"
"""`kind` of a moderator's line; lines of users have none."""

MAX_NOTE_CHARACTERS = 1000
STRICT = pydantic.ConfigDict(strict=True, extra="forbid")

Judgement = Literal["correct", "incorrect"]
Label = Literal["real", "fake"]
Category = Literal["false_alarm", "miss", "confirmation", "other"]
Decision = Literal["accept", "reject"]


def _short(note: str) -> str:
    if len(note) > MAX_NOTE_CHARACTERS:
        raise ValueError(f"a note has at most {MAX_NOTE_CHARACTERS} characters")
    return note


Note = Annotated[str, pydantic.AfterValidator(_short)]
"""Free text, also with half a surrogate pair, which the limit of length that pydantic has would refuse."""


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)
class FeedbackEntry:
    """One judgement about one analysis, or its withdrawal.

    Args:
        time: when it was given.
        detection_id: public id of the analysis.
        client_id: id of who gave it: of a key (`key:` and its public part), or anonymous.
        media_sha256: of the analysed file.
        model_version: that made the verdict.
        prediction: the verdict that was shown, as in `Outcome`.
        fake_probability: the calibrated probability that was shown; None exactly when no face was found.
        actual: what the medium really is according to the user.
        face_labels: what single people in the medium really are, by the number of the face.
        trusted: the user had the right to moderate when saying it.
        withdrawn: the user's word about this medium no longer counts; the other values repeat what it was.
    """

    time: pydantic.AwareDatetime
    detection_id: str
    client_id: str
    media_sha256: str
    model_version: str
    prediction: str
    fake_probability: Annotated[float, pydantic.Field(ge=0, le=1)] | None
    judgement: Judgement
    actual: Label
    category: Category
    note: Note | None = None
    face_labels: dict[int, Label] = field(default_factory=dict)
    trusted: bool = False
    withdrawn: bool = False

    def __post_init__(self) -> None:
        if self.prediction not in tuple(Outcome):
            raise ValueError(f"prediction is unknown: {self.prediction}")
        if (self.fake_probability is None) == Outcome(self.prediction).judged:
            raise ValueError(f"fake_probability does not fit {self.prediction}: {self.fake_probability}")

    def to_line(self) -> bytes:
        """The entry as one line of JSON with its line feed."""
        return _line(dataclasses.asdict(self))


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)
class DecisionEntry:
    """A moderator's word about one medium; the last one stands.

    Args:
        time: when.
        media_sha256: of the file.
        moderator_id: who decided.
        label: of the votes that it is about; None for all of them, which only `reject` may be.
        note: why, for other moderators, or None.
    """

    time: pydantic.AwareDatetime
    media_sha256: str
    moderator_id: str
    decision: Decision
    label: Label | None = None
    note: Note | None = None

    def __post_init__(self) -> None:
        if self.label is None and self.decision != "reject":
            raise ValueError(f"label does not fit {self.decision}: None")

    def to_line(self) -> bytes:
        """The entry as one line of JSON with its line feed."""
        return _line({"kind": DECISION, **dataclasses.asdict(self)})


def _line(plain: dict[str, Any]) -> bytes:
    plain = {"schema_version": SCHEMA_VERSION, **plain, "time": plain["time"].astimezone(dt.UTC).isoformat()}
    return json.dumps(plain, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace") + b"\n"


def _parse(plain: Any) -> FeedbackEntry | DecisionEntry:
    """The entry of a parsed line; ValueError where its schema is another, or a field lacks, is unknown or is wrong."""
    if not isinstance(plain, dict):
        raise ValueError("the line is no JSON object")
    values = dict(plain)
    if values.pop("schema_version", None) not in READABLE_VERSIONS:
        raise ValueError(f"schema_version is none of {', '.join(map(str, READABLE_VERSIONS))}")
    kind = DecisionEntry if values.get("kind") == DECISION else FeedbackEntry
    if kind is DecisionEntry:
        del values["kind"]
    values["time"] = dt.datetime.fromisoformat(str(values.get("time")))
    if isinstance(labels := values.get("face_labels"), dict):
        values["face_labels"] = {int(face): label for face, label in labels.items()}
    try:
        return kind(**values)
    except pydantic.ValidationError as error:
        # without what stands there: a note is the user's own
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        raise ValueError("; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults)) from None


@dataclass(frozen=True)
class FeedbackLog:
    """What a log holds: the readable entries in the order of writing, and the lines that were skipped."""

    entries: tuple[FeedbackEntry, ...]
    damaged: tuple[DamagedLine, ...]
    decisions: tuple[DecisionEntry, ...] = ()

    def standing(self) -> dict[tuple[str, str], FeedbackEntry]:
        """The last word of each user about each medium, by sha256 and user; withdrawn ones are left out."""
        last = {(entry.media_sha256, entry.client_id): entry for entry in self.entries}
        return {key: entry for key, entry in last.items() if not entry.withdrawn}

    def withdrawn(self) -> set[tuple[str, str]]:
        """Media and users whose last word about them was to take it back."""
        last = {(entry.media_sha256, entry.client_id): entry for entry in self.entries}
        return {key for key, entry in last.items() if entry.withdrawn}

    def standing_decisions(self) -> dict[str, DecisionEntry]:
        """The last decision about each medium, by sha256."""
        return {entry.media_sha256: entry for entry in self.decisions}


def append_feedback(path: Path, entry: FeedbackEntry | DecisionEntry) -> None:
    """Write one entry behind the others; see `append_line`."""
    append_line(path, entry.to_line)


def read_feedback_log(path: Path) -> FeedbackLog:
    """Read a log, skipping and reporting what is damaged; a log that does not exist is empty.

    Raises:
        OSError: the file exists and cannot be read.
    """
    lines, damaged = read_lines(path, _parse)
    entries = tuple(line for line in lines if isinstance(line, FeedbackEntry))
    decisions = tuple(line for line in lines if isinstance(line, DecisionEntry))
    return FeedbackLog(entries, tuple(damaged), decisions)
