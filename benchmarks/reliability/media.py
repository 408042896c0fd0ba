"""Hostile media: files that are slow to read, and thousands of malformed ones over HTTP; tests have bombs and abuse."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable

from benchmarks.reliability.common import Figure, Server, make_settings, workspace
from tests.hostile.attacks import bombs, seeds
from tests.hostile.attacks.corpus import send_all
from tests.hostile.attacks.mutations import mutations
from utils.config import MediaSettings, SandboxSettings
from utils.errors import MediaError
from utils.media import decode_media

WORKER = (sys.executable, "-m", "tests.hostile.attacks.decoding_worker")
"""Decodes without the networks, so that thousands of files can be tried."""
MUTATIONS = 5000
GRACE_S = 2.0


def slow_files() -> list[Figure]:
    """Files that are slow to read, with the limits as they are shipped."""
    slowest = (0.0, "")
    with workspace() as folder:
        path = folder / "slow"
        for name, build in (bombs.SLOW_PICTURES | bombs.VIDEOS | bombs.SOUNDS).items():
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


def malformed(files: Iterable[tuple[str, bytes]]) -> list[Figure]:
    """Malformed files (names and contents) through a real server, its queue, a worker and the confined child."""
    with workspace() as folder, Server(make_settings(folder), WORKER) as server:
        server.wait_ready()
        started = time.monotonic()
        tally = send_all(server, files, 2)
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


def run(short: bool) -> list[Figure]:
    """All parts; the short form sends a hundred malformed files and leaves the slow ones out."""
    drawn = mutations(seeds.pictures() | seeds.clips() | seeds.recordings(), 100 if short else MUTATIONS, 1)
    return [*([] if short else slow_files()), *malformed(drawn)]
