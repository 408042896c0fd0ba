"""Measure where activations lie, once per version, so that its networks can be converted to int8 without pictures.

`python -m utils.detection.ranges PICTURES` writes `quantisation/NAME.json` into the folder of weights. It holds two
numbers per layer over all crops, nothing of a single one.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from models.cards import expert_card
from utils.base_weights import FACE_FILE
from utils.config import load_settings
from utils.detection.cli_files import collect_files
from utils.detection.conversion import to_graph
from utils.detection.openvino_engine import InputMaker
from utils.detection.openvino_runtime import compile_graph
from utils.detection.quantisation import LayerRange, Ranges, layers_with_weights, ranges_file, shape_of
from utils.errors import TelltaleError, TrainingDataError
from utils.faces.crops import crop_for_networks
from utils.faces.detector import CenterFaceDetector
from utils.media.sniff import SUFFIXES
from utils.types import Floats, MediaKind, Pixels
from utils.weights import load_ensemble, verify_current, weights_root

QUANTISED = ("resnext",)
"""Experts that keep parity in int8. The CNN does not: its residual filters need finer steps."""
BATCH = 16
QUANTILE = 0.98
"""Of the crops' own extremes; the last few are cut off so that one crop does not widen the steps of all."""


def collect_crops(folder: Path, count: int, detector: CenterFaceDetector) -> Pixels:
    """Crops of pictures chosen at random, the same ones at each call, (N, 224, 224, 3) uint8.

    Raises:
        TrainingDataError: no face is found in any of them.
    """
    files = [f for f in collect_files([str(folder)]).files if f.suffix.lower() in SUFFIXES[MediaKind.IMAGE]]
    random.Random(8).shuffle(files)  # noqa: S311 (not for secrets)
    pictures = (cv2.imread(str(file), cv2.IMREAD_COLOR) for file in files)
    seen = (np.ascontiguousarray(p[..., ::-1], dtype=np.uint8) for p in pictures if p is not None)
    found = ((rgb, faces) for rgb in seen if (faces := detector.detect(rgb)))
    largest = (crop_for_networks(rgb, max(faces, key=lambda face: face.box.width)).pixels for rgb, faces in found)
    crops = list(islice(largest, count))
    if not crops:
        raise TrainingDataError(f"No face was found in the pictures of {folder}.")
    return np.stack(crops)


def observe(graph: Any, batches: Iterable[Floats], *, threads: int = 0) -> Ranges:
    """Where the activations before each layer lie.

    Args:
        graph: an expert in fp32, from `conversion.to_graph`.
        batches: (B, ...) float32 prepared inputs of many crops.
        threads: of the processor; 0 uses all cores.
    """
    from openvino import Model

    layers = layers_with_weights(graph)
    watched = Model([layer.input_value(0) for layer in layers], graph.get_parameters(), "watched")
    request = compile_graph(watched, hint="f32", threads=threads)
    lows: list[list[Floats]] = [[] for _ in layers]
    highs: list[list[Floats]] = [[] for _ in layers]
    for batch in batches:
        request.infer({0: batch})
        for i in range(len(layers)):
            values = request.get_output_tensor(i).data
            flat = values.reshape(len(batch), -1)
            lows[i].append(flat.min(1))
            highs[i].append(flat.max(1))
    return tuple(
        LayerRange(
            shape_of(layer),
            float(np.quantile(np.concatenate(low), 1 - QUANTILE)),
            float(np.quantile(np.concatenate(high), QUANTILE)),
        )
        for layer, low, high in zip(layers, lows, highs, strict=True)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the ranges of the version in use; 0, or 1 with a sentence why not."""
    parser = argparse.ArgumentParser(prog="utils.detection.ranges", description=__doc__)
    parser.add_argument("pictures", type=Path, help="folder with pictures of faces, as many kinds as there are")
    parser.add_argument("--crops", type=int, default=256)
    given = parser.parse_args(arguments)
    settings = load_settings()
    try:
        version, root = verify_current(settings), weights_root(settings)
        crops = collect_crops(given.pictures, given.crops, CenterFaceDetector(root / "base" / FACE_FILE, threads=1))
        ensemble, _ = load_ensemble(root, version, QUANTISED)
    except TelltaleError as error:
        print(error, file=sys.stderr)
        return 1
    found = {}
    for name, expert in ensemble.experts.items():
        maker = InputMaker([expert_card(name, tiny=version.tiny)])
        batches = (maker.make(crops[low : low + BATCH])[name] for low in range(0, len(crops), BATCH))
        ranges = observe(to_graph(name, expert, tiny=version.tiny), batches)
        found[name] = [{k: round(v, 5) if isinstance(v, float) else v for k, v in asdict(r).items()} for r in ranges]
    target = ranges_file(root, version)
    target.parent.mkdir(exist_ok=True)
    document = {"version": version.name, "crops": len(crops), "experts": found}
    lines = json.dumps(document).replace('{"shape"', '\n{"shape"')
    target.write_text(lines + "\n", encoding="utf-8")
    print(f"{target}: ranges of {', '.join(found)} over {len(crops)} crops.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
