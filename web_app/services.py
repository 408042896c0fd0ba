"""What the views work with, built once per application and reached through it: no module of ours keeps state."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from flask import current_app, request
from sqlalchemy.orm import Session

from utils.config import Settings
from utils.errors import ConflictError, NotFoundError
from utils.files import create_once
from web_app.auth.identity import EXTENSION as EXTENSION
from web_app.auth.identity import caller
from web_app.auth.rate_limit import Limits
from web_app.db.migrations import migrate
from web_app.db.models import DetectionRow, JobState
from web_app.integrations.http_client import Rules
from web_app.jobs.detections import find_detection, sweep_without_row
from web_app.jobs.shared import Instance
from web_app.observability.health import WeightsCheck
from web_app.paths import InstancePaths
from web_app.reports.keys import ReportKeys
from web_app.storage.files import too_large

OVER_LIMIT = "telltale.over_limit"
"""In the WSGI environment of a request that came without its body, since that is above the limit."""
SECRET_BYTES = 32
WAITING_SLOTS = 32  # requests that may sleep until a job ends; the other threads stay free for short ones


@dataclass(frozen=True)
class Services(Instance):
    """The parts of one application.

    `secret` signs sessions and turns addresses into anonymous ids; `slots` bounds the requests that wait; `stopping` is
    set when the server ends, so that they stop waiting.
    """

    weights: WeightsCheck
    limits: Limits
    secret: bytes
    report_keys: ReportKeys
    outbound: Rules
    slots: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(WAITING_SLOTS))
    stopping: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def build(cls, settings: Settings, verify: Callable[[Settings], object] | None = None) -> Services:
        """Create the instance folder, bring the database up to date and clear what interrupted uploads left."""
        paths = InstancePaths.of(settings)
        paths.create()
        common = Instance.of(settings)
        migrate(common.database)
        common.shared.once(paths.secret, lambda: create_once(paths.secret, lambda: secrets.token_bytes(SECRET_BYTES)))
        common.shared.once(paths.report_keys, lambda: ReportKeys.of(paths.report_keys))
        common.shared.follow()
        parts = cls(
            **vars(common),
            weights=WeightsCheck(settings, verify),
            limits=Limits(settings.security),
            secret=paths.secret.read_bytes(),
            report_keys=ReportKeys.of(paths.report_keys),
            outbound=Rules.of(settings.api),
        )
        parts.store.prepare()
        parts.store.sweep_cut_off()
        sweep_without_row(parts.database, parts.store)
        return parts

    def close(self) -> None:
        """Wake the waiting requests and give the database connections back."""
        self.stopping.set()
        super().close()


def services() -> Services:
    """The parts of the application that handles the present request."""
    return cast(Services, current_app.extensions[EXTENSION])


def refuse_unread() -> None:
    """Before a request: nothing but the refusal is done for one without its body.

    Raises:
        MediaTooLargeError: its body is above the limit.
        NotFoundError: its path has the character NUL, with which PostgreSQL takes no text.
    """
    if OVER_LIMIT in request.environ:
        raise too_large(services().store.max_bytes)
    if "\0" in request.path:
        raise NotFoundError


def require_detection(session: Session, public_id: str, *, done: bool = False) -> DetectionRow:
    """The caller's detection with this id.

    Args:
        done: refuse one without a report.

    Raises:
        NotFoundError: there is none, or it is somebody else's, which nobody needs to know.
        ConflictError: it waits, runs, failed or was cancelled; the fact `state` says which.
    """
    row = find_detection(session, public_id)
    if row is None or not caller().owns(row.client_id):
        raise NotFoundError("There is no analysis with this id.")
    if done and row.job.state != JobState.DONE:
        raise ConflictError(f"The analysis has no report: it is {row.job.state}.", state=row.job.state)
    return row
