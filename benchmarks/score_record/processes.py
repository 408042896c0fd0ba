"""Which modules a server's two processes hold after one analysis: `make run` for real, with one upload over HTTP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.servers import free_port

ROOT = Path(__file__).resolve().parent.parent.parent
OURS = ("models", "utils", "web_app", "benchmarks", "inference")
START_LIMIT_S = 300.0
HOOK = """
import atexit, json, os, sys

def tell():
    who = {"worker": "worker", "serve": "web"}.get((sys.orig_argv[3:] or [""])[0])
    if who and sys.orig_argv[2] == "web_app":
        with open(os.path.join(os.environ["SCORE_RECORD_FOLDER"], who + ".json"), "w") as file:
            json.dump(sorted(sys.modules), file)

end = os._exit

def tell_and_end(code):
    tell()
    end(code)

os._exit = tell_and_end
atexit.register(tell)
"""
"""As `sitecustomize` of a process, this writes down its modules when it ends."""


def split_modules(names: Sequence[str]) -> tuple[list[str], dict[str, int]]:
    """Roots of other people's modules, and how many there are of each of our rooms."""
    roots = {name.partition(".")[0] for name in names}
    known = {*sys.stdlib_module_names, *OURS, "sitecustomize"}
    others = sorted(root for root in roots - known if not root.startswith("_"))
    counts: dict[str, int] = {}
    for name in names:
        if name.partition(".")[0] in OURS:
            room = ".".join(name.split(".")[:2]) if name.startswith(("utils.", "web_app.")) else name.partition(".")[0]
            counts[room] = counts.get(room, 0) + 1
    return others, dict(sorted(counts.items()))


def server_modules(environ: Mapping[str, str], photo: Path, scratch: Path) -> dict[str, list[str]]:
    """Modules of the web process and of its worker.

    Raises:
        TimeoutError: the server did not answer or not end.
    """
    (scratch / "sitecustomize.py").write_text(HOOK, encoding="utf-8")
    port = free_port()
    own = {
        "PYTHONPATH": str(scratch),
        "SCORE_RECORD_FOLDER": str(scratch),
        "TELLTALE_STORAGE__INSTANCE_DIR": str(scratch / "instance"),
        "TELLTALE_SERVER__PORT": str(port),
        "TELLTALE_SERVER__LOG_LEVEL": "error",
    }
    server = subprocess.Popen(
        [sys.executable, "-m", "web_app", "serve"],
        cwd=ROOT,
        env={**os.environ, **environ, **own},
        stdout=subprocess.DEVNULL,
    )
    try:
        address = f"http://127.0.0.1:{port}"
        _until_ready(address, server)
        body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'
        body += photo.read_bytes() + b"\r\n--b--\r\n"
        request = urllib.request.Request(  # noqa: S310 (our own server)
            f"{address}/api/detect/image?wait=1", body, {"Content-Type": "multipart/form-data; boundary=b"}
        )
        with urllib.request.urlopen(request, timeout=90) as answer:  # noqa: S310 (our own server)
            if answer.status != 200:
                raise TimeoutError(f"the photo was answered with {answer.status}")
        server.send_signal(signal.SIGTERM)
        server.wait(60)
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()
    return {who: json.loads((scratch / f"{who}.json").read_text(encoding="utf-8")) for who in ("web", "worker")}


def _until_ready(address: str, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_LIMIT_S
    while time.monotonic() < until and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/api/ready", timeout=5):  # noqa: S310 (our own server)
                return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(f"the server is not ready (exit code {server.poll()})")
