"""The training history: nothing is lost, and nothing can be changed unseen."""

from __future__ import annotations

import json

import pytest

from utils.feedback.history import FIRST, append_training, main, read_history, verify_history


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "history.jsonl"
    for number in range(4):
        append_training(path, {"event": "training", "version": f"v{number}", "promoted": number % 2 == 0})
    return path


def test_a_whole_chain_verifies(path):
    check = verify_history(path)
    assert (check.ok, len(check.entries), check.damaged, check.problem) == (True, 4, (), "")
    assert read_history(path).entries[0]["previous"] == FIRST
    assert [e["number"] for e in read_history(path).entries] == [1, 2, 3, 4]


def test_a_history_that_is_not_there_is_empty_and_whole(tmp_path):
    assert verify_history(tmp_path / "none.jsonl").ok
    assert read_history(tmp_path / "none.jsonl").head == FIRST


def changed(lines):
    entry = json.loads(lines[1])
    entry["promoted"] = True
    return [lines[0], json.dumps(entry), *lines[2:]]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (changed, "was changed"),
        (lambda lines: [lines[0], *lines[2:]], "missing"),
        (lambda lines: [lines[0], lines[2], lines[1], lines[3]], "missing"),
        (lambda lines: [*lines[:2], lines[1], *lines[2:]], "missing"),
        (lambda lines: [lines[0], "garbage", *lines[2:]], "missing"),
    ],
)
def test_every_change_breaks_the_chain(path, change, problem):
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    check = verify_history(path)
    assert not check.ok
    assert problem in check.problem


def test_a_cut_off_end_shows_against_a_head_that_was_kept(path):
    head = read_history(path).head
    path.write_text("\n".join(path.read_text().splitlines()[:3]) + "\n")
    assert verify_history(path).ok
    assert "cut off" in verify_history(path, head).problem


def test_a_kept_head_still_holds_when_lines_were_added(path):
    head = read_history(path).head
    append_training(path, {"event": "activation", "to": "v2"})
    assert verify_history(path, head).ok


def test_a_torn_last_line_is_skipped_and_the_next_one_stands_alone(path):
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"event": "training", "versi')
    entry = append_training(path, {"event": "activation", "to": "v2"})
    check = verify_history(path)
    assert (check.ok, len(check.entries), len(check.damaged)) == (True, 5, 1)
    assert check.head == entry["hash"]


@pytest.mark.parametrize("entry", [{"event": "party"}, {"event": "training", "loss": float("nan")}])
def test_what_is_no_entry_is_refused_and_nothing_is_written(path, entry):
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"event must be|JSON"):
        append_training(path, entry)
    assert path.read_bytes() == before


def test_the_command_says_ok_or_broken(path, capsys, tmp_path):
    assert main(["verify", str(path)]) == 0
    assert "OK: 4 entries" in capsys.readouterr().out
    path.write_text(path.read_text().replace('"v1"', '"v9"'))
    assert main(["verify", str(path)]) == 1
    assert "BROKEN" in capsys.readouterr().out
    assert main(["verify", str(tmp_path / "none")]) == 3
