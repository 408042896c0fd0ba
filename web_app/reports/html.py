"""The report as an HTML page that prints well: without script, with a style sheet of its own."""

from __future__ import annotations

from typing import Any

from flask import render_template

from web_app.reports import words

TIMELINE_WIDTH, TIMELINE_HEIGHT = 640.0, 120.0


def render_html(document: dict[str, Any], media_url: str | None) -> str:
    """The page.

    Args:
        document: see `web_app.reports.document.build_document`.
        media_url: of the picture, which is then shown with the faces' boxes; None for videos and deleted files.
    """
    analysis = document["analysis"]
    points = _timeline(analysis["timeline"])
    return render_template(
        "report.html", document=document, analysis=analysis, words=words, media_url=media_url, points=points
    )


def _timeline(timeline: list[dict[str, Any]]) -> str:
    """The scores over time as points of an SVG polyline; empty for fewer than two."""
    if len(timeline) < 2:
        return ""
    longest = max(point["time_s"] for point in timeline) or 1.0
    return " ".join(
        f"{TIMELINE_WIDTH * point['time_s'] / longest:.1f},{TIMELINE_HEIGHT * (1 - point['probability']):.1f}"
        for point in timeline
    )
