"""Make the database's feedback again from `feedback_log.jsonl`: `python -m web_app.feedback.rebuild`.

Safe to run at any time, also beside a running server, and as often as wanted: it writes only what differs. Lines that
cannot be read, such as one that a crash has torn, are skipped and named.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from utils.config import load_settings
from utils.errors import ConfigError
from web_app.db.migrations import open_database
from web_app.feedback.votes import reconcile
from web_app.paths import InstancePaths

EXIT_CONFIG = 2
EXIT_UNREADABLE = 1


def main(arguments: list[str] | None = None) -> int:
    """Rebuild, and say what was done.

    Returns:
        0, also when damaged lines were skipped; 1 if the log cannot be read, 2 for a wrong configuration.
    """
    parser = argparse.ArgumentParser(prog="web_app.feedback.rebuild", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", type=Path, help="configuration file; config.ini by default")
    given = parser.parse_args(arguments)
    try:
        settings = load_settings(given.config)
        paths = InstancePaths.of(settings)
        paths.create()
        with open_database(settings) as database:
            done = reconcile(database, paths)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIG
    except OSError as error:
        print(f"{paths.feedback_log} cannot be read: {error}", file=sys.stderr)
        return EXIT_UNREADABLE
    for line in done.damaged:
        print(f"line {line.number} is skipped: {line.why}", file=sys.stderr)
    print(
        f"{done.standing} voices stand; {done.written} rows written, {done.removed} removed, "
        f"{len(done.damaged)} damaged lines skipped"
    )
    if done.unlogged:
        print(f"{done.unlogged} rows have no line in the log; they are kept", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
