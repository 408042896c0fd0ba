"""The engine follows the settings; that of OpenVINO is built from a version as it was published, without torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial

import cv2
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file
from scipy.special import expit

from models.cards import EXPERT_NAMES, IMAGE_EXPERTS
from utils.config import load_settings
from utils.detection import engines
from utils.detection.engine import read_gate
from utils.detection.engines import choose_backend, expert_graph, load_engine
from utils.detection.openvino_engine import OpenVinoEngine
from utils.detection.pipeline import analyse, load_analyser
from utils.detection.processor import (
    KEEP_PARITY,
    PRECISIONS,
    cpu_has_bf16,
    cpu_has_vnni,
    format_precisions,
    read_precision,
)
from utils.detection.selftest import KNOWN_FOLDER
from utils.detection.torch_engine import TorchEngine
from utils.errors import ConfigError, WeightsCorruptError
from utils.faces.crops import CROP_PX, crop_face, measure_quality, resize
from utils.faces.detector import CenterFaceDetector
from utils.networks import load_ensemble
from utils.types import Floats, Pixels
from utils.weights import verify_current, verify_version, weights_root


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


# The setting [detection] precision, and the table: in what it allows, the version in use is what torch computes.

LSTM = EXPERT_NAMES.index("lstm")
TOLERANCE = 0.02
"""Probabilities may differ by so much at the 99th percentile."""


@pytest.mark.parametrize(
    ("text", "has", "expected"),
    [
        ("auto", ("bf16",), "cnn=fp32,resnext=bf16,vit=bf16,lstm=bf16"),
        ("auto", ("bf16", "vnni"), "cnn=fp32,resnext=bf16,vit=bf16,lstm=bf16"),
        ("auto", ("vnni",), "cnn=fp32,resnext=fp32,vit=int8,lstm=fp32"),
        ("auto", (), "cnn=fp32,resnext=fp32,vit=fp32,lstm=fp32"),
        (" bf16 ", ("bf16", "vnni"), "cnn=fp32,resnext=bf16,vit=bf16,lstm=bf16"),
        ("bf16", ("vnni",), "cnn=fp32,resnext=fp32,vit=fp32,lstm=fp32"),
        ("fp32", ("bf16", "vnni"), "cnn=fp32,resnext=fp32,vit=fp32,lstm=fp32"),
        ("vit=fp32", ("bf16",), "cnn=fp32,resnext=bf16,vit=fp32,lstm=bf16"),
        ("cnn=fp32", ("bf16", "vnni"), "cnn=fp32,resnext=bf16,vit=bf16,lstm=bf16"),
        ("cnn=fp32", ("vnni",), "cnn=fp32,resnext=fp32,vit=int8,lstm=fp32"),
        ("vit=int8", ("bf16", "vnni"), "cnn=fp32,resnext=bf16,vit=int8,lstm=bf16"),
        ("int8", ("bf16", "vnni"), "cnn=fp32,resnext=bf16,vit=int8,lstm=bf16"),
        ("int8", ("bf16",), "cnn=fp32,resnext=bf16,vit=bf16,lstm=bf16"),
        ("cnn=fp32,resnext=int8,vit=fp32,lstm=fp32", ("vnni",), "cnn=fp32,resnext=fp32,vit=fp32,lstm=fp32"),
    ],
)
def test_the_table(text, has, expected):
    assert format_precisions(read_precision(text, **dict.fromkeys(has, True))) == expected


@pytest.mark.parametrize("smallest", PRECISIONS)
def test_what_is_written_is_read_back(smallest):
    chosen = read_precision(smallest, bf16=True)
    assert read_precision(format_precisions(chosen), bf16=True) == chosen


@pytest.mark.parametrize("text", ["int4", "", "cnn=int4", "oracle=int8", "cnn=", "int8,bf16", "cnn"])
def test_other_words_are_refused(text):
    with pytest.raises(ConfigError, match="precision must be"):
        read_precision(text)


def faces(detector: CenterFaceDetector, rng: np.random.Generator, count: int) -> Iterator[Pixels]:
    """Crops of the pictures of the self-test in changing frame, light, size, sharpness and JPEG quality."""
    for path in sorted(KNOWN_FOLDER.glob("*.png")):
        rgb = np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])
        face = max(detector.detect(rgb), key=lambda found: found.box.width)
        for _ in range(count):
            crop = crop_face(rgb, face, scale=float(rng.uniform(1.0, 1.5))).pixels[:, :: int(rng.choice([-1, 1]))]
            light = (crop / 255.0) ** rng.uniform(0.6, 1.6) * rng.uniform(0.7, 1.15, 3)
            light += rng.normal(0, 0.02, crop.shape)
            small = resize(np.clip(light * 255, 0, 255).astype(np.uint8), int(rng.integers(64, CROP_PX)))
            quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 96))]
            _, jpeg = cv2.imencode(".jpg", resize(small, CROP_PX), quality)
            yield np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), np.uint8)


def p99_probability_gap(reference: Floats, found: Floats) -> float:
    """99th percentile of the distance between two sets of probabilities, from their logits (N,); NaN counts as 1."""
    apart = np.abs(expit(reference.astype(np.float64)) - expit(found.astype(np.float64)))
    return float(np.quantile(np.nan_to_num(apart, nan=1.0), 0.99, method="higher"))


def test_experts_and_ensemble_of_the_version_in_use_keep_parity(face_detector):
    settings = load_settings()
    root, version = weights_root(settings), verify_current(settings)
    ensemble, _ = load_ensemble(root, version)
    rng = np.random.default_rng(224)
    crops = np.stack(list(faces(face_detector, rng, 4)))
    quality = np.stack([measure_quality(crop, float(rng.uniform(50, 400)), 0.9) for crop in crops])
    gate = read_gate(version)
    reference = TorchEngine(ensemble, gate, device="cpu", threads=1)
    answers = reference.run(crops)
    wanted, features = answers.logits, answers.features
    wanted[:, LSTM] = reference.sequence_logit(features)
    plain = OpenVinoEngine(
        partial(expert_graph, root, version, precision="fp32"),
        dict.fromkeys(EXPERT_NAMES, "fp32"),
        gate,
        load_networks=lambda: ensemble,
        threads=1,
    )
    exact = plain.run(crops).logits
    exact[:, LSTM] = plain.sequence_logit(features)
    assert np.allclose(exact, wanted, atol=1e-4)
    for precision in [p for p, has in (("int8", cpu_has_vnni()), ("bf16", cpu_has_bf16())) if has]:
        served = wanted.copy()
        for column, name in enumerate(EXPERT_NAMES):
            if precision not in KEEP_PARITY[name]:
                continue
            graph = partial(expert_graph, root, version, precision=precision)
            engine = OpenVinoEngine(graph, {name: precision}, gate, load_networks=lambda: ensemble, threads=1)
            alone = engine.run(crops).logits[:, column] if name in IMAGE_EXPERTS else engine.sequence_logit(features)
            served[:, column] = alone
            apart = p99_probability_gap(*((gate.scale * logits + gate.shift)[:, column] for logits in (wanted, served)))
            assert 0 < apart <= TOLERANCE, (name, precision)
        apart = p99_probability_gap(gate.mix(wanted, quality).logit, gate.mix(served, quality).logit)
        assert apart <= TOLERANCE, precision
