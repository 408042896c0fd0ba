"""The queue on the database: every change of a job's state is one statement here, safe with any number of workers.

A worker owns a job while its lease runs. Each claim counts an attempt, and all that the worker writes carries worker
and attempt as a condition: a worker that was given up, or whose job was cancelled, changes nothing any more. The
states and their transitions are drawn in docs/operations.md.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from utils.config import JobSettings
from utils.errors import ConflictError, QueueFullError, TelltaleError, WorkerLostError
from utils.types import MediaKind, Report
from web_app.db.models import ANALYSE, NO_OVERALL, OPEN, DetectionRow, JobRow, JobState, MediaRow, utc_now
from web_app.db.session import AFTERWARDS, Database
from web_app.jobs.broker import OVERDUE_S, SENT, Sender, queue_of

DURATION_SAMPLE = 20  # finished jobs whose mean time is the guess for the next
FIRST_GUESS_S = 5.0  # until something has finished
MAX_RETRY_AFTER_S = 60
FIRST_LOOK_S, LONGEST_LOOK_S = 0.02, 0.25  # between two looks at jobs whose end is awaited, by how long it is


@dataclass(frozen=True)
class Claim:
    """A job in a worker's hands: which one, whose, the how-manyth attempt, and the file to analyse.

    `stored_name` is empty for other tasks than analyses; those find what they need in `payload`.
    """

    job_id: int
    public_id: str
    worker_id: str
    attempt: int
    stored_name: str
    task: str = ANALYSE
    payload: dict[str, Any] = field(default_factory=dict, hash=False)


class JobQueue:
    """Claims, leases and endings of jobs."""

    def __init__(self, database: Database, settings: JobSettings) -> None:
        self.database = database
        self.settings = settings
        self.sender = Sender(settings) if settings.engine == "celery" else None
        self._awaited: dict[str, threading.Event] = {}
        self._awaited_at = 0.0
        self._looking = threading.Lock()

    # What the web process does

    def require_room(self, session: Session) -> None:
        """Refuse more work when too much is waiting.

        Raises:
            QueueFullError: `max_waiting` is reached; the fact `retry_after_s` says when to come back.
        """
        waiting = self.waiting(session)
        if waiting >= self.settings.max_waiting:
            raise QueueFullError(
                f"{waiting} analyses are waiting, and no more than {self.settings.max_waiting} may.",
                retry_after_s=self._seconds_per_job(session),
            )

    def open(
        self, session: Session, task: str, payload: dict[str, Any] | None = None, kind: str | None = None
    ) -> JobRow:
        """A new job, within the caller's transaction, after which the broker hears of it; `kind` is of its medium."""
        job = JobRow(task=task, payload=payload)
        session.add(job)
        session.flush()
        name = queue_of(task, kind)
        if self.sender is not None and name is not None:
            session.info.setdefault(AFTERWARDS, []).append(partial(self.sender.send, job.id, name))
        return job

    def add_task(self, session: Session, task: str, payload: dict[str, Any]) -> JobRow:
        """Queue work that is no analysis within the caller's transaction; of each such task only one may be open.

        Raises:
            ConflictError: one of this task waits or runs; the fact `id` names it.
        """
        opened = session.scalar(sa.select(JobRow).where(JobRow.task == task, JobRow.state.in_(OPEN)))
        if opened is not None:
            raise ConflictError(f"A job of this kind ({task}) is {opened.state} already.", id=opened.public_id)
        try:
            return self.open(session, task, payload)
        except IntegrityError as error:  # another process was first; the index over open tasks says so
            raise ConflictError(f"A job of this kind ({task}) has just been queued.") from error

    def waiting(self, session: Session) -> int:
        """How many analyses wait for a worker."""
        waits = JobRow.state == JobState.QUEUED, JobRow.task == ANALYSE
        return session.scalar(sa.select(sa.func.count()).select_from(JobRow).where(*waits)) or 0

    def ahead(self, session: Session, job: JobRow) -> int | None:
        """How many jobs will be taken before this one, 0 for the next; None for a job that does not wait."""
        if job.state != JobState.QUEUED:
            return None
        earlier = JobRow.state == JobState.QUEUED, JobRow.task == job.task, JobRow.id < job.id
        return session.scalar(sa.select(sa.func.count()).where(*earlier)) or 0

    def cancel(self, public_id: str) -> bool:
        """End a waiting or running job; False when it had ended already. Its worker notices at the next progress."""
        with self.database.write(alone=False) as session:
            return _changed(
                session,
                sa.update(JobRow)
                .where(JobRow.public_id == public_id, JobRow.state.in_(OPEN))
                .values(_ended(JobState.CANCELLED)),
            )

    def wait_for_end(self, public_id: str, most_s: float, stopping: threading.Event) -> None:
        """Sleep until the caller shall look whether a job has ended, or until `stopping`; one thread looks for all."""
        woken, self._awaited_at = self._awaited.setdefault(public_id, threading.Event()), time.monotonic()
        threading.Thread(target=self._look_for_ends, args=(stopping,), name="ends", daemon=True).start()
        if not woken.wait(most_s):
            self._awaited.pop(public_id, woken).set()  # others who wait for it come again

    def _look_for_ends(self, stopping: threading.Event) -> None:
        while self._awaited and self._looking.acquire(blocking=False):
            try:
                look_s = FIRST_LOOK_S + (time.monotonic() - self._awaited_at) / 10
                stops, ids = stopping.wait(min(look_s, LONGEST_LOOK_S)), set(self._awaited)
                if not stops:
                    waits = sa.select(JobRow.public_id).where(JobRow.public_id.in_(ids), JobRow.state.in_(OPEN))
                    with contextlib.suppress(SQLAlchemyError), self.database.read() as session:  # they will meet it too
                        ids.difference_update(session.scalars(waits))
            finally:
                self._looking.release()
            for public_id in ids:
                self._awaited.pop(public_id, threading.Event()).set()

    def _seconds_per_job(self, session: Session) -> int:
        recent = session.execute(
            sa.select(JobRow.started_at, JobRow.finished_at)
            .where(JobRow.state == JobState.DONE, JobRow.task == ANALYSE)
            .order_by(JobRow.id.desc())
            .limit(DURATION_SAMPLE)
        ).all()
        spans = [(end - start).total_seconds() for start, end in recent if start is not None and end is not None]
        mean = sum(spans) / len(spans) if spans else FIRST_GUESS_S
        return min(max(math.ceil(mean), 1), MAX_RETRY_AFTER_S)

    # What a worker does

    def claim(self, worker_id: str, tasks: Sequence[str] = (ANALYSE,), only: int | None = None) -> Claim | None:
        """Take the oldest job of these tasks that waits or whose lease has run out; None when there is nothing to do.

        Jobs whose last allowed attempt was lost end here as failed, `worker_lost`.

        Args:
            only: take the job of this id or none.
        """
        this = sa.true() if only is None else JobRow.id == only
        if only is None:
            with self.database.read() as session:  # an idle worker must not take the write lock five times a second
                free = _claimable(utc_now(), self._lease(), tasks)
                if session.scalar(sa.select(JobRow.id).where(free).limit(1)) is None:
                    return None
        with self.database.write(alone=False) as session:
            now = utc_now()
            self._fail_lost(session, now)
            taken = self._take(session, worker_id, now, sa.and_(this, _claimable(now, self._lease(), tasks)), 1)
        return taken[0] if taken else None

    def lengths(self) -> dict[str, int]:
        """How many ids wait in each queue of the broker; empty without one, or while it is away."""
        return {} if self.sender is None else self.sender.lengths()

    def send_lost(self) -> None:
        """Send for jobs again that have long been free and that the broker, where there is one, knows nothing of."""
        if self.sender is not None:
            before = utc_now() - dt.timedelta(seconds=OVERDUE_S)
            free = _claimable(utc_now(), self._lease(), SENT)
            self.sender.send_lost(self.database, sa.and_(free, JobRow.created_at < before))

    def claim_batch(self, claim: Claim, most: int) -> list[Claim]:
        """Take further waiting pictures that can be analysed together with one, the oldest first.

        None when that one is no picture or not at its first attempt; what was tried before comes alone, so that a
        picture that ends its worker takes nobody else down a second time.
        """
        if claim.task != ANALYSE or claim.attempt != 1 or most < 1:
            return []
        pictures = sa.select(DetectionRow.job_id).where(DetectionRow.kind_of_medium() == MediaKind.IMAGE.value)
        fresh = sa.and_(
            JobRow.task == ANALYSE, JobRow.state == JobState.QUEUED, JobRow.attempts == 0, JobRow.id.in_(pictures)
        )
        with self.database.read() as session:
            alone = session.scalar(pictures.where(DetectionRow.job_id == claim.job_id)) is None
            if alone or session.scalar(sa.select(JobRow.id).where(fresh).limit(1)) is None:
                return []
        with self.database.write(alone=False) as session:
            return self._take(session, claim.worker_id, utc_now(), fresh, most)

    def _take(
        self, session: Session, worker_id: str, now: dt.datetime, free: sa.ColumnElement[bool], most: int
    ) -> list[Claim]:
        """Take jobs that are free, the oldest first; they are locked before they are changed."""
        oldest = (
            sa.select(JobRow, MediaRow.stored_name)
            .outerjoin(DetectionRow, DetectionRow.job_id == JobRow.id)
            .outerjoin(MediaRow, MediaRow.id == DetectionRow.media_id)
            .where(free)
            .order_by(JobRow.id)
            .limit(most)
            .with_for_update(skip_locked=True, of=JobRow)
        )
        claims = []
        for job, stored_name in session.execute(oldest).all():
            job.state, job.worker_id, job.attempts = JobState.RUNNING, worker_id, job.attempts + 1
            job.started_at, job.lease_until, job.stage, job.fraction = now, now + self._lease(), None, 0.0
            held = (job.id, job.public_id, worker_id, job.attempts, stored_name or "", job.task, job.payload or {})
            claims.append(Claim(*held))
        return claims

    def renew(self, session: Session, claims: Sequence[Claim]) -> list[Claim]:
        """Prolong leases; returns the claims whose jobs were cancelled, deleted or given to another worker."""
        if not claims:
            return []
        kept = session.scalars(
            sa.update(JobRow)
            .where(sa.or_(*(_own(claim) for claim in claims)))
            .values(lease_until=utc_now() + self._lease())
            .returning(JobRow.id)
            .execution_options(synchronize_session=False)
        ).all()
        return [claim for claim in claims if claim.job_id not in kept]

    def report_progress(self, claim: Claim, stage: str, fraction: float) -> bool:
        """Note how far the job is (stage, 0..1); False when the job is no longer this worker's."""
        return self._update_own(claim, stage=stage, fraction=min(max(fraction, 0.0), 1.0))

    def finish(self, claim: Claim, report: Report) -> bool:
        """Store the report and end the job, together; False when the job is no longer this worker's."""
        with self.database.write(alone=False) as session:
            done = _ended(JobState.DONE, fraction=1.0)
            ended = _changed(session, sa.update(JobRow).where(_own(claim)).values(done))
            if ended:
                if report.media.kind is MediaKind.AUDIO:  # a container of video may hold sound alone
                    kind = {"kind": report.media.kind.value, "mime": report.media.mime}
                    medium = sa.select(DetectionRow.media_id).where(DetectionRow.job_id == claim.job_id)
                    # the medium first, so that workers with analyses of the same one wait there for each other
                    session.execute(sa.update(MediaRow).where(MediaRow.id == medium.scalar_subquery()).values(**kind))
                    same = sa.update(DetectionRow).where(DetectionRow.media_id == medium.scalar_subquery())
                    session.execute(same.values(media_kind=report.media.kind.value))
                session.execute(
                    sa.update(DetectionRow)
                    .where(DetectionRow.job_id == claim.job_id)
                    .values(
                        report=report.to_dict(),
                        prediction=report.verdict.outcome.value,
                        overall=report.overall.outcome.value if report.overall else NO_OVERALL,
                        fake_probability=report.verdict.probability,
                        model_version=report.model_version,
                    )
                )
            return ended

    def finish_task(self, claim: Claim, result: dict[str, Any]) -> bool:
        """End a job that is no analysis with its result; False when the job is no longer this worker's."""
        return self._update_own(claim, **_ended(JobState.DONE, fraction=1.0, result=result))

    def fail(self, claim: Claim, error: TelltaleError) -> bool:
        """End the job with the error's code; False when the job is no longer this worker's."""
        return self._update_own(claim, **_failed(error))

    def give_back(self, claim: Claim) -> bool:
        """Queue the job again without counting the attempt, because the worker is asked to stop."""
        return self._update_own(
            claim, state=JobState.QUEUED, attempts=claim.attempt - 1, stage=None, fraction=0.0, lease_until=None,
            worker_id=None,
        )  # fmt: skip

    def release_lost(self, worker_id: str) -> int:
        """End the leases of a worker that is known to be dead, so that nobody waits for them; returns how many."""
        with self.database.write(alone=False) as session:
            result = session.execute(
                sa.update(JobRow)
                .where(JobRow.worker_id == worker_id, JobRow.state == JobState.RUNNING)
                .values(lease_until=utc_now())
            )
            return int(result.rowcount)  # type: ignore[attr-defined]

    def _fail_lost(self, session: Session, now: dt.datetime) -> None:
        lost = WorkerLostError(f"The worker was lost {self.settings.attempts} times during this analysis.")
        session.execute(
            sa.update(JobRow)
            .where(
                JobRow.state == JobState.RUNNING,
                _lease_over(now, self._lease()),
                JobRow.attempts >= self.settings.attempts,
            )
            .values(_failed(lost))
            .execution_options(synchronize_session=False)
        )

    def _update_own(self, claim: Claim, **values: Any) -> bool:
        with self.database.write(alone=False) as session:
            return _changed(session, sa.update(JobRow).where(_own(claim)).values(**values))

    def _lease(self) -> dt.timedelta:
        return dt.timedelta(seconds=self.settings.lease_s)


def _claimable(now: dt.datetime, lease: dt.timedelta, tasks: Sequence[str]) -> sa.ColumnElement[bool]:
    """Waiting, or running under a lease that has ended (a lost last attempt is ended before the claim)."""
    return sa.and_(
        JobRow.task.in_(tasks),
        sa.or_(JobRow.state == JobState.QUEUED, sa.and_(JobRow.state == JobState.RUNNING, _lease_over(now, lease))),
    )


def _lease_over(now: dt.datetime, lease: dt.timedelta) -> sa.ColumnElement[bool]:
    """Whether a lease has ended. One that ends later than any lease could was given before the clock went back."""
    return sa.or_(JobRow.lease_until <= now, JobRow.lease_until > now + 2 * lease)


def _own(claim: Claim) -> sa.ColumnElement[bool]:
    return sa.and_(
        JobRow.id == claim.job_id,
        JobRow.state == JobState.RUNNING,
        JobRow.worker_id == claim.worker_id,
        JobRow.attempts == claim.attempt,
    )


def _ended(state: JobState, **more: Any) -> dict[str, Any]:
    """The columns of a job that has ended now."""
    return {"state": state, "stage": None, "lease_until": None, "finished_at": utc_now(), **more}


def _failed(error: TelltaleError) -> dict[str, Any]:
    return _ended(JobState.FAILED, error_code=error.code, error_detail=error.detail)


def _changed(session: Session, statement: sa.Update) -> bool:
    """Run an update by condition; whether a row met it."""
    result = session.execute(statement.execution_options(synchronize_session=False))
    return bool(result.rowcount)  # type: ignore[attr-defined]
