"""The page that a reader sees instead of another one: what happened, what to do, and the ways on from there."""

from __future__ import annotations

from flask import Response, make_response, render_template, request

from utils.errors import TelltaleError
from web_app.texts import catalogue, text

PROBLEM_MIME = "application/problem+json"


def wants_page() -> bool:
    """Whether a browser asks, as its Accept header says; a program that takes anything does not."""
    return request.accept_mimetypes.best_match([PROBLEM_MIME, "text/html"]) == "text/html"


def failure_page(error: TelltaleError) -> Response:
    """The error as a page, with its status; words of the catalogue for what readers meet most often."""
    known = str(error.status) in catalogue()["failure"]["heading"]
    return make_response(
        render_template(
            "error.html",
            status=error.status,
            heading=text(f"failure.heading.{error.status}") if known else error.title,
            advice=text(f"failure.advice.{error.status}") if known else error.remedy,
        ),
        error.status,
    )
