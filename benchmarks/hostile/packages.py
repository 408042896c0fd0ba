"""Test images of Pillow and of libheif's Python packages, taken from their source packages at the package index.

Fetched when a run asks for them, by the environment's own pip; nothing of it is part of this repository. Other source
archives that lie in the folder are read too, such as that of libheif itself (`apt-get source --download-only libheif`).
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

PACKAGES = ("pillow==13.0.0", "pillow-heif==1.8.1")
IMAGES = ("Tests/images", "tests/images", "Tests/fonts", "Tests/icc", "fuzzing/corpus", "examples/example.")
MAX_BYTES = 8_000_000


def fetch(folder: Path) -> None:
    """Download the source packages into a folder; those that lie there already are kept."""
    for package in PACKAGES:
        name = package.replace("==", "-").replace("-heif", "_heif")
        if not (folder / f"{name}.tar.gz").is_file():
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", package]
            subprocess.run(command, cwd=folder, check=True)  # noqa: S603 - our own interpreter and arguments


def images(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each test image in the archives of a folder, none unpacked to the disk.

    HEIC and AVIF pictures come a second time with the brand of a film, so that they reach a decoder.
    """
    for archive in sorted(folder.glob("*.tar.gz")):
        with tarfile.open(archive) as source:
            for member in source:
                inside = PurePosixPath(member.name)
                wanted = any(part in member.name for part in IMAGES)
                if wanted and member.isfile() and 0 < member.size <= MAX_BYTES:
                    data = source.extractfile(member)
                    assert data is not None
                    name, content = f"{archive.name.partition('-')[0]}:{inside.name}", data.read()
                    yield name, content
                    if content[4:8] == b"ftyp":
                        yield f"{name} as a film", content[:8] + b"isom" + content[12:]
