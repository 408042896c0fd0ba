"""The web process is killed with SIGKILL in the middle of uploads, 50 times.

After each start no file under a final name may be cut short, no row may lack its file, and all that was answered with
202 must be there.
"""

from __future__ import annotations

import hashlib
import http.client
import itertools
import random
import threading
import time

from benchmarks.reliability.common import (
    CONTENT_TYPE,
    Figure,
    Server,
    main,
    make_settings,
    multipart,
    photo,
    query,
    store_faults,
    workspace,
)
from utils.config import Settings
from web_app.paths import InstancePaths

CLIENTS = 6
PHOTO_BYTES = 1_500_000
PIECES = 12


def _upload_slowly(server: Server, content: bytes, accepted: list[str]) -> None:
    """Send the body in pieces, so that a kill finds it half sent; any broken connection is expected."""
    connection = server.connect()
    body = multipart(content)
    try:
        connection.putrequest("POST", "/api/detect")
        for name, value in (("Content-Type", CONTENT_TYPE), ("Prefer", "respond-async"), ("Content-Length", len(body))):
            connection.putheader(name, str(value))
        connection.endheaders()
        step = len(body) // PIECES + 1
        for start in range(0, len(body), step):
            connection.send(body[start : start + step])
            time.sleep(random.uniform(0, 0.02))  # noqa: S311
        answer = connection.getresponse()
        text = answer.read().decode()
        if answer.status == 202:
            accepted.append(text.split('"id":"')[1].split('"')[0])
    except (OSError, http.client.HTTPException):
        return
    finally:
        connection.close()


def _truncated(settings: Settings) -> list[str]:
    """Files under final names whose content is not what their name says."""
    return [
        path.name
        for path in InstancePaths.of(settings).uploads.glob("*/*")
        if path.suffix == "" and hashlib.sha256(path.read_bytes()).hexdigest() != path.name.partition("-")[0]
    ]


def run(short: bool) -> list[Figure]:
    """50 kills, or 2 in the short form."""
    kills = 2 if short else 50
    accepted: list[str] = []
    truncated: set[str] = set()
    faults: set[str] = set()
    cut = 0
    numbers = itertools.count()
    with workspace() as folder:
        settings = make_settings(folder)
        server = Server(settings)
        for _ in range(kills):
            server.start()
            ending = threading.Event()

            def keep_uploading(ending: threading.Event = ending) -> None:
                while not ending.is_set():
                    _upload_slowly(server, photo("fake", PHOTO_BYTES, next(numbers)), accepted)

            threads = [threading.Thread(target=keep_uploading) for _ in range(CLIENTS)]
            for thread in threads:
                thread.start()
            time.sleep(random.uniform(0.2, 1.2))  # noqa: S311
            ending.set()
            server.kill()
            for thread in threads:
                thread.join(60)
            cut += len(list(InstancePaths.of(settings).uploads.glob("*.part")))
            truncated.update(_truncated(settings))
            faults.update(store_faults(settings))
        known = {row[0] for row in query(settings, "SELECT public_id FROM jobs JOIN detections ON job_id = jobs.id")}
    lost = [public_id for public_id in accepted if public_id not in known]
    return [
        Figure("web process killed mid-upload", f"{kills}", f"{kills}", True),
        Figure("half uploads left under temporary names", f"{cut}", "told only", True),
        Figure("truncated files visible", f"{len(truncated)}", "0", not truncated),
        Figure("rows without their whole file", f"{len(faults)}", "0", not faults),
        Figure("accepted uploads lost", f"{len(lost)} of {len(accepted)}", "0", not lost),
    ]


if __name__ == "__main__":
    main(run)
