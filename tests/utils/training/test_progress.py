"""Lines and bars of a training: a file gets lines, and a bar only of what lasts."""

from __future__ import annotations

from utils.training import progress


def test_a_file_gets_lines_and_no_bar_of_what_is_soon_done(capsys):
    with progress.bar("things", 3) as shown:
        progress.tell("a line")
        shown.update()
    assert capsys.readouterr().err == "a line\n"


def test_a_bar_in_a_file_shows_what_was_done_earlier(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SELDOM_S", 0.0)
    with progress.bar("things", 4, 2) as shown:
        shown.update()
    assert "things" in (said := capsys.readouterr().err)
    assert "3/4" in said
