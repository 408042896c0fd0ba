"""Answers that a client may keep: an ETag of their content, and 304 for the one who has it already."""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify, request

PRIVATE = "private, no-cache"  # kept by the client alone, and only with asking each time
DEPENDS_ON = "Authorization, Cookie"


def conditional_json(values: Any) -> Response:
    """A JSON answer with an ETag, or 304 without a body.

    Source: RFC 9110, sections 8.8.3 (ETag) and 13.1.2 (If-None-Match).
    """
    return conditional(jsonify(values))


def conditional(answer: Response) -> Response:
    """A whole answer with an ETag of its bytes, or 304."""
    answer.add_etag()
    answer.headers["Cache-Control"] = PRIVATE
    answer.headers["Vary"] = DEPENDS_ON
    answer.make_conditional(request)
    return answer
