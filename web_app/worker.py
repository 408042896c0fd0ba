"""The worker process: `python -m web_app worker` loads the networks once and then runs jobs.

Only this process of the server imports the networks. It ends on SIGTERM, SIGINT, or with the server that started it.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from utils.config import Settings
from utils.errors import NotFoundError
from utils.media.sandbox import sandbox_level
from utils.types import Report
from web_app.db.migrations import open_database
from web_app.db.models import CHECK, COPY, EXPLAIN, TRAIN
from web_app.db.session import Database
from web_app.feedback.learner import Learner
from web_app.feedback.model_handle import ModelHandle
from web_app.feedback.tasks import LearningTasks, recover_versions
from web_app.integrations.webhooks import sending
from web_app.jobs.broker import LEARNING, QUEUES, ROLES
from web_app.jobs.derived import CleanCopies, keep_previews
from web_app.jobs.heartbeat import EXIT_RECYCLED
from web_app.jobs.queue import Claim
from web_app.jobs.runner import Handler, Progress, WorkerTasks, run_worker
from web_app.paths import InstancePaths
from web_app.storage.detections import find_detection
from web_app.storage.files import MediaStore

if TYPE_CHECKING:
    from utils.detection.pipeline import Analyser

ORPHAN_GRACE_S = 10.0  # an orphan ends by force after this, whatever it was doing


def work(
    settings: Settings, *, worker_id: str | None = None, supervised: bool = False, roles: Sequence[str] = ROLES
) -> int:
    """Run jobs until told to stop.

    Args:
        worker_id: name in the database; None makes one up.
        supervised: end when standard input, the parent's pipe, ends.
        roles: of many workers: which queues this one takes jobs from, and whether it learns.

    Returns:
        The exit code: 0, or 75 when a fresh worker shall take over.

    Raises:
        TelltaleError: the decoder cannot run, a setting names what cannot be used, or the weights are unusable.
    """
    stop = stop_on_signals()
    if supervised:
        end_with_parent(stop)

    from utils.detection.batch import Work, analyse_together  # seconds and hundreds of MB: only here
    from utils.detection.engines import prepare_version
    from utils.detection.pipeline import analyse, load_analyser

    InstancePaths.of(settings).create()
    with open_database(settings):
        recover_versions(settings)
    with ThreadPoolExecutor(1) as beside:
        probing = beside.submit(sandbox_level)  # waits for a child, while the networks are loaded
        served = ModelHandle(settings, load_analyser, prepare_version)
        learning = LearningTasks(settings, Learner(settings, served))
        protections = probing.result()

    copies = CleanCopies(settings, lambda: served.analyser.decoders)

    def run(path: Path, progress: Progress) -> Report:
        report = analyse(path, served.analyser, progress=progress, on_media=partial(keep_previews, path))
        copies.keep(path, report)
        return report

    def run_together(works: Sequence[tuple[Path, Progress]]) -> list[Report | Exception]:
        outcomes = analyse_together(
            [Work(path, progress, partial(keep_previews, path)) for path, progress in works], served.analyser
        )
        for (path, _), outcome in zip(works, outcomes, strict=True):
            if isinstance(outcome, Report):
                copies.keep(path, outcome)
        return outcomes

    tasks = replace(worker_tasks(settings, served, learning, copies, protections), together=run_together)
    if LEARNING not in roles:
        tasks = replace(tasks, background={}, when_idle=lambda: None)
    queues = [name for name in roles if name in QUEUES]
    with sending(settings):
        recycled = run_worker(settings, run, stop, worker_id=worker_id, tasks=tasks, queues=queues)
    learning.close()
    return EXIT_RECYCLED if recycled else 0


def worker_tasks(
    settings: Settings, served: ModelHandle, learning: LearningTasks, copies: CleanCopies, protections: Sequence[str]
) -> WorkerTasks:
    """All that the real worker does beside analyses."""
    return WorkerTasks(
        background={TRAIN: learning.run_training, CHECK: learning.run_check},
        foreground={EXPLAIN: closeup_handler(settings, lambda: served.analyser), COPY: copies.handle},
        before_job=served.refresh,
        when_idle=learning.when_idle,
        on_delete=learning.forget,
        facts=lambda: {**served.facts(), "sandbox": list(protections)},
    )


def closeup_handler(settings: Settings, analyser: Callable[[], Analyser]) -> Handler:
    """The handler of the task `explain`; `analyser` gives the one in use when the job runs."""
    database, store = Database.of(settings), MediaStore.of(settings)

    def handle(claim: Claim, progress: Progress) -> dict[str, Any]:
        from utils.detection.closeup import look_closer  # brings torch, 500 MB, to workers that need it

        with database.read() as session:
            row = find_detection(session, claim.payload["detection"])
        if row is None:
            raise NotFoundError("The analysis was deleted.")
        face = int(claim.payload["face"])
        return look_closer(store.path(row.media.stored_name), analyser(), face, progress=progress).to_dict()

    return handle


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def end_with_parent(stop: threading.Event) -> None:
    """Watch standard input, a pipe that the supervisor holds open: its end is the supervisor's end."""

    def watch() -> None:
        while os.read(0, 1024):
            continue
        stop.set()
        timer = threading.Timer(ORPHAN_GRACE_S, os._exit, (1,))
        timer.daemon = True
        timer.start()

    threading.Thread(target=watch, name="parent", daemon=True).start()


def end_process(code: int) -> NoReturn:
    """End at once: everything is stored and closed, and tearing the networks down would take seconds more."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
