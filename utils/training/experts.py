"""How each expert is trained: its batches, its loss, its score. `fit.train_experts` calls these in turn.

CNN and ResNeXt-50 learn from the pixels of the feature store with the ViT's tapped tokens as a second target
(distillation); the ViT's head from the stored tokens; the LSTM from sequences of ResNeXt-50 features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from sklearn.utils.extmath import randomized_svd
from torch import Tensor, nn
from torch.nn import functional

from models.cards import expert_card
from models.ensemble_model import BUILDERS
from models.lstm_model import TemporalLSTM, build_lstm
from models.preprocess import prepare, to_images
from models.vision_transformer import TapHead, ViTExpert
from utils.metrics import auc
from utils.tensors import Arrays, load_into
from utils.training.features import Stored, batches
from utils.training.loop import Batch, Recipe, Task, fast_bfloat16, fit
from utils.training.traces import Traces, normalised
from utils.training.views import View

SMOOTHING = 0.05
"""Labels are 0.05 and 0.95: a data set's labels are not certain, and neither should the network be."""
DISTILLATION = 2.0
"""Weight of what the ViT says of a face, beside that of its label."""
SMALL_PX, SMALL_SHARE = 64, 0.6
"""ResNeXt-50 sees pictures of this size during this share of its epochs."""
N = TypeVar("N", bound=nn.Module)


def new_network(build: Callable[[bool], N], *, tiny: bool, seed: int) -> N:
    """A new network by its builder, with parameters that follow from `seed` alone, whatever was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(tiny)


def smooth_bce(logit: Tensor, label: Tensor, weight: Tensor | None = None) -> Tensor:
    """Binary cross-entropy with smoothed labels, a scalar; `weight` (B,) per item."""
    return functional.binary_cross_entropy_with_logits(logit, label * (1 - 2 * SMOOTHING) + SMOOTHING, weight)


def mean_source_auc(views: Sequence[View], scores: npt.NDArray[np.float64]) -> float:
    """Mean over the sources with both labels of their AUC, so that no source's framing or light can help."""
    labels = np.array([v.label for v in views], np.float64)
    sources = np.array([v.source for v in views])
    values = [auc(labels[sources == s], scores[sources == s]) for s in np.unique(sources)]
    finite = [v for v in values if np.isfinite(v)]
    return float(np.mean(finite)) if finite else auc(labels, scores)


def score_images(
    model: nn.Module, name: str, pixels: npt.NDArray[np.generic], *, tiny: bool = False, device: str = "cpu"
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]:
    """Raw logits (N,) and features (N, D) of an image expert on (N, S, S, 3) uint8 crops."""
    card = expert_card(name, tiny=tiny)
    logits, features = [], []
    with torch.inference_mode():
        for low in range(0, len(pixels), 32):
            output = model(prepare(to_images(pixels[low : low + 32]).to(device), card))
            logits.append(output.logit.float().cpu().numpy())
            features.append(output.feature.float().cpu().numpy())
    return np.concatenate(logits).astype(np.float64), np.concatenate(features)


def reframed(pixels: npt.NDArray[np.uint8], rng: np.random.Generator, side: int) -> Tensor:
    """A random square of at least .8 of (B, S, S, 3) uint8 crops, the same for all, as (B, 3, side, side), 0..1."""
    window = int(pixels.shape[1] * rng.uniform(0.8, 1.0))
    y, x = rng.integers(0, pixels.shape[1] - window + 1, 2)
    images = to_images(pixels[:, y : y + window, x : x + window])
    return functional.interpolate(images, (side, side), mode="bilinear", antialias=True)


def token_directions(tokens: npt.NDArray[np.generic], *, most: int = 256) -> npt.NDArray[np.float32]:
    """What a student is to tell of a face, as directions: principal components of the tokens that the ViT's head reads.

    The ViT's final embedding names what is seen and has dropped the traces of generators; earlier layers have not. The
    components are scaled by the root of their deviation, so that the first of them do not drown the others.

    Args:
        tokens: (N, L, 2D) tapped tokens.

    Returns:
        (N, K) float32 rows of length 1; K is at most `most`.
    """
    count, layers, width = tokens.shape
    drawn = np.sort(np.random.default_rng(0).permutation(count)[:4000])
    sample = np.asarray(tokens[drawn], np.float32).reshape(len(drawn), layers * 2, width // 2)
    centre = sample.mean(0)
    scale = (sample - centre).std((0, 2), keepdims=True)[0] + 1e-6  # a layer with large numbers counts as any other
    flat = ((sample - centre) / scale).reshape(len(drawn), -1)
    _, deviations, axes = randomized_svd(flat, min(most, *flat.shape), random_state=0)
    projection = axes.T / np.sqrt(deviations + 1e-6)
    out = np.empty((count, len(axes)), np.float32)
    for low in range(0, count, 2048):
        part = np.asarray(tokens[low : low + 2048], np.float32).reshape(-1, layers * 2, width // 2)
        out[low : low + 2048] = ((part - centre) / scale).reshape(len(part), -1) @ projection
    out -= out.mean(0)  # what all faces share would dominate the cosine
    return np.asarray(out / (np.linalg.norm(out, axis=1, keepdims=True) + 1e-6), np.float32)


class Student(nn.Module):
    """An expert with a projection to what the ViT says of a face, which only training needs.

    Source: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", on features.
    """

    def __init__(self, expert: nn.Module, features: int, embedding: int) -> None:
        super().__init__()
        self.expert = expert
        self.project = nn.Linear(features, embedding)


def train_student(
    name: str,
    train: Stored,
    calib: Stored,
    recipe: Recipe,
    folder: Path,
    *,
    start: Arrays | None = None,
    device: str = "cpu",
    tiny: bool = False,
) -> nn.Module:
    """Train the CNN or ResNeXt-50 on stored views: labels, and what the ViT's tokens say of each face.

    Labels alone teach a fresh network little from some thousands of faces; see `token_directions`. ResNeXt-50 from
    scratch sees small pictures in its first epochs, where a step costs a third (progressive resizing).

    Args:
        name: `cnn` or `resnext`.
        calib: pixels for early stopping, by the mean AUC per source.
        start: weights to go on from; None starts from scratch.
    """
    card = expert_card(name, tiny=tiny)
    expert = new_network(BUILDERS[name], tiny=tiny, seed=recipe.seed)
    if start is not None:
        load_into(expert, start, what=name)
    targets = token_directions(train.load("tokens"))
    student = Student(expert, card.feature_size, targets.shape[1]).to(memory_format=torch.channels_last)
    labels = train.labels()
    shift, scale = (torch.tensor(v).view(3, 1, 1) for v in (card.mean, card.std))
    small = SMALL_SHARE * recipe.epochs if name == "resnext" and start is None else 0

    def make(epoch: int) -> Iterator[Batch]:
        rng = np.random.default_rng([recipe.seed, epoch])
        for chosen in batches(len(labels), recipe.batch, rng):
            order = np.sort(chosen)
            part = np.array(train.take("pixels", order), np.uint8)
            flips = rng.random(len(part)) < 0.5
            part[flips] = part[flips][:, :, ::-1]
            images = reframed(part, rng, min(SMALL_PX, card.input_size) if epoch < small else card.input_size)
            light = torch.from_numpy(rng.uniform(0.8, 1.2, (len(part), 1, 1, 1)).astype(np.float32))
            images = (images * light).clamp(0, 1)
            yield (
                ((images - shift) / scale).contiguous(memory_format=torch.channels_last),  # as convolutions like it
                torch.from_numpy(labels[order]),
                torch.from_numpy(targets[order]),
            )

    def loss_of(net: nn.Module, batch: Batch) -> Tensor:
        images, wanted, direction = batch
        output = net.expert(images)  # type: ignore[operator]
        cosine = functional.cosine_similarity(net.project(output.feature), direction)  # type: ignore[operator]
        return smooth_bce(output.logit, wanted) + DISTILLATION * (1 - cosine).mean()

    held = calib.load("pixels")

    def score_of(net: nn.Module) -> float:
        scores, _ = score_images(net.expert, name, held, tiny=tiny, device=device)  # type: ignore[arg-type]
        return mean_source_auc(calib.views, scores)

    steps = max(1, len(labels) // recipe.batch)
    task = Task(make, steps, loss_of, score_of)
    fit(student, task, recipe, folder, device=device, bfloat16=fast_bfloat16(device))
    return expert


@dataclass(frozen=True)
class HeadAxes:
    """Coordinates in which the ViT's head learns: each tapped layer normalised, every direction of about equal size.

    A few of the tokens' dimensions are a hundred times as large as the others and would rule a step; the smallest
    principal components are noise. What is learned in these coordinates is written back as a head on tokens, exactly.

    Args:
        mean: (L, 2D) of the normalised tokens.
        deviation: (L, 2D) of the normalised tokens, above 0.
        axes: (L, 2D, K) principal components of what is left, the largest first.
    """

    mean: Tensor
    deviation: Tensor
    axes: Tensor

    @classmethod
    def fitted(cls, tokens: npt.NDArray[np.generic], *, most: int = 384, fitted_on: int = 8000) -> HeadAxes:
        """The axes of (N, L, 2D) tapped tokens: at most `most` of each layer, from at most `fitted_on` rows."""
        drawn, found = np.sort(np.random.default_rng(0).permutation(len(tokens))[:fitted_on]), []
        for layer in range(tokens.shape[1]):
            values = normalised(tokens[drawn, layer])
            mean, deviation = values.mean(0), values.std(0) + 1e-3
            values = (values - mean) / deviation
            _, axes = torch.linalg.eigh(values.T @ values)  # ascending
            found.append((mean, deviation, axes[:, -most:].flip(1)))
        return cls(*(torch.stack(part) for part in zip(*found, strict=True)))

    def of(self, tokens: npt.NDArray[np.generic]) -> Tensor:
        """(N, L, K) float32 coordinates of (N, L, 2D) tapped tokens."""
        layers = [
            ((normalised(tokens[:, i]) - self.mean[i]) / self.deviation[i]) @ self.axes[i]
            for i in range(tokens.shape[1])
        ]
        return torch.stack(layers, dim=1)

    def read(self, head: TapHead) -> TapHead:
        """A head on coordinates that answers as `head` does on tokens, up to the components that are left out."""
        state = head.state_dict()
        learned = TapHead(taps=len(self.axes), width=self.axes.shape[2] // 2, hidden=len(state["reduce.0.bias"]))
        learned.norms = nn.ModuleList(nn.Identity() for _ in self.axes)
        own = {name: value for name, value in state.items() if name.startswith("score.")}
        for i in range(len(self.axes)):
            of, weight = state[f"reduce.{i}.weight"], state[f"reduce.{i}.weight"] * state[f"norms.{i}.weight"]
            own[f"reduce.{i}.weight"] = (weight * self.deviation[i]) @ self.axes[i]
            own[f"reduce.{i}.bias"] = state[f"reduce.{i}.bias"] + of @ state[f"norms.{i}.bias"] + weight @ self.mean[i]
        learned.load_state_dict(own)
        return learned

    def write(self, learned: TapHead, head: TapHead) -> None:
        """Make `head`, which reads tokens, answer as `learned` does, which reads coordinates."""
        own = learned.state_dict()
        for i in range(len(self.axes)):
            own[f"norms.{i}.weight"] = torch.ones_like(self.mean[i])
            own[f"norms.{i}.bias"] = torch.zeros_like(self.mean[i])
            weight = (own[f"reduce.{i}.weight"] @ self.axes[i].T) / self.deviation[i]
            own[f"reduce.{i}.bias"] = own[f"reduce.{i}.bias"] - weight @ self.mean[i]
            own[f"reduce.{i}.weight"] = weight
        head.load_state_dict(own)
        head.train(learned.training)


def train_vit_head(
    train: Stored,
    calib: Stored,
    recipe: Recipe,
    folder: Path,
    *,
    expert: ViTExpert,
    weights: npt.NDArray[np.float32] | None = None,
    axes: HeadAxes | None = None,
    traces: Traces | None = None,
) -> ViTExpert:
    """Train the head of the ViT on stored tokens, in the coordinates of `HeadAxes`; the backbone keeps its weights.

    Args:
        expert: whose head is trained in place.
        weights: (N,) how much each view counts; None for all alike.
        axes: the coordinates; None for those of `train`.
        traces: a measure that is added to what the head has learned; one that it begins with is taken away.
    """
    Traces.erase(expert.head)
    stored = train.load("tokens")
    axes = axes or HeadAxes.fitted(stored)
    seen, held = axes.of(stored), axes.of(calib.load("tokens"))
    labels = torch.from_numpy(train.labels())
    counting = torch.ones(len(labels)) if weights is None else torch.from_numpy(weights)
    learned = axes.read(expert.head)

    def make(epoch: int) -> Iterator[Batch]:
        rng = np.random.default_rng([recipe.seed, epoch])
        for chosen in batches(len(labels), recipe.batch, rng):
            yield seen[chosen], labels[chosen], counting[chosen]

    def loss_of(net: nn.Module, batch: Batch) -> Tensor:
        return smooth_bce(net(batch[0]).logit.float(), batch[1], batch[2])

    def score_of(net: nn.Module) -> float:
        with torch.inference_mode():
            return mean_source_auc(calib.views, net(held).logit.double().numpy())

    steps = max(1, len(labels) // recipe.batch)
    task = Task(make, steps, loss_of, score_of)
    fit(learned, task, recipe, folder)
    axes.write(learned, expert.head)
    if traces is not None:
        traces.write(expert.head)
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
) -> TemporalLSTM:
    """Train the LSTM on feature sequences, some of them reversed in time or cut to a shorter window.

    Args:
        sequences: (N, T, D) ResNeXt-50 features to learn from; T of 4 and more.
        held: (M, T', D) for early stopping.
    """
    model = new_network(build_lstm, tiny=tiny, seed=recipe.seed)
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

    share = float(labels.mean())
    weights = torch.tensor([0.5 / (1 - share), 0.5 / share]) if 0 < share < 1 else torch.ones(2)

    def loss_of(net: nn.Module, batch: Batch) -> Tensor:
        return smooth_bce(net(batch[0]).logit, batch[1], weights[batch[1].long()])  # real and fake count alike

    def score_of(net: nn.Module) -> float:
        with torch.inference_mode():
            logits = net(torch.from_numpy(held)).logit.double().numpy()
        return auc(held_labels.astype(np.float64), logits)

    steps = max(1, len(data) // recipe.batch)
    fit(model, Task(make, steps, loss_of, score_of), recipe, folder)
    return model
