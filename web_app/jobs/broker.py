"""Many machines: Celery carries the ids of waiting jobs to workers; what a job is and whose it is stands in its row.

The web process sends an id when the row is committed, a worker that gets it claims that row by the same code as on one
machine, and acknowledges when the job has ended. A broker that is away or forgets costs nothing but time: rows that
wait without a message are sent for again (`Sender.send_lost`). An id that comes twice finds its row taken and is
dropped. What is Celery's part and what is ours stands in docs/operations.md.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from utils.config import JobSettings
from utils.errors import ConfigError, TelltaleError
from utils.log import get_logger
from web_app.db.models import ANALYSE, COPY, EXPLAIN, DetectionRow, JobRow
from web_app.db.session import Database

if TYPE_CHECKING:
    from celery import Celery

PHOTOS, VIDEOS, LEARNING = "photos", "videos", "learning"
QUEUES = (PHOTOS, VIDEOS)
"""Of the broker, the more urgent first. Trainings and checks have none: of each only one is ever open, and the worker
that learns finds it in the table."""
ROLES = (*QUEUES, LEARNING)
SENT = (ANALYSE, EXPLAIN, COPY)
"""Tasks whose ids go through a queue; the worker that learns finds the others by itself."""
TASK = "telltale.run"
REST_S = 5.0  # without a word to the broker after it was away, so that no upload waits for it again
OVERDUE_S = 5.0  # a job that has waited so long and has no message is sent for again
SENT_AT_ONCE = 1000
STOP_S = 10.0
LOCK_KEY = 7_355_609  # of PostgreSQL's advisory lock: one process at a time sends for what was lost

log = get_logger(__name__)


def queue_of(task: str, kind: str | None) -> str | None:
    """The queue that a job waits in, None for tasks that are not `SENT`; `kind` is its medium's."""
    if task not in SENT:
        return None
    return PHOTOS if task == COPY or (task == ANALYSE and kind == "image") else VIDEOS


def read_roles(text: str) -> tuple[str, ...]:
    """Comma-separated names of `ROLES`, in the order given.

    Raises:
        ConfigError: another name is among them, or none at all.
    """
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names or set(names) - set(ROLES):
        raise ConfigError(f"--queues names some of {', '.join(ROLES)}, not {text!r}.")
    return names


def open_app(settings: JobSettings) -> Celery:
    """Celery with our settings; nothing is connected yet.

    Raises:
        ConfigError: Celery is not installed, or [jobs] broker_url is empty.
    """
    try:
        from celery import Celery
        from kombu import Queue
    except ImportError as error:
        raise ConfigError("[jobs] engine = celery needs `pip install -r requirements-scale.txt`.") from error
    if not settings.broker_url:
        raise ConfigError("[jobs] engine = celery needs a broker_url, such as redis://localhost:6379/0.")
    app = Celery("telltale", broker=settings.broker_url, set_as_current=False)
    redis = settings.broker_url.startswith(("redis", "sentinel"))
    app.conf.update(
        task_queues=[Queue(name) for name in QUEUES],
        task_default_queue=PHOTOS,
        task_create_missing_queues=False,
        task_ignore_result=True,
        task_acks_late=True,
        worker_prefetch_multiplier=1,  # with one thread: one id in hand, the others stay with those who are free
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=2,
        broker_transport_options={
            "visibility_timeout": 2 * settings.lease_s,  # a dead worker's ids come again when its leases are over
            "queue_order_strategy": "priority",
            "socket_connect_timeout": 2,
            "socket_timeout": 2,  # a broker that hangs is one that is away
            "socket_keepalive": True,
        }
        if redis
        else {},
    )
    return app


class Sender:
    """Sends ids of jobs; a broker that is away is no error, for the row waits."""

    def __init__(self, settings: JobSettings) -> None:
        self._app = open_app(settings)
        from kombu.exceptions import OperationalError

        self._away: tuple[type[BaseException], ...] = (
            OperationalError,
            OSError,
            *self._app.connection_for_write().connection_errors,
        )
        self._rest_until = 0.0

    def send(self, job_id: int, name: str) -> bool:
        """Send an id to a queue; whether the broker took it."""
        if time.monotonic() < self._rest_until:
            return False
        with self._trouble():
            self._app.send_task(TASK, args=[job_id], queue=name, retry=False)
            return True
        return False

    def lengths(self) -> dict[str, int]:
        """How many ids wait in each queue; empty while the broker is away."""
        found: dict[str, int] = {}
        if time.monotonic() < self._rest_until:
            return found
        with self._trouble(), self._app.connection_for_read() as connection:
            for name in QUEUES:
                channel: Any = connection.channel()
                try:
                    found[name] = channel.queue_declare(name, passive=True).message_count
                except connection.channel_errors:  # nobody has sent anything there yet
                    found[name] = 0
        return found

    def send_lost(self, database: Database, overdue: sa.ColumnElement[bool]) -> int:
        """Send for jobs that meet a condition again where the broker holds fewer ids than that; returns how many."""
        kind = sa.select(DetectionRow.kind_of_medium()).where(DetectionRow.job_id == JobRow.id).scalar_subquery()
        with database.read() as session:
            if not database.is_sqlite and not session.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(LOCK_KEY))):
                return 0
            rows = session.execute(sa.select(JobRow.id, JobRow.task, kind).where(overdue).limit(SENT_AT_ONCE)).all()
            waiting = [(job_id, name) for job_id, task, of in rows if (name := queue_of(task, of))]
            lengths = self.lengths() if waiting else {}
            lost = {name for name in lengths if lengths[name] < sum(each == name for _, each in waiting)}
            return sum(self.send(job_id, name) for job_id, name in waiting if name in lost)

    @contextlib.contextmanager
    def _trouble(self) -> Iterator[None]:
        try:
            yield
        except self._away as error:
            self._rest_until = time.monotonic() + REST_S
            log.warning("the broker is away (%s); jobs wait in the database", type(error).__name__)


class Inbox:
    """What comes from the broker, one id at a time; Celery's consumer runs in a thread while the block runs.

    Args:
        names: of the queues to take from, the more urgent first.
        stop: set when the worker shall end; what it has in hand then goes back to the broker.
    """

    def __init__(self, settings: JobSettings, worker_id: str, names: Sequence[str], stop: threading.Event) -> None:
        from celery.exceptions import Reject

        self._stop = stop
        # no SimpleQueue: in Python 3.11 and 3.12 its `get` has no end when a signal's handler outlasts the timeout
        self._offers: queue.Queue[tuple[int, Future[bool]]] = queue.Queue()
        self._next: tuple[int, Future[bool]] | None = None
        self._closed = threading.Event()
        app = open_app(settings)

        def offer(job_id: int) -> None:
            ended: Future[bool] = Future()
            self._offers.put((job_id, ended))
            done = None
            while done is None and not self._closed.is_set():
                with contextlib.suppress(TimeoutError):
                    done = ended.result(1.0)
            if not done:
                raise Reject("the worker stops", requeue=True)

        app.task(name=TASK)(offer)
        self._worker: Any = app.WorkController(
            hostname=f"{worker_id}@telltale", pool_cls="threads", concurrency=1, queues=list(names),
            without_gossip=True, without_mingle=True, without_heartbeat=True, loglevel="WARNING",
        )  # fmt: skip
        self._thread = threading.Thread(target=self._worker.start, name="celery", daemon=True)

    def __enter__(self) -> Inbox:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        from celery.worker import state

        flags: Any = state
        self._closed.set()
        flags.should_stop = 0  # as Celery's own handler of SIGTERM does
        self._thread.join(STOP_S)
        flags.should_stop = None

    def wait(self, seconds: float) -> None:
        """Wait for the next id, no longer than that.

        Raises:
            TelltaleError: Celery has given up, such as on a login that is refused.
        """
        if not self._thread.is_alive():
            raise TelltaleError("Nothing more comes from the broker; its part of this worker has ended.")
        if self._next is None:
            with contextlib.suppress(queue.Empty):
                self._next = self._offers.get(timeout=seconds)

    def work_once(self, work: Callable[[int], bool]) -> bool:
        """Have the job of the id that has come run; False when there was none, or nothing to do for it."""
        self.wait(0.001)
        if self._next is None:
            return False
        job_id, ended = self._next
        self._next = None
        try:
            return work(job_id)
        finally:
            ended.set_result(not self._stop.is_set())
