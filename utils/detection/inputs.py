"""From crops to what the networks take, without torch: the same numbers as `models.preprocess.prepare`.

Resizing by a fixed factor is a product with one matrix per side. The matrices and the colours' normalisation make one
small graph per size of crop, which OpenVINO runs in fp32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from models.cards import NetworkCard
from utils.detection.openvino_runtime import compile_graph
from utils.types import Floats, Pixels


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
    """Prepares a batch of crops for several networks at once.

    Args:
        cards: of the networks.
        threads: of the processor; 0 uses all cores.
    """

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
    return compile_graph(Model(outputs, [pixels], "inputs"), hint="f32", threads=threads)
