"""The feedback log: whole lines only, torn ones skipped and reported, many writers at once."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import multiprocessing
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.feedback.feedback_log import DecisionEntry, FeedbackEntry, FeedbackLog, append_feedback, read_feedback_log
from utils.feedback.history import FIRST, append_training, main, read_history, verify_history


def entry(detection_id: str = "d1", **changes: object) -> FeedbackEntry:
    values: dict[str, object] = {
        "time": dt.datetime(2026, 3, 4, 5, 6, 7, tzinfo=dt.UTC), "detection_id": detection_id, "client_id": "c1",
        "media_sha256": "0" * 64, "model_version": "v1", "prediction": "fake", "fake_probability": 0.9,
        "judgement": "incorrect", "actual": "real", "category": "false_alarm", "note": None,
    }  # fmt: skip
    return FeedbackEntry(**{**values, **changes})  # type: ignore[arg-type]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    entries = (entry("d1"), entry("d2", note='line\nbreak " and 🙂'), entry("d3", prediction="inconclusive"))
    for each in entries:
        append_feedback(log, each)
    assert read_feedback_log(log) == FeedbackLog(entries, ())
    assert len(log.read_bytes().splitlines()) == 3
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_note_with_half_a_surrogate_pair_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    append_feedback(log, entry(note="x\ud83d y"))
    append_feedback(log, decision(note="x\ud83d y"))
    found = read_feedback_log(log)
    assert (found.entries[0].note, found.decisions[0].note, found.damaged) == ("x\ud83d y", "x\ud83d y", ())


def test_a_log_that_does_not_exist_is_empty(tmp_path: Path) -> None:
    assert read_feedback_log(tmp_path / "none.jsonl") == FeedbackLog((), ())


@pytest.mark.parametrize("kept", range(1, len(entry("d2").to_line()), 29))
def test_a_torn_line_is_skipped_and_the_next_is_whole(tmp_path: Path, kept: int) -> None:
    log = tmp_path / "log.jsonl"
    append_feedback(log, entry("d1"))
    with log.open("ab") as file:
        file.write(entry("d2").to_line()[:kept])
    append_feedback(log, entry("d3"))
    found = read_feedback_log(log)
    assert [each.detection_id for each in found.entries] == ["d1", "d3"]
    assert [line.number for line in found.damaged] == [2]


def test_a_line_that_lacks_only_its_end_counts(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(entry("d1").to_line()[:-1])
    append_feedback(log, entry("d2"))
    assert [each.detection_id for each in read_feedback_log(log).entries] == ["d1", "d2"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"[]", "no JSON object"),
        (b"\xff\xfe", "utf-8"),
        (b'{"schema_version": 3}', "schema_version"),
        (b"[" * 100_000, ""),
        (json.dumps({**json.loads(entry().to_line()), "more": 1}).encode(), "more: Unexpected"),
        (json.dumps({**json.loads(entry().to_line()), "actual": "maybe"}).encode(), "actual: Input should be"),
        (json.dumps({**json.loads(entry().to_line()), "fake_probability": "1"}).encode(), "fake_probability"),
        (json.dumps({**json.loads(entry().to_line()), "time": "yesterday"}).encode(), "isoformat"),
        (json.dumps({**json.loads(entry().to_line()), "client_id": None}).encode(), "client_id: Input"),
        (json.dumps({**json.loads(entry().to_line()), "note": 3}).encode(), "note"),
    ],
)
def test_damaged_lines_are_reported_with_the_reason(tmp_path: Path, line: bytes, why: str) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(entry("d1").to_line() + line + b"\n\n" + entry("d2").to_line())
    found = read_feedback_log(log)
    assert [each.detection_id for each in found.entries] == ["d1", "d2"]
    (damaged,) = found.damaged
    assert damaged.number == 2
    assert why in damaged.why


@given(st.binary(max_size=300))
def test_the_reader_survives_anything(tmp_path_factory: pytest.TempPathFactory, noise: bytes) -> None:
    log = tmp_path_factory.mktemp("noise") / "log.jsonl"
    log.write_bytes(noise)
    assert read_feedback_log(log).entries == ()


@pytest.mark.parametrize("written", [0, 10])
def test_a_full_disk_leaves_the_log_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int) -> None:
    log = tmp_path / "log.jsonl"
    append_feedback(log, entry("d1"))
    before = log.read_bytes()
    real_write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real_write(descriptor, data[:written]))
    with pytest.raises(OSError, match="could be written"):
        append_feedback(log, entry("d2"))
    monkeypatch.undo()
    assert log.read_bytes() == before


def test_each_line_is_on_the_disk_before_the_return(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log.jsonl"
    steps: list[str] = []
    real_write, real_fsync = os.write, os.fsync

    def write(descriptor: int, data: bytes) -> int:
        steps.append("write")
        return real_write(descriptor, data)

    def fsync(descriptor: int) -> None:
        steps.append("fsync")
        real_fsync(descriptor)

    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr(os, "fsync", fsync)
    append_feedback(log, entry("d1"))
    append_feedback(log, entry("d2"))
    assert steps == ["write", "fsync", "fsync", "write", "fsync"]  # the second fsync is the new file's folder


def _append_many(log: Path, name: str) -> None:
    for number in range(25):
        append_feedback(log, entry(f"{name}-{number}", note="x" * 900))


def test_many_processes_write_whole_lines(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_append_many, args=(log, name)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    found = read_feedback_log(log)
    assert found.damaged == ()
    assert {each.detection_id for each in found.entries} == {
        f"{name}-{number}" for name in "abc" for number in range(25)
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"time": dt.datetime(2026, 1, 1)},
        {"prediction": "dog"},
        {"fake_probability": None},
        {"face_labels": {0: "dog"}},
        {"fake_probability": 1.5},
        {"fake_probability": float("nan")},
        {"judgement": "perhaps"},
        {"actual": "inconclusive"},
        {"category": "rant"},
        {"note": "x" * 1001},
    ],
)
def test_entries_check_themselves(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        dataclasses.replace(entry(), **changes)  # type: ignore[arg-type]


def decision(**changes: object) -> DecisionEntry:
    values: dict[str, object] = {
        "time": dt.datetime(2026, 3, 4, tzinfo=dt.UTC), "media_sha256": "0" * 64, "moderator_id": "key:ab",
        "decision": "accept", "label": "real",
    }  # fmt: skip
    return DecisionEntry(**{**values, **changes})  # type: ignore[arg-type]


def test_the_last_word_stands_and_a_withdrawn_one_does_not(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    for each in (
        entry("d1"), entry("d1", client_id="c2"), entry("d1", actual="fake"),
        entry("d1", client_id="c2", withdrawn=True),
    ):  # fmt: skip
        append_feedback(log, each)
    standing = read_feedback_log(log).standing()
    assert {key: each.actual for key, each in standing.items()} == {("0" * 64, "c1"): "fake"}


def test_decisions_stand_beside_the_votes(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    for each in (decision(), entry(), decision(decision="reject", label=None, note="a painting")):
        append_feedback(log, each)
    found = read_feedback_log(log)
    assert (found.entries, found.damaged) == ((entry(),), ())
    assert found.standing_decisions() == {"0" * 64: decision(decision="reject", label=None, note="a painting")}


@pytest.mark.parametrize(
    "changes", [{"label": None}, {"decision": "maybe"}, {"time": dt.datetime(2026, 1, 1)}, {"note": "x" * 1001}]
)
def test_decisions_check_themselves(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        decision(**changes)


def test_a_face_was_not_found_exactly_without_a_probability() -> None:
    assert entry(prediction="no_face", fake_probability=None).fake_probability is None
    with pytest.raises(ValueError, match="fake_probability"):
        entry(prediction="no_face")


# The training history: nothing is lost, and nothing can be changed unseen.


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
