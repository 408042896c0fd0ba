"""int8 from ranges: where activations lie is measured once, at training time, and ships; nobody needs the pictures.

A layer's ranges are two numbers over many crops. On conversion they become FakeQuantize operations before each
convolution and matrix product with constant weights, which OpenVINO turns into int8 arithmetic; weights get one scale
per output channel.

Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference".
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from utils.errors import WeightsCorruptError
from utils.weights import Version


@dataclass(frozen=True)
class LayerRange:
    """Where the activations before one layer lie.

    Args:
        shape: of the layer's weights, by which a range of another network is noticed.
        low: smallest.
        high: largest.
    """

    shape: tuple[int, ...]
    low: float
    high: float


Ranges = tuple[LayerRange, ...]
"""Of every layer of one expert, in the order of computation; names differ from one conversion to the next."""

FOLDER = "quantisation"
"""In the folder of weights: `NAME.json` has the ranges of version NAME and of all that were fine-tuned from it."""

LAYERS = ("Convolution", "GroupConvolution", "MatMul")
LEVELS = 256


def layers_with_weights(graph: Any) -> list[Any]:
    """Convolutions and matrix products of a graph whose second input is constant, in the order of computation."""
    return [
        op
        for op in graph.get_ordered_ops()
        if op.get_type_name() in LAYERS and _constant(op.input_value(1).get_node()) is not None
    ]


def _constant(node: Any) -> npt.NDArray[Any] | None:
    """The values of weights; None for what is computed."""
    while node.get_type_name() in ("Reshape", "Convert"):
        node = node.input_value(0).get_node()
    return node.get_data() if node.get_type_name() == "Constant" else None


def quantise(graph: Any, ranges: Ranges) -> bool:
    """Put FakeQuantize before every layer with weights.

    Args:
        graph: an expert in fp32, which is changed.
        ranges: from `utils.detection.ranges`, of a graph with the same layers.

    Returns:
        False, with the graph as it was, where the layers are others.
    """
    from openvino import opset13 as ops

    layers, shared = layers_with_weights(graph), {}
    if [shape_of(layer) for layer in layers] != [known.shape for known in ranges]:
        return False
    for layer, known in zip(layers, ranges, strict=True):
        source = layer.input_value(0)
        key = (source.get_node().get_friendly_name(), source.get_index())
        if key not in shared:  # several layers may read the same activation
            low, high = _with_zero(known.low, known.high)
            shared[key] = ops.fake_quantize(source, *_scalars(low, high, low, high), LEVELS)
        layer.input(0).replace_source_output(shared[key].output(0))
        weights = layer.input_value(1)
        reach = _reach(layer)
        layer.input(1).replace_source_output(
            ops.fake_quantize(weights, *_scalars(-reach, reach, -reach, reach), LEVELS - 1).output(0)
        )
    graph.validate_nodes_and_infer_types()
    return True


def _with_zero(low: float, high: float) -> tuple[float, float]:
    """Borders for 256 steps one of which is exactly 0: 0..high for what is never negative, else symmetric."""
    if low >= 0:
        return 0.0, max(high, 1e-6)
    reach = max(-low, high, 1e-6)
    return -reach * 128 / 127, reach


def _reach(layer: Any) -> npt.NDArray[np.float32]:
    """Largest weight of each output channel, in the shape of the weights with 1 elsewhere."""
    values = np.abs(_values_of(layer.input_value(1)))
    keep = {"Convolution": (0,), "GroupConvolution": (0, 1)}.get(layer.get_type_name())
    if keep is None:
        keep = (0,) if layer.get_attributes()["transpose_b"] else (values.ndim - 1,)
    rest = tuple(axis for axis in range(values.ndim) if axis not in keep)
    out: npt.NDArray[np.float32] = np.maximum(values.max(rest, keepdims=True), 1e-12).astype(np.float32)
    return out


def _values_of(output: Any) -> npt.NDArray[Any]:
    values = _constant(output.get_node())
    if values is None:
        raise ValueError("weights are not constant")
    return values.reshape([int(n) for n in output.get_shape()])


def shape_of(layer: Any) -> tuple[int, ...]:
    """Of a layer's weights."""
    return tuple(int(n) for n in layer.input_value(1).get_shape())


def _scalars(*values: Any) -> list[Any]:
    from openvino import opset13 as ops

    return [ops.constant(np.asarray(value, np.float32)) for value in values]


def read_ranges(path: Path) -> dict[str, Ranges]:
    """The ranges of a version's experts, by name.

    Raises:
        WeightsCorruptError: the file is not of that form.
    """
    try:
        experts = json.loads(path.read_text(encoding="utf-8"))["experts"]
        return {
            name: tuple(LayerRange(tuple(r["shape"]), float(r["low"]), float(r["high"])) for r in layers)
            for name, layers in experts.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsCorruptError(f"{path.name} is not a file of ranges: {error}.") from error


def ranges_file(root: Path, version: Version) -> Path:
    """Where the ranges of a version are, which need not exist."""
    return root / FOLDER / f"{version.card.get('learning', {}).get('base', version.name)}.json"
