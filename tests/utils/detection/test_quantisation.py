"""int8 from shipped ranges: close to fp32 on what was seen, refused for other networks."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.cards import expert_card
from models.ensemble_model import create_network
from utils.detection.conversion import to_graph
from utils.detection.openvino_runtime import compile_graph
from utils.detection.quantisation import FOLDER, layers_with_weights, quantise, ranges_file, read_ranges
from utils.detection.ranges import observe
from utils.errors import WeightsCorruptError
from utils.types import Floats
from utils.weights import Version


def graph_of(name: str):
    torch.manual_seed(5)
    return to_graph(name, create_network(name, tiny=True).eval(), tiny=True)


def batches(count: int) -> list[Floats]:
    side = expert_card("resnext", tiny=True).input_size
    rng = np.random.default_rng(3)
    return [rng.normal(0, 1, (4, 3, side, side)).astype(np.float32) for _ in range(count)]


def answers(graph, given: list[Floats]) -> Floats:
    request = compile_graph(graph, hint="f32", threads=1)
    out = []
    for batch in given:
        request.infer({0: batch})
        out.append(request.get_output_tensor(1).data.copy())
    return np.concatenate(out)


def test_int8_is_near_fp32_and_is_not_fp32():
    given = batches(4)
    ranges = observe(graph_of("resnext"), given, threads=1)
    whole, small = graph_of("resnext"), graph_of("resnext")
    assert len(ranges) == len(layers_with_weights(whole))
    assert quantise(small, ranges)
    kinds = [op.get_type_name() for op in small.get_ordered_ops()]
    assert kinds.count("FakeQuantize") > len(ranges)  # weights of each, and their inputs where not shared
    reference, found = answers(whole, given), answers(small, given)
    assert not np.array_equal(reference, found)
    # processors without VNNI add in 16 bits and lose more than others
    assert np.corrcoef(reference.ravel(), found.ravel())[0, 1] > 0.9


def test_ranges_hold_what_was_seen():
    given = batches(3)
    first = observe(graph_of("resnext"), given, threads=1)[0]
    low = np.concatenate([batch.reshape(len(batch), -1).min(1) for batch in given])
    assert low.min() <= first.low <= low.max()
    assert first.high > 0


@pytest.mark.parametrize("change", ["fewer", "shape"])
def test_ranges_of_another_network_are_refused(change):
    ranges = observe(graph_of("resnext"), batches(1), threads=1)
    other = ranges[1:] if change == "fewer" else (replace(ranges[0], shape=(1, 2, 3, 4)), *ranges[1:])
    graph = graph_of("resnext")
    assert not quantise(graph, other)
    assert not [op for op in graph.get_ordered_ops() if op.get_type_name() == "FakeQuantize"]


def test_file_is_read_back_and_damage_is_said(tmp_path):
    ranges = observe(graph_of("resnext"), batches(1), threads=1)
    path = tmp_path / "v.json"
    path.write_text(json.dumps({"experts": {"resnext": [asdict(r) for r in ranges]}}))
    assert read_ranges(path) == {"resnext": ranges}
    for text in ("", "[]", '{"experts": {"resnext": [{}]}}'):
        path.write_text(text)
        with pytest.raises(WeightsCorruptError, match="file of ranges"):
            read_ranges(path)


def test_fine_tuned_versions_take_the_ranges_of_their_base(tmp_path):
    tuned = Version("v9-r0001", tmp_path, "0" * 64, {"learning": {"base": "v9"}}, ("cnn",))
    assert ranges_file(Path("weights"), tuned) == Path("weights") / FOLDER / "v9.json"
