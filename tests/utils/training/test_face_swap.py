"""Swapped faces: who gives a face to whom, what of the crop changes, and what stands beside it."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest

from utils.training.blending import TEMPLATE_MARKS, fitted
from utils.training.face_swap import face_shape, plan_swaps
from utils.training.views import DONATED, View, render
from utils.types import MediaKind


@pytest.fixture
def pack(make_pack):
    return make_pack(24, 8)


def real_rows(pack):
    return [row for row in pack.rows if row.split == "train" and not row.label]


def test_each_crop_gives_two_views_and_its_donor_is_another_person_of_the_source(pack):
    rows = real_rows(pack)
    views = plan_swaps(pack, pack.rows, 99, seed=1)
    assert Counter(view.label for view in views)[0] == Counter(view.label for view in views)[1] > 0
    for view in views:
        assert not pack.rows[view.row].label
        assert (view.redrawn == DONATED) == bool(view.label)
        if view.label:
            donor, own = pack.rows[view.donor], pack.rows[view.row]
            assert not donor.label
            assert donor.group != own.group
            assert donor.source == own.source
    few = plan_swaps(pack, rows, 2, seed=1)
    assert Counter(view.source for view in few if view.label) == {"shots": 2, "video": 2}
    assert few == plan_swaps(pack, rows, 2, seed=1)
    assert len({view.seed for view in views}) == len(views)


def test_a_donor_is_of_the_same_source_also_among_clips_and_landmarks_on_one_spot_are_passed_over(pack):
    frames = [row for row in real_rows(pack) if row.kind == MediaKind.VIDEO.value]
    others = [dataclasses.replace(row, row=i, source=f"video:{i % 2}", group=f"g{i}") for i, row in enumerate(frames)]
    swaps = [view for view in plan_swaps(pack, others, 99, seed=1) if view.label]
    assert len(swaps) == len(others)
    assert all(view.row % 2 == view.donor % 2 for view in swaps)
    flat = dataclasses.replace(others[0], landmarks=((9.0, 9.0),) * 5)
    left = [view for view in plan_swaps(pack, [flat, *others[1:]], 99, seed=1) if view.label]
    assert flat.row not in {view.row for view in left} | {view.donor for view in left}
    assert len(left) == len(others) - 1


def test_nobody_swaps_with_himself(pack):
    alone = [dataclasses.replace(row, group="one") for row in real_rows(pack) if row.kind == MediaKind.IMAGE.value]
    assert plan_swaps(pack, alone, 99, seed=1) == []


def test_a_face_turned_alike_is_preferred(pack):
    """Of many people who look left and many who look right, those who look the same way are taken."""
    turned = []
    for number, row in enumerate(real_rows(pack)):
        side = 1 if number % 2 else -1
        marks = TEMPLATE_MARKS.copy()
        marks[2, 0] += 0.3 * side
        own = tuple(map(tuple, (marks * 40 + 100).tolist()))
        turned.append(dataclasses.replace(row, landmarks=own, source="shots", kind="image", group=f"g{number}"))
    side_of = {row.row: np.sign(row.marks()[2, 0] - 100) for row in turned}
    swaps = [view for view in plan_swaps(pack, turned, 99, seed=2) if view.label]
    assert len(swaps) == len(turned)
    assert all(side_of[view.row] == side_of[view.donor] for view in swaps)


def test_shape_is_the_same_wherever_the_face_lies():
    marks = TEMPLATE_MARKS * 37 + np.array([100, 80], np.float32)
    angle = np.deg2rad(20)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32)
    assert face_shape(marks) == pytest.approx(np.zeros(10), abs=1e-3)
    assert face_shape(marks @ turn.T) == pytest.approx(np.zeros(10), abs=1e-3)


def test_only_the_face_changes_and_it_takes_the_crops_colours(pack):
    own, donor = real_rows(pack)[:2]
    tinted = pack.pixels.copy()
    tinted[donor.row] = np.clip(tinted[donor.row].astype(int) // 2 + [90, 0, 30], 0, 255)
    pack = dataclasses.replace(pack, pixels=tinted)
    plain = render(pack, View(own.row, 0, "shots", "-", 3, clean=True)).astype(int)
    view = View(own.row, 1, "shots", "swapped", 3, clean=True, redrawn=DONATED, donor=donor.row)
    swapped = render(pack, view).astype(int)
    changed = np.abs(swapped - plain).max(2) > 2
    assert 0.02 < changed.mean() < 0.9
    assert not any(changed[y, x] for y in (0, -1) for x in (0, -1))
    inside = changed.nonzero()
    assert np.abs(swapped[inside].mean(0) - plain[inside].mean(0)).max() < 12, "the donor's tint is taken off"


def test_redrawn_donor_gives_its_redrawn_face(pack):
    pack = dataclasses.replace(pack, redrawn={row.row: 255 - pack.pixels[row.row] for row in real_rows(pack)})
    swaps = [view for view in plan_swaps(pack, pack.rows, 99, seed=1) if view.label]
    assert {view.donor_redrawn for view in swaps} == {False, True}
    drawn = next(view for view in swaps if view.donor_redrawn)
    assert not np.array_equal(render(pack, drawn), render(pack, dataclasses.replace(drawn, donor_redrawn=False)))


def test_view_without_a_donor_is_refused():
    with pytest.raises(ValueError, match="donated by somebody"):
        View(0, 1, "shots", "swapped", 3, redrawn=DONATED)
    with pytest.raises(ValueError, match="donated by somebody"):
        View(0, 1, "shots", "swapped", 3, donor=4)


def test_landmarks_on_one_spot_cannot_be_fitted():
    grey = np.full((64, 64, 3), 90, np.uint8)
    mask = np.ones((64, 64, 1), np.float32)
    with pytest.raises(ValueError, match="plane"):
        fitted(grey, np.full((5, 2), 20, np.float32), grey, TEMPLATE_MARKS * 10 + 30, mask)
