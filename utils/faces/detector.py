"""Find the faces of a picture: a `FaceDetector` protocol and CenterFace behind it, run by OpenVINO.

Stands between decoding and cropping. CenterFace looks at a bounded size; pictures in which it finds nothing are
looked at once more with a border around them, because users upload (and data sets consist of) tight face crops whose
face fills the picture.

Source: Xu, Yan, Yang et al. 2019, "CenterFace: Joint Face Detection and Alignment Using Face as Point".
"""

from __future__ import annotations

import functools
import threading
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from utils.types import Box, Face, Floats, Pixels

STRIDE = 4
"""CenterFace predicts on a grid of 4 x 4 pixels."""
MULTIPLE = 32
"""Its input sides are multiples of 32."""
MAX_SIDE = 640
"""Pictures are shrunk for detection to this length of their longer side, pixels."""
MIN_SCORE = 0.5
"""Detections below this confidence are dropped."""
TORN_SHARE = 0.5
"""A face wider or taller than this share of the picture can come out as two halves that overlap."""
BORDER_SHARE = 0.35
"""Border of the second look, as a share of the picture's longer side, on each of the four sides."""


class FaceDetector(Protocol):
    """Anything that finds faces; the contract test in tests/utils/faces holds for every implementation."""

    def detect(self, rgb: Pixels) -> tuple[Face, ...]:
        """All faces of a picture, the largest first; boxes and landmarks in its pixels."""
        ...

    def suspect(self, rgb: Pixels, min_score: float) -> tuple[Face, ...]:
        """What may be a face, from this score on, the largest first; a single look, for parts of a picture."""
        ...

    def glance(self, rgb: Pixels, min_score: float) -> tuple[Face, ...] | None:
        """As `suspect`, roughly but faster; None where no look is faster."""
        ...


class CenterFaceDetector:
    """CenterFace with boxes and five landmarks; may be used from several threads.

    Args:
        weights: the verified `centerface.onnx`.
    """

    def __init__(self, weights: Path, *, threads: int = 0) -> None:
        import openvino

        self._core = openvino.Core()
        self._model = _taking_pixels(self._core.read_model(str(weights)))
        self._options = {"INFERENCE_NUM_THREADS": threads} if threads else {}
        self._exact = self._compiled("f32")
        self._lock = threading.Lock()  # a request computes one picture at a time

    def detect(self, rgb: Pixels) -> tuple[Face, ...]:
        """All faces, the largest first; a second look with a border when the first finds none.

        A face that fills a large picture is beyond what CenterFace was trained on and comes out torn in two; such a
        picture gets the second look too.
        """
        faces = self._look(rgb, self._exact)
        if faces and not _is_torn(faces, max(rgb.shape[:2])):
            return faces
        return self._look_framed(rgb) or faces

    def suspect(self, rgb: Pixels, min_score: float) -> tuple[Face, ...]:
        """See `FaceDetector.suspect`."""
        return self._look(rgb, self._exact, min_score)

    def glance(self, rgb: Pixels, min_score: float) -> tuple[Face, ...] | None:
        """See `FaceDetector.glance`: in bf16, where the processor multiplies it; half the time, a pixel beside."""
        return None if self._rough is None else self._look(rgb, self._rough, min_score)

    def _compiled(self, hint: str) -> Any:
        """The network as a request; processors with bf16 units use them unasked, which gives slightly other boxes."""
        options = {**self._options, "INFERENCE_PRECISION_HINT": hint}
        return self._core.compile_model(self._model, "CPU", options).create_infer_request()

    @functools.cached_property
    def _rough(self) -> Any:
        """Made when the first large photo comes."""
        able = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return self._compiled("bf16") if "BF16" in able else None

    def _look_framed(self, rgb: Pixels) -> tuple[Face, ...]:
        height, width = rgb.shape[:2]
        shrink = min(1.0, MAX_SIDE / max(height, width))
        if shrink < 1:  # before the border is put around it: a frame around 65000 x 700 pixels would take 15 GB
            size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
            rgb = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        border = round(BORDER_SHARE * max(rgb.shape[:2]))
        framed = cv2.copyMakeBorder(rgb, border, border, border, border, cv2.BORDER_CONSTANT, value=(127, 127, 127))
        stretch = np.array([width / rgb.shape[1], height / rgb.shape[0]], np.float32)
        return tuple(_unframed(face, border, stretch) for face in self._look(framed, self._exact))

    def _look(self, rgb: Pixels, request: Any, min_score: float = MIN_SCORE) -> tuple[Face, ...]:
        height, width = rgb.shape[:2]
        net_w, net_h = network_size(width, height)
        method = cv2.INTER_AREA if max(width, height) > MAX_SIDE else cv2.INTER_LINEAR
        blob = cv2.resize(rgb, (net_w, net_h), interpolation=method)[None]
        with self._lock:
            request.infer({0: blob}, share_inputs=True)
            heat, scale, offset, marks = (np.array(output.data)[0] for output in request.output_tensors)
        found = _decode(heat[0], scale, offset, marks, min_score)
        stretch = np.array([width / net_w, height / net_h], np.float32)
        faces = [_to_face(box, score, points, stretch) for box, score, points in found]
        return tuple(sorted(faces, key=lambda f: f.box.width * f.box.height, reverse=True))


def network_size(width: int, height: int) -> tuple[int, int]:
    """Width and height, in pixels, to which CenterFace resizes a picture of this size."""
    shrink = min(1.0, MAX_SIDE / max(height, width))
    net_w, net_h = (max(MULTIPLE, round(side * shrink / MULTIPLE) * MULTIPLE) for side in (width, height))
    return net_w, net_h


def _taking_pixels(model: Any) -> Any:
    """The network with any size of picture, (1, H, W, 3) uint8; whole numbers to 255 are the same in float32."""
    from openvino import Layout, Type
    from openvino.preprocess import PrePostProcessor

    model.reshape([1, 3, -1, -1])
    steps = PrePostProcessor(model)
    steps.input().tensor().set_element_type(Type.u8).set_layout(Layout("NHWC"))
    steps.input().model().set_layout(Layout("NCHW"))
    return steps.build()


def _decode(
    heat: Floats, scale: Floats, offset: Floats, marks: Floats, min_score: float
) -> list[tuple[Floats, float, Floats]]:
    """Boxes (x0, y0, x1, y1), scores and landmarks (5, 2) in network pixels, after non-maximum suppression."""
    rows, columns = np.where(heat > min_score)
    if not len(rows):
        return []
    size = np.exp(scale[:, rows, columns]) * STRIDE  # (2, N): height, width
    y0 = (rows + offset[0, rows, columns] + 0.5) * STRIDE - size[0] / 2
    x0 = (columns + offset[1, rows, columns] + 0.5) * STRIDE - size[1] / 2
    scores = heat[rows, columns]
    points = np.stack(
        [marks[1::2, rows, columns] * size[1] + x0, marks[0::2, rows, columns] * size[0] + y0], axis=-1
    )  # (5, N, 2)
    boxes = np.stack([x0, y0, size[1], size[0]], axis=1)
    keep = cv2.dnn.NMSBoxes(boxes.tolist(), scores.tolist(), min_score, 0.3)
    corners = np.stack([x0, y0, x0 + size[1], y0 + size[0]], axis=1).astype(np.float32)
    return [(corners[i], float(scores[i]), points[:, i].astype(np.float32)) for i in np.asarray(keep).flatten()]


def _to_face(box: Floats, score: float, points: Floats, stretch: Floats) -> Face:
    x0, y0, x1, y1 = (float(v) for v in box * np.tile(stretch, 2))
    return Face(box=Box(x0, y0, x1, y1), score=min(1.0, score), landmarks=(points * stretch).astype(np.float32))


def _is_torn(faces: tuple[Face, ...], side: int) -> bool:
    """Whether the two largest faces are likely parts of one that fills the picture."""
    if len(faces) < 2:
        return False
    a, b = faces[0].box, faces[1].box
    overlap = shared_area(a, b) / (b.width * b.height)
    return overlap > 0.25 and max(b.width, b.height) > TORN_SHARE * side


def shared_area(a: Box, b: Box) -> float:
    """Area that two boxes share, pixels²."""
    return max(min(a.x1, b.x1) - max(a.x0, b.x0), 0) * max(min(a.y1, b.y1) - max(a.y0, b.y0), 0)


def _unframed(face: Face, border: int, stretch: Floats) -> Face:
    """A face of the framed picture in pixels of the one without its border and before it was shrunk."""
    b = face.box
    corners = np.array([b.x0, b.y0, b.x1, b.y1], np.float32) - border
    return _to_face(corners, face.score, face.landmarks - np.float32(border), stretch)
