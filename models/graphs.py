"""The networks as OpenVINO graphs, built without torch from the arrays of a version: what a processor is served with.

Each function here is what the class of the same network computes in evaluation mode (`cnn_model.py`,
`resnext_model.py`, `vision_transformer.py`, `lstm_model.py`); sizes are read off the arrays.

For bf16, weights are rounded to half precision, and what is marked `exact` computes in fp32. bf16 has 8 significant
bits, no more than a pixel has. Rounding there loses what the ViT's first normalisation works on, and the blocks of a
transformer all add to one sum, so that what is rounded off it in one is missing in all later ones. The way from the
pixels to the second wide layer, and that sum, keep fp32.

For int8, the matrices of the later half of the ViT's blocks are the int8 numbers that its base keeps on disk, one scale
per row, and OpenVINO rounds what they multiply as it comes, some neighbours with one scale: no ranges are measured
beforehand. What the earlier half rounds off, all later blocks would carry on; it computes in fp32 as all else.

For fp32, the ViT's matrices can stay the int8 numbers that they are on disk: OpenVINO then keeps them so, instead of as
floats twice.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino
from openvino import Model, Type
from openvino import opset13 as ops

from models.cards import RESIDUAL_DIVISORS, RESIDUAL_KERNELS, RESIDUAL_LIMIT, VIT_HEADS, expert_card

Arrays = Mapping[str, npt.NDArray[Any]]
Node = Any
"""A value in a graph; OpenVINO's have no types."""
EPSILON = np.float32(1e-5)
"""Of every normalisation."""
QUICK_GELU = 1.702
"""Source: Hendrycks and Gimpel 2016, "Gaussian Error Linear Units"."""
RESNEXT_BLOCKS = {False: (3, 4, 6, 3), True: (1, 1, 1, 1)}
"""Of each stage of ResNeXt-50, and of its tiny variant."""
VIT_BLOCKS, VIT_TAPS = {False: 12, True: 4}, 4
"""Blocks of the ViT and of its tiny variant, and how many of them its head reads."""

UNUSED = ("backbone.norm.", "backbone.head.")
"""Of the ViT's base, which nothing of ours reads."""
COUNTS = "num_batches_tracked"
MARKED = """<net name="marked" version="11"><layers>
<layer id="0" name="x" type="Parameter" version="opset1"><data shape="1" element_type="f32"/>
<rt_info><attribute name="precise" version="0"/></rt_info>
<output><port id="0" precision="FP32"><dim>1</dim></port></output></layer></layers><edges/></net>"""


def build_graph(name: str, arrays: Arrays, *, tiny: bool, precision: str, keep_int8: bool = False) -> Any:
    """An expert as a graph that takes prepared input with any batch size.

    Args:
        arrays: float32, by the names that the expert's parameters have in torch.
        precision: that it will compute with: fp32, bf16, or int8 (of the ViT).
        keep_int8: hold matrices of the ViT as int8 in fp32, too, if they have the same numbers again. With AVX-512 it
            takes 480 MB less, .98 to 1.04 of the time and gives the same bits; without, half as much time again.

    Returns:
        An OpenVINO model: logit (B,), feature (B, D) and, of the ViT, tokens (B, L, 2D).

    Raises:
        ValueError: the arrays lack one, or hold one that the network has not.
        RuntimeError: their shapes do not fit each other.
    """
    layers = Layers(arrays, tiny=tiny, precision=precision, keep_int8=keep_int8)
    side = expert_card(name, tiny=tiny).input_size
    try:
        if name == "lstm":
            x = ops.parameter([1, -1, len(arrays["norm.weight"])], Type.f32)
            outputs = _lstm(layers, x)
        else:
            x = ops.parameter([-1, 3, side, side], Type.f32)
            outputs = NETWORKS[name](layers, x)
    except KeyError as error:
        raise ValueError(f"{error} is missing") from error
    except (ArithmeticError, IndexError) as error:
        raise ValueError(f"the shape of an array is another ({error})") from error
    unknown = [held for held in set(arrays) - layers.used if not held.startswith(UNUSED) and not held.endswith(COUNTS)]
    if unknown:
        raise ValueError(f"{sorted(unknown)[:3]} are unknown")
    return Model(outputs, [x], name)


class Layers:
    """The layers that networks are made of, their weights taken by name."""

    def __init__(self, arrays: Arrays, *, tiny: bool, precision: str, keep_int8: bool) -> None:
        self._arrays = arrays
        self.tiny = tiny
        self.precision = precision
        self.keep_int8 = keep_int8
        self.used: set[str] = set()

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        self.used.add(name)
        return self._arrays[name]

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def constant(self, value: npt.NDArray[Any]) -> Node:
        """Weights as a value."""
        rounded = value.astype(np.float16) if self.precision == "bf16" else value
        return ops.constant(np.asarray(rounded, np.float32, order="C"))

    def convolve(self, x: Node, name: str, norm: str, *, stride: int = 1, grouped: bool = False) -> Node:
        """A convolution without bias, and the batch normalisation after it.

        Args:
            grouped: into as many groups as make its kernels fit an input as wide as its output.
        """
        kernel, gain, shift = (self[key] for key in (f"{name}.weight", f"{norm}.weight", f"{norm}.bias"))
        factor = gain / np.sqrt(self[f"{norm}.running_var"] + EPSILON)
        kernel, shift = kernel * factor.reshape(-1, 1, 1, 1), shift - self[f"{norm}.running_mean"] * factor
        out, inside, side, _ = kernel.shape
        around = ([stride] * 2, [side // 2] * 2, [side // 2] * 2, [1, 1])
        if grouped:
            groups = out // inside
            kernel = kernel.reshape(groups, out // groups, inside, side, side)
        y = (ops.group_convolution if grouped else ops.convolution)(x, self.constant(kernel), *around)
        return ops.add(y, self.constant(shift.reshape(1, -1, 1, 1)))

    def linear(self, x: Node, name: str, *, int8: bool = False) -> Node:
        """A product with a matrix, and a bias.

        Args:
            int8: keep the matrix as int8 numbers and a scale per row, in fp32 only one that has the same numbers again.
        """
        matrix = self[f"{name}.weight"]
        weights = self._as_int8(matrix) if int8 else self.constant(matrix)
        product = ops.matmul(x, weights, False, True)
        return ops.add(product, self._along(x, f"{name}.bias"))

    def _as_int8(self, matrix: npt.NDArray[Any]) -> Node:
        scale = np.maximum(np.abs(matrix).max(1, keepdims=True) / 127, 1e-12).astype(np.float32)
        whole = np.rint(matrix / scale).astype(np.int8)
        if self.precision == "fp32" and not np.array_equal(whole * scale, matrix):
            return self.constant(matrix)
        return ops.multiply(ops.convert(ops.constant(whole), Type.f32), ops.constant(scale))

    def normalise(self, x: Node, name: str, *, exact: int = 0) -> Node:
        """Layer normalisation over the last axis.

        Args:
            exact: how many of its operations compute in fp32: 0, 1 (the normalisation itself) or 3.
        """
        y = ops.mvn(x, _integers(-1), True, float(EPSILON), "INSIDE_SQRT")
        scaled = ops.multiply(y, self._along(x, f"{name}.weight"))
        shifted = ops.add(scaled, self._along(x, f"{name}.bias"))
        _exact(*(y, scaled, shifted)[:exact])
        return shifted

    def _along(self, x: Node, name: str) -> Node:
        """A vector that goes along the last axis of a value."""
        return self.constant(self[name].reshape(*[1] * (len(x.get_output_partial_shape(0)) - 1), -1))

    def head(self, feature: Node, name: str = "head") -> list[Node]:
        """Logit and feature, as every network gives them."""
        return [ops.squeeze(self.linear(feature, name), _integers(1)), feature]


def _integers(*values: int) -> Node:
    return ops.constant(np.array(values, np.int64))


@functools.cache
def _mark() -> Mapping[str, Any]:
    """What marks an operation as computing in fp32; OpenVINO makes this object only where it reads a graph."""
    (marked,) = openvino.Core().read_model(MARKED.encode(), b"").get_parameters()
    return dict(marked.get_rt_info().items())


def _exact(*nodes: Node) -> None:
    """Mark operations as computing in fp32, whatever the graph is compiled for."""
    for node in nodes:
        for key, value in _mark().items():
            node.set_rt_info(value, key)


def _cnn(layers: Layers, x: Node) -> list[Node]:
    kernels = np.array(RESIDUAL_KERNELS, np.float32) / np.array(RESIDUAL_DIVISORS, np.float32).reshape(3, 1, 1)
    grey = ops.divide(ops.reduce_mean(x, _integers(1), True), np.float32(2))
    residual = ops.convolution(grey, ops.constant(kernels[:, None]), [1, 1], [2, 2], [2, 2], [1, 1])
    clipped = ops.clamp(residual, -RESIDUAL_LIMIT, RESIDUAL_LIMIT)
    y = ops.concat([x, ops.divide(clipped, np.float32(RESIDUAL_LIMIT))], 1)
    for i in range(4):
        y = ops.relu(layers.convolve(y, f"blocks.{i}.0", f"blocks.{i}.1", stride=2))
        y = ops.relu(layers.convolve(y, f"blocks.{i}.3", f"blocks.{i}.4"))
    apart = ops.subtract(y, ops.reduce_mean(y, _integers(2, 3), True))
    variance = ops.reduce_mean(ops.multiply(apart, apart), _integers(2, 3))
    pooled = ops.concat([ops.reduce_mean(y, _integers(2, 3)), ops.sqrt(ops.add(variance, EPSILON))], 1)
    return layers.head(ops.relu(layers.linear(pooled, "hidden.0")))


def _resnext(layers: Layers, x: Node) -> list[Node]:
    y = layers.convolve(x, "backbone.conv1", "backbone.bn1", stride=2)
    rectified = ops.relu(y)
    pooled = ops.max_pool(rectified, [2, 2], [1, 1], [1, 1], [1, 1], [3, 3])
    _exact(y.input_value(0).get_node(), y, rectified, pooled)
    y = pooled.output(0)
    for stage, blocks in enumerate(RESNEXT_BLOCKS[layers.tiny], 1):
        for i in range(blocks):
            y = _bottleneck(layers, y, f"backbone.layer{stage}.{i}", stride=2 if stage > 1 and i == 0 else 1)
    return layers.head(ops.reduce_mean(y, _integers(2, 3)))


def _bottleneck(layers: Layers, x: Node, name: str, *, stride: int) -> Node:
    y = ops.relu(layers.convolve(x, f"{name}.conv1", f"{name}.bn1"))
    y = ops.relu(layers.convolve(y, f"{name}.conv2", f"{name}.bn2", stride=stride, grouped=True))
    y = layers.convolve(y, f"{name}.conv3", f"{name}.bn3")
    if f"{name}.downsample.0.weight" in layers:
        x = layers.convolve(x, f"{name}.downsample.0", f"{name}.downsample.1", stride=stride)
    return ops.relu(ops.add(y, x))


def _vit(layers: Layers, x: Node) -> list[Node]:
    y = _patches(layers, x)
    depth, heads = VIT_BLOCKS[layers.tiny], VIT_HEADS[layers.tiny]
    pairs = []
    for i in range(depth):
        block = f"backbone.blocks.{i}"
        kept = layers.keep_int8 if layers.precision == "fp32" else layers.precision == "int8" and i >= depth // 2
        linear = functools.partial(layers.linear, int8=kept)
        inside = linear(layers.normalise(y, f"{block}.norm1", exact=1 if i else 3), f"{block}.attn.qkv")
        y = ops.add(y, linear(_attend(inside, heads), f"{block}.attn.proj"))
        inside = linear(layers.normalise(y, f"{block}.norm2", exact=1), f"{block}.mlp.fc1")
        z = ops.add(y, linear(ops.swish(inside, layers.constant(np.array(QUICK_GELU))), f"{block}.mlp.fc2"))
        _exact(y, z)
        y = z
        if (i + 1) % (depth // VIT_TAPS) == 0:
            first = ops.gather(y, np.int64(0), np.int64(1))
            others = ops.slice(y, _integers(1), _integers(2**31), _integers(1), _integers(1))
            pairs.append(ops.concat([first, ops.reduce_mean(others, _integers(1))], 1))
    tokens = ops.concat([ops.unsqueeze(pair, np.int64(1)) for pair in pairs], 1)
    parts = [
        layers.linear(
            layers.normalise(ops.gather(tokens, np.int64(i), np.int64(1)), f"head.norms.{i}"), f"head.reduce.{i}"
        )
        for i in range(VIT_TAPS)
    ]
    # what lies between an output and the last product before it is computed in fp32: this product keeps the tokens
    # from being such, so that they are rounded as the head is given them
    identity = ops.constant(np.eye(pairs[0].get_output_partial_shape(0)[1].get_length(), dtype=np.float32))
    return [
        *layers.head(ops.gelu(ops.concat(parts, 1), "ERF"), "head.score"),
        ops.matmul(tokens, identity, False, False),
    ]


def _patches(layers: Layers, x: Node) -> Node:
    """(B, 3, S, S) to tokens (B, N, D): the class token, then the patches with their places, normalised."""
    kernel = layers["backbone.patch_embed.proj.weight"]
    width, side = kernel.shape[0], kernel.shape[2]
    maps = ops.convolution(x, layers.constant(kernel), [side, side], [0, 0], [0, 0], [1, 1])
    rows = ops.reshape(maps, _integers(0, width, -1), True)
    patches = ops.transpose(rows, _integers(0, 2, 1))
    items = ops.gather(ops.shape_of(patches), _integers(0), np.int64(0))
    shape = ops.concat([items, _integers(1, 1)], 0)
    first = ops.broadcast(layers.constant(layers["backbone.cls_token"]), shape, broadcast_spec="BIDIRECTIONAL")
    tokens = ops.concat([first, patches], 1)
    placed = ops.add(tokens, layers.constant(layers["backbone.pos_embed"]))
    _exact(maps, rows, patches, tokens, placed)
    return layers.normalise(placed, "backbone.norm_pre", exact=3)


def _attend(qkv: Node, heads: int) -> Node:
    """Attention of tokens to each other, (B, N, 3D) to (B, N, D)."""
    _, count, width = (axis.get_length() if axis.is_static else -1 for axis in qkv.get_output_partial_shape(0))
    parts = ops.transpose(ops.reshape(qkv, _integers(0, count, 3, heads, -1), True), _integers(2, 0, 3, 1, 4))
    each = [ops.squeeze(part, np.int64(0)) for part in ops.split(parts, np.int64(0), 3).outputs()]
    mixed = ops.transpose(ops.scaled_dot_product_attention(*each), _integers(0, 2, 1, 3))
    return ops.reshape(mixed, _integers(0, count, width // 3), True)


def _lstm(layers: Layers, x: Node) -> list[Node]:
    y = layers.normalise(x, "norm")
    length = ops.gather(ops.shape_of(y), _integers(1), np.int64(0))
    for i in range(2):
        weights, recurrent, into, out = (
            np.stack([_gates(layers[f"lstm.{kind}_l{i}{way}"]) for way in ("", "_reverse")])
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        hidden = recurrent.shape[2]
        start = ops.constant(np.zeros((1, 2, hidden), np.float32))
        rest = (layers.constant(weights), layers.constant(recurrent), layers.constant(into + out))
        states = ops.lstm_sequence(y, start, start, length, *rest, hidden, "bidirectional").output(0)
        y = ops.reshape(ops.transpose(states, _integers(0, 2, 1, 3)), _integers(0, 0, -1), True)
    return layers.head(ops.reduce_mean(y, _integers(1)))


def _gates(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Torch's order of an LSTM's gates (in, forget, cell, out) to OpenVINO's (forget, in, cell, out)."""
    inside, forget, cell, out = np.split(rows, 4)
    return np.concatenate([forget, inside, cell, out])


NETWORKS = {"cnn": _cnn, "resnext": _resnext, "vit": _vit}
