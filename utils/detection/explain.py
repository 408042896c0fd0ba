"""Where in a face does an expert see signs of manipulation? Heatmaps, each with a measured faithfulness.

A map is only worth showing if the marked places matter to the network. So each is tested: the marked part of the crop
is blurred away (deletion), or everything else is (insertion), and the same is done with the very same map at random
places. A map that does not beat those is called no better than random. This file is about single image experts; the
BiLSTM reads a course of features in time and has no map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.cards import EXPERT_NAMES, IMAGE_EXPERTS, expert_card
from models.preprocess import prepare, to_images
from utils.detection.engine import Engine
from utils.detection.pipeline import Analyser, no_progress
from utils.faces.search import Progress
from utils.types import Floats, Pixels

LEVELS = (0.1, 0.3)
"""Parts of the crop that are deleted or inserted."""
MASKS = 9
"""Random masks; a map that beats all of them would do so by chance in one case of ten."""
BLUR = 1 / 12
"""Standard deviation of the blur that stands for "deleted", share of the crop's side."""
VIT_BLOCK = 5
"""Whose output tokens the map of the ViT is made of: halfway, where tokens still stand for their places."""

METHODS = {
    "cnn": "Grad-CAM, gradient times activation at each place of the last block",
    "resnext": "Grad-CAM, gradient times activation at each place of the third stage",
    "vit": "Gradient times activation of the patch tokens after block 6",
}


class Faithfulness(NamedTuple):
    """Does a map mark what matters?

    The gain of a mask is the expert's logit with only the marked part kept sharp, less the logit with the marked part
    blurred, averaged over `LEVELS`: the larger, the more the marked places carry the suspicion. Here stand that of the
    map, those of the same map at random places, and how many of these it beats.

    Source: insertion and deletion after Petsiuk et al. 2018, "RISE: Randomized Input Sampling for Explanation".
    """

    gain: float
    random: tuple[float, ...]
    beaten: int


@dataclass(frozen=True)
class HeatMap:
    """Where one expert sees signs of manipulation in one crop.

    Args:
        expert: registry name.
        grid: (h, w) float32, 0..1, from the top left of the crop; None when nothing in the crop raised the suspicion.
    """

    expert: str
    title: str
    method: str
    grid: Floats | None
    faithfulness: Faithfulness


def explain_face(crop: Pixels, analyser: Analyser, progress: Progress = no_progress) -> tuple[HeatMap, ...]:
    """Heatmaps of one crop by every image expert that is loaded.

    The networks are hooked meanwhile: nothing else may run them at the same time.

    Args:
        crop: (S, S, 3) uint8, as the networks see it.
        progress: called with the stage `explain` and the share that is done, 0..1; may raise to cancel.
    """
    networks = analyser.engine.networks
    device = next(networks.parameters()).device
    experts = [name for name in IMAGE_EXPERTS if name in networks.experts]
    maps = []
    for index, name in enumerate(experts):
        card = expert_card(name, tiny=analyser.tiny)
        network = networks.experts[name]

        def told(done: float, index: int = index) -> None:
            progress("explain", (index + done) / len(experts))

        told(0.0)
        grid = relevance(name, network, prepare(to_images(crop[None]).to(device), card))
        measured = measure_faithfulness(crop, grid, _scorer(analyser.engine, name), told)
        peak = float(grid.max())
        maps.append(HeatMap(name, card.title, METHODS[name], grid / peak if peak > 0 else None, measured))
    progress("explain", 1.0)
    return tuple(maps)


def relevance(name: str, network: nn.Module, image: Tensor) -> Floats:
    """How much each place raises the logit of fake, (h, w) float32, 0 where it lowers it.

    Gradient times activation, summed over the channels. Where the head pools the whole map, as in ResNeXt-50, this is
    Grad-CAM itself; the CNN's head looks at quarters of the map, for which the gradient must not be averaged first.

    Args:
        image: (1, 3, S, S) prepared with its card.

    Source: Selvaraju et al. 2017, "Grad-CAM"; Draelos and Carin 2020, "Use HiResCAM instead of Grad-CAM".
    """
    activation, gradient = _activation_and_gradient(network, _layer(name, network), image)
    if activation.ndim == 3:  # (1, N, D) tokens of a ViT: the class token first, the patches row by row
        product = (activation * gradient).sum(2)[0, 1:]
        side = round(len(product) ** 0.5)
        grid = product.view(side, side)
    else:  # (1, C, h, w)
        grid = (activation * gradient).sum(1)[0]
    return grid.relu().cpu().numpy().astype(np.float32)


Scorer = Callable[[Sequence[Pixels], Callable[[float], None] | None], Floats]
"""(S, S, 3) uint8 crops, and a callback for the share that is done, to the (N,) raw logits of one expert."""


def _scorer(engine: Engine, name: str) -> Scorer:
    """The expert as the engine serves it, which takes a fraction of the time that torch does on a processor."""
    column = EXPERT_NAMES.index(name)
    return lambda crops, on_batch: engine.run(crops, on_batch, only=(name,)).logits[:, column]


def measure_faithfulness(
    crop: Pixels, grid: Floats, score: Scorer, on_batch: Callable[[float], None] | None = None
) -> Faithfulness:
    """Deletion and insertion by the map, against the same map at random places.

    Args:
        score: of the expert that the map is of.
    """
    rng = np.random.default_rng(len(crop))  # the same masks at each call, so that a number can be reproduced
    masks = [grid, *(_at_random_place(grid, rng) for _ in range(MASKS))]
    blurred = cv2.GaussianBlur(crop, (0, 0), len(crop) * BLUR)
    trials = []
    for mask in masks:
        order = _rank(mask, len(crop), rng)
        for level in LEVELS:
            marked = (order < level)[:, :, None]
            trials += [np.where(marked, crop, blurred), np.where(marked, blurred, crop)]
    pairs = score(trials, on_batch).reshape(len(masks), len(LEVELS), 2)
    gains = (pairs[:, :, 0] - pairs[:, :, 1]).mean(1).astype(np.float64).tolist()
    return Faithfulness(gains[0], tuple(gains[1:]), sum(gains[0] > other for other in gains[1:]))


def _layer(name: str, network: nn.Module) -> nn.Module:
    """The layer whose output the map is made of."""
    if name == "cnn":
        return network.get_submodule("blocks")
    if name == "resnext":
        return network.get_submodule("backbone.layer3")
    depth = len(list(network.get_submodule("backbone.blocks").children()))
    return network.get_submodule(f"backbone.blocks.{min(VIT_BLOCK, depth // 2)}")


def _activation_and_gradient(network: nn.Module, layer: nn.Module, image: Tensor) -> tuple[Tensor, Tensor]:
    """A layer's output and the gradient of the logit by it; parameters are neither changed nor given gradients."""
    seen: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        seen.append(output.detach().requires_grad_(True))
        return seen[-1]

    handle = layer.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            logit = network(image).logit.sum()
            (gradient,) = torch.autograd.grad(logit, seen)
    finally:
        handle.remove()
    return seen[0].detach(), gradient


def _at_random_place(grid: Floats, rng: np.random.Generator) -> Floats:
    """The same map, turned and moved: as smooth and as large as the real one, but elsewhere."""
    turned = np.rot90(grid, int(rng.integers(4)))
    if rng.random() < 0.5:
        turned = turned[:, ::-1]
    shift = (int(rng.integers(grid.shape[0])), int(rng.integers(grid.shape[1])))
    return np.ascontiguousarray(np.roll(turned, shift, (0, 1)))


def _rank(grid: Floats, side: int, rng: np.random.Generator) -> Floats:
    """For each pixel of the crop the share of pixels that the map marks more strongly, (S, S) in 0..1."""
    large = functional.interpolate(torch.from_numpy(grid)[None, None], (side, side), mode="bilinear")[0, 0].numpy()
    flat = large.ravel() + rng.random(large.size) * 1e-9  # ties, as in an empty map, are broken at random
    rank = np.empty(flat.size, np.float32)
    rank[np.argsort(-flat, kind="stable")] = np.arange(flat.size, dtype=np.float32) / flat.size
    return rank.reshape(side, side)
