"""What a worker does for the learning beside its analyses: look at media, judge votes, train."""

from __future__ import annotations

import time

from utils.errors import ConflictError, TelltaleError
from utils.feedback.versions import recover, serving
from utils.log import get_logger
from utils.weights import current_version, weights_root
from web_app.feedback.corrections import queue_check
from web_app.feedback.features import examine_next
from web_app.feedback.learner import Learner
from web_app.feedback.rulings import judge
from web_app.feedback.training import start_if_due
from web_app.jobs.instance import Instance

REST_S = 30.0  # after a version that was deleted, or a full disk; analyses go on
REST = 20.0  # times as long as judging all votes has taken, until they are judged again

log = get_logger(__name__)


class LearningTasks:
    """The learning's part of one worker."""

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
    root = weights_root(instance.settings)
    if not root.is_dir():
        return  # loading says what is missing
    try:
        recover(root, instance.paths.training_history)
    except ConflictError:
        log.info("another worker trains at the moment; it leaves nothing to put right")
    except PermissionError as error:
        log.warning("the folder of weights cannot be written, so nothing can be learned: %s", error)
