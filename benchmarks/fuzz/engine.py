"""A fuzzer of our own, repeatable and without further packages: mutated seeds until a number or a time is reached."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

from benchmarks.fuzz.targets import Target
from tests.hostile.attacks.mutations import EXTREMES, drop, fill, flip_bits, insert, repeat, swap

TOKENS = (
    b"{", b"}", b"[", b"]", b'"', b":", b",", b"null", b"NaN", b"Infinity", b"-1", b"1e999", b"\\u0000", b"\\ud800",
    b"\x00", b"\xff", b"\r\n", b"\n", b"=", b"%", b"${x}", b"<script>", b"../", b"[DEFAULT]", b"9" * 5000, b"--b",
    b"\xef\xbb\xbf", b"\xe2\x80\xae", b"TTMEDIA1",
)  # fmt: skip
"""Pieces that mean something to one of the readers."""

MAX_BYTES = 100_000


def inputs(starts: list[bytes], seed: int) -> Iterator[bytes]:
    """The seeds themselves, then endless mutations of them and of what came before."""
    yield b""
    yield from starts
    rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
    pool = [start for start in starts if start]
    while True:
        data = rng.choice(pool)
        for _ in range(rng.choice((1, 1, 2, 3, 6))):
            data = _change(rng, data)[:MAX_BYTES] or b"\x00"
        yield data
        if rng.random() < 0.02:  # go on from here
            pool.append(data)
            del pool[len(starts) + 50 : len(starts) + 51]


def _change(rng: random.Random, data: bytes) -> bytes:
    kind = rng.randrange(10)
    at = rng.randrange(len(data) + 1)
    if kind == 0:
        return data[:at]
    if kind in (1, 2):
        return data[:at] + rng.choice(TOKENS) + data[at:]
    if kind == 3:
        word = rng.choice(EXTREMES).to_bytes(4, rng.choice(("big", "little")))
        return data[:at] + word + data[at + 4 :]
    return rng.choice((flip_bits, fill, drop, insert, repeat, swap))(rng, data)


def fuzz(target: Target, *, count: int | None = None, seconds: float | None = None, seed: int = 1) -> int:
    """Give a reader mutated inputs.

    Args:
        count: how many inputs; None for no limit.
        seconds: how long; None for no limit.

    Returns:
        How many inputs it was given.

    Raises:
        AssertionError: an input led to an exception that the reader should not raise; the message holds the input.
    """
    until = None if seconds is None else time.monotonic() + seconds
    done = 0
    for data in inputs(target.seeds(), seed):
        if (count is not None and done >= count) or (until is not None and time.monotonic() >= until):
            break
        try:
            target.run(data)
        except Exception as error:
            raise AssertionError(f"input {done} of seed {seed}, {data[:300]!r}: {type(error).__name__}") from error
        done += 1
    return done
