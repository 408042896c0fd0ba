"""The readers of foreign bytes under repeatable mutations: the short form of `make fuzz`."""

from __future__ import annotations

import pytest

from benchmarks.fuzz.engine import fuzz, inputs
from benchmarks.fuzz.targets import TARGETS, Target

COUNTS = {"sniff": 600, "child_protocol": 3000, "feedback_reader": 1500, "config_reader": 250, "report_renderer": 200}


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_surprises_a_reader(name: str) -> None:
    count = COUNTS.get(name, 400)
    assert fuzz(TARGETS[name], count=count) == count


def test_the_fuzzer_finds_what_is_wrong() -> None:
    def careless(data: bytes) -> None:
        if b"\x00" in data:
            raise KeyError(data)

    with pytest.raises(AssertionError, match="KeyError"):
        fuzz(Target(careless, lambda: [b"healthy"]), count=5000)


def test_the_same_seed_gives_the_same_inputs() -> None:
    first, second = (inputs([b"one", b"two"], 5) for _ in range(2))
    assert [next(first) for _ in range(200)] == [next(second) for _ in range(200)]
