"""Changes that mean nothing to a person: what they do to a frame, and that each is judged like the medium itself."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.cards import IMAGE_EXPERTS, NetworkCard, expert_card
from models.ensemble_model import create_network
from models.preprocess import ExpertOutput, prepare, to_images
from utils.detection import explain
from utils.detection.closeup import (
    CHANGES,
    look_closer,
    reencode,
    rescale,
    shift,
    square_in_medium,
    to_png,
    try_changes,
)
from utils.detection.explain import explain_face, measure_faithfulness, relevance
from utils.detection.pipeline import analyse, find_faces
from utils.errors import NotFoundError
from utils.faces.crops import crop_for_networks
from utils.media import decode_media
from utils.types import Box, Face


@pytest.fixture(scope="module")
def portrait(tmp_path_factory, photo):
    path = tmp_path_factory.mktemp("stability") / "portrait.png"
    cv2.imwrite(str(path), photo[:, :, ::-1])
    return path


@pytest.fixture
def face() -> Face:
    landmarks = np.array([[10, 12], [20, 12], [15, 18], [11, 24], [19, 24]], np.float32)
    return Face(Box(4, 8, 24, 28), 0.9, landmarks)


def test_reencoding_changes_pixels_a_little_and_the_face_not_at_all(photo, face):
    changed, same = reencode(photo, face)
    assert same == face
    assert changed.shape == photo.shape
    difference = np.abs(changed.astype(int) - photo.astype(int))
    assert 0.5 < difference.mean() < 12


def test_rescaling_takes_the_face_along(photo, face):
    small, moved = rescale(photo, face)
    assert small.shape == (256, 256, 3)
    assert moved.box == Box(2, 4, 12, 14)
    assert moved.landmarks[0].tolist() == [5, 6]


def test_shift_moves_the_box_only(photo, face):
    same, moved = shift(photo, face)
    assert same is photo
    assert moved.box.x0 == pytest.approx(face.box.x0 + 1.2)
    assert (moved.box.width, moved.box.height) == pytest.approx((face.box.width, face.box.height))


def test_medium_as_it_is_gets_the_verdict_of_its_report(analyser, portrait):
    settings = analyser.settings
    media = decode_media(portrait, settings.media, settings.sandbox)
    (track,) = find_faces(media, analyser)
    told: list[float] = []
    trials = try_changes(track, media, analyser, lambda stage, done: told.append(done))
    report = analyse(portrait, analyser)
    assert [trial.code for trial in trials] == [code for code, *_ in CHANGES]
    assert trials[0].probability == pytest.approx(report.faces[0].verdict.probability, abs=1e-6)
    assert trials[0].outcome is report.faces[0].verdict.outcome
    assert not trials[0].flipped
    assert all(trial.flipped == (trial.outcome is not trials[0].outcome) for trial in trials)
    assert len({round(trial.probability, 6) for trial in trials}) > 1, "the changes reach the networks"
    assert told == sorted(told)


def test_closeup_holds_maps_and_trials_and_no_picture(analyser, portrait):
    told: list[tuple[str, float]] = []
    closeup = look_closer(portrait, analyser, 0, progress=lambda stage, done: told.append((stage, done)))
    plain = closeup.to_dict()
    assert [found["expert"] for found in plain["maps"]] == ["cnn", "resnext", "vit"]
    assert plain["trials"][0]["code"] == "as_is"
    assert plain["model_version"] == "tiny"
    x0, y0, x1, y1 = plain["square"]
    assert x1 - x0 == y1 - y0
    box = analyse(portrait, analyser).faces[0].frames[0].box
    assert x0 < box.x0
    assert y1 > box.y1
    for found in plain["maps"]:
        assert found["masks"] == 9
        assert 0 <= found["beaten"] <= 9
        assert found["faithful"] == (found["png"] is not None and found["beaten"] == 9)
    assert [done for _, done in told] == sorted(done for _, done in told)
    assert {"decode", "detect", "stability", "explain"} == {stage for stage, _ in told}


def test_unknown_face_is_told(analyser, portrait):
    with pytest.raises(NotFoundError, match="no face 7"):
        look_closer(portrait, analyser, 7)


def test_square_is_what_the_networks_see(analyser, portrait):
    media = decode_media(portrait, analyser.settings.media, analyser.settings.sandbox)
    (track,) = find_faces(media, analyser)
    seen = track.sightings[0]
    square = square_in_medium(seen, media)
    cut = media.frames[0].pixels[int(square.y0) : int(square.y1), int(square.x0) : int(square.x1)]
    network = crop_for_networks(media.frames[0].pixels, seen.face).pixels
    assert np.abs(cv2.resize(cut, (224, 224)).astype(int) - network.astype(int)).mean() < 6


def test_map_becomes_a_grey_png_of_its_own_size():
    grid = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    read = cv2.imdecode(np.frombuffer(to_png(grid), np.uint8), cv2.IMREAD_UNCHANGED)
    assert read.shape == (3, 4)
    assert (read[0, 0], read[2, 3]) == (0, 255)


# Heatmaps: what they mark, how their faithfulness is measured against chance, and that no network changes.

CARD = NetworkCard(
    name="cnn", title="t", looks_at="l", input_size=64, mean=(0, 0, 0), std=(1, 1, 1), feature_size=1, licence="-",
    source="-",
)  # fmt: skip


class BrightSpot(nn.Module):
    """Suspects nothing but the sharp red dots of one quarter of the picture: what a right map must mark is known."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Conv2d(3, 1, 8, stride=8, bias=False)
        with torch.no_grad():
            self.blocks.weight.zero_()
            self.blocks.weight[0, 0, ::2, ::2] = 1.0
            self.blocks.weight[0, 0, 1::2, 1::2] = -1.0

    def forward(self, images: Tensor) -> ExpertOutput:
        maps = self.blocks(images)[:, :, :4, :4]  # (B, 1, 4, 4): the upper left quarter
        return ExpertOutput(logit=maps.sum((1, 2, 3)), feature=maps.flatten(1))


def scorer(network):
    def score(crops, on_batch=None):
        images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float().div(255)
        if on_batch is not None:
            on_batch(1.0)
        with torch.inference_mode():
            return network(prepare(images, CARD)).logit.numpy()

    return score


def dotted_crop(everywhere: bool = True) -> np.ndarray:
    crop = np.full((64, 64, 3), 40, np.uint8)
    end = 64 if everywhere else 32
    crop[:end:2, :end:2, 0] = 220
    return crop


def test_map_marks_what_the_network_looks_at():
    grid = relevance("cnn", BrightSpot(), prepare(to_images(dotted_crop()[None]), CARD))
    assert grid.shape == (8, 8)
    assert grid[:4, :4].min() > 0
    assert grid[4:, :].max() == 0.0
    assert grid[:, 4:].max() == 0.0


def test_right_map_is_faithful_and_a_wrong_one_is_not():
    network, crop = BrightSpot(), dotted_crop()
    right = np.zeros((8, 8), np.float32)
    right[:4, :4] = 1.0
    measured = measure_faithfulness(crop, right, scorer(network))
    assert measured.beaten == explain.MASKS
    assert measured.gain > np.mean(measured.random)
    wrong = measure_faithfulness(crop, np.ascontiguousarray(right[::-1, ::-1]), scorer(network))
    assert wrong.beaten < explain.MASKS
    assert wrong.gain < measured.gain


def test_empty_map_is_never_better_than_chance_by_itself():
    measured = measure_faithfulness(dotted_crop(), np.zeros((8, 8), np.float32), scorer(BrightSpot()))
    assert len(measured.random) == explain.MASKS
    assert abs(measured.gain) < 5 * max(map(abs, measured.random))  # all masks are the same noise


def test_faithfulness_is_reproduced_and_tells_how_far_it_is():
    told: list[float] = []
    grid = np.random.default_rng(3).random((8, 8), dtype=np.float32)
    one = measure_faithfulness(dotted_crop(), grid, scorer(BrightSpot()), told.append)
    assert one == measure_faithfulness(dotted_crop(), grid, scorer(BrightSpot()))
    assert told == sorted(told)
    assert told[-1] == 1.0


@pytest.mark.parametrize("name", IMAGE_EXPERTS)
def test_every_image_expert_gives_a_map_and_stays_as_it_was(name, photo):
    torch.manual_seed(3)
    network = create_network(name, tiny=True).eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    image = prepare(to_images(photo[None, :224, 100:324]), expert_card(name, tiny=True))
    logit = network(image).logit.detach()
    grid = relevance(name, network, image)
    assert grid.ndim == 2
    assert grid.dtype == np.float32
    assert np.isfinite(grid).all()
    assert grid.min() >= 0
    torch.testing.assert_close(network(image).logit.detach(), logit)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())


def test_maps_of_a_face_are_scaled_and_named(analyser, photo):
    told: list[float] = []
    maps = explain_face(photo[:224, 100:324].copy(), analyser, lambda stage, done: told.append(done))
    assert [found.expert for found in maps] == list(IMAGE_EXPERTS)
    for found in maps:
        assert found.method == explain.METHODS[found.expert]
        assert found.grid is None or found.grid.max() == 1.0
    assert told == sorted(told)
    assert told[-1] == 1.0
