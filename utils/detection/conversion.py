"""Convert a version's networks from torch to OpenVINO, each to the precision that `precision.py` chose for it.

`engine_cache.py` runs this as a process of its own, whose memory is given back when it ends.

bf16 has 8 significant bits, no more than a pixel has. Rounding there loses what the CNN's residual filters and the
ViT's first normalisation work on, and the blocks of a transformer all add to one sum, so that what is rounded off it in
one is missing in all later ones. The way from the pixels to the first wide layer, and that sum, keep fp32.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.cards import IMAGE_EXPERTS, expert_card
from utils.detection.engine_cache import REFUSED
from utils.detection.precision import read_precision
from utils.errors import TelltaleError
from utils.files import file_sha256
from utils.networks import load_ensemble
from utils.weights import verify_version

SEQUENCE = 16
WIDE = 16
"""Output channels from which a convolution is a layer that learned, not a fixed filter."""


class ExpertOutputs(nn.Module):
    """An expert whose answer is a pair of tensors instead of a dataclass, as graphs need it."""

    def __init__(self, expert: nn.Module) -> None:
        super().__init__()
        self.expert = expert

    def forward(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        output = self.expert(tensor)
        return output.logit, output.feature


def to_graph(name: str, expert: nn.Module, *, tiny: bool) -> Any:
    """One expert as an OpenVINO graph in fp32 with any batch size: prepared input; logit (B,) and feature (B, D)."""
    import openvino

    example, shape = example_input(name, expert, tiny=tiny)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer's remarks about checks of shapes, which do not change here
        graph = openvino.convert_model(
            ExpertOutputs(expert).eval(), example_input=example, input=[openvino.PartialShape(shape)]
        )
    for port, label in zip(graph.outputs, ("logit", "feature"), strict=True):
        port.get_tensor().set_names({label})
    return graph


def example_input(name: str, expert: nn.Module, *, tiny: bool) -> tuple[Tensor, list[int]]:
    """An input that an expert takes, and its shape with -1 for what may vary."""
    if name == "lstm":
        features = int(expert.norm.normalized_shape[0])  # type: ignore[union-attr, index]
        return torch.zeros(1, SEQUENCE, features), [1, -1, features]
    side = expert_card(name, tiny=tiny).input_size
    return torch.zeros(2, 3, side, side), [-1, 3, side, side]


def save_graph(name: str, graph: Any, precision: str, path: Path) -> None:
    """Write a graph and its weights, in bf16 with marks on what must keep fp32.

    Args:
        path: of the `.xml`; weights go into a `.bin` beside it.
    """
    import openvino

    openvino.save_model(graph, path, compress_to_fp16=precision == "bf16")
    if precision == "bf16" and name in IMAGE_EXPERTS:
        mark_precise(path, pixel_side(graph) | running_sum(graph))


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
    """Write into a saved graph that some operations keep fp32 whatever the precision hint; gives how many."""
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


def convert_version(root: Path, name: str, folder: Path, precisions: Mapping[str, str]) -> dict[str, Any]:
    """Convert all experts of a verified version into `folder`, and give its manifest.

    Returns:
        `experts` with the `precision` of each, `files` with their sha256, `version` and `version_sha256`.

    Raises:
        WeightsError: the version cannot be used.
    """
    version = verify_version(root, name)
    ensemble, _ = load_ensemble(root, version)
    experts = {}
    for expert, network in ensemble.experts.items():
        precision = precisions[expert]
        graph = to_graph(expert, network, tiny=ensemble.tiny)
        save_graph(expert, graph, precision, folder / f"{expert}.xml")
        experts[expert] = {"precision": precision}
    files = {file.name: file_sha256(file) for file in sorted(folder.iterdir())}
    return {"experts": experts, "files": files, "version": version.name, "version_sha256": version.sha256}


def main(root: str, version: str, folder: str, precisions: str, threads: str) -> int:
    """Convert, and print the manifest as JSON: 0; or `REFUSED`, with a sentence why not."""
    _end_with_parent()
    if int(threads):
        torch.set_num_threads(int(threads))
    try:
        print(json.dumps(convert_version(Path(root), version, Path(folder), read_precision(precisions, bf16=True))))
    except TelltaleError as error:
        print(error.detail)
        return REFUSED
    return 0


def _end_with_parent() -> None:
    """Standard input is a pipe that the parent holds open; its end is the parent's."""

    def watch() -> None:
        while os.read(0, 1024):
            continue
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    code = main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)  # tearing the networks down would take seconds
