"""How each expert is trained: its batches, its loss, its score. `train.py` calls these in turn.

The CNN learns from fresh views in every epoch; ResNeXt-50 from the pixels of the feature store with the ViT's
embedding as a second target (distillation); the ViT's head from the stored tokens; the LSTM from sequences of
ResNeXt-50 features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from models import create_network, get_card, prepare
from models.lstm_model import TemporalLSTM
from models.resnext_model import ResNeXtExpert
from models.vision_transformer import ViTExpert
from utils.learning.features import Stored, batches
from utils.learning.loop import Batch, Recipe, Task, fit
from utils.learning.packing import Pack
from utils.learning.views import View, pair_views, plan_views, render
from utils.metrics import auc
from utils.types import MediaKind

Progress = Callable[[str], None]
SMOOTHING = 0.05
"""Labels are 0.05 and 0.95: a data set's labels are not certain, and neither should the network be."""
CNN_TRAIN_PX = 128
"""The CNN trains on random windows of this size: pixel patterns keep their scale and a step costs a third."""
SMALL_PX, SMALL_SHARE = 64, 0.6
"""ResNeXt-50 sees pictures of this size during this share of its epochs."""
GENTLE_EPOCHS = 2
"""Epochs in which the CNN sees degraded pictures less often: from scratch it first has to find any pattern at all."""


def new_network(name: str, *, tiny: bool, seed: int) -> nn.Module:
    """`create_network` with parameters that follow from `seed` alone, whatever was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return create_network(name, tiny=tiny)


def smooth_bce(logit: Tensor, label: Tensor) -> Tensor:
    """Binary cross-entropy with smoothed labels, a scalar."""
    return functional.binary_cross_entropy_with_logits(logit, label * (1 - 2 * SMOOTHING) + SMOOTHING)


def to_images(pixels: npt.NDArray[np.generic]) -> Tensor:
    """(B, S, S, 3) uint8 to (B, 3, S, S) float32, 0..1."""
    return torch.from_numpy(np.array(pixels, np.uint8)).permute(0, 3, 1, 2).float().div(255)


def mean_source_auc(views: Sequence[View], scores: npt.NDArray[np.float64]) -> float:
    """Mean over the sources with both labels of their AUC, so that no source's framing or light can help."""
    labels = np.array([v.label for v in views], np.float64)
    sources = np.array([v.source for v in views])
    values = [auc(labels[sources == s], scores[sources == s]) for s in np.unique(sources)]
    finite = [v for v in values if np.isfinite(v)]
    return float(np.mean(finite)) if finite else auc(labels, scores)


def score_images(
    model: nn.Module, name: str, pixels: npt.NDArray[np.generic], *, tiny: bool = False, device: str = "cpu"
) -> npt.NDArray[np.float64]:
    """Raw logits (N,) of an image expert on (N, S, S, 3) uint8 crops."""
    card = get_card(name, tiny=tiny)
    out = []
    with torch.inference_mode():
        for low in range(0, len(pixels), 32):
            images = prepare(to_images(pixels[low : low + 32]).to(device), card)
            out.append(model(images).logit.float().cpu().numpy())
    return np.concatenate(out).astype(np.float64)


def train_cnn(
    pack: Pack,
    calib: Stored,
    recipe: Recipe,
    folder: Path,
    *,
    per_class: int,
    blends: int,
    device: str = "cpu",
    tiny: bool = False,
    progress: Progress | None = None,
) -> nn.Module:
    """Train the compact CNN from scratch on fresh views, self-blends beside their originals.

    Args:
        pack: crops to learn from.
        calib: pixels for early stopping, by the mean AUC per source.
        recipe: hyper-parameters.
        folder: for checkpoints.
        per_class: most views per source and label and epoch.
        blends: most self-blends per source and epoch.
        device: cpu or cuda.
        tiny: train the tiny variant.
        progress: for progress lines.
    """
    model = new_network("cnn", tiny=tiny, seed=recipe.seed).to(memory_format=torch.channels_last)
    card = get_card("cnn", tiny=tiny)
    rows = [*pack.select("train", MediaKind.IMAGE), *pack.select("train", MediaKind.VIDEO)]
    window = min(CNN_TRAIN_PX, card.input_size)

    def plan(epoch: int, rng: np.random.Generator) -> list[View]:
        return pair_views(plan_views(rows, per_class=per_class, blends=blends, seed=1000 + epoch), rng)

    def make(epoch: int) -> Iterator[Batch]:
        rng = np.random.default_rng([recipe.seed, epoch])
        strength = 1.0 if epoch >= GENTLE_EPOCHS else 0.3
        views = plan(epoch, rng)
        for low in range(0, max(1, len(views) // recipe.batch) * recipe.batch, recipe.batch):
            part = views[low : low + recipe.batch]
            pixels = np.stack([render(pack, v, size=card.input_size, strength=strength) for v in part])
            y, x = rng.integers(0, card.input_size - window + 1, 2)
            images = prepare_window(to_images(pixels[:, y : y + window, x : x + window]), card.mean, card.std)
            yield images, torch.tensor([float(v.label) for v in part])

    def loss_of(net: nn.Module, batch: Batch) -> Tensor:
        images, labels = batch
        return smooth_bce(net(images).logit, labels)

    count = len(plan(0, np.random.default_rng([recipe.seed, 0])))
    pixels = calib.load("pixels")

    def score_of(net: nn.Module) -> float:
        return mean_source_auc(calib.views, score_images(net, "cnn", pixels, tiny=tiny, device=device))

    task = Task(make, max(1, count // recipe.batch), loss_of, score_of)
    fit(model, task, recipe, folder, device=device, progress=progress)
    return model


def prepare_window(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Normalise without resizing, in the memory order that convolutions like."""
    shift, scale = (torch.tensor(v).view(3, 1, 1) for v in (mean, std))
    return ((images - shift) / scale).contiguous(memory_format=torch.channels_last)


class Student(nn.Module):
    """ResNeXt-50 with a projection to the ViT's embedding, which only training needs.

    Source: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", on features.
    """

    def __init__(self, expert: ResNeXtExpert, features: int, embedding: int) -> None:
        super().__init__()
        self.expert = expert
        self.project = nn.Linear(features, embedding)


def train_resnext(
    train: Stored,
    calib: Stored,
    recipe: Recipe,
    folder: Path,
    *,
    distill: float = 2.0,
    device: str = "cpu",
    tiny: bool = False,
    progress: Progress | None = None,
) -> ResNeXtExpert:
    """Train ResNeXt-50 from scratch on stored views: labels, and the direction of the ViT's embedding.

    The first epochs see small pictures (progressive resizing): a step then costs a third.

    Args:
        train: pixels and embeddings to learn from.
        calib: pixels for early stopping.
        recipe: hyper-parameters.
        folder: for checkpoints.
        distill: weight of the distillation beside the labels.
        device: cpu or cuda.
        tiny: train the tiny variant.
        progress: for progress lines.
    """
    card = get_card("resnext", tiny=tiny)
    expert = new_network("resnext", tiny=tiny, seed=recipe.seed)
    if not isinstance(expert, ResNeXtExpert):
        raise TypeError("the network `resnext` must be a ResNeXtExpert")
    targets = np.asarray(train.load("embedding"), np.float32)
    targets = targets - targets.mean(0)  # what all faces share would dominate the cosine
    targets /= np.linalg.norm(targets, axis=1, keepdims=True) + 1e-6
    student = Student(expert, card.feature_size, targets.shape[1]).to(memory_format=torch.channels_last)
    pixels, labels = train.load("pixels"), train.labels()

    def make(epoch: int) -> Iterator[Batch]:
        small = epoch < SMALL_SHARE * recipe.epochs
        side = min(SMALL_PX, card.input_size) if small else card.input_size
        rng = np.random.default_rng([recipe.seed, epoch])
        for chosen in batches(len(labels), recipe.batch, rng):
            order = np.sort(chosen)
            part = np.array(pixels[order])
            flips = rng.random(len(part)) < 0.5
            part[flips] = part[flips][:, :, ::-1]
            window = int(part.shape[1] * rng.uniform(0.8, 1.0))
            y, x = rng.integers(0, part.shape[1] - window + 1, 2)
            images = to_images(part[:, y : y + window, x : x + window])
            images = functional.interpolate(images, (side, side), mode="bilinear", antialias=True)
            light = torch.from_numpy(rng.uniform(0.8, 1.2, (len(part), 1, 1, 1)).astype(np.float32))
            images = (images * light).clamp(0, 1)
            yield (
                prepare_window(images, card.mean, card.std),
                torch.from_numpy(labels[order]),
                torch.from_numpy(targets[order]),
            )

    def loss_of(net: nn.Module, batch: Batch) -> Tensor:
        images, wanted, direction = batch
        output = net.expert(images)  # type: ignore[operator]
        cosine = functional.cosine_similarity(net.project(output.feature), direction)  # type: ignore[operator]
        return smooth_bce(output.logit, wanted) + distill * (1 - cosine).mean()

    held = calib.load("pixels")

    def score_of(net: nn.Module) -> float:
        scores = score_images(net.expert, "resnext", held, tiny=tiny, device=device)  # type: ignore[arg-type]
        return mean_source_auc(calib.views, scores)

    steps = max(1, len(labels) // recipe.batch)
    fit(student, Task(make, steps, loss_of, score_of), recipe, folder, device=device, progress=progress)
    return expert


def train_vit_head(
    train: Stored,
    calib: Stored,
    recipe: Recipe,
    folder: Path,
    *,
    expert: ViTExpert,
    progress: Progress | None = None,
) -> ViTExpert:
    """Train the head of the ViT on stored tokens; the backbone keeps its base weights.

    Args:
        train: tokens to learn from.
        calib: tokens for early stopping.
        recipe: hyper-parameters.
        folder: for checkpoints.
        expert: whose head is trained in place.
        progress: for progress lines.
    """
    tokens = torch.from_numpy(np.asarray(train.load("tokens"), np.float32))
    labels = torch.from_numpy(train.labels())
    held = torch.from_numpy(np.asarray(calib.load("tokens"), np.float32))

    def make(epoch: int) -> Iterator[Batch]:
        rng = np.random.default_rng([recipe.seed, epoch])
        for chosen in batches(len(labels), recipe.batch, rng):
            yield tokens[chosen], labels[chosen]

    def loss_of(net: nn.Module, batch: Batch) -> Tensor:
        return smooth_bce(net(batch[0]).logit, batch[1])

    def score_of(net: nn.Module) -> float:
        with torch.inference_mode():
            return mean_source_auc(calib.views, net(held).logit.double().numpy())

    steps = max(1, len(labels) // recipe.batch)
    fit(expert.head, Task(make, steps, loss_of, score_of), recipe, folder, progress=progress)
    return expert


def train_lstm(
    sequences: npt.NDArray[np.float32],
    labels: npt.NDArray[np.float32],
    held: npt.NDArray[np.float32],
    held_labels: npt.NDArray[np.float32],
    recipe: Recipe,
    folder: Path,
    *,
    tiny: bool = False,
    progress: Progress | None = None,
) -> TemporalLSTM:
    """Train the LSTM on feature sequences, some of them reversed in time or cut to a shorter window.

    Args:
        sequences: (N, T, D) ResNeXt-50 features to learn from; T of 4 and more.
        labels: (N,) 1 fake, 0 real.
        held: (M, T', D) for early stopping.
        held_labels: (M,) with both classes.
        recipe: hyper-parameters.
        folder: for checkpoints.
        tiny: train the tiny variant.
        progress: for progress lines.
    """
    model = new_network("lstm", tiny=tiny, seed=recipe.seed)
    if not isinstance(model, TemporalLSTM):
        raise TypeError("the network `lstm` must be a TemporalLSTM")
    data, wanted = torch.from_numpy(sequences), torch.from_numpy(labels)

    def make(epoch: int) -> Iterator[Batch]:
        rng = np.random.default_rng([recipe.seed, epoch])
        for chosen in batches(len(data), recipe.batch, rng):
            part = data[chosen]
            if rng.random() < 0.5:
                part = part.flip(1)
            length = int(rng.integers(max(4, part.shape[1] // 2), part.shape[1] + 1))
            start = int(rng.integers(0, part.shape[1] - length + 1))
            yield part[:, start : start + length], wanted[chosen]

    def loss_of(net: nn.Module, batch: Batch) -> Tensor:
        return smooth_bce(net(batch[0]).logit, batch[1])

    def score_of(net: nn.Module) -> float:
        with torch.inference_mode():
            logits = net(torch.from_numpy(held)).logit.double().numpy()
        return auc(held_labels.astype(np.float64), logits)

    steps = max(1, len(data) // recipe.batch)
    fit(model, Task(make, steps, loss_of, score_of), recipe, folder, progress=progress)
    return model
