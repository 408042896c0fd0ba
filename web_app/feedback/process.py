"""What needs torch, in a process of its own: a training, and the verdicts of a version on all corrections.

So the worker's memory stays what the analyses need, they get the processor first, and whatever goes wrong in a training
ends with its process. It ends with the worker, too; what it was doing is then put right as after any crash.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from utils.errors import TelltaleError, error_of
from utils.log import configure_logging

Progress = Callable[[str, float], None]
Task = Callable[..., Any]
LOOK_S = 0.2
"""The worker looks so often whether the job was cancelled or it shall end itself."""
NICE = 5
"""How much later than the analyses the system lets it run."""


def call(task: Task, progress: Progress, log: tuple[str, str], **values: Any) -> Any:
    """Run a task in a process of its own; what `progress` raises ends it.

    Args:
        progress: told the stage and how much of it is done, 0..1.
        values: what is handed on; it is pickled, as is the result.

    Returns:
        What the task returned.

    Raises:
        TelltaleError: what the task raised, or that its process ended without a result.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(task, there, log, NICE, values), daemon=True)
    process.start()
    there.close()
    said: tuple[Any, ...] = ("progress", "start", 0.0)
    try:
        while said[0] == "progress":
            progress(*said[1:])
            if here.poll(LOOK_S):
                said = here.recv()
    except EOFError as error:
        process.join()
        raise TelltaleError(f"The learning process ended with code {process.exitcode}, without a result.") from error
    finally:
        process.kill()
        process.join()
        here.close()
    if said[0] == "error":
        raise error_of(*said[1:])
    return said[1]


def _work(task: Task, worker: Connection, log: tuple[str, str], nice: int, values: dict[str, Any]) -> None:
    os.nice(nice)
    configure_logging(*log)
    threading.Thread(target=_end_with_worker, daemon=True).start()
    try:
        result = task(progress=lambda stage, done: worker.send(("progress", stage, done)), **values)
    except TelltaleError as error:
        worker.send(("error", error.code, error.detail))
    else:
        worker.send(("result", result))


def _end_with_worker() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def train(**values: Any) -> dict[str, Any]:
    """`train_version`; the line of the history."""
    from utils.feedback.retrain import train_version

    return train_version(**values).to_dict()


def check(progress: Progress, **values: Any) -> list[Any]:
    """`check_items`."""
    from utils.feedback.corrections import check_items

    return check_items(**values)
