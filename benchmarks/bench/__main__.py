"""`make bench`: whole analyses side by side with a plain reference, many photos, a server; `--write` keeps the figures.

python -m benchmarks.bench [image large video photos processors server] [--short] [--write]
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bench.page import print_rows, write_page
from benchmarks.bench.timing import Row
from utils.config import WeightsSettings, load_settings

SECTIONS = ("image", "large", "video", "photos", "processors", "server")


def measure(names: Sequence[str], *, rounds: int, short: bool, root: Path | None = None) -> list[Row]:
    """Run sections one after the other, and print each as soon as it is measured.

    Args:
        short: tiny media and few rounds, on one thread.
        root: a folder of weights other than the configured one.
    """
    from benchmarks.bench import inside, serving
    from utils.detection.pipeline import load_analyser

    settings = load_settings()
    if root is not None:
        settings = dataclasses.replace(settings, weights=WeightsSettings(dir=str(root)))
    if short:
        settings = dataclasses.replace(settings, detection=dataclasses.replace(settings.detection, threads=1))
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="telltale-bench-") as place:
        if "server" in names:  # first, while this process holds no networks
            rows += serving.serve(Path(place), settings, short)
            print_rows(rows)
        if chosen := [name for name in inside.SECTIONS if name in names]:
            bench = inside.Bench(load_analyser(settings), Path(place), rounds, short)
            for name in chosen:
                of_section = inside.SECTIONS[name](bench)
                print_rows(of_section)
                rows += of_section
    return rows


def main() -> int:
    """Entry point of the command."""
    parser = argparse.ArgumentParser(prog="benchmarks.bench", description="Measure Telltale, variants side by side.")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; all by default")
    parser.add_argument("--rounds", type=int, default=15, help="of what takes less than a second; a third of the rest")
    parser.add_argument("--short", action="store_true", help="tiny networks and media: does it run, not how fast")
    parser.add_argument("--write", action="store_true", help="put the results into docs/results/performance.md")
    given = parser.parse_args()
    if unknown := sorted(set(given.sections) - set(SECTIONS)):
        parser.error(f"no section is called {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    with contextlib.ExitStack() as stack:
        root = None
        if given.short:
            from tests.ensembles import publish_tiny

            place = stack.enter_context(tempfile.TemporaryDirectory(prefix="telltale-bench-"))
            root = publish_tiny(Path(place) / "weights")
        names = given.sections or SECTIONS
        rows = measure(names, rounds=2 if given.short else given.rounds, short=given.short, root=root)
    if given.write:
        write_page(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
