"""Train the LayerNorms of the ViT together with its head; every matrix of the backbone stays as CLIP made it.

Runs before the features are stored, so that heads, gate and students see the tuned network. Views are drawn anew for
every epoch and rendered while the network computes.
Source: the idea of training LayerNorms alone (Yermakov et al. 2025, "Deepfake Detection that Generalizes Across
Benchmarks"); patch dropout after Liu et al. 2022, "PatchDropout: Economizing Vision Transformers Using Patch Dropout".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from timm.layers import PatchDropout
from torch import Tensor, nn

from models.cards import expert_card
from models.preprocess import prepare, to_images
from models.vision_transformer import ViTExpert
from utils.cores import usable_cores
from utils.training import processes
from utils.training.crop_set import Pack
from utils.training.experts import mean_source_auc, smooth_bce
from utils.training.features import batches
from utils.training.loop import Batch, Task, fast_bfloat16, fit
from utils.training.plan import NormsPlan, TrainingPlan
from utils.training.planning import SEED_STEP, drawn_views, plan_clean
from utils.training.views import View, render
from utils.types import MediaKind, Pixels

AHEAD = 2
"""Batches that are rendered ahead of the one that is learned from."""
SCORE_BATCH = 16

Array = npt.NDArray[np.float64]


class NormTuner(nn.Module):
    """What learns of a ViT, its LayerNorms and its head, as a module whose state holds nothing else.

    The loop averages and stores the state of its module at every step; the frozen matrices are no part of it.

    Args:
        expert: trained in place; parameters that do not require gradients stay as they are.
        patch_dropout: share of the patches left out in training, 0..1.
    """

    def __init__(self, expert: ViTExpert, patch_dropout: float = 0.0) -> None:
        super().__init__()
        learning = {n: m for n, m in expert.backbone.named_modules() if _learns(m)}
        self.norms = nn.ModuleDict({name.replace(".", "/"): module for name, module in learning.items()})
        self.head = expert.head
        # registered here, so that `train` and `eval` switch it
        self.drop: nn.Module = PatchDropout(patch_dropout) if patch_dropout else nn.Identity()
        expert.backbone.patch_drop = self.drop
        self._whole = (expert,)

    def forward(self, images: Tensor) -> Tensor:
        """(B,) logits of prepared images (B, 3, S, S)."""
        logit: Tensor = self._whole[0](images).logit
        return logit.float()


def _learns(module: nn.Module) -> bool:
    own = list(module.parameters(recurse=False))
    return bool(own) and all(p.requires_grad for p in own)


def freeze_before(expert: ViTExpert, first_block: int) -> None:
    """Switch off the LayerNorms before a block, so that no gradient is computed for anything before it."""
    for name, parameter in expert.backbone.named_parameters():
        block = int(name.split(".")[1]) if name.startswith("blocks.") else -1
        if block < first_block and first_block > 0:
            parameter.requires_grad_(False)


def trained_norms(expert: ViTExpert) -> list[str]:
    """Names of the backbone's tensors that training may have changed, as in the state of the expert."""
    return [f"backbone.{name}" for name, p in expert.backbone.named_parameters() if p.requires_grad]


def train_norms(
    pack: Pack, expert: ViTExpert, plan: TrainingPlan, norms: NormsPlan, folder: Path, *, device: str = "cpu"
) -> ViTExpert:
    """Train LayerNorms and head on rendered views; a stopped training goes on where it was.

    Args:
        pack: crops of the splits train and calib; clips give some of their frames.
        expert: with base weights or those of an earlier version; trained in place.
        plan: of the whole training: shares of views that are coded as a video, frames of a clip, size of the network.
        norms: recipe and counts.
        device: cpu or cuda. Mixed precision where it is faster.
    """
    recipe = norms.recipe
    freeze_before(expert, norms.first_block)
    expert.to(device)
    card = expert_card("vit", tiny=plan.tiny)

    def views_of(epoch: int) -> list[View]:
        seed = SEED_STEP * recipe.seed + 500 + 10 * epoch
        drawn = drawn_views(pack, plan, norms.views, norms.beside, seed=seed)
        return [view for part in drawn.values() for view in part]

    def make(epoch: int) -> Iterator[Batch]:
        views = views_of(epoch)
        order = batches(len(views), recipe.batch, np.random.default_rng([recipe.seed, epoch]))
        # draws differ by a few views from epoch to epoch
        chosen = [[views[int(i)] for i in part] for part in order][:steps]
        for part, pixels in rendered(pack, [processes.share(part) for part in chosen]):
            labels = torch.tensor([view.label for view in part], dtype=torch.float32)
            yield prepare(to_images(pixels), card), labels

    def loss_of(net: nn.Module, batch: Batch) -> Tensor:
        return smooth_bce(net(batch[0]), batch[1])

    held = plan_clean(pack.select("calib", MediaKind.IMAGE), per_class=norms.calib_per_class, seed=2)
    mixed = fast_bfloat16(device)

    def score_of(net: nn.Module) -> float:
        return mean_source_auc(held, score_views(expert, pack, held, tiny=plan.tiny, device=device, bfloat16=mixed))

    tuner = NormTuner(expert, norms.patch_dropout)
    steps = max(1, len(views_of(0)) // recipe.batch)
    task = Task(make, steps, loss_of, score_of, shared=True)
    with explicit_attention(expert, on=device == "cpu"):
        fit(tuner, task, recipe, folder, device=device, bfloat16=mixed)
    expert.backbone.patch_drop = nn.Identity()
    return expert.to("cpu").eval()


@contextmanager
def explicit_attention(expert: ViTExpert, *, on: bool) -> Iterator[None]:
    """Attention as three plain steps while this lasts: on a CPU the gradient of the fused one takes 38 % of a step."""
    layers = [m for m in expert.backbone.modules() if hasattr(m, "fused_attn")]
    before = [layer.fused_attn for layer in layers]
    try:
        for layer in layers if on else ():
            layer.fused_attn = False
        yield
    finally:
        for layer, fused in zip(layers, before, strict=True):
            layer.fused_attn = fused


def rendered(
    pack: Pack, parts: Sequence[Sequence[View]], workers: int | None = None
) -> Iterator[tuple[Sequence[View], Pixels]]:
    """The pixels of each part, (B, S, S, 3) uint8, in order; the next ones are made while the caller works.

    Args:
        parts: views of each batch.
    """
    with ThreadPoolExecutor(workers or max(1, usable_cores() - 1)) as pool:
        waiting: deque[tuple[Sequence[View], list[Future[Pixels]]]] = deque()
        try:
            for part in parts:
                waiting.append((part, [pool.submit(render, pack, view) for view in part]))
                if len(waiting) > AHEAD:
                    yield _finished(*waiting.popleft())
            while waiting:
                yield _finished(*waiting.popleft())
        finally:
            for _, futures in waiting:
                for future in futures:
                    future.cancel()


def _finished(part: Sequence[View], futures: Sequence[Future[Pixels]]) -> tuple[Sequence[View], Pixels]:
    return part, np.stack([future.result() for future in futures])


def score_views(
    expert: ViTExpert,
    pack: Pack,
    views: Sequence[View],
    *,
    tiny: bool = False,
    device: str = "cpu",
    bfloat16: bool = False,
) -> Array:
    """(N,) raw logits of views; the expert stays in the mode it is in.

    Args:
        bfloat16: mixed precision, for choosing an epoch; figures that are told are computed without.
    """
    card = expert_card("vit", tiny=tiny)
    parts = [views[low : low + SCORE_BATCH] for low in range(0, len(views), SCORE_BATCH)]
    out = []
    with torch.inference_mode(), torch.autocast(device, dtype=torch.bfloat16, enabled=bfloat16):
        for _, pixels in rendered(pack, parts):
            out.append(expert(prepare(to_images(pixels).to(device), card)).logit.float().cpu().numpy())
    return np.concatenate(out).astype(np.float64)
