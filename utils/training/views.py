"""Training views: one way to look at a packed crop, and its pixels.

A view is a recipe and not pixels, so that it can be made again exactly. `planning` says which there are; `features`
stores what the ViT makes of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.faces.crops import measure_quality, network_view
from utils.training.augment import augment, draw_h264, h264, processed, smoothed
from utils.training.blending import self_blend
from utils.training.crop_set import Pack, PackedCrop
from utils.types import Floats, MediaKind, Pixels


@dataclass(frozen=True)
class View:
    """One way to look at one packed crop.

    Args:
        label: 1 fake (also for self-blends of a real crop), 0 real.
        generator: `-` for real, `self-blend`, or the generator's name.
        blended: make a self-blended fake of the crop first.
        clean: no augmentation: the crop as the product cuts it, by way of the pack's 256 pixels.
        unsteady: mask and position of the self-blend differ from frame to frame, in half of the clips its colours
            too. Frames of one clip share their seed, so that everything else stays the same through time.
        h264: coded as a video at random quality instead of as a JPEG; the frames of a clip together.
        processed: first goes through what phones and editors do to a photo, a clean one through noise reduction alone;
            see `augment`.
    """

    row: int
    label: int
    source: str
    generator: str
    seed: int
    blended: bool = False
    clean: bool = False
    unsteady: bool = False
    h264: bool = False
    processed: bool = False

    def __post_init__(self) -> None:
        if self.clean and self.h264:
            raise ValueError("a clean view is not coded again")


def render(pack: Pack, view: View) -> Pixels:
    """The pixels of a view, (CROP_PX, CROP_PX, 3) uint8; the same on every call."""
    return render_clip(pack, [view])[0]


def render_clip(pack: Pack, views: Sequence[View]) -> list[Pixels]:
    """The pixels of the views of one clip in time order: as `render` gives them, but coded as one video."""
    frames = [_uncoded(pack, view) for view in views]
    coding = draw_h264(np.random.default_rng([views[0].seed, 264]))
    return h264(frames, *coding) if views[0].h264 else frames


class Renderer:
    """The pixels of a list of views by their number; the frames of a coded clip are made together and kept.

    Args:
        views: the list; frames of a clip share their seed and lie one after another.
    """

    def __init__(self, pack: Pack, views: Sequence[View]) -> None:
        self._pack, self._views = pack, views
        self._clip_of = {i: clip for clip in clip_slices(pack, views) for i in range(clip.start, clip.stop)}
        self._held: tuple[slice, list[Pixels]] = (slice(0), [])

    def __getitem__(self, number: int) -> Pixels:
        view, clip = self._views[number], self._clip_of[number]
        if not view.h264 or self._pack.rows[view.row].kind == MediaKind.IMAGE.value:
            return render(self._pack, view)
        if clip != self._held[0]:
            self._held = clip, render_clip(self._pack, self._views[clip])
        return self._held[1][number - int(clip.start)]


def clip_slices(pack: Pack, views: Sequence[View]) -> list[slice]:
    """Where each clip in a list of views begins and ends; clips lie one after another, their frames share a seed."""
    keys = [(pack.rows[view.row].file, view.seed) for view in views]
    starts = [i for i, key in enumerate(keys) if i == 0 or key != keys[i - 1]]
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], len(keys)], strict=True)]


def _uncoded(pack: Pack, view: View) -> Pixels:
    held: PackedCrop = pack.rows[view.row]
    pixels = np.ascontiguousarray(pack.pixels[view.row])
    box = held.face_box()
    if view.blended:
        pixels = self_blend(pixels, held.marks(), *_blend_draws(view))
    editing = np.random.default_rng([view.seed, 11])
    if view.clean:
        seen = smoothed(pixels, box, held.source_px, editing) if view.processed else pixels
        return network_view(seen, box)
    if view.processed:
        pixels, box = processed(pixels, box, held.marks(), held.source_px, editing)
    rng = np.random.default_rng(view.seed)
    return augment(pixels, box, rng, as_jpeg=not view.h264)


def _blend_draws(view: View) -> tuple[np.random.Generator, np.random.Generator | None]:
    """What draws a blend's colours, and what its mask and position; None for the same."""
    steady = np.random.default_rng([view.seed, 0])
    if not view.unsteady:
        return steady, None
    moving = np.random.default_rng([view.seed, 1 + view.row])
    # in half of the unsteady clips everything flickers; in the others the colours stay, as they do in real ones
    return (moving, None) if is_coded(view.seed + 1, 0.5) else (steady, moving)


def view_quality(pack: Pack, view: View, pixels: Pixels) -> Floats:
    """The gate's quality measurements, (4,), of a rendered view."""
    held = pack.rows[view.row]
    return measure_quality(pixels, held.source_px, held.detector_score)


def is_coded(seed: int, share: float) -> bool:
    """Whether the view with this seed is among the `share` (0..1) that is coded as a video."""
    return bool(np.random.default_rng([seed, 1]).random() < share)
