"""What the graphs of the networks take is what torch prepares for its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.cards import IMAGE_EXPERTS, expert_card
from models.preprocess import prepare
from utils.detection.openvino_engine import InputMaker, resize_matrix


@pytest.mark.parametrize(("side", "tiny"), [(224, False), (96, False), (40, True), (17, True)])
def test_inputs_are_those_of_torch(side, tiny):
    crops = np.random.default_rng(side).integers(0, 256, (3, side, side, 3), dtype=np.uint8)
    cards = [expert_card(name, tiny=tiny) for name in IMAGE_EXPERTS]
    images = torch.from_numpy(crops).permute(0, 3, 1, 2).float().div(255)
    made = InputMaker(cards, threads=1).make(crops)
    for card in cards:
        assert np.allclose(made[card.name], prepare(images, card).numpy(), atol=2e-5), card.name


@pytest.mark.parametrize(("source", "target"), [(224, 96), (224, 112), (32, 224), (7, 7)])
def test_resizing_keeps_the_mean_of_a_flat_side(source, target):
    matrix = resize_matrix(source, target)
    assert matrix.shape == (target, source)
    assert np.allclose(matrix.sum(1), 1, atol=1e-6)
    assert (matrix >= 0).all()


def test_no_network_takes_no_input():
    assert InputMaker([]).make(np.zeros((1, 8, 8, 3), np.uint8)) == {}
