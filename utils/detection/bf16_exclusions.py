"""Which part of a graph must not compute in bf16: the way from the pixels to the first wide layer, and the running sum.

bf16 has 8 significant bits, no more than a pixel has. Rounding there loses what the CNN's residual filters and the
ViT's first normalisation work on. The blocks of a transformer all add to one sum, so what is rounded off it in one is
missing in all later ones; within a block, the networks bear it.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

WIDE = 16
"""Output channels from which a convolution is a layer that learned, not a fixed filter."""


def pixel_side(graph: Any) -> set[str]:
    """Names of the operations between the input and the second wide layer, the first one included.

    The way ends where it meets a result of the network's inside, such as a residual connection.
    """
    reached: dict[str, bool] = {parameter.get_friendly_name(): False for parameter in graph.get_parameters()}
    kept: set[str] = set()
    for op in graph.get_ordered_ops():
        name, kind = op.get_friendly_name(), op.get_type_name()
        if kind in ("Parameter", "Constant", "Result") or not op.get_input_size():
            continue
        sources = [value.get_node() for value in op.input_values()]
        inside = [s for s in sources if s.get_friendly_name() in reached]
        if not inside or any(s.get_friendly_name() not in reached and not _is_constant(s) for s in sources):
            continue
        wide = _is_wide(op)
        passed = any(reached[s.get_friendly_name()] for s in inside)
        if wide and passed:
            continue
        reached[name] = passed or wide
        kept.add(name)
    return kept


def running_sum(graph: Any) -> set[str]:
    """Names of a transformer's residual additions and layer normalisations; none in a network without tokens."""
    inputs = {"Add": 2, "MVN": 1}  # how many of its inputs are tokens; a bias is none
    return {
        op.get_friendly_name()
        for op in graph.get_ordered_ops()
        if (count := inputs.get(op.get_type_name())) and all(_is_tokens(op.input_value(i)) for i in range(count))
    }


def _is_tokens(value: Any) -> bool:
    """Whether a value is computed from the input and has three axes: items, tokens, features."""
    rank = value.get_partial_shape().rank
    return not _is_constant(value.get_node()) and rank.is_static and rank.get_length() == 3


def _is_wide(op: Any) -> bool:
    kind = op.get_type_name()
    if kind == "MatMul":
        return True
    return kind in ("Convolution", "GroupConvolution") and op.get_output_partial_shape(0)[1].get_length() >= WIDE


def _is_constant(node: Any) -> bool:
    """Whether nothing of the input goes into a value: weights, and shapes for the batch at hand."""
    if node.get_type_name() in ("Constant", "ShapeOf"):
        return True
    return node.get_input_size() > 0 and all(_is_constant(value.get_node()) for value in node.input_values())


def mark_precise(path: Path, names: set[str]) -> int:
    """Write into a saved graph that some operations keep fp32 whatever the precision hint; gives how many.

    Args:
        path: the graph's `.xml`, which is changed.
        names: of the operations.
    """
    tree = ET.parse(path)  # noqa: S314 (we have just written it ourselves)
    marked = 0
    for layer in tree.getroot().iter("layer"):
        if layer.get("name") not in names:
            continue
        marks = layer.find("rt_info")
        if marks is None:
            marks = ET.Element("rt_info")
            layer.insert(0 if layer.find("data") is None else 1, marks)
        ET.SubElement(marks, "attribute", {"name": "precise", "version": "0"})
        marked += 1
    tree.write(path, encoding="utf-8", xml_declaration=True)
    return marked
