"""Store against database, both ways: files without a row, rows without a file, files with other content.

The start of the server removes files that no row has known for a while, which is what a crash between the file and its
row leaves. `python -m web_app.storage.check` looks at everything and repairs on request.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

from utils.errors import MediaUnreadableError
from utils.log import get_logger
from web_app.db.models import DetectionRow, JobRow, JobState, MediaRow, utc_now
from web_app.db.session import Database
from web_app.storage.files import MediaStore

YOUNG_S = 600.0  # a file this young may be an upload whose row is being written
READ_BYTES = 1 << 20

log = get_logger(__name__)


@dataclass(frozen=True)
class Fault:
    """One disagreement: its kind, and the stored name or the sha256 that it is about."""

    kind: str
    name: str
    detail: str


def sweep_without_row(database: Database, store: MediaStore) -> int:
    """Delete files that no row knows, except young ones; returns how many."""
    old = {name for name, status in store.files() if abs(time.time() - status.st_mtime) > YOUNG_S}
    deleted = 0
    for name in _without_row(database, old):
        store.remove(name)
        deleted += 1
    if deleted:
        log.info("deleted %d files that no analysis refers to", deleted)
    return deleted


def find_faults(database: Database, store: MediaStore, *, contents: bool = True) -> Iterator[Fault]:
    """Every disagreement between store and database.

    Args:
        database: where the rows are.
        store: where the files are.
        contents: read every file and compare its hash; without it only names and sizes are compared.
    """
    for path in store.half_files():
        yield Fault("half_file", path.name, "an interrupted upload; the next start deletes it")
    for name in sorted(_without_row(database, {name for name, _ in store.files()})):
        yield Fault("file_without_row", name, "no analysis refers to this file")
    with database.read() as session:
        media = session.scalars(sa.select(MediaRow).order_by(MediaRow.id)).all()
        unused = set(session.scalars(sa.select(MediaRow.id).where(~_is_used())))
    for row in media:
        if row.id in unused:
            yield Fault("row_without_analysis", row.stored_name, "no analysis refers to this medium")
        wrong = _wrong_content(store.path(row.stored_name), row, contents)
        if wrong is not None:
            yield Fault(*wrong)
    for derived in store.derived():
        if not derived.with_suffix("").exists():
            yield Fault("derived_without_file", f"{derived.parent.name}/{derived.name}", "what it was made of is gone")


def repair(database: Database, store: MediaStore, fault: Fault) -> str:
    """Set one disagreement right; returns what was done.

    Files that nobody refers to are deleted. A medium whose file is gone or changed keeps its reports, but analyses of
    it that still wait are ended, and a changed file is moved aside, because it is not what was uploaded.
    """
    if fault.kind in ("file_without_row", "derived_without_file"):
        store.path(fault.name).unlink(missing_ok=True)
        return "deleted"
    if fault.kind == "row_without_analysis":
        with database.write() as session:
            session.execute(sa.delete(MediaRow).where(MediaRow.stored_name == fault.name, ~_is_used()))
        store.remove(fault.name)
        return "deleted"
    if fault.kind == "half_file":
        return f"{store.sweep_cut_off()} half files deleted"
    with database.write() as session:
        ended = _end_waiting(session, fault.name)
    path = store.path(fault.name)
    if path.exists():
        set_aside = store.folder.parent / "damaged"
        set_aside.mkdir(exist_ok=True, mode=0o700)
        path.rename(set_aside / path.name)
        return f"moved to {set_aside.name}/, {ended} waiting analyses ended"
    return f"{ended} waiting analyses ended"


def _end_waiting(session: Session, stored_name: str) -> int:
    gone = MediaUnreadableError("The uploaded file is gone or damaged.")
    of_medium = (
        sa.select(DetectionRow.job_id)
        .join(MediaRow, MediaRow.id == DetectionRow.media_id)
        .where(MediaRow.stored_name == stored_name)
    )
    result = session.execute(
        sa.update(JobRow)
        .where(JobRow.id.in_(of_medium), JobRow.state == JobState.QUEUED)
        .values(state=JobState.FAILED, error_code=gone.code, error_detail=gone.detail, finished_at=utc_now())
        .execution_options(synchronize_session=False)
    )
    return int(result.rowcount)  # type: ignore[attr-defined]


def _without_row(database: Database, names: set[str]) -> set[str]:
    """Those of the names that no row has; rows are read after names, so that a new file is not taken for one."""
    with database.read() as session:
        return names - set(session.scalars(sa.select(MediaRow.stored_name)))


def _is_used() -> sa.ColumnElement[bool]:
    return sa.exists().where(DetectionRow.media_id == MediaRow.id)


def _wrong_content(path: Path, row: MediaRow, contents: bool) -> tuple[str, str, str] | None:
    try:
        size = path.stat().st_size
        if size != row.size_bytes:
            return "other_content", row.stored_name, f"{size} bytes instead of {row.size_bytes}"
        if contents and _sha256(path) != row.sha256:
            return "other_content", row.stored_name, "its hash is not that of the upload"
    except FileNotFoundError:
        return "row_without_file", row.stored_name, "the file is gone"
    return None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(READ_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
