"""Which experts run, as the setting [detection] experts says; read at the start of the server and of each worker."""

from __future__ import annotations

from models.cards import EXPERT_NAMES
from utils.errors import ConfigError


def read_experts(text: str) -> tuple[str, ...]:
    """The experts that a setting names.

    Args:
        text: names separated by commas, or `all`.

    Raises:
        ConfigError: it names none, or one that is unknown.
    """
    if text.strip() == "all":
        return EXPERT_NAMES
    return known_experts(tuple(part.strip() for part in text.split(",") if part.strip()))


def known_experts(names: tuple[str, ...]) -> tuple[str, ...]:
    """The same names, once it is sure that all are known.

    Raises:
        ConfigError: there are none, or one is unknown.
    """
    unknown = sorted(set(names) - set(EXPERT_NAMES))
    if unknown or not names:
        named = f"names {', '.join(unknown)}" if unknown else "names none"
        raise ConfigError(f"[detection] experts {named}; known are {', '.join(EXPERT_NAMES)}, or all.")
    return names
