"""Weights that are not what was published: refused with a code, and the running version keeps serving."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.speech_fixtures import speech_version
from utils.config import Settings
from utils.detection.pipeline import load_analyser
from utils.errors import WeightsError
from utils.files import file_sha256
from utils.weights import CHECKSUMS, CURRENT, SPEECH_FILE, SPEECH_FOLDER, set_current
from web_app.feedback.model_handle import ModelHandle

FILE = "cnn.safetensors"


class Bomb:
    """Unpickling this would leave a mark."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Callable[[Path], object], tuple[Path]]:
        return Path.touch, (self._mark,)


def reseal(folder: Path) -> None:
    """Make the checksums right again, as someone would who can write here."""
    names = json.loads((folder / CHECKSUMS).read_text())
    (folder / CHECKSUMS).write_text(json.dumps({name: file_sha256(folder / name) for name in names}))


def truncated(folder: Path, mark: Path) -> None:
    data = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(data[: len(data) // 2])


def truncated_and_sealed(folder: Path, mark: Path) -> None:
    truncated(folder, mark)
    reseal(folder)


def bit_flipped(folder: Path, mark: Path) -> None:
    data = bytearray((folder / FILE).read_bytes())
    data[-100] ^= 1
    (folder / FILE).write_bytes(data)


def of_another_shape(folder: Path, mark: Path) -> None:
    tensors = load_file(folder / FILE)
    name = max(tensors, key=lambda key: tensors[key].size)
    tensors[name] = np.ascontiguousarray(tensors[name][:-1])
    save_file(tensors, folder / FILE)
    reseal(folder)


def pickled(folder: Path, mark: Path) -> None:
    (folder / FILE).write_bytes(pickle.dumps(Bomb(mark)))
    reseal(folder)


def pickled_as_torch_does(folder: Path, mark: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Bomb(mark)))
        archive.writestr("archive/version", "3\n")
    (folder / FILE).write_bytes(out.getvalue())
    reseal(folder)


def with_a_lying_header(folder: Path, mark: Path) -> None:
    (folder / FILE).write_bytes(b"\xff" * 7 + b"\x7f" + (folder / FILE).read_bytes()[8:])
    reseal(folder)


def with_a_link_to_elsewhere(folder: Path, mark: Path) -> None:
    (folder / FILE).unlink()
    (folder / FILE).symlink_to("/etc/passwd")


def without_checksums(folder: Path, mark: Path) -> None:
    (folder / CHECKSUMS).unlink()


DAMAGES = (
    truncated, truncated_and_sealed, bit_flipped, of_another_shape, pickled, pickled_as_torch_does,
    with_a_lying_header, with_a_link_to_elsewhere, without_checksums,
)  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_the_running_version_keeps_serving(
    damage: Callable[[Path, Path], None], own_root: Path, settings_for: Callable[..., Settings], tmp_path: Path
) -> None:
    mark = tmp_path / "the pickle ran"
    settings = settings_for(own_root, experts="cnn")
    served = ModelHandle(settings, load_analyser)
    running = served.analyser
    shutil.copytree(own_root / "tiny", own_root / "next")
    damage(own_root / "next", mark)
    (own_root / CURRENT).write_text("next\n")  # past set_current, which would refuse most of them
    assert served.refresh() is False
    assert served.analyser is running
    refused = served.facts()["refused"]
    assert refused["version"] == "next"
    assert refused["reason"].startswith(("[weights_corrupt]", "[weights_missing]"))
    with pytest.raises(WeightsError) as caught:
        load_analyser(settings)
    assert caught.value.code in ("weights_corrupt", "weights_missing")
    assert not mark.exists()


def test_a_damaged_version_of_speech_is_refused_alone(own_root: Path, settings_for: Callable[..., Settings]) -> None:
    speech = own_root / SPEECH_FOLDER
    speech.mkdir()
    speech_version(speech)
    served = ModelHandle(settings_for(own_root, experts="cnn"), load_analyser)
    damaged = speech_version(speech, "s2").folder / SPEECH_FILE
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    shutil.copytree(own_root / "tiny", own_root / "next")
    set_current(own_root, "next")
    assert served.refresh() is True
    assert (served.analyser.version, served.speech) == ("next", "s1")
    assert served.refresh() is False
    refused = served.facts()["refused"]
    assert (refused["version"], refused["reason"].split()[0]) == ("next, s2", "[weights_corrupt]")
    assert (served.analyser.version, served.speech, served.facts()["changes"]) == ("next", "s1", 1)


def test_a_healthy_version_is_taken(own_root: Path, settings_for: Callable[..., Settings]) -> None:
    served = ModelHandle(settings_for(own_root, experts="cnn"), load_analyser)
    shutil.copytree(own_root / "tiny", own_root / "next")
    set_current(own_root, "next")
    assert served.refresh() is True
    assert (served.analyser.version, served.facts()["refused"]) == ("next", None)


def test_the_bomb_would_go_off(tmp_path: Path) -> None:
    """The pickles above are armed: unpickled, they leave their mark."""
    pickle.loads(pickle.dumps(Bomb(tmp_path / "mark")))
    assert (tmp_path / "mark").exists()
