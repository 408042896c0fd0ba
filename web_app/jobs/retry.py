"""What keeps a worker alive and what ends it on purpose: trouble beside a job is logged, and memory has a limit."""

from __future__ import annotations

import contextlib
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from utils.log import get_logger

EXIT_RECYCLED = 75  # EX_TEMPFAIL of sysexits.h: a fresh worker shall take over, which is no failure
EXIT_STUCK = 76
_STATM = Path("/proc/self/statm")

log = get_logger(__name__)


@contextlib.contextmanager
def log_and_continue(what: str) -> Iterator[None]:
    """Log what went wrong beside a job and go on: the next beat or look tries again, and the worker lives."""
    try:
        yield
    except SQLAlchemyError as error:
        log.warning("the worker could not %s: %s", what, database_reason(error))
    except OSError as error:
        log.warning("the worker could not %s: %s", what, error)
    except Exception:
        log.exception("the worker could not %s, for a reason that nobody foresaw", what)


def database_reason(error: SQLAlchemyError) -> str:
    """Why the database refused, without the statement and its values, which may be a user's words."""
    return str(error.orig) if isinstance(error, DBAPIError) else type(error).__name__


def resident_mb() -> float:
    """Memory of this process in MB (10^6 bytes): at present where the system tells, the most so far elsewhere."""
    try:
        pages = int(_STATM.read_text().split()[1])
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 1e6 if sys.platform == "darwin" else peak / 1e3
    return pages * resource.getpagesize() / 1e6


def has_grown(limit_mb: float) -> bool:
    """Whether this process holds more than `limit_mb` (0 for no limit), so that a fresh worker shall take over."""
    size_mb = resident_mb() if limit_mb else 0.0
    if size_mb <= limit_mb:
        return False
    log.warning("the worker holds %.0f MB, more than %.0f; a fresh one takes over", size_mb, limit_mb)
    return True
