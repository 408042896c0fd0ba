"""What the experts of the openvino engine compute with: by expert and by what the processor multiplies itself."""

from __future__ import annotations

from collections.abc import Mapping

from models.cards import EXPERT_NAMES
from utils.errors import ConfigError

PRECISIONS = ("int8", "bf16", "fp32")
"""From the smallest numbers to the largest."""
KEEP_PARITY = {"cnn": ("fp32",), "resnext": ("bf16", "fp32"), "vit": ("int8", "bf16", "fp32"), "lstm": ("bf16", "fp32")}
"""In which precisions an expert stays with torch in fp32: a test measures it on known faces."""


def read_precision(text: str, *, bf16: bool = False, vnni: bool = False) -> dict[str, str]:
    """What each expert computes with on a processor, from the setting [detection] precision.

    The setting names the smallest numbers allowed; an expert gets the smallest from there on that keep parity and
    that the processor has. `auto` is bf16 where the processor has it, else int8; experts that are not named get that.

    Args:
        bf16, vnni: whether the processor multiplies bf16 and int8 itself.

    Raises:
        ConfigError: it names another precision or expert.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    has = {"fp32": True, "bf16": bf16, "int8": vnni}
    fastest = "bf16" if bf16 else "int8"
    if len(parts) == 1 and "=" not in parts[0]:
        smallest = dict.fromkeys(EXPERT_NAMES, fastest if parts[0] == "auto" else parts[0])
    else:
        named = dict(part.partition("=")[::2] for part in parts)
        if not named or set(named) - set(EXPERT_NAMES):
            named = {text: ""}
        smallest = {**dict.fromkeys(EXPERT_NAMES, fastest), **named}
    if any(value not in PRECISIONS for value in smallest.values()):
        raise ConfigError(
            f"[detection] precision must be auto, int8, bf16, fp32, or one per expert such as "
            f"cnn=fp32,vit=bf16, not {text!r}."
        )
    return {
        name: next(p for p in PRECISIONS[PRECISIONS.index(smallest[name]) :] if p in KEEP_PARITY[name] and has[p])
        for name in EXPERT_NAMES
    }


def format_precisions(precisions: Mapping[str, str]) -> str:
    """As the setting is written: `cnn=fp32,vit=bf16`."""
    return ",".join(f"{name}={precisions[name]}" for name in EXPERT_NAMES if name in precisions)
