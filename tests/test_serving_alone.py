"""What the packages of requirements-serve.txt are enough for, and what is said where torch is needed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
WITHOUT = (
    'import sys\nfor name in ("torch", "torchvision", "timm", "sklearn", "silero_vad"): sys.modules[name] = None\n'
)


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT + code, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


SERVED = """
from pathlib import Path
from utils.config import load_settings
from utils.detection.pipeline import analyse, load_analyser
import utils.feedback.items, utils.feedback.retrain, utils.speech.judge, web_app.serve, web_app.worker
root, photo = sys.argv[1:]
settings = load_settings(environ={"TELLTALE_WEIGHTS__DIR": root, "TELLTALE_DETECTION__ENGINE": "openvino"})
print(analyse(Path(photo), load_analyser(settings)).verdict.probability)
"""


def test_a_photo_is_analysed_and_the_rooms_of_server_and_learning_load(tiny_root, tmp_path, photo):
    Image.fromarray(photo).save(tmp_path / "photo.png")
    done = python(SERVED, str(tiny_root), str(tmp_path / "photo.png"))
    assert done.returncode == 0, done.stderr
    assert 0 < float(done.stdout) < 1


@pytest.mark.parametrize(
    ("code", "what"),
    [
        (
            "from web_app.worker import run_closeup; run_closeup(None, None, None, None)",
            "A closer look with its heatmaps",
        ),
        ("import inference; sys.exit(inference.main(['--export', sys.argv[1] + '/out']))", "Exporting networks"),
        ("import train; sys.argv[1:] = ['--data', sys.argv[1]]; sys.exit(train.main())", "Training"),
    ],
)
def test_what_needs_torch_says_so_and_how_to_get_it(tmp_path, code, what):
    done = python(code, str(tmp_path))
    assert done.returncode != 0
    assert f"{what} needs PyTorch" in done.stderr
    assert "`make setup` (without SERVE=1) adds it" in done.stderr
    assert "not_available" in done.stderr


@pytest.mark.parametrize(
    "command",
    [["inference.py", "README.md"], ["inference.py", "--selftest"], ["train.py", "--data", "data"]],
)
def test_a_python_that_lacks_packages_says_which_one_to_call(command):
    code = (
        "import runpy; sys.modules.update(dict.fromkeys(('numpy', 'tqdm')));"
        " sys.argv[:] = sys.argv[1:]; sys.path.insert(0, '.'); runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert re.search(r"lacks the package (numpy|tqdm)\. .*`\.venv/bin/python`", done.stderr)


def test_the_torch_engine_is_refused_in_words_and_auto_does_without_a_gpu(tiny_root):
    code = """
from pathlib import Path
from utils.config import load_settings
from utils.detection import engines
from utils.weights import verify_version
engines._loads = lambda library: True
print(engines.choose_backend("auto", "auto", tiny=False))
settings = load_settings(environ={"TELLTALE_DETECTION__ENGINE": "torch"})
engines.load_engine(settings, Path(sys.argv[1]), verify_version(Path(sys.argv[1]), "tiny"), device="cpu", threads=1)
"""
    done = python(code, str(tiny_root))
    assert done.stdout == "openvino\n"
    assert "The torch engine needs PyTorch" in done.stderr
