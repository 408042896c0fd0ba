"""`rl_training_history.jsonl`: every training, promotion and rollback, one line each, chained by hashes.

Each line carries the sha256 of the line before it and its own. Whoever changes, removes or inserts a line breaks the
chain at that place. What a chain cannot show is that its *end* was cut off; so the command prints the head, which can
be kept elsewhere, and `--head` compares.

    python -m utils.feedback.history verify FILE [--head SHA256]
"""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from utils.files import DamagedLine, append_line, read_lines

SCHEMA_VERSION = 1
FIRST = "0" * 64
EVENTS = ("training", "activation", "drill")
Entry = Mapping[str, Any]


@dataclass(frozen=True)
class History:
    """The readable lines in order, and the lines that are none: a crash cut them off while they were written, and no
    line after them is missing because of them. `problem` is where a chain that was verified breaks and how.
    """

    entries: tuple[Entry, ...]
    damaged: tuple[DamagedLine, ...]
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing was found that breaks the chain."""
        return not self.problem

    @property
    def head(self) -> str:
        """Hash of the last line."""
        return str(self.entries[-1]["hash"]) if self.entries else FIRST


def append_training(path: Path, entry: Mapping[str, Any]) -> Entry:
    """Write one line behind the others; when this returns, it is on the disk.

    Args:
        entry: plain JSON values; `event` is one of `EVENTS`. Number, time, schema and hashes are added.

    Returns:
        The entry as written.

    Raises:
        ValueError: the event is unknown, or a value is no JSON.
        OSError: the line could not be written; the history is then as it was.
    """
    if entry.get("event") not in EVENTS:
        raise ValueError(f"event must be one of {', '.join(EVENTS)}: {entry.get('event')}")
    whole: dict[str, Any] = {}

    def make() -> bytes:
        held = read_history(path)
        time = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
        facts = {"schema_version": SCHEMA_VERSION, "number": len(held.entries) + 1, "time": time}
        whole.update({**facts, **entry, "previous": held.head})
        whole["hash"] = entry_hash(whole)
        return _canonical(whole) + b"\n"

    append_line(path, make)
    return whole


def read_history(path: Path) -> History:
    """Read a history, skipping and reporting lines that are none; one that does not exist is empty.

    Raises:
        OSError: the file exists and cannot be read.
    """
    entries, damaged = read_lines(path, _parse)
    return History(tuple(entries), tuple(damaged))


def _parse(plain: Any) -> Entry:
    if not isinstance(plain, dict) or not isinstance(plain.get("hash"), str):
        raise ValueError("the line is no entry")
    return plain


def entry_hash(entry: Entry) -> str:
    """Sha256 of an entry without its own hash."""
    return hashlib.sha256(_canonical({k: v for k, v in entry.items() if k != "hash"})).hexdigest()


def _canonical(entry: Entry) -> bytes:
    text = json.dumps(entry, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace")


def verify_history(path: Path, head: str | None = None) -> History:
    """Read a history and check every hash.

    Args:
        head: the hash that its last line must have, if it was kept elsewhere; it may also be that of an earlier line,
            if lines were added since.

    Raises:
        OSError: the file exists and cannot be read.
    """
    held = read_history(path)
    previous, problem = FIRST, ""
    for position, entry in enumerate(held.entries, start=1):
        if entry_hash(entry) != entry["hash"]:
            problem = f"Entry {position} was changed: its hash does not fit its content."
        elif entry.get("previous") != previous:
            problem = f"Before entry {position} a line is missing, was inserted or moved."
        elif entry.get("number") != position:
            problem = f"Entry {position} bears the number {entry.get('number')}."
        if problem:
            break
        previous = str(entry["hash"])
    if not problem and head is not None and head not in {FIRST, *(e["hash"] for e in held.entries)}:
        problem = "The head that was kept is not in this history: its end was cut off or replaced."
    return replace(held, problem=problem)


def main(arguments: list[str] | None = None) -> int:
    """Entry point of the command: 0 when the chain is whole, 1 when it is not, 3 when the file cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m utils.feedback.history", description="Check a training history.")
    commands = parser.add_subparsers(dest="command", required=True)
    verify = commands.add_parser("verify", help="check every hash of the chain")
    verify.add_argument("file", type=Path)
    verify.add_argument("--head", help="the hash that a line of it must have")
    chosen = parser.parse_args(arguments)
    if not chosen.file.is_file():
        print(f"There is no file {chosen.file}.", file=sys.stderr)
        return 3
    try:
        check = verify_history(chosen.file, chosen.head)
    except OSError as error:
        print(f"{chosen.file} cannot be read: {error}", file=sys.stderr)
        return 3
    if check.damaged:
        print(f"{len(check.damaged)} lines were cut off by a crash and are skipped.")
    if not check.ok:
        print(f"BROKEN: {check.problem}")
        return 1
    print(f"OK: {len(check.entries)} entries, head {check.head}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
