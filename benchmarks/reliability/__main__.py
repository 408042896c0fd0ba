"""`python -m benchmarks.reliability [NAME ...] [--short]`: run all figures, or the named ones, and print one table."""

from __future__ import annotations

import argparse
import importlib
import sys

from benchmarks.reliability.common import Figure, print_figures

NAMES = ("chaos", "faults", "abuse", "media", "soak")


def main() -> int:
    """Run them one after the other.

    Returns:
        0 if all goals are reached, else 1.
    """
    parser = argparse.ArgumentParser(prog="benchmarks.reliability", description="Reliability figures of the server.")
    parser.add_argument("names", nargs="*", choices=[*NAMES, "all"], default="all", help="all by default")
    parser.add_argument("--short", action="store_true", help="seconds instead of minutes; goals of speed are missed")
    given = parser.parse_args()
    figures: list[Figure] = []
    for name in NAMES if "all" in given.names else given.names:
        print(f"==> {name}", flush=True)
        found = importlib.import_module(f"benchmarks.reliability.{name}").run(given.short)
        print_figures(found)
        figures += found
    missed = sum(not figure.reached for figure in figures)
    print(f"{len(figures) - missed} of {len(figures)} goals are reached.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
