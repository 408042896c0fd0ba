"""The engine follows the settings; that of OpenVINO is built from a version as it was published, without torch."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from utils.detection import engines
from utils.detection.engines import choose_backend, load_engine
from utils.detection.openvino_engine import OpenVinoEngine
from utils.detection.openvino_runtime import cpu_has_bf16, cpu_has_vnni
from utils.detection.pipeline import analyse, load_analyser
from utils.detection.precision import format_precisions, read_precision
from utils.detection.torch_engine import TorchEngine
from utils.errors import ConfigError, WeightsCorruptError
from utils.weights import verify_version


def test_tiny_version_runs_in_openvino_from_end_to_end(analyser, tiny_root, tmp_path, photo, settings_for):
    Image.fromarray(photo).save(tmp_path / "photo.png")
    quick = load_analyser(settings_for(tiny_root, engine="openvino"))
    assert isinstance(quick.engine, OpenVinoEngine)
    fast, slow = (analyse(tmp_path / "photo.png", each) for each in (quick, analyser))
    assert fast.verdict.probability == pytest.approx(slow.verdict.probability, abs=0.02)
    assert (fast.settings["engine"], slow.settings["engine"]) == ("openvino", "torch")
    chosen = read_precision("auto", bf16=cpu_has_bf16(), vnni=cpu_has_vnni())
    assert fast.settings["precision"] == format_precisions(chosen)


@pytest.mark.parametrize("damage", ["lost", "unknown", "shape"])
def test_arrays_that_do_not_fit_are_refused_by_both_engines(own_root, settings_for, damage):
    version = verify_version(own_root, "tiny")
    file = version.folder / "vit.safetensors"
    arrays = load_file(file)
    if damage == "lost":
        del arrays["head.score.weight"]
    elif damage == "unknown":
        arrays["head.more"] = np.zeros(3, np.float32)
    else:
        arrays["head.score.weight"] = arrays["head.score.weight"][:, 1:]
    save_file({name: np.ascontiguousarray(value) for name, value in arrays.items()}, file)
    for engine in ("openvino", "torch"):
        with pytest.raises(WeightsCorruptError, match="weights of vit do not fit"):
            load_engine(settings_for(own_root, engine=engine), own_root, version, device="cpu", threads=1)


def test_where_openvino_cannot_run_auto_takes_torch_and_says_so(tiny_root, settings_for, monkeypatch, caplog):
    def broken(*given: object, **more: object) -> object:
        raise RuntimeError("no such instruction")

    monkeypatch.setattr(engines, "_load_openvino", broken)
    monkeypatch.setattr(engines, "choose_backend", lambda *given, **more: "openvino")
    version = verify_version(tiny_root, "tiny")
    engine, _ = load_engine(settings_for(tiny_root, engine="auto"), tiny_root, version, device="cpu", threads=1)
    assert isinstance(engine, TorchEngine)
    assert "no such instruction" in caplog.text
    with pytest.raises(ConfigError, match="no such instruction"):
        load_engine(settings_for(tiny_root, engine="openvino"), tiny_root, version, device="cpu", threads=1)


@pytest.mark.parametrize(
    ("engine", "device", "tiny", "gpu", "expected"),
    [
        ("auto", "cpu", False, True, "openvino"),
        ("auto", "auto", False, False, "openvino"),
        ("auto", "auto", False, True, "torch"),
        ("auto", "cuda", False, True, "torch"),
        ("auto", "cpu", True, False, "torch"),
        ("torch", "cpu", False, False, "torch"),
        ("openvino", "auto", True, True, "openvino"),
    ],
)
def test_backend_follows_engine_and_device(monkeypatch, engine, device, tiny, gpu, expected):
    monkeypatch.setattr("utils.detection.engines.has_gpu", lambda: gpu)
    assert choose_backend(engine, device, tiny=tiny) == expected


def test_openvino_on_a_gpu_is_refused():
    with pytest.raises(ConfigError, match="torch or auto"):
        choose_backend("openvino", "cuda", tiny=False)


HELD = """
import sys
from utils.config import load_settings
from utils.detection.pipeline import load_analyser

analyser = load_analyser(load_settings(environ={"TELLTALE_DETECTION__DEVICE": "cpu"}))
held = next(line for line in open("/proc/self/status") if line.startswith("VmRSS"))
print(int(held.split()[1]) // 1024, "torch" in sys.modules)
"""


@pytest.mark.skipif(sys.platform != "linux" or not cpu_has_bf16(), reason="measured with bf16 on Linux")
def test_the_version_in_use_is_loaded_without_torch_and_holds_at_most_750_mb(base_folder):
    said = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, check=True).stdout.split()
    assert said[1] == "False"
    assert int(said[0]) < 750


PUT_TOGETHER = """
import sys
import models.cards, utils.detection.batch, utils.weights
from types import SimpleNamespace
from utils.config import Settings, StorageSettings
from web_app.worker import worker_tasks
from web_app.feedback.learner import Learner
from web_app.jobs.derived import CleanCopies
from web_app.db.migrations import migrate
from web_app.jobs.shared import Instance

settings = Settings(storage=StorageSettings(instance_dir=sys.argv[1]))
instance = Instance.of(settings)
instance.paths.create()
migrate(instance.database)
served = SimpleNamespace(refresh=None, facts=dict, analyser=SimpleNamespace(version="none"))
worker_tasks(instance, served, Learner(settings, served), CleanCopies(instance, lambda: None), ())
sys.exit(int("torch" in sys.modules))
"""


def test_worker_is_put_together_without_torch(tmp_path):
    """Nor do those who analyse without a server; learning and close-ups bring it in when somebody asks for them."""
    assert subprocess.run([sys.executable, "-c", PUT_TOGETHER, str(tmp_path)], check=False).returncode == 0
