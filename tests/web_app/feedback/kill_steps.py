"""Kill the writing of feedback at every step, again and again, and see whether anything was lost.

Each round forks a process per step. It says something about a medium, changes it, withdraws it, or decides about it,
and dies by SIGKILL at that step. Everything that was acknowledged must stand in the database then, and again, as in the
log, after its rows were made from the log.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import sqlalchemy as sa

from utils.config import Settings, StorageSettings
from utils.feedback.feedback_log import DecisionEntry, FeedbackEntry, append_feedback, read_feedback_log
from web_app.db.migrations import migrate
from web_app.db.models import FeedbackRow, ReviewedMediumRow
from web_app.feedback import votes
from web_app.jobs.shared import Instance

STEPS = ("before the line", "half a line", "line not synced", "line on the disk", "row not committed", "acknowledged")
ACTIONS = ("say", "change", "withdraw", "decide")
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def die(*_: object, **__: object) -> NoReturn:
    """End this process as a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise SystemExit


def entry(number: int, actual: str, moment: int) -> FeedbackEntry:
    """A user's word; the medium follows from the number."""
    return FeedbackEntry(
        time=START + dt.timedelta(seconds=moment), detection_id=f"d{number}", client_id="user",
        media_sha256=sha256_of(number), model_version="v1", prediction="real", fake_probability=0.2,
        judgement="incorrect" if actual == "fake" else "correct", actual=actual, category="miss",
    )  # fmt: skip


def sha256_of(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def arm(step: str) -> None:
    """Put the end of this process at a step of writing."""
    write = os.write
    store, functions = votes._store, vars(votes)

    def half(descriptor: int, line: bytes) -> NoReturn:
        write(descriptor, line[: len(line) // 2])
        die()

    def append_and_die(*values: Any) -> NoReturn:
        append_feedback(*values)
        die()

    def store_and_die(*values: Any) -> NoReturn:
        store(*values)
        die()

    if step == "before the line":
        functions["append_feedback"] = die
    elif step == "half a line":
        os.write = half  # type: ignore[assignment]
    elif step == "line not synced":
        os.fsync = die
    elif step == "line on the disk":
        functions["append_feedback"] = append_and_die
    elif step == "row not committed":
        functions["_store"] = store_and_die


def act(action: str, number: int, moment: int, folder: Path) -> None:
    """Do one thing as the server does it."""
    instance = open_instance(folder)
    if action == "withdraw":
        votes.withdraw_vote(instance, sha256_of(number), "user")
    elif action == "decide":
        when = START + dt.timedelta(seconds=moment)
        decision = DecisionEntry(
            time=when, media_sha256=sha256_of(number), moderator_id="m", decision="accept", label="fake"
        )
        votes.decide(instance, decision)
    else:
        votes.save_vote(instance, entry(number, "fake" if action == "change" else "real", moment))


def open_instance(folder: Path) -> Instance:
    return Instance.of(Settings(storage=StorageSettings(instance_dir=str(folder))))


def killed(step: str, work: Callable[[], None]) -> bool:
    """Run `work` in a process that dies at `step`; whether it came to the acknowledgement."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        arm(step)
        work()
        os.write(writing, b"201")
        die()
    os.close(writing)
    acknowledged = os.read(reading, 3) == b"201"
    os.close(reading)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        raise RuntimeError(f"the process at step {step!r} ended by itself with {status}")
    return acknowledged


def check(folder: Path, promised: dict[int, set[str | None]]) -> list[str]:
    """What is wrong: something promised is not there, or log and database differ after a reconciliation.

    Args:
        folder: the instance.
        promised: per medium the labels that may stand now, None for no vote.
    """
    instance = open_instance(folder)
    database, paths = instance.database, instance.paths
    with database.read() as session:
        found = {row.media_sha256: row.actual for row in session.scalars(sa.select(FeedbackRow))}
    votes.reconcile(instance)
    log = read_feedback_log(paths.feedback_log)
    standing = {sha256: each.actual for (sha256, _), each in log.standing().items()}
    with database.read() as session:
        rows = {row.media_sha256: row.actual for row in session.scalars(sa.select(FeedbackRow))}
        decided = set(
            session.scalars(sa.select(ReviewedMediumRow.media_sha256).where(ReviewedMediumRow.decision.is_not(None)))
        )
        sound = session.scalar(sa.text("PRAGMA integrity_check")) == "ok"
    database.close()
    faults = [] if sound else ["the database is damaged"]
    if rows != standing:
        faults.append("log and database differ")
    if decided != set(log.standing_decisions()):
        faults.append("decisions of log and database differ")
    for number, allowed in promised.items():
        for said in (found.get(sha256_of(number)), rows.get(sha256_of(number))):
            if said not in allowed:
                faults.append(f"medium {number}: {said} stands, not one of {allowed}")
    return faults


def run(folder: Path, rounds: int) -> dict[str, Any]:
    """Kill `rounds` times at each step; the summary."""
    instance = open_instance(folder)
    paths = instance.paths
    paths.create()
    migrate(instance.database)
    instance.close()
    promised: dict[int, set[str | None]] = {}
    result_of: dict[str, str | None] = {"say": "real", "change": "fake", "withdraw": None}
    faults: list[str] = []
    kills = acknowledged = 0
    for turn in range(rounds):
        for number, step in enumerate(STEPS):
            action = ACTIONS[(turn + number) % len(ACTIONS)]
            before = promised.get(number, {None})
            done = killed(step, lambda a=action, n=number, k=kills: act(a, n, k + 1, folder))  # type: ignore[misc]
            kills += 1
            acknowledged += done
            if action != "decide":
                # without an answer either may hold: the word may have reached the disk or not
                promised[number] = {result_of[action]} if done else before | {result_of[action]}
            faults += [f"round {turn}, {step}, {action}: {fault}" for fault in check(folder, promised)]
    damaged = len(read_feedback_log(paths.feedback_log).damaged)
    return {"kills": kills, "acknowledged": acknowledged, "torn_lines": damaged, "faults": faults}
