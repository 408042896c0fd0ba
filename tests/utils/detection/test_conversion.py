"""The way from the pixels to the first wide layer is found in every image expert, and written into a saved graph."""

from __future__ import annotations

import openvino
import pytest
import torch

from models.cards import IMAGE_EXPERTS
from models.ensemble_model import create_network
from utils.detection.conversion import mark_precise, pixel_side, running_sum, to_graph


@pytest.fixture(scope="module", params=IMAGE_EXPERTS)
def graph(request):
    torch.manual_seed(1)
    return to_graph(request.param, create_network(request.param, tiny=True), tiny=True)


def test_some_of_the_graph_is_kept_and_most_is_not(graph):
    names = pixel_side(graph)
    ops = [op for op in graph.get_ordered_ops() if op.get_type_name() not in ("Constant", "Parameter", "Result")]
    assert 0 < len(names) < len(ops)
    kept = [op for op in ops if op.get_friendly_name() in names]
    assert sum(op.get_type_name() in ("Convolution", "GroupConvolution") for op in kept) >= 1
    assert all(op.get_type_name() != "ScaledDotProductAttention" for op in kept)


def test_fixed_filters_of_the_cnn_are_kept():
    graph = to_graph("cnn", create_network("cnn", tiny=True), tiny=True)
    names = pixel_side(graph)
    assert any("residual" in name for name in names)
    assert any("clamp" in name for name in names)


def test_the_running_sum_is_each_block_twice_and_of_the_transformer_alone(graph):
    names, ops = running_sum(graph), {op.get_friendly_name(): op for op in graph.get_ordered_ops()}
    kinds = [ops[name].get_type_name() for name in names]
    blocks = sum(op.get_type_name() == "ScaledDotProductAttention" for op in ops.values())
    assert kinds.count("Add") == 2 * blocks
    assert (kinds.count("MVN") > 2 * blocks) == (
        blocks > 0
    )  # before attention and before the MLP, and one at the start
    assert set(kinds) <= {"Add", "MVN"}


def test_marks_are_written_and_the_graph_is_still_the_same(graph, tmp_path):
    path = tmp_path / "graph.xml"
    openvino.save_model(graph, path, compress_to_fp16=False)
    before = path.read_text()
    names = pixel_side(graph) | running_sum(graph)
    assert mark_precise(path, names) == len(names)
    text = path.read_text()
    assert text.count('name="precise"') == len(names) + before.count('name="precise"')
    again = openvino.Core().read_model(path)
    assert len(again.get_ordered_ops()) == len(openvino.Core().read_model(path).get_ordered_ops())
    assert [op.get_type_name() for op in again.get_ordered_ops()].count("Result") == 2
