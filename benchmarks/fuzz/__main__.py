"""`python -m benchmarks.fuzz [NAME ...]`: every reader, or the named ones, under mutated inputs for a time each."""

from __future__ import annotations

import argparse
import sys
import time

from benchmarks.fuzz.engine import fuzz
from benchmarks.fuzz.targets import TARGETS


def main() -> int:
    """Entry point of the command; 1 where an input surprised a reader."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description="Fuzz the readers of foreign bytes.")
    parser.add_argument("names", nargs="*", choices=[*TARGETS, "all"], default="all", help="all by default")
    parser.add_argument("--seconds", type=int, default=60, help="for each reader; 1800 for the long form")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the mutations")
    given = parser.parse_args()
    failed = 0
    for name in TARGETS if "all" in given.names else given.names:
        try:
            print(f"ok   {name}: {fuzz(TARGETS[name], seconds=given.seconds, seed=given.seed)} inputs", flush=True)
        except AssertionError as error:
            failed += 1
            print(f"MISS {name}: {error}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
