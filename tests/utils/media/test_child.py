"""The child's own program: what it imports, and how it answers when something unforeseen happens."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from utils.errors import DecoderCrashedError
from utils.media.child_protocol import Expected, read_answer
from utils.media.limits import MediaLimits
from utils.media.sandbox import ROOT, child_command
from utils.types import MediaKind


def run(request: dict[str, object], file: Path) -> bytes:
    with file.open("rb") as source:
        done = subprocess.run(child_command(json.dumps(request)), stdin=source, capture_output=True, timeout=60)
    return done.stdout


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.new("RGB", (40, 40), (10, 20, 30)).save(tmp_path / "x.png")
    return tmp_path / "x.png"


def test_it_reports_what_it_did_not_foresee(picture: Path) -> None:
    limits = [None, 32, 600.0]
    request = {"format": "png", "frames": 1, "max_frames": 1, "limits": limits, "memory_mb": 2048, "cpu_s": 20}
    with pytest.raises(DecoderCrashedError, match="TypeError"):
        read_answer(io.BytesIO(run(request, picture)), Expected(MediaKind.IMAGE, 1, MediaLimits()))


def test_it_imports_neither_networks_nor_server() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import utils.media.child; from utils.media import images, video\n"
        "images.load_codecs(); video.load_codecs()\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code, str(ROOT)], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"PIL", "av", "numpy"} <= loaded
    assert not loaded & {"torch", "cv2", "flask", "sqlalchemy", "timm", "models", "web_app"}


def test_the_parent_imports_no_decoder() -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); import utils.media; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", code, str(ROOT)], capture_output=True, text=True, check=True)
    assert not {"PIL", "av", "torch"} & set(done.stdout.split())
