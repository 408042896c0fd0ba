"""Time the whole analysis with different sets of experts, interleaved in one run, and print medians and ratios.

    python benchmarks/analyse.py photo.jpg clip.mp4 [--rounds 5]

Each round runs every variant once, so that a busy moment of the machine falls on all of them alike. Ratios are against
all experts.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

VARIANTS: tuple[tuple[str, ...], ...] = (
    ("cnn", "resnext", "vit", "lstm"),
    ("cnn",),
    ("resnext",),
    ("vit",),
    ("resnext", "lstm"),
)


def main() -> int:
    """Entry point of the command."""
    parser = argparse.ArgumentParser(description="Time the analysis of files with different sets of experts.")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    from utils.config import load_settings
    from utils.detection.pipeline import analyse, load_analyser

    settings = load_settings()
    analysers = {names: load_analyser(settings, experts=names) for names in VARIANTS}
    for path in chosen.files:
        for analyser in analysers.values():
            analyse(path, analyser)  # the first run of each is slower and is not counted
        times: dict[tuple[str, ...], list[dict[str, float]]] = {names: [] for names in VARIANTS}
        for _ in range(chosen.rounds):
            for names, analyser in analysers.items():
                times[names].append(dict(analyse(path, analyser).times_ms))
        print(f"\n{path.name}: median milliseconds of {chosen.rounds} rounds")
        print(f"{'experts':28} {'decode':>8} {'detect':>8} {'experts':>8} {'total':>8} {'ratio':>7}")
        whole = statistics.median(t["total"] for t in times[VARIANTS[0]])
        for names, runs in times.items():
            middle = {stage: statistics.median(t[stage] for t in runs) for stage in runs[0]}
            cells = " ".join(f"{middle[stage]:8.0f}" for stage in ("decode", "detect", "experts", "total"))
            print(f"{'+'.join(names):28} {cells} {middle['total'] / whole:7.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
