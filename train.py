"""Train Telltale on folders of `real/` and `fake/` or on manifests: all four experts, the gate and the calibration.

    python train.py --data DATA [--run runs/first] [--name v2] [--activate]

The work is done in `utils.training.fit`; this file reads arguments. A stopped run goes on where it was when the same
command is given again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.cards import EXPERT_NAMES

if TYPE_CHECKING:
    from utils.training.planning import TrainingPlan

EXIT_FAILED = 3
EXIT_STOPPED = 130


def positive(text: str) -> int:
    """A whole number above 0, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def epochs(text: str) -> tuple[str, int]:
    """`N` or `EXPERT=N`, for argparse; without a name for every expert."""
    name, _, number = text.rpartition("=")
    if name not in ("", *EXPERT_NAMES):
        raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(EXPERT_NAMES)}")
    return name, positive(number)


def positive_rate(text: str) -> float:
    """A finite number above 0, for argparse."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def share(text: str) -> float:
    """A number from 0 to below 1, for argparse."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not within 0..1")
    return value


def build_parser() -> argparse.ArgumentParser:
    """Arguments of `train.py` and, with other defaults, of `quick_train.py`."""
    parser = argparse.ArgumentParser(
        description="Train all experts, the gate and the calibration.",
        epilog="A stopped run goes on where it was when the same command is given again (docs/training.md).",
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with manifest.csv files, or real/ and fake/")
    parser.add_argument("--recipe", type=Path, help="a TOML file with a plan; what else is given here goes before it")
    parser.add_argument("--run", type=Path, default=Path("runs/train"), help="where checkpoints and features are kept")
    parser.add_argument("--name", default="", help="name of the new version (default: the run's folder)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=positive, default=0, help="processor threads of each process (default: all)")
    parser.add_argument("--views", type=positive, help="about how many views of the training pictures are drawn")
    parser.add_argument("--beside", type=positive, help="views of clips' frames, and self-blends, beside them")
    parser.add_argument(
        "--epochs", type=epochs, action="append", default=[], metavar="[EXPERT=]N",
        help="most epochs of every expert, or of the named one; repeatable",
    )  # fmt: skip
    parser.add_argument("--batch", type=positive, help="batch size of CNN and ResNeXt-50")
    parser.add_argument("--lr", type=positive_rate, help="highest learning rate of CNN and ResNeXt-50")
    parser.add_argument("--start", help="version whose networks of pictures go on learning (default: from scratch)")
    parser.add_argument(
        "--h264", type=share, help="share of crops coded as a video; clips and their frames: twice that"
    )
    parser.add_argument(
        "--leave-out", action="append", default=[], metavar="NAME",
        help="source, generator or family that only validation has; repeatable",
    )  # fmt: skip
    parser.add_argument("--packs", type=Path, help="folder of the face crops, shared by runs on the same files")
    parser.add_argument("--autoencoder", type=Path, help="weights of TAEF2, to learn the traces of decoders")
    parser.add_argument("--seed", type=int, default=0, help="of splits, order and augmentation")
    parser.add_argument(
        "--terms", action="append", default=[], help="terms of the data, for the model card; repeatable"
    )
    parser.add_argument("--note", action="append", default=[], help="what else the model card should say; repeatable")
    parser.add_argument("--activate", action="store_true", help="serve the new version from now on")
    return parser


def adjusted(plan: TrainingPlan, arguments: argparse.Namespace) -> TrainingPlan:
    """The plan with what the command line overrides."""
    changes: dict[str, Any] = {}
    for name in ("views", "beside", "start"):
        if value := getattr(arguments, name):
            changes[name] = value
    for part in EXPERT_NAMES:
        wanted: dict[str, Any] = {"seed": arguments.seed, **wanted_epochs(arguments, part)}
        if part in ("cnn", "resnext"):
            wanted |= {k: v for k, v in (("batch", arguments.batch), ("lr", arguments.lr)) if v}
        changes[part] = dataclasses.replace(getattr(plan, part), **wanted)
    if arguments.h264 is not None:
        changes |= {"h264": arguments.h264, "h264_clips": min(1.0, 2 * arguments.h264)}
    changes["leave_out"] = (*plan.leave_out, *arguments.leave_out)
    return dataclasses.replace(plan, **changes)


def wanted_epochs(arguments: argparse.Namespace, expert: str) -> dict[str, int]:
    """The recipe's `epochs` if the command line says anything of them; a named expert goes before all."""
    said = dict(arguments.epochs)
    number = said.get(expert) or said.get("")
    return {"epochs": number} if number else {}


def run(arguments: argparse.Namespace, size: str) -> int:
    """Train by the recipe, or by that plan of `PLANS`; figures go to standard output, progress to standard error.

    Returns:
        0; 3 when data or weights cannot be used; 130 when it was stopped from the keyboard.
    """
    import torch

    from utils.base_weights import FACE_FILE, ensure_base_weights
    from utils.config import load_settings
    from utils.errors import ConfigError
    from utils.evaluation.datasets import read_samples
    from utils.evaluation.scorecard import scorecard_markdown
    from utils.faces.detector import CenterFaceDetector
    from utils.training.fit import train_all
    from utils.training.planning import PLANS, read_plan
    from utils.training.processes import in_turn, joined
    from utils.weights import set_current, weights_root

    chosen = adjusted(read_plan(arguments.recipe) if arguments.recipe else PLANS[size](), arguments)
    device = arguments.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("There is no CUDA device here; leave --device out.")
    root = weights_root(load_settings())
    root.mkdir(parents=True, exist_ok=True)
    samples = read_samples(arguments.data, seed=arguments.seed)
    name = arguments.name or arguments.run.name
    with joined(device, threads=arguments.threads):
        in_turn(lambda: ensure_base_weights(root / "base"))
        detector = CenterFaceDetector(root / "base" / FACE_FILE, threads=arguments.threads)
        done = train_all(
            samples, arguments.run, root, name, chosen, detector,
            device=device, terms=arguments.terms, notes=arguments.note, packs=arguments.packs,
            autoencoder=arguments.autoencoder,
        )  # fmt: skip
    if arguments.activate:
        set_current(root, done.version.name)
    print(scorecard_markdown(done.figures, done.version.name))
    print(json.dumps({"version": done.version.name, "scores": str(done.scores), "active": arguments.activate}))
    return 0


def run_speech(arguments: argparse.Namespace) -> int:
    """Train the network of speech; results as those of `run`."""
    from utils.config import load_settings
    from utils.training.speech import SpeechPlan
    from utils.training.speech_version import train_speech
    from utils.weights import SPEECH_FOLDER, set_current, weights_root

    changes = {"seed": arguments.seed}
    for name in ("steps", "batch", "lr"):
        if value := getattr(arguments, name):
            changes[name] = value
    root = weights_root(load_settings()) / SPEECH_FOLDER
    root.mkdir(parents=True, exist_ok=True)
    version = train_speech(
        arguments.data,
        arguments.run,
        root,
        arguments.name or arguments.run.name,
        dataclasses.replace(SpeechPlan(), **changes),
        terms=arguments.terms,
        notes=arguments.note,
    )
    if arguments.activate:
        set_current(root, version.name)
    print(json.dumps({"version": version.name, **version.card["validation"]}))
    return 0


def exit_code(training: Callable[[], int], threads: int) -> int:
    """Run a training; what ends it early is told in a sentence and becomes an exit code."""
    from utils.errors import TelltaleError, plainly, require_torch
    from utils.log import configure_logging

    try:
        require_torch("Training")
        import torch

        configure_logging()
        torch.set_num_threads(threads or torch.get_num_threads())
        return training()
    except (TelltaleError, ModuleNotFoundError) as error:
        print(plainly(error), file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("Stopped. The same command goes on from here.", file=sys.stderr)
        return EXIT_STOPPED


def main() -> int:
    """Entry point of the command."""
    parser = build_parser()
    parser.add_argument("--speech", action="store_true", help="train the network of voices on recordings instead")
    parser.add_argument("--steps", type=positive, help="of --speech (default: what its plan says)")
    arguments = parser.parse_args()
    if arguments.speech:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            parser.error("--speech trains by one process; start it without torchrun")
        return exit_code(lambda: run_speech(arguments), arguments.threads)
    return exit_code(lambda: run(arguments, "whole"), arguments.threads)


if __name__ == "__main__":
    sys.exit(main())
