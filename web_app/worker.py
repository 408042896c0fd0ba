"""The worker process: `python -m web_app worker` loads the networks once and then runs jobs.

Only this process of the server imports the networks. It ends on SIGTERM, SIGINT, or with the server that started it.
Between jobs it deletes what the retention period has ended, looks at media, judges votes, and starts trainings.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import sqlalchemy as sa

from utils.config import Settings
from utils.errors import ConflictError, NotFoundError, TelltaleError, require_torch
from utils.feedback.versions import recover, serving
from utils.log import get_logger
from utils.media.sandbox import sandbox_level
from utils.types import Media, Report
from utils.weights import current_version, has_speech, weights_root
from web_app.db.migrations import migrate
from web_app.db.models import CHECK, COPY, EXPLAIN, FINAL, TRAIN, BatchRow, DetectionRow, JobRow, WorkerRow, utc_now
from web_app.db.names import forget_dropped
from web_app.feedback.features import drop_orphans, examine_next
from web_app.feedback.learner import Learner
from web_app.feedback.model_handle import ModelHandle
from web_app.feedback.rulings import judge
from web_app.feedback.training import queue_check, run_check, run_training, start_if_due
from web_app.feedback.votes import delete_analysis
from web_app.integrations.webhooks import sending
from web_app.jobs.broker import LEARNING, QUEUES, ROLES
from web_app.jobs.derived import CleanCopies, Looks, face_looks, keep_looks, keep_previews, whole_looks
from web_app.jobs.detections import delete_detection, find_detection
from web_app.jobs.heartbeat import EXIT_RECYCLED, log_and_continue
from web_app.jobs.queue import Claim
from web_app.jobs.runner import Progress, WorkerTasks, run_worker
from web_app.jobs.shared import Instance
from web_app.paths import branches

ORPHAN_GRACE_S = 10.0  # an orphan ends by force after this, whatever it was doing
INTERVAL_S = 600.0  # between two looks at what is to be deleted
REST_S = 30.0  # of the learning, after a version that was deleted, or a full disk
REST = 20.0  # times as long as judging all votes has taken, until they are judged again
FORGET_WORKERS = dt.timedelta(days=1)

log = get_logger(__name__)


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
    from utils.detection.people import People
    from utils.detection.pipeline import Scores, analyse, load_analyser

    with contextlib.closing(Instance.of(settings)) as instance:
        instance.paths.create()
        migrate(instance.database)
        if LEARNING in roles:
            recover_versions(instance)
        instance.shared.follow()
        with ThreadPoolExecutor(1) as beside:
            probing = beside.submit(sandbox_level)  # waits for a child, while the networks are loaded
            served = ModelHandle(settings, load_analyser)
            protections = probing.result()
        copies = CleanCopies(instance, lambda: served.analyser.decoders)
        learner = Learner(settings, served)
        keeps_looks = settings.storage.seen_before == "on"

        def seen(path: Path, looks: Looks, media: Media) -> None:
            keep_previews(path, media)
            if LEARNING in roles:
                learner.keep_hash(path, media)
            if keeps_looks:
                with log_and_continue("tell what it looks like"):
                    looks.update(whole_looks(media))

        def scored(path: Path, looks: Looks, people: People, scores: Scores, report: Report) -> None:
            if LEARNING in roles:
                learner.keep(path, people, scores, report)
            if keeps_looks:
                with log_and_continue("tell what its faces look like"):
                    looks.update(face_looks(people))

        def keep(path: Path, looks: Looks, report: Report) -> None:
            copies.keep(path, report)
            with log_and_continue("keep what it looks like"):
                keep_looks(instance, path, looks)
            instance.store.share(f"{path.parent.name}/{path.name}", report.media.mime)

        def run(path: Path, progress: Progress) -> Report:
            looks: Looks = {}
            on_media, on_scores = partial(seen, path, looks), partial(scored, path, looks)
            report = analyse(path, served.analyser, progress=progress, on_media=on_media, on_scores=on_scores)
            keep(path, looks, report)
            return report

        def run_together(works: Sequence[tuple[Path, Progress]]) -> list[Report | Exception]:
            looks: list[Looks] = [{} for _ in works]
            asked = [
                Work(path, progress, partial(seen, path, each), partial(scored, path, each))
                for (path, progress), each in zip(works, looks, strict=True)
            ]
            outcomes = analyse_together(asked, served.analyser)
            for (path, _), each, outcome in zip(works, looks, outcomes, strict=True):
                if isinstance(outcome, Report):
                    keep(path, each, outcome)
            return outcomes

        tasks = worker_tasks(instance, served, learner, copies, protections, learns=LEARNING in roles)
        queues = [name for name in roles if name in QUEUES]
        with sending(instance):
            tasks = replace(tasks, together=run_together)
            recycled = run_worker(instance, run, stop, worker_id=worker_id, tasks=tasks, queues=queues)
    return EXIT_RECYCLED if recycled else 0


def worker_tasks(
    instance: Instance,
    served: ModelHandle,
    learner: Learner,
    copies: CleanCopies,
    protections: Sequence[str],
    *,
    learns: bool = True,
) -> WorkerTasks:
    """All that the real worker does beside analyses; `learns` where it looks at feedback, judges and trains."""
    learning, clean_at = LearningTasks(instance, learner), 0.0

    def when_idle() -> None:
        nonlocal clean_at
        if time.monotonic() >= clean_at:
            clean_at = time.monotonic() + INTERVAL_S
            with log_and_continue("clean up"):
                clean_up(instance, utc_now())
        if learns:
            learning.when_idle()

    def before_job() -> None:
        instance.shared.follow()
        served.refresh()

    trains = {TRAIN: partial(run_training, instance, learner), CHECK: partial(run_check, instance, learner)}
    return WorkerTasks(
        background=trains if learns else {},
        foreground={EXPLAIN: partial(run_closeup, instance, served), COPY: copies.handle},
        before_job=before_job,
        when_idle=when_idle,
        facts=lambda: {**served.facts(), "sandbox": list(protections)},
    )


def clean_up(instance: Instance, now: dt.datetime) -> int:
    """Delete what dead writers and workers have left, and what the retention period has ended as of `now`: finished
    analyses with their files, and batches. What was derived from them to be learned stays. Returns how many analyses.
    """
    database, store, days = instance.database, instance.store, instance.settings.storage.retention_days
    before, ids = now - dt.timedelta(days=days), sa.select(JobRow.public_id)
    store.sweep_cut_off()
    if instance.shared.on:
        drop_orphans(instance)
    with database.write() as session:
        session.execute(sa.delete(WorkerRow).where(WorkerRow.seen_at < now - FORGET_WORKERS))
        # those that were never to be kept are deleted by their request, unless it dies in between
        unkept = ids.join(DetectionRow, DetectionRow.job_id == JobRow.id).where(DetectionRow.expires_at < now)
        expired: Sequence[str] = session.scalars(unkept).all()
        old: Sequence[str] = ()
        if days:
            old = session.scalars(ids.where(JobRow.created_at < before, JobRow.state.in_(FINAL))).all()
            session.execute(sa.delete(BatchRow).where(BatchRow.created_at < before))
    deleted = sum(delete_analysis(instance, public_id) for public_id in expired)
    outdated = sum(delete_detection(database, store, public_id) for public_id in old)
    forget_dropped(database)
    if outdated:
        log.info("deleted %d analyses older than %d days", outdated, days)
    return deleted + outdated


class LearningTasks:
    def __init__(self, instance: Instance, learner: Learner) -> None:
        self._instance = instance
        self._learner = learner
        self._rest_until = self._judge_at = 0.0

    def when_idle(self) -> None:
        """Look at one medium, judge, start what is due: a training, or a check of all corrections."""
        if time.monotonic() < self._rest_until:
            return
        try:
            looked = examine_next(self._instance, self._learner)
            started = time.monotonic()
            if started >= self._judge_at:
                judge(self._instance)
                self._judge_at = time.monotonic() + REST * (time.monotonic() - started)
            served = serving(weights_root(self._instance.settings))
            start_if_due(self._instance, served, all_prepared=not looked)
            if not looked:
                queue_check(self._instance, current_version(self._instance.settings))
        except (TelltaleError, OSError) as error:
            log.warning("learning rests for %.0f s: %s", REST_S, error)
            self._rest_until = time.monotonic() + REST_S


def recover_versions(instance: Instance) -> None:
    """Finish or undo what a killed worker left of a training or a promotion."""
    faces, speech = branches(instance.settings)
    if not faces.root.is_dir():
        return  # loading says what is missing
    try:
        with instance.shared.acting():
            recover(faces.root, faces.history)
            if has_speech(faces.root):
                recover(speech.root, speech.history)
    except ConflictError:
        log.info("another worker trains at the moment; it leaves nothing to put right")
    except PermissionError as error:
        log.warning("the folder of weights cannot be written, so nothing can be learned: %s", error)


def run_closeup(instance: Instance, served: ModelHandle, claim: Claim, progress: Progress) -> dict[str, Any]:
    """The handler of the task `explain`."""
    require_torch("A closer look with its heatmaps")
    from utils.detection.closeup import look_closer  # brings torch, 500 MB, to workers that need it

    with instance.database.read() as session:
        row = find_detection(session, claim.payload["detection"])
    if row is None:
        raise NotFoundError("The analysis was deleted.")
    path = instance.store.path(row.media.stored_name)
    return look_closer(path, served.analyser, int(claim.payload["face"]), progress=progress).to_dict()


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set, by way of a thread: a handler runs in the main thread, which may hold the
    event's lock at that moment, and would wait for it for ever."""
    stop, arrived = threading.Event(), queue.SimpleQueue[None]()  # its `put` may be called in a handler

    def watch() -> None:
        arrived.get()
        stop.set()

    threading.Thread(target=watch, name="signals", daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: arrived.put(None))
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
