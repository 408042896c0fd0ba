"""`python -m web_app.storage.check`: compare the store with the database, both ways, and repair with `--repair`.

It may run beside a server; what changes meanwhile is looked at twice before it is called a fault.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from utils.config import load_settings
from utils.errors import ConfigError
from web_app.db.migrations import open_database
from web_app.db.session import Database
from web_app.paths import InstancePaths
from web_app.storage.consistency import find_faults, repair
from web_app.storage.files import MediaStore

EXIT_FAULTS = 1
EXIT_CONFIG = 2


def main(arguments: list[str] | None = None) -> int:
    """Look, tell, and repair on request.

    Returns:
        0 if store and database agree or were made to; 1 for faults that remain; 2 for a wrong configuration.
    """
    parser = argparse.ArgumentParser(prog="web_app.storage.check", description="Compare the uploads with the database.")
    parser.add_argument("--config", type=Path, help="configuration file; config.ini by default")
    parser.add_argument("--repair", action="store_true", help="set right what can be set right")
    parser.add_argument("--quick", action="store_true", help="compare names and sizes only, without reading the files")
    given = parser.parse_args(arguments)
    try:
        settings = load_settings(given.config)
        InstancePaths.of(settings).create()
        store = MediaStore.of(settings)
        with open_database(settings) as database:
            return _check(database, store, wants_repair=given.repair, contents=not given.quick)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIG


def _check(database: Database, store: MediaStore, *, wants_repair: bool, contents: bool) -> int:
    suspects = list(find_faults(database, store, contents=contents))
    again = set(find_faults(database, store, contents=contents)) if suspects else set()
    faults = [fault for fault in suspects if fault in again]
    for fault in faults:
        done = f" -> {repair(database, store, fault)}" if wants_repair else ""
        print(f"{fault.kind}: {fault.name}: {fault.detail}{done}")
    if not faults:
        print("Store and database agree.")
        return 0
    print(f"{len(faults)} faults{' were dealt with' if wants_repair else '; --repair sets them right'}.")
    return 0 if wants_repair else EXIT_FAULTS


if __name__ == "__main__":
    sys.exit(main())
