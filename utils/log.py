"""Logging set up once per process: one line per event, to standard error."""

from __future__ import annotations

import logging
import sys


def configure_logging(level: str = "info") -> None:
    """Send log records of at least `level` (debug, info, warning, error) to standard error, with time and logger."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S%z"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def get_logger(name: str) -> logging.Logger:
    """The logger of one module: `get_logger(__name__)`."""
    return logging.getLogger(name)
