"""A measure of decoders' traces inside the ViT's head, fitted without a single fake.

The mean difference between real faces decoded again by an autoencoder and their originals is a direction among the
tokens of the ViT's block 6. Fakes of generators that no training has seen lie along it as well, while among real photos
it says nothing that the head says. A head learned from it in common with all fakes drowns it; so it stands beside what
the head learned, with a weight of its own.

The pairs come from `Recoder`. Image generators end in the decoder of an autoencoder; a real face that went through one
shows the same person in the same light and framing as its original, so that what tells the two apart is no fingerprint
of one generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from utils.errors import TrainingDataError
from utils.faces.crops import network_view, resize
from utils.training.crop_set import Pack
from utils.training.views import View
from utils.types import Pixels

if TYPE_CHECKING:  # packages that take seconds to import, and what stores the faces that are decoded again here
    from models.vision_transformer import TapHead
    from utils.training.features import Stored

LATENT_RANGE = 6.0
"""What a stored latent of 8 bits spans, around 0."""


class _Residual(nn.Module):
    """Three convolutions beside the identity; at the deepest stage after a normalised branch of 1 x 1 convolutions."""

    def __init__(self, width: int, *, pooled: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(width, width, 3, padding=1)]
        for _ in range(2):
            layers += [nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)]
        self.conv = nn.Sequential(*layers)
        inner = 4 * width
        branch = (nn.Conv2d(width, inner, 1, bias=False), nn.GroupNorm(4, inner), nn.ReLU())
        self.pool = nn.Sequential(*branch, nn.Conv2d(inner, width, 1, bias=False)) if pooled else None

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) gives the same shape."""
        maps = maps if self.pool is None else maps + self.pool(maps)
        return torch.relu(maps + self.conv(maps))


class _Bounded(nn.Module):
    def forward(self, latent: Tensor) -> Tensor:
        return 3 * torch.tanh(latent / 3)


class Autoencoder(nn.Module):
    """TAEF2, distilled from the autoencoder of FLUX.2 (madebyollin/taesd, MIT): 32 channels at an eighth of the size.

    Source: the published weights and their layout; Esser et al. 2021, "Taming Transformers", for such autoencoders.
    """

    def __init__(self, *, width: int = 64, latent: int = 32) -> None:
        super().__init__()
        down: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), _Residual(width)]
        up: list[nn.Module] = [_Bounded(), nn.Conv2d(latent, width, 3, padding=1), nn.ReLU()]
        for stage in range(3):
            down.append(nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False))
            down += [_Residual(width, pooled=stage == 2) for _ in range(3)]
            up += [_Residual(width, pooled=stage == 0) for _ in range(3)]
            up += [nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, padding=1, bias=False)]
        self.encoder = nn.Sequential(*down, nn.Conv2d(width, latent, 3, padding=1))
        self.decoder = nn.Sequential(*up, _Residual(width), nn.Conv2d(width, 3, 3, padding=1))

    def forward(self, images: Tensor, *, stored: bool = False) -> Tensor:
        """(B, 3, H, W) float32, 0..1, decoded again; `stored` rounds the latent to 8 bits, as a saved one is."""
        height, width = images.shape[2:]
        latent = self.encoder(nn.functional.pad(images, (0, -width % 8, 0, -height % 8), mode="replicate"))
        if stored:
            share = (latent / LATENT_RANGE + 0.5).clamp(0, 1)
            latent = ((share * 255).round() / 255 - 0.5) * LATENT_RANGE
        decoded: Tensor = self.decoder(latent)[..., :height, :width].clamp(0, 1)
        return decoded


def load_autoencoder(path: Path) -> Autoencoder:
    """The autoencoder with the published weights, a safetensors file.

    Raises:
        TrainingDataError: the file cannot be read, or holds another network.
    """
    network = Autoencoder()
    try:
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        said = str(error).splitlines()[0]
        detail = f"{path} does not hold the autoencoder TAEF2: {said}."
        remedy = "Take the weights of TAEF2 (madebyollin/taesd) as safetensors, or leave --autoencoder out."
        raise TrainingDataError(detail, remedy=remedy) from error
    return network.float().eval().requires_grad_(False).to(memory_format=torch.channels_last)


class Recoder:
    """The pixels of views of real crops, each decoded again at the size that its face had in its picture.

    Args:
        views: clean views of the pack's crops; half of them, drawn by their seeds, have a latent of 8 bits.
    """

    def __init__(self, pack: Pack, views: Sequence[View], network: Autoencoder, *, bfloat16: bool = False) -> None:
        self._pack, self._views, self._network, self._bfloat16 = pack, views, network, bfloat16

    def __getitem__(self, number: int) -> Pixels:
        view = self._views[number]
        crop, pixels = self._pack.rows[view.row], np.ascontiguousarray(self._pack.pixels[view.row])
        box, side = crop.face_box(), pixels.shape[0]
        scale = min(1.0, crop.source_px / max(box.width, box.height))
        small = resize(pixels, max(32, round(side * scale)))
        images = torch.from_numpy(small.astype(np.float32) / 255).permute(2, 0, 1)[None]
        stored = bool(np.random.default_rng([view.seed, 77]).random() < 0.5)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self._bfloat16):
            decoded = self._network(images.contiguous(memory_format=torch.channels_last), stored=stored)[0]
        again = np.clip(np.rint(decoded.float().permute(1, 2, 0).numpy() * 255), 0, 255).astype(np.uint8)
        return network_view(resize(again, side), box)


LAYER = 1
"""The tapped layer that is read: block 6. In the others the direction carries over to fewer generators."""
WEIGHT, FIRST, LAST = 0.6, 1.0, 2.5
"""How much the head's logit rises with each deviation of real training pictures along the direction, and between which
deviations: below, it is how photos differ; above, how strongly one was smoothed."""
SHARPNESS = 2.0
"""How abruptly the rise begins and ends, as a factor before the head's rounded steps."""


@dataclass(frozen=True)
class Traces:
    """A linear measure of one layer's normalised tokens: mean 0 and deviation 1 over real training pictures.

    Args:
        weight: (2D,).
    """

    weight: Tensor
    bias: float

    def write(self, head: TapHead) -> None:
        """Let a head's logit rise with this measure, by two features in the place of those that matter least.

        One begins to count at `FIRST`, the other takes it back from `LAST` on. The head's own norms must do nothing, as
        `HeadAxes.write` leaves them.
        """
        reduce: nn.Linear = head.reduce[LAYER]  # type: ignore[assignment]
        hidden = reduce.out_features
        with torch.no_grad():
            score = head.score.weight[0, LAYER * hidden : (LAYER + 1) * hidden]
            least = (score.abs() * reduce.weight.norm(dim=1)).argsort()[:2]
            for place, sign, begins in zip(least.tolist(), (1.0, -1.0), (FIRST, LAST), strict=True):
                reduce.weight[place], reduce.bias[place] = SHARPNESS * self.weight, SHARPNESS * (self.bias - begins)
                score[place] = sign * WEIGHT / SHARPNESS

    @staticmethod
    def erase(head: TapHead) -> None:
        """Take away what `write` wrote into a head: two features with one weight that count against each other."""
        reduce: nn.Linear = head.reduce[LAYER]  # type: ignore[assignment]
        hidden = reduce.out_features
        with torch.no_grad():
            score = head.score.weight[0, LAYER * hidden : (LAYER + 1) * hidden]
            twins = (reduce.weight[:, None] == reduce.weight[None]).all(2) & (score[:, None] == -score[None])
            score[twins.any(1)] = 0


def normalised(tokens: npt.NDArray[np.generic]) -> Tensor:
    """(N, 2D) tokens of one layer as `TapHead`'s layer norm begins: each row with mean 0 and deviation 1."""
    values = torch.from_numpy(np.asarray(tokens, np.float32))
    return functional.layer_norm(values, values.shape[1:])


def fit_traces(recoded: Stored, clean: Stored) -> Traces:
    """The direction from real pictures to the same ones decoded again, sources by the root of their number.

    Args:
        recoded: tokens of recoded real crops; their views keep the crop's row.
        clean: of training pictures as they come, among them the originals.

    Raises:
        TrainingDataError: there is one real picture alone, so that nothing says how photos differ.
    """
    at = {view.row: number for number, view in enumerate(clean.views)}
    plain = normalised(np.asarray(clean.load("tokens"))[:, LAYER])
    decoded = normalised(np.asarray(recoded.load("tokens"))[:, LAYER])
    both = torch.cat([plain, decoded])
    mean, deviation = both.mean(0), both.std(0) + 1e-3
    plain, decoded = ((values - mean) / deviation for values in (plain, decoded))
    real = plain[torch.from_numpy(clean.labels() < 0.5)]
    if len(real) < 2:
        raise TrainingDataError("The measure of decoders' traces (--autoencoder) needs two real pictures or more.")

    moved = decoded - plain[[at[view.row] for view in recoded.views]]
    _, codes, counts = np.unique([view.source for view in recoded.views], return_inverse=True, return_counts=True)
    weights = torch.from_numpy(1 / np.sqrt(counts[codes])).float()
    direction = (weights[:, None] * moved).sum(0)
    measured = real @ direction
    direction, middle = direction / measured.std(), float(measured.mean() / measured.std())
    return Traces(direction / deviation, -float((mean / deviation) @ direction) - middle)
