"""The container's file set without a container: what the Dockerfile's last stage copies and .dockerignore lets pass."""

from __future__ import annotations

import ast
import fnmatch
import shutil
import sys
from pathlib import Path

import yaml

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
