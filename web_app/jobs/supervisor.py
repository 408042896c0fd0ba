"""The worker process of a server: started with it, started again when it dies, ended with it.

Restarts wait longer each time, because a worker that dies at once will do so again: in the end five minutes, for the
cause may be a full disk, or a network drive that comes back. What the dead worker had in its hands goes back to the
queue at once instead of after its lease.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from utils.config import ENV_PREFIX, Settings
from utils.log import get_logger
from web_app.db.models import WorkerRow
from web_app.jobs.heartbeat import EXIT_RECYCLED, log_and_continue
from web_app.jobs.queue import JobQueue
from web_app.paths import ROOT

MOST_DOUBLINGS = 20
START_S = 1800.0  # until a worker's first sign of life: networks are loaded before, perhaps compiled for a GPU
LOOKS = 8  # at a worker's signs of life, within the silence that it may keep

WORKER = (sys.executable, "-m", "web_app", "worker")
"""What starts the real worker."""

log = get_logger(__name__)


@dataclass(frozen=True)
class RestartPolicy:
    """How patient a supervisor is.

    Args:
        first_s: seconds before the first restart; doubled each time.
        longest_s: most seconds before a restart.
        healthy_s: a worker that lived this long has proved itself, and counting starts anew.
        grace_s: seconds a worker has to end by itself when asked to.
        silence_s: a worker that was heard of once and then not for so long is stuck as a whole, and killed.
    """

    first_s: float = 0.5
    longest_s: float = 300.0
    healthy_s: float = 120.0
    grace_s: float = 15.0
    silence_s: float = 90.0


def settings_environ(settings: Settings) -> dict[str, str]:
    """The settings as TELLTALE_ variables, so that a child process works with exactly the same ones."""
    return {
        f"{ENV_PREFIX}{section.upper()}__{key.upper()}": str(value)
        for section, keys in dataclasses.asdict(settings).items()
        for key, value in keys.items()
    }


class Supervisor:
    """Keeps one worker process running.

    The worker's standard input is a pipe that only this process holds: it ends when this process does, however that
    happens, and the worker ends with it.

    Args:
        command: starts the worker; `--supervised --worker-id NAME` is appended.
    """

    def __init__(
        self, settings: Settings, queue: JobQueue, command: Sequence[str], policy: RestartPolicy | None = None
    ) -> None:
        self._settings = settings
        self._queue = queue
        self._command = tuple(command)
        self._policy = policy or RestartPolicy()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self.starts = 0

    def start(self) -> None:
        self._thread.start()

    def request_stop(self) -> None:
        """Ask the worker to end and return at once; may be called from a signal handler."""
        self._stopping.set()

    def stop(self) -> None:
        """Ask the worker to end, insist after `grace_s`, and return when it is gone."""
        self.request_stop()
        self._thread.join(2 * self._policy.grace_s)

    @property
    def pid(self) -> int | None:
        """Of the living worker; None while there is none."""
        with self._lock:
            return self._process.pid if self._process is not None and self._process.poll() is None else None

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            worker_id = f"worker-{os.getpid()}-{secrets.token_hex(4)}"
            born = time.monotonic()
            code = self._run_worker(worker_id)
            if self._stopping.is_set():
                return
            if code == EXIT_RECYCLED:
                log.info("the worker makes room for a fresh one")
                continue
            if time.monotonic() - born >= self._policy.healthy_s:
                failures = 0
            pause_s = min(self._policy.first_s * 2.0 ** min(failures, MOST_DOUBLINGS), self._policy.longest_s)
            failures += 1
            log.warning("the worker died (%s), %d times in a row; next try in %.1f s", code, failures, pause_s)
            self._stopping.wait(pause_s)

    def _run_worker(self, worker_id: str) -> int:
        """Start one worker, wait for its end, clear up behind it; returns its exit code."""
        with self._lock:
            if self._stopping.is_set():
                return 0
            process = self._process = subprocess.Popen(  # noqa: S603 - our own command, no shell
                [*self._command, "--supervised", "--worker-id", worker_id],
                cwd=ROOT,
                env={**os.environ, **settings_environ(self._settings)},
                stdin=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C reaches this process only, which ends the worker in order
            )
            self.starts += 1
        with process:
            last, heard_at, look_at = None, time.monotonic(), 0.0
            while process.poll() is None:
                now = time.monotonic()
                if self._stopping.wait(0.1):
                    self._end(process)
                elif now >= look_at:
                    look_at = now + self._policy.silence_s / LOOKS
                    sign = self._last_sign(worker_id)
                    if sign != last:
                        last, heard_at = sign, now
                    elif now - heard_at > (START_S if sign is None else self._policy.silence_s):
                        log.error("the worker has given no sign of life for too long; it is killed")
                        _kill_group(process.pid)
                        process.wait()
        _kill_group(process.pid)  # decoders of a worker that was killed
        try:
            released = self._queue.release_lost(worker_id)
        except SQLAlchemyError as error:
            log.warning("jobs of the dead worker wait for their lease: %s", error)
        else:
            if released:
                log.info("%d job(s) of the dead worker go back to the queue", released)
        return process.returncode

    def _last_sign(self, worker_id: str) -> object:
        """When the worker was last heard of, by the database's clock; None before the first time.

        It is another answer each time while the database takes no write, not even this look: on a full or locked one
        there can be no sign.
        """
        look = sa.update(WorkerRow).where(WorkerRow.id == worker_id).values(pid=WorkerRow.pid)
        with log_and_continue("be heard of"), self._queue.database.write(alone=False) as session:
            return session.scalar(look.returning(WorkerRow.seen_at))
        return object()

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        try:
            process.wait(self._policy.grace_s)
        except subprocess.TimeoutExpired:
            log.warning("the worker does not end; it is killed")
            _kill_group(process.pid)
            process.wait()


def _kill_group(pid: int) -> None:
    """Kill what is left of a worker's process group; usually nothing is."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
