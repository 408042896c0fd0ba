"""The house is counted rightly: circles, what a module reaches, what only type checkers read."""

from __future__ import annotations

import pytest

from benchmarks import house


def test_a_ring_is_a_circle_and_a_diamond_is_none() -> None:
    assert house.circles({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": set()}) == []
    (ring,) = house.circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})
    assert set(ring) == {"a", "b", "c"}


def test_what_is_reached_is_everything_behind() -> None:
    assert house.reachable({"a": {"b"}, "b": {"c"}, "c": set(), "d": {"a"}}, "a") == {"a", "b", "c"}


def test_imports_for_type_checkers_do_not_count() -> None:
    graph = house.imports_of(
        [house.ROOT / "train.py", house.ROOT / "models" / "cards.py", house.ROOT / "utils" / "training" / "fit.py"]
    )
    assert "models.cards" in graph["train"]
    assert "models.cards" not in graph["models.cards"]


def test_a_broken_budget_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(house.ROOMS, "utils/speech", (1, 1))
    assert house.main() == 1
    assert "TOO MUCH" in capsys.readouterr().out
