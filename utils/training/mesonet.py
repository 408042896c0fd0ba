"""Train MesoNet-4 on the same packed crops as the ensemble, in minutes: the baseline of `compare.py`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.mesonet import MesoNet4
from utils.training.crop_set import Pack
from utils.training.experts import Progress, mean_source_auc
from utils.training.features import batches
from utils.training.loop import Batch, Recipe, Task, fit
from utils.training.norms import rendered
from utils.training.views import View, plan_views
from utils.types import MediaKind

SIDE = 128
RECIPE = Recipe(epochs=12, batch=32, lr=1e-3, weight_decay=0.0, average=0.99, patience=12)

Array = npt.NDArray[np.float64]


def small_views(pack: Pack, views: Sequence[View]) -> Tensor:
    """(N, 3, SIDE, SIDE) float32, 0..1, of rendered views."""
    out = []
    for _, pixels in rendered(pack, [views[low : low + 32] for low in range(0, len(views), 32)]):
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(255)
        out.append(functional.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True))
    return torch.cat(out)


def train_mesonet(
    pack: Pack,
    folder: Path,
    *,
    per_class: int = 1000,
    calib_per_class: int = 150,
    recipe: Recipe = RECIPE,
    progress: Progress | None = None,
) -> MesoNet4:
    """Train on augmented, matched views of the training split; the epoch is chosen on clean ones of calibration.

    Args:
        pack: with the splits train and calib.
        folder: for the checkpoint; a stopped training goes on.
        per_class: most views per source and label.
        calib_per_class: the same for choosing the epoch.
        recipe: hyper-parameters.
        progress: for progress lines.
    """
    image = MediaKind.IMAGE
    train = plan_views(pack.select("train", image), per_class=per_class, blends=per_class // 4, seed=71, matched=True)
    held = plan_views(pack.select("calib", image), per_class=calib_per_class, blends=0, seed=2, clean=True)
    pictures, of_held = small_views(pack, train), small_views(pack, held)
    labels = torch.tensor([view.label for view in train], dtype=torch.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = MesoNet4(side=SIDE)

    def make(epoch: int) -> Iterator[Batch]:
        for chosen in batches(len(labels), recipe.batch, np.random.default_rng([recipe.seed, epoch])):
            yield pictures[chosen], labels[chosen]

    def loss_of(net: nn.Module, batch: Batch) -> Tensor:
        return functional.binary_cross_entropy_with_logits(net(batch[0]), batch[1])

    def score_of(net: nn.Module) -> float:
        return mean_source_auc(held, score_mesonet(net, of_held))

    fit(model, Task(make, max(1, len(labels) // recipe.batch), loss_of, score_of), recipe, folder, progress=progress)
    return model


def score_mesonet(model: nn.Module, pictures: Tensor) -> Array:
    """(N,) logits of (N, 3, SIDE, SIDE) pictures."""
    with torch.inference_mode():
        parts = [model(pictures[low : low + 64]) for low in range(0, len(pictures), 64)]
    return np.asarray(torch.cat(parts).double().numpy())
