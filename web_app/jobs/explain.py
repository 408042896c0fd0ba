"""The worker's side of close-ups of one face.

Only the worker process imports this file's heavy parts, when the first close-up is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from utils.config import Settings
from utils.errors import NotFoundError
from web_app.db.session import Database
from web_app.jobs.queue import Claim
from web_app.storage.detections import find_detection
from web_app.storage.files import MediaStore

if TYPE_CHECKING:
    from utils.detection.pipeline import Analyser
    from web_app.jobs.runner import Handler, Progress


def closeup_handler(settings: Settings, analyser: Callable[[], Analyser]) -> Handler:
    """The handler of the task `explain`.

    Args:
        settings: the whole configuration.
        analyser: the one in use when the job runs.
    """
    database = Database.of(settings)
    store = MediaStore.of(settings)

    def handle(claim: Claim, progress: Progress) -> dict[str, Any]:
        from utils.detection.closeup import look_closer  # brings torch, 500 MB, to workers that need it

        with database.read() as session:
            row = find_detection(session, claim.payload["detection"])
        if row is None:
            raise NotFoundError("The analysis was deleted.")
        face = int(claim.payload["face"])
        return look_closer(store.path(row.media.stored_name), analyser(), face, progress=progress).to_dict()

    return handle
