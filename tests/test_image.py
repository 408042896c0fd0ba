"""The container judges: its files alone, its two commands, a photo and a clip over HTTP."""

from __future__ import annotations

import ast
import fnmatch
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import yaml
from PIL import Image

from benchmarks.servers import free_port
from tests.utils.media.films import write_clip
from tests.web_app.helpers import multipart, wait_until
from utils.config import Settings
from utils.detection.pipeline import analyse, load_analyser
from utils.types import Pixels

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="the image runs Linux")]


@contextmanager
def running(command: list[str], folder: Path, environ: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    process = subprocess.Popen(command, cwd=folder, env={**kept, **environ, "OMP_NUM_THREADS": "1"})
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def ask(address: str, body: bytes | None = None) -> tuple[int, dict]:
    headers = {"Content-Type": "multipart/form-data; boundary=b", "Prefer": "respond-async"} if body else {}
    with urllib.request.urlopen(urllib.request.Request(address, body, headers), timeout=60) as answer:
        return answer.status, json.loads(answer.read())


def answers(address: str) -> bool:
    try:
        return ask(address)[0] == 200
    except OSError:
        time.sleep(0.2)
        return False


def test_the_image_analyses_a_photo_and_a_clip(
    tmp_path: Path, tiny_root: Path, base_folder: Path, photo: Pixels, settings_for: Callable[..., Settings]
) -> None:
    torch, image = load_analyser(settings_for(tiny_root)), tmp_path / "app"
    copy_image(image, base_folder)
    assert not any((image / name).exists() for name in ("data", "tests", "benchmarks", ".git", "instance"))
    assert [path.name for path in (image / "docs").iterdir()] == ["openapi.json"]
    Image.fromarray(photo).save(tmp_path / "photo.jpg")
    write_clip(tmp_path / "clip.mp4", [photo[:320, 80 + 4 * shift : 400 + 4 * shift] for shift in range(6)], rate=5)
    port = free_port()
    environ = {
        "TELLTALE_SERVER__PORT": str(port),
        "TELLTALE_SERVER__LOG_LEVEL": "error",
        "TELLTALE_STORAGE__INSTANCE_DIR": str(tmp_path / "instance"),
        "TELLTALE_WEIGHTS__DIR": str(tiny_root),
        "TELLTALE_DETECTION__ENGINE": "openvino",  # as with real networks; tiny ones are left to torch otherwise
        "TELLTALE_DETECTION__THREADS": "1",
    }
    web, worker = commands()
    address = f"http://127.0.0.1:{port}/api"
    with ExitStack() as stack:
        server = stack.enter_context(running([*web, "--host=127.0.0.1"], image, environ))
        wait_until(lambda: server.poll() is not None or answers(f"{address}/health"))
        judge = stack.enter_context(running(worker, image, environ))
        wait_until(lambda: judge.poll() is not None or answers(f"{address}/ready"), 180)
        assert (server.poll(), judge.poll()) == (None, None)
        assert ask(f"{address}/openapi.json")[1]["servers"] == [{"url": "/api/v1"}, {"url": "/api"}]
        for name, frames in (("photo.jpg", 1), ("clip.mp4", 6)):
            status, job = ask(f"{address}/detect", multipart((tmp_path / name).read_bytes(), name))
            assert status == 202
            until = time.monotonic() + 60
            while job["state"] not in ("done", "failed"):
                assert time.monotonic() < until
                time.sleep(0.2)
                job = ask(f"{address}/jobs/{job['id']}")[1]
            assert job["state"] == "done", job
            report = job["result"]
            assert len(report["faces"][0]["frames"]) == frames
            plain = analyse(tmp_path / name, torch)
            assert report["fake_probability"] == pytest.approx(plain.verdict.probability, abs=0.02)
            assert (report["settings"]["engine"], plain.settings["engine"]) == ("openvino", "torch")


@pytest.mark.parametrize(
    ("name", "ignored"),
    [
        ("data/real/x.jpg", True),
        ("web_app/data/x.py", False),
        ("utils/faces/__pycache__/crops.cpython-311.pyc", True),
        ("utils/x.pyc", True),
        ("a.tmp", True),
        ("utils/a.tmp", False),
        ("trained_models/base/vit.safetensors", True),
        ("trained_models/v8/vit.safetensors", False),
    ],
)
def test_what_dockerignore_means(name: str, ignored: bool) -> None:
    assert is_ignored(name, ["data", "**/__pycache__", "**/*.py[cod]", "trained_models/base", "*.tmp"]) is ignored


# The container's file set without a container: what the Dockerfile's last stage copies and .dockerignore lets pass.

ROOT = Path(__file__).resolve().parent.parent


def copy_image(folder: Path, base: Path) -> None:
    """Lay out `/app` of the image in a folder.

    Args:
        folder: does not exist yet.
        base: the base weights, which an earlier stage of the image makes; they are linked.
    """
    ignored = [line.rstrip("/") for line in _lines(".dockerignore")]
    for sources, target in _copies():
        for source in sources:
            if source == "trained_models/base":
                (folder / target).symlink_to(base)
                continue
            found = ROOT / source
            for path in sorted(found.rglob("*")) if found.is_dir() else [found]:
                name = path.relative_to(ROOT).as_posix()
                if path.is_file() and not is_ignored(name, ignored):
                    inside = path.relative_to(found) if found.is_dir() else Path(path.name)
                    place = folder / target / inside
                    place.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(path, place)


def is_ignored(name: str, patterns: list[str]) -> bool:
    """Whether a file or a folder that it lies in matches a pattern; `**/` stands for any folders, none too."""
    parts = name.split("/")
    above = ["/".join(parts[: i + 1]) for i in range(len(parts))]
    for pattern in patterns:
        anywhere = pattern.removeprefix("**/")
        if any(fnmatch.fnmatchcase(part, anywhere) for part in parts if anywhere != pattern):
            return True
        if any(fnmatch.fnmatchcase(path, pattern) and path.count("/") == pattern.count("/") for path in above):
            return True
    return False


def commands() -> tuple[list[str], list[str]]:
    """What the image's two services run: the web server and the worker, by this interpreter."""
    web = ast.literal_eval(next(line for line in _lines("Dockerfile") if line.startswith("CMD ")).removeprefix("CMD "))
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    worker = compose["services"]["worker"]["command"]
    assert web[0] == worker[0] == "python"
    return [sys.executable, *web[1:]], [sys.executable, *worker[1:]]


def _copies() -> list[tuple[list[str], str]]:
    """Sources below our root and the target of each COPY of the last stage, but for the packages of Python."""
    lines = _lines("Dockerfile")
    last = lines[max(i for i, line in enumerate(lines) if line.startswith("FROM ")) :]
    found = []
    for line in last:
        if line.startswith("COPY ") and "/opt/venv" not in line:
            *sources, target = [word for word in line.split()[1:] if not word.startswith("--")]
            found.append(([source.removeprefix("/app/") for source in sources], target.removeprefix("./") or "."))
    return found


def _lines(name: str) -> list[str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    kept = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return [line.strip() for line in kept.replace("\\\n", " ").splitlines() if line.strip()]
