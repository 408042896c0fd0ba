"""Which views are planned: classes in balance, rare ones repeated, clips with one seed; a view is repeatable."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from utils.faces.crops import QUALITY_NAMES
from utils.training.augment import draw_h264
from utils.training.crop_set import PackedCrop
from utils.training.views import Renderer, View, plan_clip, plan_views, render, render_clip, view_quality
from utils.types import MediaKind


def row(number: int, label: int, source: str = "s") -> PackedCrop:
    return PackedCrop(
        row=number, file=f"{number}.png", frame=0, kind="image", label=label, source=source, group=str(number),
        generator="gan" if label else "-", split="train", box=(40.0, 30.0, 210.0, 230.0), landmarks=((0.0, 0.0),) * 5,
        source_px=200.0, detector_score=0.9, picture_px=256,
    )  # fmt: skip


def rows(real: int, fake: int, source: str = "s", start: int = 0) -> list[PackedCrop]:
    return [row(start + i, int(i >= real), source) for i in range(real + fake)]


def test_rare_class_is_repeated_up_to_the_common_one():
    views = plan_views(rows(10, 25), per_class=100, blends=0, seed=1)
    assert Counter(v.label for v in views) == {0: 25, 1: 25}
    times = Counter(v.row for v in views if v.label == 0).values()
    assert sorted(set(times)) == [2, 3]


def test_nothing_is_repeated_more_than_three_times():
    views = plan_views(rows(4, 100), per_class=1000, blends=0, seed=1)
    assert Counter(v.label for v in views) == {0: 12, 1: 100}


def test_per_class_and_blends_are_upper_bounds_per_source():
    views = plan_views([*rows(30, 30), *rows(50, 0, "t", start=60)], per_class=20, blends=5, seed=1)
    kinds = Counter((v.source, v.label, v.blended) for v in views)
    assert kinds == {
        ("s", 0, False): 20, ("s", 1, False): 20, ("s", 1, True): 5,
        ("t", 0, False): 20, ("t", 1, True): 5,
    }  # fmt: skip
    assert {v.generator for v in views if v.blended} == {"self-blend"}
    assert all(v.row < 30 or v.row >= 60 for v in views if v.blended), "only real crops are blended"


def test_clean_views_are_balanced_by_leaving_out_and_never_repeated():
    views = plan_views(rows(8, 20), per_class=100, blends=0, seed=1, clean=True)
    assert Counter(v.label for v in views) == {0: 8, 1: 8}
    assert max(Counter(v.row for v in views).values()) == 1
    everything = plan_views(rows(8, 20), per_class=100, blends=0, seed=1, clean=True, balance=False)
    assert Counter(v.label for v in everything) == {0: 8, 1: 20}


def test_sources_of_clips_are_balanced_together():
    mixed = [*rows(6, 0, "video:a"), *rows(0, 6, "video:b", start=6)]
    assert {v.source for v in plan_views(mixed, per_class=4, blends=0, seed=1)} == {"video"}


def test_plan_follows_from_its_seed_and_seeds_are_unique():
    one, two, other = (plan_views(rows(9, 9), per_class=9, blends=3, seed=s) for s in (1, 1, 2))
    assert one == two != other
    assert len({v.seed for v in [*one, *other]}) == len(one) + len(other)


@pytest.mark.parametrize("blended", [False, True])
def test_clip_views_share_their_seed_and_keep_time_order(blended):
    frames = rows(5, 0)
    views = plan_clip(frames, seed=77, clean=False, blended=blended, unsteady=blended)
    assert [v.row for v in views] == [f.row for f in frames]
    assert {v.seed for v in views} == {77}
    assert {v.label for v in views} == {int(blended)}


def test_steady_blend_is_the_same_in_each_frame_and_unsteady_is_not(make_pack):
    pack = make_pack(pictures=0, clips=1, frames=3)
    frames = pack.select("train", MediaKind.VIDEO)
    steady = [render(pack, v) for v in plan_clip(frames, seed=3, clean=True, blended=True, unsteady=False)]
    unsteady = [render(pack, v) for v in plan_clip(frames, seed=3, clean=True, blended=True, unsteady=True)]
    assert np.array_equal(steady[0], steady[1])
    assert np.array_equal(steady[1], steady[2])
    assert not np.array_equal(unsteady[0], unsteady[1])


@pytest.mark.parametrize("view", [View(0, 0, "s", "-", 5), View(0, 1, "s", "self-blend", 5, blended=True)])
def test_view_can_be_made_again(make_pack, view):
    pack = make_pack(pictures=1)
    one = render(pack, view, size=64)
    assert one.shape == (64, 64, 3)
    assert one.dtype == np.uint8
    assert np.array_equal(one, render(pack, view, size=64))


def test_clean_view_ignores_the_seed_and_measures_like_the_gate(make_pack):
    pack = make_pack(pictures=1)
    one, two = (render(pack, View(0, 0, "s", "-", seed, clean=True)) for seed in (1, 2))
    assert np.array_equal(one, two)
    quality = view_quality(pack, View(0, 0, "s", "-", 1, clean=True), one)
    assert quality.shape == (len(QUALITY_NAMES),)
    assert quality[0] == pytest.approx(np.log2(100.0))


def test_coding_as_a_video_is_drawn_without_regard_to_the_label():
    views = plan_views(rows(600, 600), per_class=600, blends=300, seed=3, h264=0.4)
    shares = [np.mean([v.h264 for v in views if v.label == label]) for label in (0, 1)]
    assert shares == [pytest.approx(0.4, abs=0.06)] * 2
    assert not any(v.h264 for v in plan_views(rows(9, 9), per_class=9, blends=0, seed=3, clean=True, h264=0.9))
    with pytest.raises(ValueError, match="clean"):
        View(0, 0, "s", "-", 1, clean=True, h264=True)


def test_coded_view_has_lost_detail_and_can_be_made_again(make_pack):
    pack = make_pack(pictures=1)
    seed = next(s for s in range(99) if draw_h264(np.random.default_rng([s, 264]))[0] > 34)
    view = View(0, 0, "s", "-", seed, h264=True)
    coded = render(pack, view)
    assert np.array_equal(coded, render(pack, view))
    assert np.array_equal(coded, Renderer(pack, [view])[0])
    plain = render(pack, View(0, 0, "s", "-", seed))
    assert not np.array_equal(coded, plain)


def test_frames_of_a_clip_are_coded_together_wherever_one_begins(make_pack):
    pack = make_pack(pictures=0, clips=2, frames=5)
    clips = [clip for _, clip in sorted(pack.videos("train").items())]
    views = [v for k, clip in enumerate(clips) for v in plan_clip(clip, seed=40 + k, clean=False, blended=False,
             unsteady=False, h264=True)]  # fmt: skip
    whole = [frame for k in range(2) for frame in render_clip(pack, views[5 * k : 5 * k + 5])]
    renderer = Renderer(pack, views)
    assert all(np.array_equal(renderer[i], whole[i]) for i in range(10))
    assert np.array_equal(Renderer(pack, views)[7], whole[7]), "a stopped extraction may begin within a clip"
    assert not np.array_equal(render(pack, views[7]), whole[7]), "alone it would be a key frame"
