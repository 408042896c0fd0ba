"""Workers and web processes are killed: everything but speed must hold, on any machine. `make chaos` runs the rest."""

from __future__ import annotations

import pytest

from benchmarks.reliability import chaos

pytest.importorskip("fcntl")


def test_nothing_accepted_is_lost_or_done_twice() -> None:
    figures = chaos.run(True)
    assert figures
    assert [figure for figure in figures if not figure.timed and not figure.reached] == []
