"""Convert a version's networks from torch to OpenVINO, each to the precision that `precision.py` chose for it.

`engine_cache.py` runs this as a process of its own, `python -m utils.detection.conversion`, whose memory is given back
when it ends. Each line that it prints is a JSON object: `{"stage": ...}`, or at last `{"manifest": ...}`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.cards import IMAGE_EXPERTS, expert_card
from utils.detection.bf16_exclusions import mark_precise, pixel_side, running_sum
from utils.detection.precision import read_precision
from utils.detection.quantisation import quantise, ranges_file, read_ranges
from utils.errors import TelltaleError
from utils.files import file_sha256
from utils.weights import load_ensemble, verify_version

SEQUENCE = 16


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
        name: of the expert.
        graph: from `to_graph`, quantised where the precision is int8.
        precision: that it will compute with.
        path: of the `.xml`; weights go into a `.bin` beside it.
    """
    import openvino

    openvino.save_model(graph, path, compress_to_fp16=precision == "bf16")
    if precision == "bf16" and name in IMAGE_EXPERTS:
        mark_precise(path, pixel_side(graph) | running_sum(graph))


def convert_version(
    root: Path, name: str, folder: Path, precisions: Mapping[str, str], *, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Convert all experts of a verified version into `folder`, and give its manifest.

    An expert that shall be int8 and whose ranges are not known, or are those of other layers, stays in fp32.

    Args:
        root: the folder with the versions.
        name: of the version.
        folder: exists and is empty.
        precisions: of each expert.
        tell: told what is being done.

    Returns:
        `experts` with the `precision` of each, `files` with their sha256, `version` and `version_sha256`.

    Raises:
        WeightsError: the version cannot be used.
    """
    version = verify_version(root, name)
    tell("loading the networks")
    ensemble, _ = load_ensemble(root, version)
    path = ranges_file(root, version)
    ranges = read_ranges(path) if path.is_file() else {}
    experts = {}
    for expert, network in ensemble.experts.items():
        precision = precisions[expert]
        graph = to_graph(expert, network, tiny=ensemble.tiny)
        if precision == "int8" and not (expert in ranges and quantise(graph, ranges[expert])):
            precision = "fp32"
        tell(f"{expert} in {precision}")
        save_graph(expert, graph, precision, folder / f"{expert}.xml")
        experts[expert] = {"precision": precision}
    files = {file.name: file_sha256(file) for file in sorted(folder.iterdir())}
    return {"experts": experts, "files": files, "version": version.name, "version_sha256": version.sha256}


def main(arguments: list[str] | None = None) -> int:
    """Convert as the command line says; 0, or 1 with `{"error": ...}` as the last line."""
    parser = argparse.ArgumentParser(prog="utils.detection.conversion", description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--precisions", required=True, help="of each expert, such as cnn=fp32,vit=bf16")
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args(arguments)
    _end_with_parent()
    if given.threads:
        torch.set_num_threads(given.threads)

    def say(**members: Any) -> None:
        print(json.dumps(members), flush=True)

    try:
        precisions = read_precision(given.precisions, bf16=True)
        manifest = convert_version(
            given.root, given.version, given.folder, precisions, tell=lambda sentence: say(stage=sentence)
        )
    except TelltaleError as error:
        say(error=error.detail)
        return 1
    say(manifest=manifest)
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
    code = main()
    sys.stdout.flush()
    os._exit(code)  # tearing the networks down would take seconds
