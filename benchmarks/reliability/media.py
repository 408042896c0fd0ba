"""Hostile media: children that misbehave, decompression bombs, and thousands of malformed files over HTTP.

`python -m benchmarks.reliability.media` measures all; see `--help` for parts of it.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from PIL import Image

from benchmarks.reliability.common import Figure, Server, make_settings, print_figures, workspace
from tests.hostile.attacks import bombs, seeds
from tests.hostile.attacks.abuse import ABUSES, misbehaving, run_abuse
from tests.hostile.attacks.corpus import send_all
from tests.hostile.attacks.mutations import mutations
from utils.config import MediaSettings, SandboxSettings, Settings
from utils.errors import MediaError
from utils.media import decode_media, sniff
from utils.media.images import decode_image
from utils.media.limits import MediaLimits
from web_app.jobs.supervisor import settings_environ
from web_app.paths import ROOT

WORKERS = {
    "decoding": (sys.executable, "-m", "tests.hostile.attacks.decoding_worker"),
    "real": (sys.executable, "-m", "web_app", "worker"),
}
"""Without the networks thousands of files can be tried; with them, the whole analysis."""

LIMIT_S = 3.0
GRACE_S = 2.0


def abuse() -> list[Figure]:
    """Each child that misbehaves, one after the other."""
    with workspace() as folder:
        picture = folder / "picture.png"
        Image.new("RGB", (64, 64)).save(picture)
        late, wrong, peak, left = 0.0, [], 0.0, 0.0
        with misbehaving():
            for name, item in ABUSES.items():
                limit = LIMIT_S if item.waits else 12.0
                outcome = run_abuse(item, picture, limit)
                late = max(late, outcome.seconds - limit)
                left = max(left, outcome.left_mb or 0.0)
                if name != "fills the largest picture and goes on":  # within the limits until its last byte
                    peak = max(peak, outcome.peak_mb or 0.0)
                if outcome.code not in item.expected:
                    wrong.append(f"{name}: {outcome.code}")
        fine = decode_media(picture, MediaSettings(), SandboxSettings()).info.width == 64
    return [
        Figure(f"{len(ABUSES)} misbehaving children: wrong codes", ", ".join(wrong) or "none", "none", not wrong),
        Figure("longest overrun of the limit", f"{max(late, 0):.2f} s", "2 s", late <= GRACE_S, timed=True),
        Figure("largest growth of the parent", f"{peak:.1f} MB, {left:.1f} MB left", "50 MB", max(peak, left) < 50),
        Figure("the next file", "fine" if fine else "failed", "fine", fine),
    ]


def refusal_of_bombs() -> list[Figure]:
    """Time from the first byte to the refusal, without the start of a process."""
    slowest, accepted = (0.0, ""), []
    Image.MAX_IMAGE_PIXELS = None
    decode_image(seeds.save("JPEG"), MediaLimits())  # imports are no part of a header
    for name, build in bombs.PICTURES.items():
        data = build()
        started = time.perf_counter()
        try:
            sniff(data)
            decode_image(data, MediaLimits())
            accepted.append(name)
        except MediaError:
            slowest = max(slowest, (time.perf_counter() - started, name))
    value = f"{slowest[0] * 1000:.1f} ms ({slowest[1]})"
    return [
        Figure(f"{len(bombs.PICTURES)} bombs: accepted", ", ".join(accepted) or "none", "none", not accepted),
        Figure("slowest refusal of a bomb", value, "100 ms", slowest[0] < 0.1, timed=True),
    ]


def slow_files() -> list[Figure]:
    """Files that are slow to read, with the limits as they are shipped."""
    slowest = (0.0, "")
    with workspace() as folder:
        path = folder / "slow"
        for name, build in (bombs.SLOW_PICTURES | bombs.VIDEOS).items():
            path.write_bytes(build())
            started = time.monotonic()
            try:
                decode_media(path, MediaSettings(), SandboxSettings())
                end = "report"
            except MediaError as error:
                end = error.code
            slowest = max(slowest, (time.monotonic() - started, f"{name}: {end}"))
    limit = SandboxSettings().wall_s + GRACE_S
    value = f"{slowest[0]:.1f} s ({slowest[1]})"
    return [Figure("slowest of the files that are slow to read", value, f"{limit:.0f} s", slowest[0] < limit)]


def malformed(files: Iterable[tuple[str, bytes]], worker: str = "decoding", helpers: int = 0) -> list[Figure]:
    """Malformed files through a real server, its queue, a worker of `WORKERS` and the confined child.

    Args:
        files: names and contents.
        worker: which of `WORKERS`.
        helpers: further workers of the same kind.
    """
    with workspace() as folder:
        chosen = make_settings(folder)
        with Server(chosen, WORKERS[worker]) as server, more_workers(chosen, WORKERS[worker], helpers):
            server.wait_ready()
            started = time.monotonic()
            tally = send_all(server, files, 2 + 2 * helpers)
            seconds = time.monotonic() - started
            server.terminate()
    for fault in tally.faults[:40]:
        print(f"     {fault}")
    ends = ", ".join(f"{count} {end}" for end, count in tally.ends.most_common())
    value = f"{len(tally.faults)} of {tally.files}"
    slowest = f"{tally.slowest[0]:.1f} s ({tally.slowest[1]})"
    return [
        Figure("malformed files without a report or a coded error", value, "0", tally.files > 0 and not tally.faults),
        Figure("the slowest of them", slowest, "15 s", tally.slowest[0] < 15, timed=True),
        Figure("how they ended", f"{ends}; {seconds:.0f} s in all", "told", True),
    ]


@contextmanager
def more_workers(settings: Settings, command: Sequence[str], count: int) -> Iterator[None]:
    """Further workers beside the supervised one, for as long as the block lasts."""
    environ = {**os.environ, **settings_environ(settings)}
    started = [subprocess.Popen(command, cwd=ROOT, env=environ) for _ in range(count)]  # noqa: S603 - our own
    try:
        yield
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(30)


def corpus(count: int, seed: int, first: int) -> Iterable[tuple[str, bytes]]:
    """Mutations of our own drawings."""
    return itertools.islice(mutations(seeds.pictures() | seeds.clips(), first + count, seed), first, None)


def run(short: bool) -> list[Figure]:
    """All parts; the short form sends a hundred malformed files and leaves the slow ones out."""
    figures = [*abuse(), *refusal_of_bombs()]
    return [*figures, *([] if short else slow_files()), *malformed(corpus(100 if short else 5000, 1, 0))]


def main() -> int:
    """Measure the chosen parts; 0 if every goal is reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a hundred malformed files instead of 5,000")
    parser.add_argument("--part", choices=("abuse", "bombs", "slow", "malformed"), help="only this part")
    parser.add_argument("--count", type=int, help="mutations; 5000 by default")
    parser.add_argument("--first", type=int, default=0, help="leave out so many mutations")
    parser.add_argument("--seed", type=int, default=1, help="of the mutations")
    parser.add_argument("--worker", choices=tuple(WORKERS), default="decoding", help="with or without the networks")
    parser.add_argument("--helpers", type=int, default=0, help="so many further workers")
    given = parser.parse_args()
    count = given.count if given.count is not None else (100 if given.short else 5000)
    parts = {
        "abuse": abuse,
        "bombs": refusal_of_bombs,
        "slow": slow_files,
        "malformed": lambda: malformed(
            corpus(count, given.seed, given.first), worker=given.worker, helpers=given.helpers
        ),
    }
    figures = [figure for name, part in parts.items() if given.part in (None, name) for figure in part()]
    print_figures(figures)
    return 0 if all(figure.reached for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
