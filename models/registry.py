"""Networks by name, each with a card: the preprocessing that belongs to its weights, its licence and its source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
EXPERT_NAMES = ("cnn", "resnext", "vit", "lstm")
"""Order of the experts in every (B, E) tensor."""


@dataclass(frozen=True, kw_only=True)
class NetworkCard:
    """What must be known of a network to use its weights rightly.

    Args:
        name: in the registry.
        title: for people.
        looks_at: what it examines, a short phrase.
        input_size: side of the square input, pixels; for the LSTM the length of its sequence.
        mean: subtracted per colour channel from 0..1 pixels.
        std: divided by per colour channel.
        feature_size: D of `ExpertOutput.feature`.
        licence: of architecture and base weights.
        source: paper, and where base weights come from.
    """

    name: str
    title: str
    looks_at: str
    input_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    feature_size: int
    licence: str
    source: str


Builder = Callable[[bool], nn.Module]
_B = TypeVar("_B", bound=Builder)
_REGISTRY: dict[str, tuple[NetworkCard, NetworkCard, Builder]] = {}


def register_network(card: NetworkCard, tiny_card: NetworkCard) -> Callable[[_B], _B]:
    """Make the decorated builder `build(tiny) -> nn.Module` known under the card's name.

    Raises:
        ValueError: the name is taken.
    """

    def add(builder: _B) -> _B:
        if card.name in _REGISTRY:
            raise ValueError(f"the network {card.name} is registered twice")
        _REGISTRY[card.name] = (card, tiny_card, builder)
        return builder

    return add


def create_network(name: str, *, tiny: bool = False) -> nn.Module:
    """A new network with fresh parameters; `tiny` gives a variant that runs in milliseconds, for tests.

    Raises:
        KeyError: no network has this name.
    """
    _, _, builder = _lookup(name)
    return builder(tiny)


def get_card(name: str, *, tiny: bool = False) -> NetworkCard:
    """The card of a network (of its tiny variant).

    Raises:
        KeyError: no network has this name.
    """
    card, tiny_card, _ = _lookup(name)
    return tiny_card if tiny else card


def _lookup(name: str) -> tuple[NetworkCard, NetworkCard, Builder]:
    if name not in _REGISTRY:
        raise KeyError(f"no network is called {name}; known are {', '.join(sorted(_REGISTRY))}")
    return _REGISTRY[name]


def prepare(images: Tensor, card: NetworkCard) -> Tensor:
    """Resize and normalise face crops for one network.

    Args:
        images: (B, 3, H, W) float32, RGB, 0..1.
        card: of the network.

    Returns:
        (B, 3, S, S) float32 with S the card's input size.
    """
    if images.shape[-1] != card.input_size:
        size = (card.input_size, card.input_size)
        images = functional.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
    mean = torch.tensor(card.mean, dtype=images.dtype, device=images.device).view(3, 1, 1)
    std = torch.tensor(card.std, dtype=images.dtype, device=images.device).view(3, 1, 1)
    return (images - mean) / std
