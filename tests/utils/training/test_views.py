"""A view is made again from its seed, the same to the last bit; frames of a clip are coded together."""

from __future__ import annotations

import numpy as np
import pytest

from utils.faces.crops import QUALITY_NAMES
from utils.training.augment import draw_h264
from utils.training.planning import plan_clip
from utils.training.views import Renderer, View, render, render_clip, view_quality
from utils.types import MediaKind


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
    one = render(pack, view)
    assert one.shape == (224, 224, 3)
    assert one.dtype == np.uint8
    assert np.array_equal(one, render(pack, view))


def test_clean_view_ignores_the_seed_and_measures_like_the_gate(make_pack):
    pack = make_pack(pictures=1)
    one, two = (render(pack, View(0, 0, "s", "-", seed, clean=True)) for seed in (1, 2))
    assert np.array_equal(one, two)
    quality = view_quality(pack, View(0, 0, "s", "-", 1, clean=True), one)
    assert quality.shape == (len(QUALITY_NAMES),)
    assert quality[0] == pytest.approx(np.log2(100.0))


def test_a_clean_view_is_not_coded_again():
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
