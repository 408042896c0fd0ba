"""How much work a file may be, counted in steps and not in seconds, so that every machine answers the same."""

from __future__ import annotations

PICTURE_STEPS = 200_000
FILM_STEPS = 1_000_000
"""Two hours at 25 frames per second with sound are fewer; a step takes some microseconds."""


class Effort:
    """The steps that reading one file may still take.

    Args:
        steps: in all.
    """

    def __init__(self, steps: int = FILM_STEPS) -> None:
        self._left = steps

    def spend(self, steps: int = 1) -> None:
        """Note steps before they are taken; ValueError when they are too many."""
        self._left -= steps
        if self._left < 0:
            raise ValueError("too much work")
