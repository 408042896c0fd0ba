"""Training views: which packed crop, seen how, with which label.

A view is a recipe and not pixels, so that it can be made again exactly. Stands between pack and stored features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from utils.faces.crops import CROP_PX, measure_quality, network_view
from utils.learning.augment import augment
from utils.learning.blending import self_blend
from utils.learning.packing import Pack, PackedCrop
from utils.types import Floats, Pixels

SEED_STEP = 100_000
"""Distance between the seeds of two runs: what is added for each unit of `--seed`."""


@dataclass(frozen=True)
class View:
    """One way to look at one packed crop.

    Args:
        row: of the pack.
        label: 1 fake (also for self-blends of a real crop), 0 real.
        source: data set.
        generator: `-` for real, `self-blend`, or the generator's name.
        seed: of the augmentation.
        blended: make a self-blended fake of the crop first.
        clean: no augmentation: the crop as the product cuts it, by way of the pack's 256 pixels.
        unsteady: the self-blend differs from frame to frame. Frames of one clip share their seed, so that everything
            else stays the same through time.
    """

    row: int
    label: int
    source: str
    generator: str
    seed: int
    blended: bool = False
    clean: bool = False
    unsteady: bool = False


def render(pack: Pack, view: View, *, size: int = CROP_PX, strength: float = 1.0) -> Pixels:
    """The pixels of a view, (size, size, 3) uint8; the same on every call. `strength`: see `augment.degrade`."""
    held: PackedCrop = pack.rows[view.row]
    pixels = np.ascontiguousarray(pack.pixels[view.row])
    if view.blended:
        blend_seed = [view.seed, 1 + view.row if view.unsteady else 0]
        pixels = self_blend(pixels, held.marks(), np.random.default_rng(blend_seed))
    if view.clean:
        return network_view(pixels, held.face_box(), size=size)
    return augment(pixels, held.face_box(), np.random.default_rng(view.seed), size=size, strength=strength)


def view_quality(pack: Pack, view: View, pixels: Pixels) -> Floats:
    """The gate's quality measurements, (4,), of a rendered view."""
    held = pack.rows[view.row]
    return measure_quality(pixels, held.source_px, held.detector_score)


def plan_views(
    rows: Sequence[PackedCrop], *, per_class: int, blends: int, seed: int, clean: bool = False, balance: bool = True
) -> list[View]:
    """Views of at most `per_class` crops per source and label, one to one where a source has both, plus self-blends.

    Sources with both labels give as many real as fake views (the rarer class is seen up to three times, with other
    augmentation); every source with real crops gives self-blends beside them, up to `blends`.

    Args:
        rows: packed crops of one split.
        per_class: most views per source and label.
        blends: most self-blends per source.
        seed: of the draw and, with the position, of each view.
        clean: see `View`; a clean crop is never repeated.
        balance: one to one within each source; False keeps the counts as they are, for validation.
    """
    rng = np.random.default_rng(seed)
    by_source: dict[str, tuple[list[PackedCrop], list[PackedCrop]]] = {}
    for row in rows:
        by_source.setdefault(_family(row.source), ([], []))[row.label].append(row)
    views: list[View] = []
    for source, (real, fake) in sorted(by_source.items()):
        both = bool(real) and bool(fake)
        count = min(per_class, max(len(real), len(fake)))
        if clean and both and balance:
            count = min(per_class, len(real), len(fake))
        for label, crops in ((0, real), (1, fake)):
            # few real ones are repeated three times at most, so that the network does not learn them by heart
            wanted = min(count, len(crops) if clean else 3 * len(crops))
            for i in _draw(rng, len(crops), wanted):
                views.append(View(crops[i].row, label, source, crops[i].generator, 0, clean=clean))
        for i in _draw(rng, len(real), min(blends, len(real))):
            views.append(View(real[i].row, 1, source, "self-blend", 0, blended=True, clean=clean))
    order = rng.permutation(len(views))
    return [replace(views[int(j)], seed=seed * 1_000_003 + k) for k, j in enumerate(order)]


def _family(source: str) -> str:
    """The many small sources of clips count as one: most hold one class only."""
    return "video" if source.startswith("video:") else source


def _draw(rng: np.random.Generator, available: int, wanted: int) -> list[int]:
    """`wanted` indices below `available`, each as often as any other, give or take one."""
    if not available:
        return []
    rounds = [rng.permutation(available) for _ in range(-(-wanted // available))]
    return [int(i) for i in np.concatenate(rounds)[:wanted]] if rounds else []


def plan_clip(frames: Sequence[PackedCrop], *, seed: int, clean: bool, blended: bool, unsteady: bool) -> list[View]:
    """Views of one clip's frames in time order, all with the same seed.

    Args:
        frames: packed crops of one clip.
        seed: of augmentation and blend.
        clean: no augmentation.
        blended: make a self-blended fake clip of it; the clip must be real.
        unsteady: see `View`.
    """
    made = "self-blend clip" if blended else frames[0].generator
    label = 1 if blended else frames[0].label
    return [View(f.row, label, f.source, made, seed, blended, clean, unsteady) for f in frames]
