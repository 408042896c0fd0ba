"""Convert a version's networks from torch to OpenVINO, each to the smallest numbers that keep parity with torch.

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
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.cards import EXPERT_NAMES, IMAGE_EXPERTS, MIN_SEQUENCE, expert_card
from models.ensemble_model import Ensemble
from utils.base_weights import FACE_FILE, file_sha256
from utils.detection.bf16_exclusions import mark_precise, pixel_side, running_sum
from utils.detection.engine import BATCH, LSTM_COLUMN
from utils.detection.gate import NumericGate
from utils.detection.openvino_engine import OpenVinoEngine
from utils.detection.openvino_runtime import cpu_has_bf16
from utils.detection.parity import TOLERANCE, difference, parity_crops
from utils.detection.precision import PRECISIONS, ladder, read_precision
from utils.detection.quantisation import Ranges, quantise, ranges_file, read_ranges
from utils.detection.torch_engine import TorchEngine
from utils.errors import TelltaleError, WeightsError
from utils.faces.detector import CenterFaceDetector
from utils.types import Floats, Pixels
from utils.weights import load_ensemble, verify_version

SEQUENCE, STRIDE = 16, 4
Tell = Callable[[str], None]


class ExpertOutputs(nn.Module):
    """An expert whose answer is a pair of tensors instead of a dataclass, as graphs need it."""

    def __init__(self, expert: nn.Module) -> None:
        super().__init__()
        self.expert = expert

    def forward(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        output = self.expert(tensor)
        return output.logit, output.feature


@dataclass(frozen=True)
class Measured:
    """Answers about the crops of parity: raw logits (N, E) of the image experts, and (W,) of the LSTM on windows."""

    images: Floats
    windows: Floats


@dataclass(frozen=True)
class Yardstick:
    """What conversion is measured on: crops (N, 224, 224, 3), measurements (N, Q), and torch's answers."""

    crops: Pixels
    quality: Floats
    reference: Measured
    gate: NumericGate


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


def measure(engine: TorchEngine | OpenVinoEngine, crops: Pixels) -> Measured:
    """Run an engine over the crops; the LSTM over windows of `SEQUENCE` crops in a row."""
    parts, seen = [], []
    for low in range(0, len(crops), BATCH):
        logits, features = engine.image_logits(crops[low : low + BATCH])
        parts.append(logits)
        if features is not None:
            seen.append(features)
    windows: list[float] = []
    if seen:
        rows = np.concatenate(seen)
        starts = range(0, max(1, len(rows) - SEQUENCE + 1), STRIDE) if len(rows) >= MIN_SEQUENCE else ()
        windows = [engine.sequence_logit(rows[s : s + SEQUENCE]) for s in starts]
    return Measured(np.concatenate(parts), np.array(windows, np.float32))


def ensemble_difference(stick: Yardstick, found: Measured) -> float:
    """Distance of the mixed probability, crop by crop, and window by window with the LSTM's word added."""
    apart = [_mixed(stick, which.images, stick.quality) for which in (stick.reference, found)]
    distance = difference(*apart)
    if not np.isnan(stick.reference.windows).all():
        apart = [_mixed_windows(stick, which) for which in (stick.reference, found)]
        distance = max(distance, difference(*apart))
    return distance


def _mixed(stick: Yardstick, logits: Floats, quality: Floats) -> Floats:
    there = ~np.isnan(stick.reference.images).all(1)
    return stick.gate.mix(logits[there], quality[there]).logit


def _mixed_windows(stick: Yardstick, which: Measured) -> Floats:
    rows, quality = [], []
    for index, logit in enumerate(which.windows):
        part = slice(index * STRIDE, index * STRIDE + SEQUENCE)
        rows.append(which.images[part].mean(0))
        rows[-1][LSTM_COLUMN] = logit
        quality.append(stick.quality[part].mean(0))
    return stick.gate.mix(np.stack(rows), np.stack(quality)).logit


class Converter:
    """Converts the experts of one ensemble into a folder.

    Args:
        ensemble: in torch.
        folder: gets a graph and its weights per expert.
        stick: what parity is measured on.
        smallest: the smallest precision allowed to each expert.
        ranges: of the activations, for those that may become int8.
        tell: told what is being done.
        threads: of the processor; 0 uses all cores.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        folder: Path,
        stick: Yardstick,
        smallest: Mapping[str, str],
        *,
        ranges: Mapping[str, Ranges] = MappingProxyType({}),
        tell: Tell = lambda sentence: None,
        threads: int = 0,
    ) -> None:
        self._ranges = ranges
        self._ensemble, self._folder, self._stick = ensemble, folder, stick
        self._smallest, self._tell, self._threads = smallest, tell, threads
        self._chosen: dict[str, str] = {}
        self._apart: dict[str, float] = {}
        self._refused: dict[str, dict[str, float]] = {}

    def run(self) -> dict[str, Any]:
        """Convert every expert; then take better precisions until the ensemble as a whole keeps parity.

        Returns:
            The manifest: per expert `precision`, `difference` and what was `refused`, and the `ensemble`'s difference.

        Raises:
            WeightsError: even fp32 is not what torch computes.
        """
        for name in EXPERT_NAMES:
            if name in self._ensemble.experts:
                self._convert(name, self._smallest[name])
        while (whole := ensemble_difference(self._stick, self._measure(tuple(self._chosen)))) > TOLERANCE:
            worst = max(self._chosen, key=lambda n: (self._chosen[n] != "fp32", self._apart[n]))
            if self._chosen[worst] == "fp32":
                raise WeightsError(f"The converted ensemble is {whole:.3f} away from torch, even in fp32.")
            self._refused[worst][self._chosen[worst]] = whole
            self._convert(worst, PRECISIONS[PRECISIONS.index(self._chosen[worst]) + 1])
        return {
            "experts": {
                name: {"precision": self._chosen[name], "difference": self._apart[name], "refused": self._refused[name]}
                for name in self._chosen
            },
            "ensemble": {"difference": whole},
            "tolerance": TOLERANCE,
            "crops": len(self._stick.crops),
        }

    def _convert(self, name: str, smallest: str) -> None:
        self._refused.setdefault(name, {})
        for precision in ladder(smallest, bf16=cpu_has_bf16()):
            graph = self._graph(name, precision)
            if graph is None:
                continue
            self._tell(f"{name} in {precision}")
            self._write(name, precision, graph)
            self._chosen[name] = precision
            self._apart[name] = self._distance(name)
            if self._apart[name] <= TOLERANCE:
                return
            self._refused[name][precision] = self._apart[name]
        raise WeightsError(f"The converted {name} is {self._apart[name]:.3f} away from torch, even in fp32.")

    def _graph(self, name: str, precision: str) -> Any:
        """The graph for a precision; None where it cannot be made."""
        ranges = self._ranges.get(name)
        if precision == "int8" and ranges is None:
            return None
        graph = to_graph(name, self._ensemble.experts[name], tiny=self._ensemble.tiny)
        if precision == "int8" and ranges is not None:
            try:
                quantise(graph, ranges)
            except ValueError as error:
                self._tell(f"{name} has no int8: {error}")
                return None
        return graph

    def _write(self, name: str, precision: str, graph: Any) -> None:
        import openvino

        path = self._folder / f"{name}.xml"
        openvino.save_model(graph, path, compress_to_fp16=precision == "bf16")
        if precision == "bf16" and name in IMAGE_EXPERTS:
            mark_precise(path, pixel_side(graph) | running_sum(graph))

    def _distance(self, name: str) -> float:
        needed = (name, "resnext") if name == "lstm" else (name,)
        found, reference = self._measure(needed), self._stick.reference
        if name == "lstm":
            return difference(*(self._calibrated(which.windows, LSTM_COLUMN) for which in (reference, found)))
        column = EXPERT_NAMES.index(name)
        return difference(*(self._calibrated(which.images[:, column], column) for which in (reference, found)))

    def _calibrated(self, logits: Floats, column: int) -> Floats:
        wide = np.full((len(logits), len(EXPERT_NAMES)), np.nan, np.float32)
        wide[:, column] = logits
        return self._stick.gate.calibrate(wide)[:, column]

    def _measure(self, names: tuple[str, ...]) -> Measured:
        engine = OpenVinoEngine(
            {name: self._folder / f"{name}.xml" for name in names},
            {name: self._chosen[name] for name in names},
            self._stick.gate,
            load_networks=lambda: self._ensemble,
            tiny=self._ensemble.tiny,
            threads=self._threads,
        )
        return measure(engine, self._stick.crops)


def make_yardstick(ensemble: Ensemble, detector: CenterFaceDetector, threads: int = 0) -> Yardstick:
    """Torch's answers about the crops that ship."""
    crops, quality = parity_crops(detector)
    reference = TorchEngine(ensemble, device="cpu", threads=threads)
    gate = NumericGate({key: value.numpy() for key, value in ensemble.gate.state_dict().items()})
    return Yardstick(crops, quality, measure(reference, crops), gate)


def convert_version(
    root: Path, name: str, folder: Path, smallest: Mapping[str, str], *, tell: Tell, threads: int = 0
) -> dict[str, Any]:
    """Convert all experts of a verified version into `folder`, and write its manifest's content.

    Args:
        root: the folder with the versions.
        name: of the version.
        folder: exists and is empty.
        smallest: see `Converter`.
        tell: told what is being done.
        threads: of the processor; 0 uses all cores.

    Raises:
        WeightsError: the version cannot be used.
    """
    version = verify_version(root, name)
    tell("loading the networks")
    ensemble, _ = load_ensemble(root, version)
    tell("asking torch about the crops of parity")
    stick = make_yardstick(ensemble, CenterFaceDetector(root / "base" / FACE_FILE, threads=threads or 1), threads)
    path = ranges_file(root, version)
    ranges = read_ranges(path) if path.is_file() else {}
    manifest = Converter(ensemble, folder, stick, smallest, ranges=ranges, tell=tell, threads=threads).run()
    kept = {f"{expert}{suffix}" for expert in manifest["experts"] for suffix in (".xml", ".bin")}
    manifest["files"] = {file: file_sha256(folder / file) for file in sorted(kept)}
    manifest["version"], manifest["version_sha256"] = version.name, version.sha256
    return manifest


def main(arguments: list[str] | None = None) -> int:
    """Convert as the command line says; 0, or 1 with `{"error": ...}` as the last line."""
    parser = argparse.ArgumentParser(prog="utils.detection.conversion", description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args(arguments)
    _end_with_parent()

    def say(**members: Any) -> None:
        print(json.dumps(members), flush=True)

    try:
        manifest = convert_version(
            given.root, given.version, given.folder, read_precision(given.precision, bf16=cpu_has_bf16()),
            tell=lambda sentence: say(stage=sentence), threads=given.threads,
        )  # fmt: skip
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


__all__ = [
    "IMAGE_EXPERTS",
    "Converter",
    "Measured",
    "Yardstick",
    "convert_version",
    "ensemble_difference",
    "example_input",
    "make_yardstick",
    "measure",
    "to_graph",
]  # fmt: skip
