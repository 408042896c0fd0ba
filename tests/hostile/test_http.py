"""Malformed files through a real server, its queue, a worker process and the confined child, over HTTP.

The short form of `make reliability-media`; the worker leaves the networks out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from benchmarks.reliability.media import malformed
from tests.hostile.attacks import seeds
from tests.hostile.attacks.disguises import disguises
from tests.hostile.attacks.mutations import mutations

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the server's worker is ended by signals")


def files() -> Iterator[tuple[str, bytes]]:
    """Every seed itself, disguised texts, and one mutation of each of so many in the long series."""
    everything = seeds.pictures() | seeds.clips()
    yield from list(everything.items())[::4]
    yield from list(disguises("/etc/passwd", "http://127.0.0.1:9/").items())[::3]
    long_series = mutations(everything, 5000)
    yield from (item for number, item in enumerate(long_series) if number % 251 == 0)


def test_each_ends_in_a_report_or_a_coded_error(capsys: pytest.CaptureFixture[str]) -> None:
    figures = malformed(files())
    assert [figure.value for figure in figures if not figure.reached and not figure.timed] == []
    assert figures[0].value.startswith("0 of ")
    assert "no_face" in figures[-1].value  # the healthy ones
    assert "unsupported_media" in figures[-1].value
    assert "media_corrupt" in figures[-1].value
    capsys.readouterr()
