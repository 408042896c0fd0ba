"""Networks by name, each with a card: the preprocessing that belongs to its weights, its licence and its source."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.cards import EXPERT_NAMES, NetworkCard

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
    if name in EXPERT_NAMES and name not in _REGISTRY:
        import_module("models.ensemble_model")  # our networks register themselves
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


__all__ = ["EXPERT_NAMES", "Builder", "NetworkCard", "create_network", "get_card", "prepare", "register_network"]
