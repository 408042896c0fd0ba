"""What a worker does for the learning beside its analyses, put together from the parts of this package.

Nothing here knows the networks: `prepare`, `fingerprint` and `train` are handed in, by the worker from
`web_app.feedback.core`, by tests as they like.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from utils.config import Settings
from utils.errors import TelltaleError
from utils.log import get_logger
from utils.weights import weights_root
from web_app.db.session import Database
from web_app.feedback.features import Examiner, Prepare
from web_app.feedback.quarantine import Judge
from web_app.feedback.training import Train, Trainings
from web_app.feedback.votes import forget_analysis, reconcile
from web_app.jobs.queue import JobQueue
from web_app.paths import InstancePaths
from web_app.storage.files import MediaStore

REST_S = 30.0

log = get_logger(__name__)


class LearningDuties:
    """The learning's part of one worker.

    Args:
        settings: the whole configuration.
        prepare: looks at one face of a file.
        fingerprint: of the networks that look.
        train: trains a candidate and puts it to the gate.
        readable: whether a file of features is whole.
    """

    def __init__(
        self,
        settings: Settings,
        prepare: Prepare,
        fingerprint: Callable[[], str],
        train: Train,
        readable: Callable[[Path], bool] = Path.is_file,
    ) -> None:
        paths = InstancePaths.of(settings)
        self._database = Database.of(settings)
        self._paths = paths
        store = MediaStore(paths.uploads, settings.media.max_file_mb * 1_000_000)
        self._examiner = Examiner(self._database, store, paths, prepare, fingerprint)
        self._judge = Judge(self._database, settings.learning)
        queue = JobQueue(self._database, settings.jobs)
        root = weights_root(settings)
        self._trainings = Trainings(self._database, queue, paths, settings.learning, train, root, readable)
        self.run_training = self._trainings.run
        self._rest_until = 0.0

    def begin(self) -> None:
        """Make database and log agree again after whatever ended the last worker."""
        done = reconcile(self._database, self._paths)
        if done.written or done.removed:
            log.info("feedback: %d rows made again from the log, %d removed", done.written, done.removed)
        for line in done.damaged:
            log.warning("feedback_log.jsonl, line %d is skipped: %s", line.number, line.why)

    def when_idle(self) -> None:
        """Look at one medium, judge if anything changed, start a training that is due."""
        if time.monotonic() < self._rest_until:
            return
        try:
            self._examiner.examine_next()
            self._judge.judge_if_changed()
            self._trainings.start_if_due()
        except (TelltaleError, OSError) as error:  # a version that was deleted, a full disk; analyses must go on
            log.warning("learning rests for %.0f s: %s", REST_S, error)
            self._rest_until = time.monotonic() + REST_S

    def forget(self, job_id: int) -> None:
        """Withdraw what was said about an analysis that is to be deleted."""
        forget_analysis(self._database, self._paths, job_id)

    def close(self) -> None:
        """Give the database connections back."""
        self._database.close()
