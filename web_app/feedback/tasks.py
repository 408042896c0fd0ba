"""What a worker does for the learning beside its analyses: look at media, judge votes, train."""

from __future__ import annotations

import time
from typing import Any

from utils.config import Settings
from utils.errors import ConflictError, TelltaleError
from utils.feedback.versions import recover, serving
from utils.log import get_logger
from utils.weights import current_version, weights_root
from web_app.db.session import Database
from web_app.feedback.corrections import queue_check, run_check
from web_app.feedback.features import examine_next
from web_app.feedback.learner import Learner
from web_app.feedback.process import Progress
from web_app.feedback.rulings import judge
from web_app.feedback.training import run_training, start_if_due
from web_app.feedback.votes import forget_analysis
from web_app.jobs.queue import Claim, JobQueue
from web_app.paths import InstancePaths
from web_app.storage.files import MediaStore

REST_S = 30.0  # after a version that was deleted, or a full disk; analyses go on
REST = 20.0  # times as long as judging all votes has taken, until they are judged again

log = get_logger(__name__)


class LearningTasks:
    """The learning's part of one worker.

    Args:
        learner: asks the networks.
    """

    def __init__(self, settings: Settings, learner: Learner) -> None:
        self._settings = settings
        self._learner = learner
        self._paths = InstancePaths.of(settings)
        self._database = Database.of(settings)
        self._store = MediaStore.of(settings)
        self._queue = JobQueue(self._database, settings.jobs)
        self._rest_until = self._judge_at = 0.0

    def when_idle(self) -> None:
        """Look at one medium, judge, start what is due: a training, or a check of all corrections."""
        if time.monotonic() < self._rest_until:
            return
        try:
            looked = examine_next(self._database, self._store, self._paths, self._learner)
            started = time.monotonic()
            if started >= self._judge_at:
                judge(self._database, self._settings.learning)
                self._judge_at = time.monotonic() + REST * (time.monotonic() - started)
            served = serving(weights_root(self._settings))
            start_if_due(self._database, self._queue, self._settings, served, all_prepared=not looked)
            if not looked:
                queue_check(self._database, self._queue, current_version(self._settings))
        except (TelltaleError, OSError) as error:
            log.warning("learning rests for %.0f s: %s", REST_S, error)
            self._rest_until = time.monotonic() + REST_S

    def run_training(self, claim: Claim, progress: Progress) -> dict[str, Any]:
        """The handler of the task `train`."""
        return run_training(self._database, self._settings, self._learner, claim, progress)

    def run_check(self, claim: Claim, progress: Progress) -> dict[str, Any]:
        """The handler of the task `check`."""
        return run_check(self._database, self._paths, self._learner, progress)

    def forget(self, job_id: int) -> None:
        """Withdraw what was said about an analysis that is to be deleted."""
        forget_analysis(self._database, self._paths, job_id)

    def close(self) -> None:
        """Give the database connections back."""
        self._database.close()


def recover_versions(settings: Settings) -> None:
    """Finish or undo what a killed worker left of a training or a promotion."""
    root = weights_root(settings)
    if not root.is_dir():
        return  # loading says what is missing
    try:
        recover(root, InstancePaths.of(settings).training_history)
    except ConflictError:
        log.info("another worker trains at the moment; it leaves nothing to put right")
    except PermissionError as error:
        log.warning("the folder of weights cannot be written, so nothing can be learned: %s", error)
