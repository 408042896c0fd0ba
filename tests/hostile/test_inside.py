"""An attacker's code inside the decoding child reaches nothing: no file, no socket, no process, not its parent."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.hostile.attacks.inside import ATTACKS, attack_from_inside
from utils.media import sandbox_level
from utils.media.fork_server import ForkServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux confines the decoder this far")


FILES_AND_PATHS = (
    "read /etc/passwd", "create a file", "write over a file", "reopen the upload for writing", "list a folder",
    "delete a file", "rename a file", "truncate a file by its path", "make a folder", "make a link",
    "execute a program", "trace the parent", "read the parent's memory by file", "read the parent's environment",
)  # fmt: skip
HARMLESS = (
    "read /etc/passwd", "create a file", "rename a file", "list a folder", "open a TCP socket", "open a pipe",
    "start a thread", "end the parent", "make memory executable",
)  # fmt: skip


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder where everybody may do everything, so that only the sandbox stands in the way."""
    with tempfile.TemporaryDirectory(prefix="telltale-inside-") as name:
        folder = Path(name)
        folder.chmod(0o777)
        (folder / "victim").write_text("precious")
        (folder / "victim").chmod(0o666)
        Image.new("RGB", (40, 40)).save(folder / "picture.png")
        (folder / "picture.png").chmod(0o666)
        yield folder


@pytest.fixture(scope="module", params=[False, True], ids=["spawned", "forked"])
def outcome(place: Path, request: pytest.FixtureRequest) -> dict[str, str]:
    if request.param and not ForkServer.available():
        pytest.skip("this system forks no children")
    told = attack_from_inside(place / "picture.png", place, place / "victim", forked=request.param)
    assert (place / "victim").read_text() == "precious"
    assert sorted(path.name for path in place.iterdir()) == ["picture.png", "victim"]
    return told


@pytest.mark.parametrize("name", ATTACKS)
def test_the_attack_is_stopped(name: str, outcome: dict[str, str]) -> None:
    protections = ATTACKS[name][1]
    if protections and not protections & set(sandbox_level()):
        pytest.skip(f"this kernel offers none of {', '.join(sorted(protections))}")
    assert outcome[name] != "done"


def test_the_attacks_would_work_without_the_sandbox(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("x")
    Image.new("RGB", (40, 40)).save(tmp_path / "picture.png")
    told = attack_from_inside(tmp_path / "picture.png", tmp_path, tmp_path / "victim", HARMLESS, ())
    assert told == dict.fromkeys(HARMLESS, "done")


@pytest.mark.parametrize(
    ("protections", "names"),
    [
        (("no_new_privileges", "landlock"), FILES_AND_PATHS),
        (("no_new_privileges", "syscall_filter"), tuple(ATTACKS)),
    ],
)
def test_each_of_the_two_kernel_filters_holds_alone(
    protections: tuple[str, ...], names: tuple[str, ...], place: Path
) -> None:
    if not set(protections) <= set(sandbox_level()):
        pytest.skip(f"this kernel does not offer {', '.join(protections)}")
    told = attack_from_inside(place / "picture.png", place, place / "victim", names, protections)
    needs_more = {"raise its own limits"}  # lowered ones only
    assert {name for name, answer in told.items() if answer == "done"} <= needs_more
    assert (place / "victim").read_text() == "precious"
