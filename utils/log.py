"""Logging set up once per process: one line per event, to standard error, as text or as JSON.

Whoever handles a request or a job binds its id with `log_fields`; every line written meanwhile carries it. An
exception is one line too: its type and where it came from. Its message and the full trace may hold what users sent, and
are written at the level debug only.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, TextIO

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
FRAMES = 4  # of an exception's way that are named, the innermost first
_ROOT = Path(__file__).resolve().parent.parent
_FIELDS: ContextVar[Mapping[str, str]] = ContextVar("log_fields", default=MappingProxyType({}))
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def configure_logging(level: str = "info", style: str = "text") -> None:
    """Send log records of at least `level` (debug, info, warning, error) to standard error, as `text` or `json`."""
    handler = _ToStandardError()
    whole_traces = level == "debug"
    handler.setFormatter(JsonFormatter(whole_traces) if style == "json" else TextFormatter(whole_traces))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def get_logger(name: str) -> logging.Logger:
    """The logger of one module: `get_logger(__name__)`."""
    return logging.getLogger(name)


@contextlib.contextmanager
def log_fields(**fields: str) -> Iterator[None]:
    """Add fields such as `job_id` to every line that this thread writes within the block."""
    token = _FIELDS.set(MappingProxyType({**_FIELDS.get(), **fields}))
    try:
        yield
    finally:
        _FIELDS.reset(token)


class _ToStandardError(logging.StreamHandler[TextIO]):
    """Writes to what is standard error by then: the one of the start may have been replaced, and closed."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


class _Formatter(logging.Formatter):
    """Says of exceptions where they came from only.

    Args:
        whole_traces: write exceptions with their messages and source lines.
    """

    def __init__(self, whole_traces: bool = False) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S%z")
        self._whole_traces = whole_traces

    def formatException(self, ei: Any) -> str:
        return super().formatException(ei) if self._whole_traces else where_it_came_from(ei)


class TextFormatter(_Formatter):
    """Lines for people; control characters are escaped, so that no user's text makes a line of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = escape(record.message)
        fields = "".join(f" {name}={escape(value)}" for name, value in _FIELDS.get().items())
        return super().formatMessage(record) + fields

    def formatException(self, ei: Any) -> str:
        return ("" if self._whole_traces else "  ") + super().formatException(ei)


class JsonFormatter(_Formatter):
    """Lines for machines: `time`, `level`, `logger`, `message`, the bound fields, those of `extra`, and `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{name: value for name, value in vars(record).items() if name not in _STANDARD},
            **_FIELDS.get(),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def where_it_came_from(info: ExceptionInfo) -> str:
    """An exception in one line without anything that a user sent: its type and the innermost places of its way."""
    kind, _, trace = info
    if kind is None:
        return ""
    frames = traceback.extract_tb(trace)[-FRAMES:]
    places = [f"{_short(frame.filename)}:{frame.lineno} in {frame.name}" for frame in reversed(frames)]
    return f"{kind.__name__} at {' < '.join(places)}" if places else kind.__name__


def escape(text: str) -> str:
    """Text in which every character that could start a line or move a cursor is written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _short(name: str) -> str:
    path = Path(name)
    return str(path.relative_to(_ROOT)) if path.is_relative_to(_ROOT) else path.name


def safe_cell(text: str) -> str:
    """Text that a spreadsheet does not take for a formula."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text
