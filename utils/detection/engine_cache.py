"""Converted networks on disk: made once per version, OpenVINO and precisions, and verified at each start.

A folder of the cache holds the graphs and `manifest.json` with their sha256. It is written beside, under a lock, and
renamed when it is whole; one that does not verify is thrown away and made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.base_weights import VIT_SHA256
from utils.config import Settings
from utils.detection.openvino_runtime import cpu_has_bf16, openvino_version
from utils.detection.precision import format_precisions, read_precision
from utils.errors import WeightsError
from utils.files import file_sha256, fsync_folder, fsync_tree, locked
from utils.log import get_logger
from utils.weights import Version

FORMAT = 4
"""Raised when conversion changes, so that what older releases made is not taken."""
MANIFEST = "manifest.json"
KEPT = 6
"""Converted versions that are kept; the ones used longest ago go first."""
REFUSED = 3
"""Exit code of `conversion.py` where the version cannot be used."""
REPOSITORY = Path(__file__).resolve().parent.parent.parent

log = get_logger(__name__)


@dataclass(frozen=True)
class Converted:
    """A verified folder of the cache.

    Args:
        files: the graph of each expert, by name.
    """

    files: Mapping[str, Path]
    precisions: Mapping[str, str]


def cache_folder(settings: Settings) -> Path:
    """Where converted networks are kept; relative folders start at the repository's root."""
    chosen = Path(settings.detection.engine_cache or Path(settings.storage.instance_dir) / "engine")
    return chosen if chosen.is_absolute() else REPOSITORY / chosen


def chosen_precisions(settings: Settings) -> dict[str, str]:
    """What each expert computes with on this processor."""
    return read_precision(settings.detection.precision, bf16=cpu_has_bf16())


def cache_key(version: Version, precisions: Mapping[str, str]) -> str:
    """Name of the folder for a version in these precisions."""
    facts = [
        FORMAT, version.sha256, VIT_SHA256, openvino_version(), format_precisions(precisions), sorted(version.experts),
    ]  # fmt: skip
    return f"{version.name}-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]}"


def converted(settings: Settings, root: Path, version: Version) -> Converted:
    """The converted networks of a version, from the cache, or made now.

    Args:
        settings: name the cache, the precision and the threads.

    Raises:
        WeightsError: the version cannot be converted.
        OSError: the cache cannot be written, or the converting process came to grief.
    """
    cache, key = cache_folder(settings), cache_key(version, chosen_precisions(settings))
    found = read_folder(cache / key, version)
    if found is not None:
        return found
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / f".{key}.lock"):
        found = read_folder(cache / key, version)  # somebody else may just have made it
        if found is None:
            shutil.rmtree(cache / key, ignore_errors=True)
            _make(cache / key, settings, root, version)
            found = read_folder(cache / key, version)
        if found is None:
            raise WeightsError(f"The converted networks of {version.name} cannot be read back.")
    _drop_oldest(cache, keep=cache / key)
    return found


def read_folder(folder: Path, version: Version) -> Converted | None:
    """A folder of the cache if it is there and every file has its recorded sha256; None otherwise."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["version_sha256"] != version.sha256:
            raise ValueError("it is of another version")
        names = list(manifest["files"])
        with ThreadPoolExecutor(2) as pool:
            digests = list(pool.map(lambda name: file_sha256(folder / Path(name).name), names))
        for name, digest in zip(names, digests, strict=True):
            if digest != manifest["files"][name]:
                raise ValueError(f"{name} has other bytes")
        precisions = {name: str(facts["precision"]) for name, facts in manifest["experts"].items()}
        files = {name: folder / f"{name}.xml" for name in precisions}
        if {f"{n}{s}" for n in files for s in (".xml", ".bin")} != set(manifest["files"]):
            raise ValueError("its manifest does not list what it needs")
    except FileNotFoundError:
        if folder.is_dir():
            log.warning("The converted networks in %s are not whole and are made again.", folder.name)
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("The converted networks in %s are damaged and are made again: %s.", folder.name, error)
        return None
    try:
        os.utime(folder / MANIFEST)  # when it was used last
    except OSError as error:
        log.debug("%s is read-only: %s", folder, error)
    return Converted(files, precisions)


def _make(folder: Path, settings: Settings, root: Path, version: Version) -> None:
    scratch = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)  # what a killed conversion left; we hold the lock
    scratch.mkdir()
    log.warning("Converting the networks of %s for this processor; once, some seconds.", version.name)
    try:
        manifest = _convert(scratch, settings, root, version)
        (scratch / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        fsync_tree(scratch)
        scratch.rename(folder)
        fsync_folder(folder.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    said = ", ".join(f"{name} {facts['precision']}" for name, facts in manifest["experts"].items())
    log.warning("Converted the networks of %s: %s.", version.name, said)


def _convert(scratch: Path, settings: Settings, root: Path, version: Version) -> dict[str, Any]:
    """Run `utils.detection.conversion` in a process of its own and give back its manifest."""
    command = [
        sys.executable, "-m", "utils.detection.conversion", str(root.resolve()), version.name, str(scratch.resolve()),
        format_precisions(chosen_precisions(settings)), str(settings.detection.threads),
    ]  # fmt: skip
    with subprocess.Popen(  # noqa: S603 (our own module, no shell)
        command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as child:
        try:
            said = child.stdout.read() if child.stdout else ""
        except BaseException:
            child.kill()
            raise
    if child.returncode == REFUSED:
        raise WeightsError(said.strip())
    if child.returncode:  # it was killed, or OpenVINO cannot do this here; the weights need not be to blame
        raise ChildProcessError(f"the conversion ended with code {child.returncode}")
    manifest: dict[str, Any] = json.loads(said.splitlines()[-1])
    return manifest


def _drop_oldest(cache: Path, keep: Path) -> None:
    """Remove what was used longest ago, beyond `KEPT` folders."""
    times = {path.parent: path.stat().st_mtime for path in cache.glob(f"*/{MANIFEST}")}
    for folder in sorted(times, key=lambda f: times[f], reverse=True)[KEPT:]:
        if folder != keep:
            shutil.rmtree(folder, ignore_errors=True)
            (cache / f".{folder.name}.lock").unlink(missing_ok=True)
