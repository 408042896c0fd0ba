"""Clean copies: what is handed out instead of an upload, made by the worker right after the analysis.

A copy has the same pixels, frames and samples, and nothing else that the upload said; it is made in the confined child
that decodes (`utils.media.copy_media`). An empty copy means that none can be made. Files from before there were copies,
and those whose copy met a full disk, get theirs by a job when somebody asks for them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from utils.config import Settings
from utils.errors import MediaError, NotFoundError
from utils.log import get_logger
from utils.media import PreparedDecoders, copy_media
from utils.types import MediaKind, Report
from web_app.db.models import DetectionRow, MediaRow
from web_app.db.session import Database
from web_app.jobs.queue import Claim
from web_app.storage.files import CLEAN_SUFFIX, PART_SUFFIX, MediaStore

DAMAGED = "truncated"  # the decoder's notice

log = get_logger(__name__)


class CleanCopies:
    """Makes copies in the worker.

    Args:
        settings: the whole configuration.
        decoders: where the confined children come from at present.
    """

    def __init__(self, settings: Settings, decoders: Callable[[], PreparedDecoders | None]) -> None:
        self._settings = settings
        self._database = Database.of(settings)
        self._store = MediaStore.of(settings)
        self._decoders = decoders

    def keep(self, path: Path, report: Report) -> None:
        """Make the copy of a file that has just been analysed, if any of its analyses is to be kept."""
        stored_name = f"{path.parent.name}/{path.name}"
        kept = sa.select(DetectionRow.job_id).join(DetectionRow.media)
        with self._database.read() as session:
            if session.scalar(
                kept.where(MediaRow.stored_name == stored_name, DetectionRow.expires_at.is_(None)).limit(1)
            ):
                damaged = report.media.kind is MediaKind.VIDEO and DAMAGED in {n.code for n in report.notices}
                self._make(path, damaged=damaged)

    def handle(self, claim: Claim, _: object) -> dict[str, Any]:
        """Run a job of the task `copy`.

        Raises:
            NotFoundError: the medium was deleted.
        """
        with self._database.read() as session:
            media = session.scalar(sa.select(MediaRow).where(MediaRow.sha256 == claim.payload["media"]))
            if media is None:
                raise NotFoundError("The medium was deleted.")
            reports = session.scalars(sa.select(DetectionRow.report).where(DetectionRow.media_id == media.id)).all()
        known = [report for report in reports if report]
        notices = {notice["code"] for report in known for notice in report.get("notices", [])}
        doubtful = not known or DAMAGED in notices  # what no analysis has read to its end may be damaged
        self._make(self._store.path(media.stored_name), damaged=media.kind == MediaKind.VIDEO and doubtful)
        return {}

    def _make(self, path: Path, *, damaged: bool) -> None:
        target = path.with_name(path.name + CLEAN_SUFFIX)
        part = target.with_name(f"{target.name}.{secrets.token_hex(4)}{PART_SUFFIX}")
        try:
            if target.exists() or not self._has_room(path):
                return
            with part.open("wb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # so that no sweep takes it for a rest
                if not damaged:
                    self._write(path, file)
                file.flush()
                os.fsync(file.fileno())
            part.rename(target)
            if not path.exists():
                target.unlink()
        except OSError as error:
            log.warning("no clean copy was stored: %s", error)
            with contextlib.suppress(OSError):
                part.unlink()

    def _write(self, path: Path, file: Any) -> None:
        try:
            copy_media(path, file, self._settings.media, self._settings.sandbox, self._decoders())
        except (MediaError, NotFoundError) as error:
            log.info("no clean copy can be made: %s", error.code)
            file.truncate(0)

    def _has_room(self, path: Path) -> bool:
        free = shutil.disk_usage(path.parent).free
        if free - path.stat().st_size >= self._settings.storage.reserve_mb * 1_000_000:
            return True
        log.warning("no clean copy was stored: too little room would be left")
        return False
