"""Heatmaps: what they mark, how their faithfulness is measured against chance, and that no network changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.cards import IMAGE_EXPERTS, NetworkCard, expert_card
from models.ensemble_model import create_network
from models.preprocess import ExpertOutput, prepare, to_images
from utils.detection import explain
from utils.detection.explain import explain_face, measure_faithfulness, relevance

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
