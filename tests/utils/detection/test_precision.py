"""The setting [detection] precision, read and written."""

from __future__ import annotations

import pytest

from models.cards import EXPERT_NAMES
from utils.detection.precision import PRECISIONS, format_precisions, ladder, read_precision
from utils.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "expected"), [("auto", "int8"), ("int8", "int8"), (" bf16 ", "bf16"), ("fp32", "fp32")]
)
def test_one_word_is_for_all(text, expected):
    assert read_precision(text) == dict.fromkeys(EXPERT_NAMES, expected)


def test_what_is_written_is_read_back():
    chosen = dict(zip(EXPERT_NAMES, ("fp32", "int8", "bf16", "fp32"), strict=True))
    assert read_precision(format_precisions(chosen)) == chosen


def test_unnamed_experts_may_use_the_smallest():
    assert read_precision("vit=fp32") == {**dict.fromkeys(EXPERT_NAMES, PRECISIONS[0]), "vit": "fp32"}


@pytest.mark.parametrize("text", ["int4", "", "cnn=int4", "oracle=int8", "cnn=", "int8,bf16", "cnn"])
def test_other_words_are_refused(text):
    with pytest.raises(ConfigError, match="precision must be"):
        read_precision(text)


def test_ladder_leaves_out_what_the_processor_lacks():
    assert ladder("int8", bf16=True) == ("int8", "bf16", "fp32")
    assert ladder("int8", bf16=False) == ("int8", "fp32")
    assert ladder("bf16", bf16=False) == ("fp32",)
    assert ladder("fp32", bf16=True) == ("fp32",)
