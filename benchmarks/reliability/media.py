"""Hostile media: children that misbehave, decompression bombs, and thousands of malformed files over HTTP."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable

from PIL import Image

from benchmarks.reliability.common import Figure, Server, make_settings, workspace
from tests.hostile.attacks import bombs, seeds
from tests.hostile.attacks.abuse import ABUSES, misbehaving, run_abuse
from tests.hostile.attacks.corpus import send_all
from tests.hostile.attacks.mutations import mutations
from utils.config import MediaSettings, SandboxSettings
from utils.errors import MediaError
from utils.media import decode_media, sniff
from utils.media.images import decode_image
from utils.media.limits import MediaLimits

WORKER = (sys.executable, "-m", "tests.hostile.attacks.decoding_worker")
"""Decodes without the networks, so that thousands of files can be tried."""
MUTATIONS = 5000
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
    return [*abuse(), *refusal_of_bombs(), *([] if short else slow_files()), *malformed(drawn)]
