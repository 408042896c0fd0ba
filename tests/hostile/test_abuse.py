"""Children that hang, stop, fork, eat memory or write nonsense: the right code in time, and the next file is fine."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from tests.hostile.attacks.abuse import ABUSES, Outcome, memory_mb, misbehaving, run_abuse
from utils.config import MediaSettings, SandboxSettings
from utils.media import decode_media

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the children use signals and limits of Linux")

WALL_S = 2.5
PATIENCE_S = 120.0  # for those that end by themselves


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("abuse") / "picture.png"
    Image.new("RGB", (64, 64)).save(path)
    return path


@pytest.fixture(scope="module")
def outcomes(picture: Path) -> dict[str, Outcome]:
    """All of them side by side; those that end by themselves get time enough for a busy machine."""
    with misbehaving(), ThreadPoolExecutor(8) as pool:
        started = {
            name: pool.submit(run_abuse, abuse, picture, WALL_S if abuse.waits else PATIENCE_S)
            for name, abuse in ABUSES.items()
        }
        return {name: future.result() for name, future in started.items()}


@pytest.mark.parametrize("name", ABUSES)
def test_abuse_ends_with_its_code_in_time(name: str, outcomes: dict[str, Outcome]) -> None:
    assert outcomes[name].code in ABUSES[name].expected
    assert outcomes[name].seconds < PATIENCE_S


def test_the_parent_does_not_grow_and_the_next_file_is_fine(picture: Path, outcomes: dict[str, Outcome]) -> None:
    assert decode_media(picture, MediaSettings(), SandboxSettings()).info.width == 64
    before = memory_mb("VmRSS")
    with misbehaving():
        code = run_abuse(ABUSES["announces the largest picture and sends nothing"], picture, WALL_S)
        grown = [run_abuse(ABUSES[name], picture, PATIENCE_S) for name in ("writes more than announced", "forks")]
        filled = run_abuse(ABUSES["fills the largest picture and goes on"], picture, PATIENCE_S)
    after = memory_mb("VmRSS")
    assert before is not None
    assert after is not None
    assert after - before < 50
    assert filled.left_mb is None or filled.left_mb < 50  # 147 MB are within the limits until the byte too many
    assert all(outcome.peak_mb is None or outcome.peak_mb < 50 for outcome in (code, *grown))
    assert decode_media(picture, MediaSettings(), SandboxSettings()).info.width == 64
