"""What crashes leave in the store: files without a row, and what was made of files that are gone; swept at a start."""

from __future__ import annotations

import time

import sqlalchemy as sa

from utils.log import get_logger
from web_app.db.models import MediaRow
from web_app.db.session import Database
from web_app.storage.files import MediaStore

YOUNG_S = 600.0  # a file this young may be an upload whose row is being written

log = get_logger(__name__)


def sweep_without_row(database: Database, store: MediaStore) -> int:
    """Delete files that no row knows, except young ones, and what was made of files that are gone.

    Returns:
        How many files had no row.
    """
    old = {name for name, status in store.files() if abs(time.time() - status.st_mtime) > YOUNG_S}
    with database.read() as session:  # after the names, so that a new file is not taken for one without a row
        unknown = old - set(session.scalars(sa.select(MediaRow.stored_name)))
    for name in unknown:
        store.remove(name)
    for derived in store.derived():
        if not derived.with_suffix("").exists():
            derived.unlink(missing_ok=True)
    if unknown:
        log.info("deleted %d files that no analysis refers to", len(unknown))
    return len(unknown)
