"""Kinds of manipulation: which generators belong together, and which crops a name means when it is left out."""

from __future__ import annotations

from utils.evaluation.datasets import CLIPS_PREFIX

SWAPS, DRIVEN, PORTRAITS, BLENDS = "swaps", "driven heads", "portraits", "self-blends"
_SWAPS = ("swap", "deepfakes", "fsgan", "simswap", "dfdc")
_DRIVEN = (
    "driven", "face2face", "neuraltextures", "reenact", "talk", "vasa", "emo", "aniportrait", "styleheat", "fomm",
    "first order", "liveportrait", "hallo",
)  # fmt: skip
_BLENDS = ("self-blend",)


def family_of(generator: str) -> str:
    """The family of a generator by its name: faces swapped in, heads driven, self-blends, or made from nothing."""
    name = generator.lower()
    for family, words in ((BLENDS, _BLENDS), (SWAPS, _SWAPS), (DRIVEN, _DRIVEN)):
        if any(word in name for word in words):
            return family
    return PORTRAITS


def is_of(name: str, source: str, generator: str) -> bool:
    """Whether a crop is meant by a name: of its source, of its generator, or of its generator's family.

    A source of clips is known with and without `video:`; `dfdc` also means `dfdc_crops`. Real crops have no generator
    (`-`) and so no family.
    """
    plain = source.removeprefix(CLIPS_PREFIX)
    if name in (source, plain) or plain.startswith(f"{name}_"):
        return True
    return generator != "-" and name in (generator, family_of(generator))
