"""Training views: which packed crop, seen how, with which label.

A view is a recipe and not pixels, so that it can be made again exactly. Stands between pack and stored features.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from utils.faces.crops import CROP_PX, measure_quality, network_view
from utils.training.augment import augment, draw_h264, h264
from utils.training.blending import blend_mask, fitted, self_blend
from utils.training.crop_set import Pack, PackedCrop
from utils.training.processing import processed
from utils.types import Floats, MediaKind, Pixels

SEED_STEP = 100_000
"""Distance between the seeds of two runs: what is added for each unit of `--seed`."""

WHOLE, FACE = "whole", "face"
"""What of a crop has been redrawn; see `redrawing`."""
PORTRAIT, SWAP = "portrait", "swap"
"""The portrait that stands beside a crop, or the crop with the portrait's face; see `portraits`."""
DONATED = "donated"
"""The crop with the face of another real person; see `swapping`."""


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
        unsteady: mask and position of the self-blend differ from frame to frame, in half of the clips its colours
            too. Frames of one clip share their seed, so that everything else stays the same through time.
        h264: coded as a video at random quality instead of as a JPEG; the frames of a clip together.
        redrawn: `whole` or `face`: all of the crop, or its face only, comes from the pack's redrawn crops; `portrait`
            or `swap`: all of it, or its face only, from the pack's portraits; `donated`: its face from another crop.
        donor: row of that other crop; -1 without.
        donor_redrawn: take that crop as it was redrawn.
        processed: first goes through what phones and editors do to a photo; see `processing`.
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
    redrawn: str = ""
    donor: int = -1
    donor_redrawn: bool = False
    processed: bool = False

    def __post_init__(self) -> None:
        if self.redrawn not in ("", WHOLE, FACE, PORTRAIT, SWAP, DONATED) or (self.redrawn and self.blended):
            raise ValueError(f"a view is drawn whole or within the face, and then not blended: {self}")
        if (self.redrawn == DONATED) != (self.donor >= 0):
            raise ValueError(f"a face is donated by somebody: {self}")
        if self.clean and (self.h264 or self.processed):
            raise ValueError("a clean view is neither coded again nor processed")


def render(pack: Pack, view: View, *, size: int = CROP_PX, strength: float = 1.0) -> Pixels:
    """The pixels of a view, (size, size, 3) uint8; the same on every call. `strength`: see `augment.degrade`."""
    pixels = _uncoded(pack, view, size, strength)
    return h264([pixels], *_coding(view))[0] if view.h264 else pixels


def render_clip(pack: Pack, views: Sequence[View], *, size: int = CROP_PX) -> list[Pixels]:
    """The pixels of the views of one clip in time order: as `render` gives them, but coded as one video."""
    frames = [_uncoded(pack, view, size, 1.0) for view in views]
    return h264(frames, *_coding(views[0])) if views and views[0].h264 else frames


def _coding(view: View) -> tuple[int, str]:
    return draw_h264(np.random.default_rng([view.seed, 264]))


class Renderer:
    """The pixels of a list of views by their number; the frames of a coded clip are made together and kept.

    Args:
        pack: where the views' crops are.
        views: the list; frames of a clip share their seed and lie one after another.
    """

    def __init__(self, pack: Pack, views: Sequence[View]) -> None:
        self._pack, self._views = pack, views
        self._clip: tuple[range, list[Pixels]] = (range(0), [])

    def __getitem__(self, number: int) -> Pixels:
        view = self._views[number]
        if not view.h264 or self._pack.rows[view.row].kind == MediaKind.IMAGE.value:
            return render(self._pack, view)
        if number not in self._clip[0]:
            extent = self._extent(number)
            self._clip = extent, render_clip(self._pack, [self._views[i] for i in extent])
        return self._clip[1][number - self._clip[0].start]

    def _extent(self, number: int) -> range:
        """The numbers of the clip that a view belongs to."""
        key = self._key(number)
        first, end = number, number + 1
        while first > 0 and self._key(first - 1) == key:
            first -= 1
        while end < len(self._views) and self._key(end) == key:
            end += 1
        return range(first, end)

    def _key(self, number: int) -> tuple[str, int]:
        view = self._views[number]
        return self._pack.rows[view.row].file, view.seed


def _uncoded(pack: Pack, view: View, size: int, strength: float) -> Pixels:
    held: PackedCrop = pack.rows[view.row]
    pixels = np.ascontiguousarray(pack.pixels[view.row])
    box = held.face_box()
    if view.redrawn == PORTRAIT:
        pixels, box = pack.portraits[view.row].pixels, pack.portraits[view.row].box
    elif view.redrawn:
        pixels = _redrawn(pack, view, pixels)
    if view.blended:
        pixels = self_blend(pixels, held.marks(), *_blend_draws(view))
    if view.clean:
        return network_view(pixels, box, size=size)
    if view.processed:
        pixels, box = processed(pixels, box, held.marks(), held.source_px, np.random.default_rng([view.seed, 11]))
    rng = np.random.default_rng(view.seed)
    return augment(pixels, box, rng, size=size, strength=strength, as_jpeg=not view.h264)


def _redrawn(pack: Pack, view: View, original: Pixels) -> Pixels:
    """The redrawn crop, or the original with its face redrawn, or a portrait's in its place, under a soft mask."""
    if view.redrawn == WHOLE:
        return pack.redrawn[view.row]
    marks = pack.rows[view.row].marks()
    mask = blend_mask(original.shape[:2], marks, np.random.default_rng([view.seed, 5]))[..., None]
    mask = mask / max(float(mask.max()), 1e-6)  # the face is replaced, not mixed
    if view.redrawn == SWAP:
        portrait = pack.portraits[view.row]
        drawn = fitted(portrait.pixels, portrait.landmarks, original, marks, mask)
    elif view.redrawn == DONATED:
        crops = pack.redrawn if view.donor_redrawn else pack.pixels
        donor = np.ascontiguousarray(crops[view.donor])
        drawn = fitted(donor, pack.rows[view.donor].marks(), original, marks, mask)
    else:
        drawn = pack.redrawn[view.row].astype(np.float32)
    return np.rint(mask * drawn + (1 - mask) * original).astype(np.uint8)


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


def plan_views(
    rows: Sequence[PackedCrop],
    *,
    per_class: int,
    blends: int,
    seed: int,
    clean: bool = False,
    balance: bool = True,
    h264: float = 0.0,
    matched: bool = False,
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
        h264: share of the views, drawn without regard to the label, that are coded as a video; none of the clean ones.
        matched: nothing but the face tells the label, as far as the draw can see to it: within each source as many real
            as fake views, self-blends counted, real and fake ones of faces of the same size, and each self-blend beside
            a view of its own original. Not for clean views.
    """
    rng = np.random.default_rng(seed)
    by_source: dict[str, tuple[list[PackedCrop], list[PackedCrop]]] = {}
    for row in rows:
        by_source.setdefault(family(row.source), ([], []))[row.label].append(row)
    views: list[View] = []
    for source, (real, fake) in sorted(by_source.items()):
        if matched and real:
            views += _matched_views(rng, source, real, fake, per_class, blends)
            continue
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
    return seeded(views, rng, seed, 0.0 if clean else h264)


def seeded(views: Sequence[View], rng: np.random.Generator, seed: int, h264: float) -> list[View]:
    """Views in an order drawn at random, each with a seed of its own, and a share of them coded as a video."""
    shuffled = (views[int(j)] for j in rng.permutation(len(views)))
    own = [replace(view, seed=seed * 1_000_003 + k) for k, view in enumerate(shuffled)]
    return [replace(view, h264=is_coded(view.seed, h264)) for view in own]


def plan_balanced(
    rows: Sequence[PackedCrop], count: int, *, seed: int, blended: bool = False, h264: float = 0.0, most: int = 6
) -> list[View]:
    """About `count` processed views, each source by the root of its size: neither many tiny ones nor a large one rule.

    Within a source real and fake alike, where it has both; within these evenly over generators, and within a generator
    over groups (people, clips).

    Args:
        rows: packed crops of one split.
        count: of all views; fewer, where sources are too small.
        seed: of the draw and, with the position, of each view.
        blended: self-blends of the real crops instead, and nothing else.
        h264: share of the views, drawn without regard to the label, that are coded as a video.
        most: views of one crop.
    """
    rng = np.random.default_rng(seed)
    by_source: dict[str, list[PackedCrop]] = {}
    for row in rows:
        if not (blended and row.label):
            by_source.setdefault(row.source, []).append(row)
    roots = sum(len(own) ** 0.5 for own in by_source.values())
    views: list[View] = []
    for source, own in sorted(by_source.items()):
        parts = [part for label in (0, 1) if (part := [row for row in own if row.label == label])]
        for part in parts:
            for crop in _drawn_evenly(part, count * len(own) ** 0.5 / roots / len(parts), most, rng):
                made, label = ("self-blend", 1) if blended else (crop.generator, crop.label)
                views.append(View(crop.row, label, family(source), made, 0, blended=blended, processed=True))
    return seeded(views, rng, seed, h264)


def _drawn_evenly(crops: Sequence[PackedCrop], count: float, most: int, rng: np.random.Generator) -> list[PackedCrop]:
    """About `count` crops, evenly over generators and within them over groups, none more than `most` times."""
    of_generator: dict[str, dict[str, int]] = {}
    for crop in crops:
        groups = of_generator.setdefault(crop.generator, {})
        groups[crop.group] = groups.get(crop.group, 0) + 1
    shares = np.array(
        [1 / (len(of_generator[c.generator]) * of_generator[c.generator][c.group]) for c in crops], np.float64
    )
    wanted = np.zeros(len(crops))
    for _ in range(8):  # what a crop may not give, the others give
        free = wanted < most
        if not free.any():
            break
        wanted[free] += (count - wanted.sum()) * shares[free] / shares[free].sum()
        wanted = np.minimum(wanted, most)
    times = np.floor(wanted + rng.random(len(crops))).astype(int)
    return [crop for crop, number in zip(crops, times, strict=True) for _ in range(min(number, most))]


SIZE_BINS = 8
"""Classes of face size, equally full, within which real and fake ones are drawn in equal numbers."""


def _matched_views(
    rng: np.random.Generator,
    source: str,
    real: Sequence[PackedCrop],
    fake: Sequence[PackedCrop],
    per_class: int,
    blends: int,
) -> list[View]:
    """As many real as fake views of one source; see `plan_views`."""
    views = []
    for real_part, fake_part, count in _size_quotas(real, fake, min(per_class, max(len(real), len(fake)))):
        for label, crops in ((0, real_part), (1, fake_part)):
            views += [View(crops[i].row, label, source, crops[i].generator, 0) for i in _draw(rng, len(crops), count)]
    # where there are no fakes, blends are all there is to tell from real ones
    wanted = blends if fake else max(blends, per_class // 2)
    for i in _draw(rng, len(real), min(wanted, len(real))) if blends else ():
        views.append(View(real[i].row, 0, source, "-", 0))
        views.append(View(real[i].row, 1, source, "self-blend", 0, blended=True))
    return views


def _size_quotas(
    real: Sequence[PackedCrop], fake: Sequence[PackedCrop], count: int
) -> list[tuple[list[PackedCrop], list[PackedCrop], int]]:
    """Real and fake crops of like size, and how many of each to take; `count` in all, none of them more than thrice."""
    if not fake:
        return []
    sizes = np.array([crop.source_px for crop in (*real, *fake)])
    inner = np.unique(np.quantile(sizes, np.linspace(0, 1, SIZE_BINS + 1)[1:-1]))
    bins = np.searchsorted(inner, sizes, side="right")
    parts = [
        ([c for c, b in zip(real, bins, strict=False) if b == number],
         [c for c, b in zip(fake, bins[len(real) :], strict=True) if b == number])
        for number in range(len(inner) + 1)
    ]  # fmt: skip
    shared = [min(len(of_real), len(of_fake)) for of_real, of_fake in parts]
    if not sum(shared):  # no size that both have: better unmatched than nothing
        return [(list(real), list(fake), min(count, 3 * len(real), 3 * len(fake)))]
    return [(a, b, min(round(count * s / sum(shared)), 3 * s)) for (a, b), s in zip(parts, shared, strict=True) if s]


def is_coded(seed: int, share: float) -> bool:
    """Whether the view with this seed is among the `share` (0..1) that is coded as a video."""
    return bool(np.random.default_rng([seed, 1]).random() < share)


def family(source: str) -> str:
    """The many small sources of clips count as one: most hold one class only."""
    return "video" if source.startswith("video:") else source


def shuffled_sources(rows: Iterable[PackedCrop], rng: np.random.Generator) -> Iterator[list[PackedCrop]]:
    """The crops of each source in random order, the sources by name; the many small ones of clips count as one."""
    of_source: dict[str, list[PackedCrop]] = {}
    for row in rows:
        of_source.setdefault(family(row.source), []).append(row)
    for _, own in sorted(of_source.items()):
        yield [own[int(i)] for i in rng.permutation(len(own))]


def _draw(rng: np.random.Generator, available: int, wanted: int) -> list[int]:
    """`wanted` indices below `available`, each as often as any other, give or take one."""
    if not available:
        return []
    rounds = [rng.permutation(available) for _ in range(-(-wanted // available))]
    return [int(i) for i in np.concatenate(rounds)[:wanted]] if rounds else []


def plan_clip(
    frames: Sequence[PackedCrop], *, seed: int, clean: bool, blended: bool, unsteady: bool, h264: bool = False
) -> list[View]:
    """Views of one clip's frames in time order, all with the same seed.

    Args:
        frames: packed crops of one clip.
        seed: of augmentation and blend.
        clean: no augmentation.
        blended: make a self-blended fake clip of it; the clip must be real.
        unsteady: see `View`.
        h264: see `View`.
    """
    made = "self-blend clip" if blended else frames[0].generator
    label = 1 if blended else frames[0].label
    return [View(f.row, label, f.source, made, seed, blended, clean, unsteady, h264) for f in frames]
