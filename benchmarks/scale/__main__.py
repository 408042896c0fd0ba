"""What many machines bring and bear, on loopback: PostgreSQL, Redis, an S3 server and workers with a stand-in engine.

    python -m benchmarks.scale [throughput latency chaos promotion history cost | serve] [--short] [--write]

All of it takes about ten minutes on two idle cores; `--write` puts the figures into docs/operations.md. The stand-in
needs half a second a job and no processor, so that many workers fit on few cores. Figures are read from the rows: when
a job was accepted, started and finished.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from benchmarks.reliability.common import Figure, ask, print_figures
from benchmarks.scale import load, rows
from benchmarks.scale.house import house
from benchmarks.servers import free_port
from tests.web_app.helpers import media_bytes
from utils.evaluation.scorecard import markdown_table
from utils.weights import weights_root
from web_app.db.models import WorkerRow
from web_app.paths import ROOT

PAGE = ROOT / "docs" / "operations.md"
BEGIN, END = "<!-- figures: written by python -m benchmarks.scale --write -->", "<!-- end of figures -->"
RUNS: dict[str, tuple[Callable[[], list[Figure]], Callable[[], list[Figure]]]] = {
    "throughput": (lambda: load.throughput((1, 2, 4, 8, 16, 32)), lambda: load.throughput((1, 2))),
    "latency": (lambda: load.latency(100), lambda: load.latency(10)),
    "chaos": (lambda: load.chaos(1000), lambda: load.chaos(50)),
    "promotion": (lambda: load.promotion(8, 400), lambda: load.promotion(2, 60)),
    "history": (lambda: rows.history(1_000_000, 300), lambda: rows.history(2_000, 10)),
    "cost": (lambda: rows.cost(100_000, 280), lambda: rows.cost(2_000, 14)),
}
"""What is measured: whole, and in a short form that tells whether it runs."""


def write_figures(figures: Sequence[Figure], page: Path = PAGE) -> None:
    """Put figures into the page between its two markers, in place of what was there."""
    cores, load_ = os.cpu_count(), os.getloadavg()[0]
    cells = ((each.name, each.value, each.goal + ("" if each.reached else " (**not reached**)")) for each in figures)
    table = "\n".join(markdown_table(("what", "measured", "goal"), cells))
    head, rest = page.read_text(encoding="utf-8").split(BEGIN)
    told = f"Measured {time.strftime('%Y-%m-%d')} on {cores} cores, at a load of {load_:.0f} in the end."
    page.write_text(f"{head}{BEGIN}\n\n{told}\n\n{table}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")


def serve(*, stand_in: bool, once: bool) -> None:
    """Two servers and two workers that share nothing but database, broker and bucket, until Ctrl-C.

    Args:
        stand_in: workers with the fake analysis instead of networks.
        once: try them by one clip, that is sent to one server and asked of the other, and end.
    """
    with house() as found:
        ports = [free_port(), free_port()]
        commands = [["web_app", "serve", "--no-worker", "--port", str(port)] for port in ports]
        worker = ["tests.web_app.fake_worker"] if stand_in else ["web_app", "worker"]
        roles = ("photos", "videos") if stand_in else ("photos,videos", "learning")
        commands += [[*worker, "--queues", each] for each in roles]
        for number, command in enumerate(commands):
            found.start(*command, settings=found.machine(f"machine-{number}", weights_root(found.settings)))
            print(f"{number}: {' '.join(command)}", flush=True)
        found.wait_until(lambda: found.count(WorkerRow) == len(roles))
        first, second = ports
        found.wait_until(lambda: all(_ask(port, "GET", "/api/health") for port in ports))
        print(f"Telltale is ready at http://127.0.0.1:{first} and :{second} (Ctrl-C ends it)", flush=True)
        if not once:
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()
            return
        public_id = _ask(first, "POST", "/api/detect?wait=0", media_bytes("mp4"))["id"]
        found.wait_until(lambda: _ask(second, "GET", f"/api/jobs/{public_id}").get("state") == "done")
        print(_ask(second, "GET", f"/api/detections/{public_id}")["prediction"])


def _ask(port: int, method: str, path: str, content: bytes | None = None) -> dict[str, Any]:
    """The JSON of an answer; empty while nobody answers."""
    with contextlib.suppress(OSError), contextlib.closing(HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        return ask(connection, method, path, content)[1]
    return {}


def main() -> int:
    """Entry point of the command: 0 when every goal was reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", choices=[*RUNS, "serve", []], default=[], help="all by default")
    parser.add_argument("--short", action="store_true", help="seconds instead of minutes; goals of speed are missed")
    parser.add_argument("--write", action="store_true", help="put the figures into docs/operations.md")
    parser.add_argument("--stand-in", action="store_true", help="serve: workers without networks")
    parser.add_argument("--once", action="store_true", help="serve: try one clip and end")
    given = parser.parse_args()
    if "serve" in given.runs:
        serve(stand_in=given.stand_in, once=given.once)
        return 0
    figures: list[Figure] = []
    for name in given.runs or RUNS:
        began = time.monotonic()
        try:
            found = RUNS[name][given.short]()
        except Exception as error:  # noqa: BLE001 - the others are still measured
            found = [Figure(name, f"failed: {error!r}", "to be measured", False)]
        print_figures(found)
        print(f"==> {name}: {time.monotonic() - began:.0f} s, load {os.getloadavg()[0]:.0f}", flush=True)
        figures += found
        if given.write:  # after each, for a run that is ended early
            write_figures(figures)
    return 0 if all(each.reached for each in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
