"""The short form of each reliability run: everything but speed must hold, on any machine."""

from __future__ import annotations

import importlib

import pytest

pytest.importorskip("fcntl")


@pytest.mark.parametrize("name", ["load", "chaos", "abuse", "faults"])
def test_everything_but_speed_holds(name: str) -> None:
    figures = importlib.import_module(f"benchmarks.reliability.{name}").run(True)
    assert figures
    assert [figure for figure in figures if not figure.timed and not figure.reached] == []


def test_a_short_soak_loses_nothing(base_folder: object) -> None:
    figures = importlib.import_module("benchmarks.reliability.soak").run(True)
    assert [figure for figure in figures if not figure.timed and not figure.reached] == []
