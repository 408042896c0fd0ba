"""Votes: what users say about media. The line of the log is written in the transaction of the row.

One user has one vote per medium. It can be changed and withdrawn; deleting the analysis that it was given on withdraws
it too. Features that were derived from a medium live as long as a vote about it stands.
"""

from __future__ import annotations

import hashlib
import shutil
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import Session

from utils.feedback.feedback_log import DecisionEntry, FeedbackEntry, append_feedback, read_feedback_log
from utils.feedback.quarantine import Status
from utils.files import DamagedLine, replace_file
from utils.types import MediaKind
from web_app.db.models import DetectionRow, FeedbackRow, JobRow, JournalRow, MediaRow, ReviewedMediumRow, utc_now
from web_app.jobs.detections import delete_detection
from web_app.jobs.shared import Instance
from web_app.paths import InstancePaths

NOT_LOOKED_AT = "It waits for its first check. Nothing is learned from it until then."
SAID = (
    "prediction", "fake_probability", "model_version", "judgement", "actual", "category", "note", "trusted",
)  # fmt: skip
"""What a line of the log and a row have in common by name."""


def find_vote(session: Session, media_sha256: str, client_id: str) -> FeedbackRow | None:
    return find_votes(session, {media_sha256}, client_id).get(media_sha256)


def voice_of(media_sha256: str) -> str:
    """What stands for the sound of a video in votes, which are about another medium then: 64 digits, too."""
    return hashlib.sha256(f"voice of {media_sha256}".encode()).hexdigest()


def find_medium(session: Session, media_sha256: str) -> MediaRow | None:
    """The stored file that votes are about; where they are about its sound alone, its own sha256 is another one."""
    medium = session.scalar(sa.select(MediaRow).where(MediaRow.sha256 == media_sha256))
    given_on = sa.select(FeedbackRow.detection_id).where(FeedbackRow.media_sha256 == media_sha256)
    heard = sa.select(MediaRow).join(DetectionRow, DetectionRow.media_id == MediaRow.id)
    return medium or session.scalar(heard.where(DetectionRow.job_id.in_(given_on)).limit(1))


def is_voice(medium: MediaRow | None, media_sha256: str) -> bool:
    """Whether votes under this sha256 are about sound, by the file that `find_medium` gives for them."""
    return medium is not None and (medium.kind == MediaKind.AUDIO or medium.sha256 != media_sha256)


def find_votes(session: Session, media: set[str], client_id: str) -> dict[str, FeedbackRow]:
    """What this user last said about each of some media, by sha256."""
    wanted = sa.select(FeedbackRow).where(FeedbackRow.media_sha256.in_(media), FeedbackRow.client_id == client_id)
    return {vote.media_sha256: vote for vote in session.scalars(wanted)}


def save_vote(instance: Instance, entry: FeedbackEntry) -> FeedbackRow:
    """Bring a vote to the disk and then into the database, where it waits to be looked at.

    Raises:
        OSError: the line could not be written; nothing has changed then.
    """
    with instance.database.write() as session:  # within it, so that lines and rows have the same order
        _log(session, instance, entry)
        return _store(session, entry)


def withdraw_vote(instance: Instance, media_sha256: str, client_id: str) -> bool:
    """Take a vote back; False when there is none. The next training does without it."""
    return _withdraw(instance, FeedbackRow.media_sha256 == media_sha256, FeedbackRow.client_id == client_id) > 0


def delete_analysis(instance: Instance, public_id: str) -> bool:
    """Delete an analysis with the votes that were given on it, and its file if no other needs it; False without one."""
    _withdraw(instance, FeedbackRow.detection_id.in_(sa.select(JobRow.id).where(JobRow.public_id == public_id)))
    return delete_detection(instance.database, instance.store, public_id)


def decide(instance: Instance, entry: DecisionEntry) -> None:
    """Bring a moderator's decision to the disk and then into the database; the worker judges by it.

    Raises:
        OSError: the line could not be written; nothing has changed then.
    """
    with instance.database.write() as session:
        _log(session, instance, entry)
        _store_decision(session, entry)


class Reconciled(NamedTuple):
    """What `reconcile` did: rows added or changed, rows of withdrawn votes, votes that stand, and lines skipped.

    `unlogged` rows are unknown to the log, because somebody has lost lines of it; they are kept.
    """

    written: int
    removed: int
    standing: int
    unlogged: int
    damaged: tuple[DamagedLine, ...]


def reconcile(instance: Instance) -> Reconciled:
    """Make the database's rows again from the log, as far as they differ.

    A crash may have come between a line and the end of its row's transaction, and a database may be lost. The log is
    read while the write lock is held: whatever has a row by then has its line already.
    """
    with instance.database.write() as session:
        _bring_log(session, instance)
        log = read_feedback_log(instance.paths.feedback_log)
        standing = log.standing()
        rows = {(row.media_sha256, row.client_id): row for row in session.scalars(sa.select(FeedbackRow))}
        written = 0
        for key, entry in standing.items():
            row = rows.get(key)
            if row is None or row.created_at != entry.time or any(getattr(row, n) != getattr(entry, n) for n in SAID):
                _store(session, entry)
                written += 1
        withdrawn = log.withdrawn()
        gone = [row for key, row in rows.items() if key in withdrawn]
        unlogged = sum(key not in standing and key not in withdrawn for key in rows)
        for row in gone:
            session.delete(row)
        for decision in log.standing_decisions().values():
            written += _store_decision(session, decision)
        session.flush()
        for media_sha256 in {row.media_sha256 for row in gone}:
            drop_features(session, instance.paths, media_sha256)
    return Reconciled(written, len(gone), len(standing), unlogged, log.damaged)


def _store(session: Session, entry: FeedbackEntry) -> FeedbackRow:
    row = find_vote(session, entry.media_sha256, entry.client_id)
    if row is None:
        row = FeedbackRow(media_sha256=entry.media_sha256, client_id=entry.client_id)
        session.add(row)
    if row.actual != entry.actual:
        row.tried_version = row.learned_version = row.checked_version = row.right_version = None
    for name in SAID:
        setattr(row, name, getattr(entry, name))
    row.face_labels = {str(face): label for face, label in entry.face_labels.items()}
    existing = sa.select(DetectionRow.job_id).join(DetectionRow.job).where(JobRow.public_id == entry.detection_id)
    row.detection_id, row.created_at = session.scalar(existing), entry.time
    row.state, row.reason = Status.WAITING.value, NOT_LOOKED_AT
    medium = session.get(ReviewedMediumRow, entry.media_sha256)
    if medium is None:
        session.add(ReviewedMediumRow(media_sha256=entry.media_sha256))
    elif set(row.face_labels) - set(medium.features or {}):
        medium.examined_at = None  # faces that nobody has looked at yet
    session.flush()
    return row


def _store_decision(session: Session, entry: DecisionEntry) -> bool:
    """Write a decision about a medium; False when it stands there already."""
    row = session.get(ReviewedMediumRow, entry.media_sha256)
    if row is None:
        row = ReviewedMediumRow(media_sha256=entry.media_sha256)
        session.add(row)
    elif row.decided_at == entry.time:
        return False
    row.decision, row.decision_label, row.decision_note = entry.decision, entry.label, entry.note
    row.decided_by, row.decided_at = entry.moderator_id, entry.time
    session.flush()
    return True


def _log(session: Session, instance: Instance, entry: FeedbackEntry | DecisionEntry) -> None:
    """Add a line to the log: to the file, or where machines share no folder to the table that stands for it."""
    if instance.shared.on:
        session.add(JournalRow(line=entry.to_line().decode()))
    else:
        append_feedback(instance.paths.feedback_log, entry)


def _bring_log(session: Session, instance: Instance) -> None:
    """Where a table stands for the log: write it to the file, or read the file of a backup into an empty table."""
    path = instance.paths.feedback_log
    if not instance.shared.on:
        return
    lines = session.scalars(sa.select(JournalRow.line).order_by(JournalRow.id)).all()
    if lines:
        replace_file(path, "".join(lines).encode(), mode=0o600)
    elif path.exists():
        session.add_all(JournalRow(line=f"{line}\n") for line in path.read_text("utf-8", "replace").splitlines())


def _withdraw(instance: Instance, *wanted: sa.ColumnElement[bool]) -> int:
    """Take votes back, with a line for each; returns how many."""
    with instance.database.write() as session:
        rows = session.scalars(sa.select(FeedbackRow).where(*wanted)).all()
        for row in rows:
            given_on = session.get(JobRow, row.detection_id) if row.detection_id is not None else None
            withdrawal = FeedbackEntry(
                time=utc_now(),
                detection_id=given_on.public_id if given_on is not None else "",
                client_id=row.client_id,
                media_sha256=row.media_sha256,
                withdrawn=True,
                **{name: getattr(row, name) for name in SAID if name != "note"},
            )
            _log(session, instance, withdrawal)
            session.delete(row)
        session.flush()
        for media_sha256 in {row.media_sha256 for row in rows}:
            drop_features(session, instance.paths, media_sha256)
    return len(rows)


def drop_features(session: Session, paths: InstancePaths, media_sha256: str) -> bool:
    """Delete what was derived from a medium once no vote about it stands, and say whether that is so; a moderator's
    decision stays.

    This is under the write lock, so that the worker cannot write new ones for a vote of this moment in between.
    """
    if session.scalar(sa.select(FeedbackRow.id).where(FeedbackRow.media_sha256 == media_sha256).limit(1)):
        return False
    medium = session.get(ReviewedMediumRow, media_sha256)
    if medium is not None and medium.decision is None:
        session.delete(medium)
    elif medium is not None:
        medium.features = medium.phash = medium.experts = medium.domain_reason = medium.examined_at = None
    folder = paths.features / media_sha256
    if folder.is_dir():
        shutil.rmtree(folder)
    return True
