"""`inference.py --export FOLDER`: the networks of a version as ONNX, for whoever wants to run them elsewhere."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.cards import EXPERT_NAMES, NetworkCard, expert_card
from models.gating import Gate
from utils.config import Settings
from utils.errors import ConflictError
from utils.faces.crops import QUALITY_NAMES
from utils.files import file_sha256
from utils.networks import load_ensemble
from utils.tensors import load_into, read_tensors
from utils.weights import CALIBRATION_FILE, GATE_FILE, Version, verify_current, weights_root

OPSET = 17
SUMS = "SHA256SUMS"

README = """# Telltale {version} as ONNX

sha256 of the version's checksum list: {sha256}. `{sums}` has those of the files here (`sha256sum -c {sums}`).

| file | input | outputs |
|---|---|---|
{rows}
| `gate.onnx` | `logits` (B, {experts}) raw logits, NaN where an expert is missing; `quality` (B, {quality}) | \
`logit` (B,), `weights` (B, {experts}), `calibrated` (B, {experts}) |

- Crops are squares of 1.3 times the longer side of the face box, RGB, 0..1. `cards.json` has the size, mean and
  standard deviation of each expert: resize bilinearly with antialiasing, subtract the mean, divide by the standard
  deviation.
- `lstm.onnx` takes the `feature` of `resnext.onnx` over the frames of one person, four frames and more.
- Over several frames the raw logits are averaged, then the LSTM's is put in its column. The order of the columns is
  {order}; that of the quality measurements {measures}.
- The probability of fake is `1 / (1 + exp(-logit))` of the gate. `calibration.json` has the band in which no verdict is
  given, and the reliability of each range of probabilities.
- Licences: {licences}.
"""


class Asked(nn.Module):
    """A network that is asked something else than its own `forward`: graphs, and shared gradients, are made of modules.

    Args:
        ask: given the network and the input.
    """

    def __init__(self, network: nn.Module, ask: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.network, self.ask = network, ask

    def forward(self, given: Any) -> Any:
        return self.ask(self.network, given)


def export_version(settings: Settings, folder: Path) -> Version:
    """Write the version that the settings choose as ONNX.

    Args:
        folder: to be made; its parent exists.

    Returns:
        The version that was exported.

    Raises:
        ConflictError: the folder exists.
        WeightsError: the version cannot be used.
        OSError: the folder cannot be written.
    """
    if folder.exists():
        raise ConflictError(f"{folder} exists; name a folder that does not.")
    version, root = verify_current(settings), weights_root(settings)
    ensemble, _ = load_ensemble(root, version)
    scratch = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        for name, expert in ensemble.experts.items():
            write_expert(name, expert, scratch / f"{name}.onnx", tiny=version.tiny)
        write_gate(version, scratch / "gate.onnx")
        shutil.copyfile(version.folder / CALIBRATION_FILE, scratch / CALIBRATION_FILE)
        cards = {name: expert_card(name, tiny=version.tiny) for name in ensemble.experts}
        plain = {name: vars(card) for name, card in cards.items()}
        (scratch / "cards.json").write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
        (scratch / "README.md").write_text(_readme(version, cards), encoding="utf-8")
        sums = [f"{file_sha256(path)}  {path.name}\n" for path in sorted(scratch.iterdir())]
        (scratch / SUMS).write_text("".join(sums), encoding="utf-8")
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return version


def write_expert(name: str, expert: nn.Module, path: Path, *, tiny: bool) -> None:
    """One expert as ONNX: `input`, prepared; `logit` (B,) and `feature` (B, D)."""
    side = expert_card(name, tiny=tiny).input_size
    example = torch.zeros(2, 3, side, side)
    if name == "lstm":
        example = torch.zeros(1, side, int(expert.norm.normalized_shape[0]))  # type: ignore[union-attr, index]
    free = {0: "batch", 1: "frames"} if name == "lstm" else {0: "batch"}
    axes = {"input": free, "logit": {0: "batch"}, "feature": {0: "batch"}}
    pair = Asked(expert, _logit_and_feature)
    export_onnx(pair, (example,), path, ["input"], ["logit", "feature"], axes)


def _logit_and_feature(expert: nn.Module, given: Tensor) -> tuple[Tensor, Tensor]:
    output = expert(given)
    return output.logit, output.feature


def write_gate(version: Version, path: Path) -> None:
    """The gate of a version as ONNX."""
    count, quality = len(EXPERT_NAMES), len(QUALITY_NAMES)
    gate = Gate(experts=count, quality=quality)
    load_into(gate, read_tensors(version.folder / GATE_FILE), what="the gate")
    names, answers = ["logits", "quality"], ["logit", "weights", "calibrated"]
    example = (torch.zeros(2, count), torch.zeros(2, quality))
    export_onnx(gate, example, path, names, answers, {name: {0: "batch"} for name in (*names, *answers)})


def export_onnx(
    module: nn.Module,
    example: tuple[Tensor, ...],
    path: Path,
    inputs: list[str],
    outputs: list[str],
    axes: dict[str, dict[int, str]],
) -> None:
    """A module as ONNX, with names for its inputs and outputs and for the axes that may vary."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's remarks about checks of shapes, which do not change here
        torch.onnx.export(
            module.eval(), example, path, input_names=inputs, output_names=outputs, dynamic_axes=axes,
            opset_version=OPSET, dynamo=False,
        )  # fmt: skip


def _readme(version: Version, cards: dict[str, NetworkCard]) -> str:
    rows = []
    for name, card in cards.items():
        side = card.input_size
        given = "(B, T, D) features" if name == "lstm" else f"(B, 3, {side}, {side})"
        rows.append(f"| `{name}.onnx` | `input` {given} | `logit` (B,), `feature` (B, D) |")
    return README.format(
        version=version.name,
        sha256=version.sha256,
        sums=SUMS,
        rows="\n".join(rows),
        experts=len(EXPERT_NAMES),
        quality=len(QUALITY_NAMES),
        order=", ".join(EXPERT_NAMES),
        measures=", ".join(QUALITY_NAMES),
        licences="; ".join(f"{card.title}: {card.licence}" for card in cards.values()),
    )
