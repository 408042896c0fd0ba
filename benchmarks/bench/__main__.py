"""`python -m benchmarks.bench`: measure, print, and with `--write` put the results into docs/results/performance.md."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.bench.page import describe, document, write_page
from benchmarks.bench.timing import Row, print_rows

SECTIONS = ("experts", "detection", "decoding", "image", "video", "photos", "server")


def measure(
    names: Sequence[str],
    *,
    rounds: int,
    short: bool,
    root: Path | None = None,
    finished: Callable[[list[Row]], None] = print_rows,
) -> list[Row]:
    """Run sections one after the other.

    Args:
        names: out of `SECTIONS`.
        rounds: see `inside.Bench`.
        short: tiny media and few rounds, on one thread.
        root: a folder of weights other than the configured one.
        finished: gets the rows of each section at once, so that a run that is cut off has not been in vain.
    """
    import dataclasses

    from benchmarks.bench import inside, serving
    from utils.config import WeightsSettings, load_settings
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
            finished(rows)
        chosen = [name for name in inside.SECTIONS if name in names]
        if chosen:
            bench = inside.Bench(load_analyser(settings), Path(place), rounds, short)
            for name in chosen:
                print(f"measuring: {name}", file=sys.stderr)
                of_section = inside.SECTIONS[name](bench)
                finished(of_section)
                rows += of_section
    return rows


def main() -> int:
    """Entry point of the command."""
    parser = argparse.ArgumentParser(prog="benchmarks.bench", description="Measure Telltale, variants side by side.")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; all by default")
    parser.add_argument("--rounds", type=int, default=15, help="of what takes less than a second; a third of the rest")
    parser.add_argument("--short", action="store_true", help="tiny networks and media: does it run, not how fast")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    parser.add_argument("--write", action="store_true", help="put the results into docs/results/performance.md")
    given = parser.parse_args()
    unknown = sorted(set(given.sections) - set(SECTIONS))
    if unknown:
        parser.error(f"no section is called {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    rows: list[Row] = []

    def finished(of_section: list[Row]) -> None:
        rows.extend(of_section)
        print_rows(of_section)
        if given.json is not None:
            given.json.write_text(json.dumps(document(rows, describe()), indent=1) + "\n")
        if given.write:
            write_page(of_section, describe())

    names = given.sections or SECTIONS
    if given.short:
        from tests.ensembles import publish_tiny

        with tempfile.TemporaryDirectory(prefix="telltale-bench-") as place:
            measure(names, rounds=2, short=True, root=publish_tiny(Path(place) / "weights"), finished=finished)
    else:
        measure(names, rounds=given.rounds, short=False, finished=finished)
    return 0


if __name__ == "__main__":
    sys.exit(main())
