"""What a name means that is left out: a source, a generator, or a family of generators."""

from __future__ import annotations

import pytest

from utils.evaluation.families import BLENDS, DRIVEN, PORTRAITS, SWAPS, family_of, is_of


@pytest.mark.parametrize(
    ("generator", "family"),
    [
        ("DFDC face swap", SWAPS), ("FF++ Deepfakes", SWAPS), ("FF++ Face2Face", DRIVEN),
        ("SadTalker audio-driven", DRIVEN), ("StyleGAN1", PORTRAITS), ("SDXL", PORTRAITS), ("self-blend", BLENDS),
        ("self-blend clip", BLENDS),
    ],
)  # fmt: skip
def test_family_follows_from_the_name(generator, family):
    assert family_of(generator) == family


def test_a_name_means_a_source_with_its_parts_a_generator_or_a_family():
    assert is_of("dfdc", "dfdc", "-")
    assert is_of("dfdc", "video:dfdc", "-")
    assert is_of("dfdc", "video:dfdc_facecrops", "DFDC face swap")
    assert not is_of("dfdc", "dfdcx", "-")
    assert is_of("SDXL", "diffusion", "SDXL")
    assert not is_of("SDXL", "diffusion", "-")
    assert is_of(DRIVEN, "video:x", "EDTalk audio/video-driven")
    assert not is_of(PORTRAITS, "ffhq", "-"), "real pictures have no generator"
