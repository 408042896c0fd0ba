"""What the experts of the openvino engine compute with: the setting, read and checked."""

from __future__ import annotations

from collections.abc import Mapping

from models.cards import EXPERT_NAMES
from utils.errors import ConfigError

PRECISIONS = ("int8", "bf16", "fp32")
"""From the smallest numbers to the largest; each is tried where the one before it misses parity."""


def read_precision(text: str, *, bf16: bool = False) -> dict[str, str]:
    """The smallest precision allowed to each expert, from the setting [detection] precision.

    `auto` begins with bf16 where the processor has it, for there it is the faster one (docs/performance.md), and with
    int8 elsewhere.

    Args:
        text: the setting.
        bf16: whether the processor has it.

    Raises:
        ConfigError: it names another precision or expert.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if len(parts) == 1 and "=" not in parts[0]:
        everywhere = ("bf16" if bf16 else "int8") if parts[0] == "auto" else parts[0]
        chosen = dict.fromkeys(EXPERT_NAMES, everywhere)
    else:
        chosen = dict.fromkeys(EXPERT_NAMES, PRECISIONS[0])
        named = dict(part.partition("=")[::2] for part in parts)
        if not named or set(named) - set(EXPERT_NAMES):
            named = {text: ""}
        chosen.update(named)
    wrong = sorted({value for value in chosen.values() if value not in PRECISIONS})
    if wrong:
        raise ConfigError(
            f"[detection] precision must be auto, one of {', '.join(PRECISIONS)}, or one per expert such as "
            f"cnn=int8,vit=bf16, not {text!r}."
        )
    return chosen


def ladder(smallest: str, *, bf16: bool) -> tuple[str, ...]:
    """The precisions to try, the smallest first; bf16 only where the processor has it."""
    return tuple(p for p in PRECISIONS[PRECISIONS.index(smallest) :] if bf16 or p != "bf16")


def format_precisions(precisions: Mapping[str, str]) -> str:
    """As the setting is written: `cnn=int8,vit=bf16`."""
    return ",".join(f"{name}={precisions[name]}" for name in EXPERT_NAMES if name in precisions)
