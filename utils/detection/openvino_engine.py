"""The fast engine on a processor: OpenVINO, in the precisions of `processor.py`. Loads no torch unless `networks` is
asked for: graphs are built from the arrays of a version (`models/graphs.py`) at each start.

Crops become what they take by one small graph per size of crop, in fp32, with the same numbers as
`models.preprocess.prepare`: resizing by a fixed factor is a product with one matrix per side.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from models.cards import EXPERT_NAMES, IMAGE_EXPERTS, NetworkCard, expert_card
from utils.detection.engine import Answers, Engine, NumericGate
from utils.detection.processor import compile_graph
from utils.types import Floats, Pixels

if TYPE_CHECKING:
    from models.ensemble_model import Ensemble

BATCH = 8
"""Crops per pass: 16 are no faster per crop and take 150 MB more."""
LARGEST_FIRST = ("vit", "resnext", "lstm", "cnn")


class OpenVinoEngine(Engine):
    """OpenVINO on this processor.

    Args:
        build: makes the graph of an expert, by name; two at a time.
        precisions: of the experts that are wanted.
        load_networks: makes the ensemble in torch, when somebody asks for `networks`.
    """

    name = "openvino"
    device = "cpu"

    def __init__(
        self,
        build: Callable[[str], Any],
        precisions: Mapping[str, str],
        gate: NumericGate,
        *,
        load_networks: Callable[[], Ensemble],
        tiny: bool = False,
        threads: int = 0,
    ) -> None:
        super().__init__(gate, batch=BATCH)
        self._precisions = dict(precisions)
        self._load_networks = load_networks
        self._networks: weakref.ref[Ensemble] | None = None
        self._inputs = InputMaker(
            [expert_card(name, tiny=tiny) for name in IMAGE_EXPERTS if name in precisions], threads
        )

        def compiled(name: str) -> Any:
            return compile_graph(build(name), precision=precisions[name], threads=threads)

        with ThreadPoolExecutor(2) as pool:  # making one graph does not keep two cores busy
            ready = {name: pool.submit(compiled, name) for name in LARGEST_FIRST if name in precisions}
        self._experts = {name: ready[name].result() for name in precisions}
        _give_memory_back()
        self._one_at_a_time = threading.Lock()  # an infer request serves one caller

    @property
    def precisions(self) -> Mapping[str, str]:
        """See `Engine.precisions`."""
        return self._precisions

    @property
    def networks(self) -> Ensemble:
        """The ensemble in torch; it is dropped when nobody holds it any more, for it is larger than all the rest."""
        held = None if self._networks is None else self._networks()
        if held is None:
            held = self._load_networks()
            self._networks = weakref.ref(held)
        return held

    def answer_batch(self, crops: Pixels, only: Collection[str] | None = None) -> Answers:
        """See `Engine.answer_batch`."""
        logits = np.full((len(crops), len(EXPERT_NAMES)), np.nan, np.float32)
        features = tokens = None
        with self._one_at_a_time:
            inputs = self._inputs.make(crops)
            for column, name in enumerate(EXPERT_NAMES):
                if name in inputs and (only is None or name in only):
                    logits[:, column], feature = _run(self._experts[name], inputs[name])
                    if name == "resnext":
                        features = feature
                    if name == "vit":
                        tokens = self._experts[name].get_output_tensor(2).data.copy()
        return Answers(logits, features, tokens)

    def sequence_logit(self, features: Floats) -> float:
        """See `Engine.sequence_logit`."""
        if "lstm" not in self._experts:
            return float("nan")
        with self._one_at_a_time:
            return float(_run(self._experts["lstm"], features[None])[0][0])


def _give_memory_back() -> None:
    """Return what reading and packing the weights took: glibc would keep 400 MB of it."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _run(request: Any, tensor: Floats) -> tuple[Floats, Floats]:
    request.infer({0: tensor}, share_inputs=True)
    return request.get_output_tensor(0).data.copy(), request.get_output_tensor(1).data.copy()


def resize_matrix(source: int, target: int) -> Floats:
    """What bilinear resizing with antialiasing does along one side, (target, source) float32; its rows sum to 1.

    A triangle as wide as one pixel of the smaller of both scales is centred on each target pixel, as torch, TensorFlow
    and Pillow do it.
    """
    scale = source / target
    reach = max(scale, 1.0)
    centres = (np.arange(target) + 0.5) * scale
    distance = np.abs(np.arange(source)[None] + 0.5 - centres[:, None]) / reach
    weights = np.clip(1 - distance, 0, None)
    out: Floats = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    return out


class InputMaker:
    """Prepares a batch of crops for several networks at once."""

    def __init__(self, cards: Sequence[NetworkCard], threads: int = 0) -> None:
        self._cards = tuple(cards)
        self._threads = threads
        self._requests: dict[int, Any] = {}

    def make(self, crops: Pixels) -> dict[str, Floats]:
        """Inputs by the name of the network, (B, 3, S, S) float32; they hold until the next call.

        Args:
            crops: (B, H, H, 3) uint8 RGB, square.
        """
        if not self._cards:
            return {}
        side = crops.shape[1]
        if side not in self._requests:
            self._requests[side] = _compile(self._cards, side, self._threads)
        request = self._requests[side]
        request.infer({0: np.ascontiguousarray(crops)}, share_inputs=True)
        return {card.name: request.get_output_tensor(i).data for i, card in enumerate(self._cards)}


def _compile(cards: Sequence[NetworkCard], side: int, threads: int) -> Any:
    from openvino import Model, Type
    from openvino import opset13 as ops

    pixels = ops.parameter([-1, side, side, 3], Type.u8, name="crops")
    planes = ops.transpose(ops.convert(pixels, Type.f32), ops.constant(np.array([0, 3, 1, 2], np.int64)))
    outputs = []
    for card in cards:
        factor = 1 / (255 * np.array(card.std, np.float64))
        offset = -np.array(card.mean, np.float64) / np.array(card.std, np.float64)
        scaled = ops.multiply(planes, ops.constant(factor.astype(np.float32).reshape(1, 3, 1, 1)))
        image = ops.add(scaled, ops.constant(offset.astype(np.float32).reshape(1, 3, 1, 1)))
        if card.input_size != side:  # after the normalisation, which commutes with it and would be fused wrongly here
            matrix = resize_matrix(side, card.input_size)
            across = ops.matmul(image, ops.constant(matrix), False, True)  # (B, 3, side, S)
            image = ops.matmul(ops.constant(matrix), across, False, False)  # (B, 3, S, S)
        outputs.append(image)
    return compile_graph(Model(outputs, [pixels], "inputs"), precision="fp32", threads=threads)
