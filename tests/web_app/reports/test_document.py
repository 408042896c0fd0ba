"""What a report says of a recording."""

from __future__ import annotations

from web_app.reports.document import suspicious_stretches


def test_suspicious_windows_that_overlap_or_touch_are_one_stretch() -> None:
    judged = ((0.0, 0.9), (1.0, 0.2), (2.0, 0.8), (3.0, 0.5), (5.0, 0.6), (6.0, 0.7))
    windows = [{"start_s": start, "end_s": start + 2.0, "probability": p} for start, p in judged]
    assert suspicious_stretches({"windows": windows, "threshold": 0.5}) == [(0.0, 4.0), (5.0, 8.0)]
