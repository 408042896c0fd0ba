"""A worker process with the fake analysis, started by the tests: `python -m tests.web_app.fake_worker`.

With `--follow` it follows the versions of other machines, and its reports name those that they began and ended with.
"""

from __future__ import annotations

import argparse
import sys

from tests.web_app.helpers import fake_analyse
from utils.config import load_settings
from web_app.db.migrations import migrate
from web_app.jobs import queue
from web_app.jobs.broker import OVERDUE_S, QUEUES
from web_app.jobs.heartbeat import EXIT_RECYCLED
from web_app.jobs.runner import WorkerTasks, run_worker
from web_app.jobs.shared import Instance
from web_app.worker import end_with_parent, stop_on_signals

parser = argparse.ArgumentParser()
parser.add_argument("--worker-id")
parser.add_argument("--supervised", action="store_true")
parser.add_argument("--queues", default=",".join(QUEUES))
parser.add_argument("--follow", action="store_true")
parser.add_argument("--overdue", type=float, default=OVERDUE_S, help="as that of the queue")
given = parser.parse_args()
vars(queue)["OVERDUE_S"] = given.overdue
stop = stop_on_signals()
if given.supervised:
    end_with_parent(stop)
tasks, analyse = WorkerTasks(facts=lambda: {"model_version": "v-test"}), fake_analyse
instance = Instance.of(load_settings())
instance.paths.create()
migrate(instance.database)
if given.follow:
    from tests.web_app.stand_ins import following

    analyse, tasks = following(instance)
queues = given.queues.split(",")
recycled = run_worker(instance, analyse, stop, worker_id=given.worker_id, tasks=tasks, queues=queues)
sys.exit(EXIT_RECYCLED if recycled else 0)
