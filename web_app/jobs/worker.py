"""The worker process: `python -m web_app.jobs.worker` loads the networks once and then runs jobs.

Only this process of the server imports the networks. It ends on SIGTERM, SIGINT, or with the server that started it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from pathlib import Path

from utils.config import load_settings
from utils.errors import ConfigError, TelltaleError, WeightsError
from utils.log import configure_logging, get_logger
from utils.media.sandbox import sandbox_level
from utils.types import Report
from web_app.db import Database
from web_app.jobs.runner import Progress, run_worker
from web_app.migrations import migrate
from web_app.paths import InstancePaths

EXIT_UNABLE = 1
EXIT_CONFIG = 2
EXIT_WEIGHTS = 3
ORPHAN_GRACE_S = 10.0  # an orphan ends by force after this, whatever it was doing

log = get_logger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Run jobs until told to stop.

    Returns:
        0; 1 if the decoder cannot run, 2 for a wrong configuration, 3 for unusable weights.
    """
    parser = argparse.ArgumentParser(prog="web_app.jobs.worker", description="Telltale's worker.")
    parser.add_argument("--config", type=Path, help="configuration file; config.ini by default")
    parser.add_argument("--worker-id", help="name in the database; made up by default")
    parser.add_argument("--supervised", action="store_true", help="end when standard input, the parent's pipe, ends")
    given = parser.parse_args(arguments)
    try:
        settings = load_settings(given.config)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIG
    configure_logging(settings.server.log_level)
    stop = stop_on_signals()
    if given.supervised:
        end_with_parent(stop)

    from utils.detection.pipeline import analyse, load_analyser  # seconds and hundreds of MB: only here

    InstancePaths.of(settings).create()
    database = Database.of(settings)
    migrate(database)
    database.close()
    try:
        analyser = load_analyser(settings)
        protections = sandbox_level()
    except TelltaleError as error:
        log.error("%s", error)
        return EXIT_WEIGHTS if isinstance(error, WeightsError) else EXIT_UNABLE

    def run(path: Path, progress: Progress) -> Report:
        return analyse(path, analyser, progress=progress)

    facts = {
        "model_version": analyser.version,
        "model_sha256": analyser.version_sha256,
        "experts": list(analyser.experts),
        "missing": dict(analyser.missing),
        "sandbox": list(protections),
    }
    run_worker(settings, run, stop, worker_id=given.worker_id, facts=facts)
    return 0


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


if __name__ == "__main__":
    sys.exit(main())
