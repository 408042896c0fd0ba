"""The setting [detection] precision, and the table: in what it allows, the version in use is what torch computes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import cv2
import numpy as np
import pytest
from scipy.special import expit

from models.cards import EXPERT_NAMES, IMAGE_EXPERTS
from utils.config import load_settings
from utils.detection.engines import expert_graph
from utils.detection.gate import read_gate
from utils.detection.openvino_engine import OpenVinoEngine
from utils.detection.openvino_runtime import cpu_has_bf16, cpu_has_vnni
from utils.detection.precision import KEEP_PARITY, PRECISIONS, format_precisions, read_precision
from utils.detection.selftest import KNOWN_FOLDER
from utils.detection.torch_engine import TorchEngine
from utils.errors import ConfigError
from utils.faces.crops import CROP_PX, crop_face, measure_quality, resize
from utils.faces.detector import CenterFaceDetector
from utils.networks import load_ensemble
from utils.types import Floats, Pixels
from utils.weights import verify_current, weights_root

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
            apart = p99_probability_gap(gate.calibrate(wanted)[:, column], gate.calibrate(served)[:, column])
            assert 0 < apart <= TOLERANCE, (name, precision)
        apart = p99_probability_gap(gate.mix(wanted, quality).logit, gate.mix(served, quality).logit)
        assert apart <= TOLERANCE, precision
