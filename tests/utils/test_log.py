"""Log lines: no user's text makes one, no exception shows what users sent, ids go along."""

from __future__ import annotations

import io
import json
import logging
import sys

import pytest

from utils.log import JsonFormatter, TextFormatter, configure_logging, escape, log_fields, where_it_came_from


def record(message: str, *, failed: bool = False) -> logging.LogRecord:
    info = None
    if failed:
        try:
            raise ValueError("bytes of a user's file")
        except ValueError:
            info = sys.exc_info()
    return logging.LogRecord("telltale", logging.ERROR, __file__, 1, message, (), info)


def test_control_characters_make_no_line() -> None:
    line = TextFormatter().format(record("GET /a\n2026 ERROR forged\x1b[2J"))
    assert "\n" not in line
    assert "\x1b" not in line
    assert escape("ä ü") == "ä ü"


def test_an_exception_is_its_type_and_place_only() -> None:
    for line in (
        TextFormatter().format(record("failed", failed=True)),
        JsonFormatter().format(record("failed", failed=True)),
    ):
        assert "ValueError at tests/utils/test_log.py" in line
        assert "user's file" not in line
        assert "Traceback" not in line
    assert where_it_came_from((None, None, None)) == ""


@pytest.mark.parametrize("formatter", [TextFormatter(True), JsonFormatter(True)])
def test_debug_shows_the_whole_trace(formatter: logging.Formatter) -> None:
    assert "bytes of a user's file" in formatter.format(record("failed", failed=True))


def test_bound_fields_go_along_and_end() -> None:
    with log_fields(request_id="r1"), log_fields(job_id="j1"):
        line = json.loads(JsonFormatter().format(record("x")))
        assert "request_id=r1 job_id=j1" in TextFormatter().format(record("x"))
    assert (line["request_id"], line["job_id"], line["level"], line["message"]) == ("r1", "j1", "error", "x")
    assert "request_id" not in json.loads(JsonFormatter().format(record("x")))


def test_lines_go_to_the_standard_error_of_their_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", list(root.handlers))
    monkeypatch.setattr(root, "level", root.level)
    first, second = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", first)
    configure_logging()
    logging.getLogger("a").warning("before")
    assert "before" in first.getvalue()
    first.close()
    monkeypatch.setattr(sys, "stderr", second)
    logging.getLogger("a").warning("after")
    assert "WARNING a: after" in second.getvalue()
    assert "Logging error" not in second.getvalue()
