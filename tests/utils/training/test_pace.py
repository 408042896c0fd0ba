"""Progress lines come seldom, and the last one always."""

from __future__ import annotations

from utils.training import pace


def test_lines_are_spaced_and_the_end_is_told(monkeypatch):
    clock = iter([0.0, *range(1, 101)])
    monkeypatch.setattr(pace.time, "monotonic", lambda: next(clock))
    told: list[str] = []
    count = pace.counter(told.append, "things", 100, every_s=30)
    for done in range(1, 101):
        count(done)
    assert told == [
        "things: 30/100, about 1 min left", "things: 60/100, about 1 min left", "things: 90/100, about 0 min left",
        "things: 100/100",
    ]  # fmt: skip


def test_work_of_an_earlier_run_does_not_count_for_the_pace(monkeypatch):
    clock = iter([0.0, 60.0, 120.0])
    monkeypatch.setattr(pace.time, "monotonic", lambda: next(clock))
    told: list[str] = []
    count = pace.counter(told.append, "things", 1000, every_s=30)
    count(900)
    count(910)
    assert told == ["things: 900/1000", "things: 910/1000, about 18 min left"]
