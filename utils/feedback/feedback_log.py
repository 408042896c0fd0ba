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
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from utils.files import DamagedLine, append_line, read_lines
from utils.types import Outcome

SCHEMA_VERSION = 2
READABLE_VERSIONS = (1, 2)
DECISION = "decision"
"""`kind` of a moderator's line; lines of users have none."""

JUDGEMENTS = ("correct", "incorrect")
LABELS = (Outcome.REAL.value, Outcome.FAKE.value)
CATEGORIES = ("false_alarm", "miss", "confirmation", "other")
DECISIONS = ("accept", "reject")
MAX_NOTE_CHARACTERS = 1000

Judgement = Literal["correct", "incorrect"]
Label = Literal["real", "fake"]
Category = Literal["false_alarm", "miss", "confirmation", "other"]
Decision = Literal["accept", "reject"]


@dataclass(frozen=True, kw_only=True)
class FeedbackEntry:
    """One judgement about one analysis, or its withdrawal.

    Args:
        time: when it was given, with zone.
        detection_id: public id of the analysis.
        client_id: id of who gave it: of a key (`key:` and its public part), or anonymous.
        media_sha256: of the analysed file.
        model_version: that made the verdict.
        prediction: the verdict that was shown, as in `Outcome`.
        fake_probability: the calibrated probability that was shown, 0..1; None exactly when no face was found.
        judgement: `correct` or `incorrect`.
        actual: what the medium really is according to the user, `real` or `fake`.
        category: `false_alarm`, `miss`, `confirmation` or `other`.
        note: free text of at most 1,000 characters, or None.
        face_labels: what single people in the medium really are, `real` or `fake` by the number of the face.
        trusted: the user had the right to moderate when saying it.
        withdrawn: the user's word about this medium no longer counts; the other values repeat what it was.
    """

    time: dt.datetime
    detection_id: str
    client_id: str
    media_sha256: str
    model_version: str
    prediction: str
    fake_probability: float | None
    judgement: str
    actual: str
    category: str
    note: str | None = None
    face_labels: Mapping[int, str] = field(default_factory=dict)
    trusted: bool = False
    withdrawn: bool = False

    def __post_init__(self) -> None:
        if self.time.tzinfo is None:
            raise ValueError("time must have a zone")
        if self.prediction not in tuple(Outcome):
            raise ValueError(f"prediction is unknown: {self.prediction}")
        if (self.fake_probability is None) == Outcome(self.prediction).judged:
            raise ValueError(f"fake_probability does not fit {self.prediction}: {self.fake_probability}")
        if self.fake_probability is not None and not 0.0 <= self.fake_probability <= 1.0:
            raise ValueError(f"fake_probability must lie in 0..1: {self.fake_probability}")
        if any(label not in LABELS for label in self.face_labels.values()):
            raise ValueError(f"face_labels must be {' or '.join(LABELS)}: {dict(self.face_labels)}")
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
        return _line(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, plain: Any) -> FeedbackEntry:
        """The entry of a parsed line.

        Raises:
            ValueError: the line is of another schema, lacks a field, has an unknown one or a value of the wrong kind.
        """
        values = _values(cls, plain)
        texts = {"detection_id", "client_id", "media_sha256", "model_version", "prediction", "judgement", "actual"}
        _require_texts(values, texts | {"category"})
        if "fake_probability" not in values or not isinstance(values["fake_probability"], (int, float, type(None))):
            raise ValueError("fake_probability is missing or no number")
        if not isinstance(values.get("note"), (str, type(None))):
            raise ValueError("note is no text")
        if not all(isinstance(values.get(name, False), bool) for name in ("trusted", "withdrawn")):
            raise ValueError("trusted or withdrawn is not true or false")
        labels = values.get("face_labels", {})
        if not isinstance(labels, dict):
            raise ValueError("face_labels is no object")
        values["face_labels"] = {int(face): label for face, label in labels.items()}
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class DecisionEntry:
    """A moderator's word about one medium; the last one stands.

    Args:
        time: when, with zone.
        media_sha256: of the file.
        moderator_id: who decided.
        decision: `accept` or `reject`.
        label: of the votes that it is about; None for all of them, which only `reject` may be.
        note: why, for other moderators, or None.
    """

    time: dt.datetime
    media_sha256: str
    moderator_id: str
    decision: str
    label: str | None
    note: str | None = None

    def __post_init__(self) -> None:
        if self.time.tzinfo is None:
            raise ValueError("time must have a zone")
        if self.decision not in DECISIONS:
            raise ValueError(f"decision must be one of {', '.join(DECISIONS)}: {self.decision}")
        if self.label not in (*LABELS, *((None,) if self.decision == "reject" else ())):
            raise ValueError(f"label does not fit {self.decision}: {self.label}")

    def to_line(self) -> bytes:
        """The entry as one line of JSON with its line feed."""
        return _line({"kind": DECISION, **dataclasses.asdict(self)})

    @classmethod
    def from_dict(cls, plain: Any) -> DecisionEntry:
        """The entry of a parsed line.

        Raises:
            ValueError: see `FeedbackEntry.from_dict`.
        """
        values = _values(cls, {key: value for key, value in plain.items() if key != "kind"})
        _require_texts(values, {"media_sha256", "moderator_id", "decision"})
        return cls(**{"label": None, **values})


def _line(plain: dict[str, Any]) -> bytes:
    plain = {"schema_version": SCHEMA_VERSION, **plain, "time": plain["time"].astimezone(dt.UTC).isoformat()}
    return json.dumps(plain, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace") + b"\n"


def _values(cls: type, plain: Any) -> dict[str, Any]:
    """The fields of a parsed line, its time parsed, none of them unknown."""
    if not isinstance(plain, dict):
        raise ValueError("the line is no JSON object")
    values = dict(plain)
    if values.pop("schema_version", None) not in READABLE_VERSIONS:
        raise ValueError(f"schema_version is none of {', '.join(map(str, READABLE_VERSIONS))}")
    if unexpected := set(values) - {each.name for each in dataclasses.fields(cls)}:
        raise ValueError(f"unknown fields: {', '.join(sorted(unexpected))}")
    _require_texts(values, {"time"})
    values["time"] = dt.datetime.fromisoformat(values["time"])
    return values


def _require_texts(values: dict[str, Any], names: set[str]) -> None:
    if wrong := sorted(name for name in names if not isinstance(values.get(name), str)):
        raise ValueError(f"missing or no text: {', '.join(wrong)}")


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


def _parse(plain: Any) -> FeedbackEntry | DecisionEntry:
    of_moderator = isinstance(plain, dict) and plain.get("kind") == DECISION
    return DecisionEntry.from_dict(plain) if of_moderator else FeedbackEntry.from_dict(plain)
