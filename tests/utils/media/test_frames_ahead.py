"""Frames are told while the child still decodes, in the parent's own thread; what is raised over one ends the child."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from utils.config import MediaSettings, SandboxSettings
from utils.errors import JobCancelledError
from utils.media import child_protocol, decode_media, sandbox
from utils.media.child_protocol import Expected
from utils.media.limits import Facts, MediaLimits
from utils.types import Frame, MediaKind


class PipeChild:
    """A child that is a thread here: `write` gets the end of its pipe."""

    def __init__(self, write: Callable[[Any], None]) -> None:
        reading, writing = os.pipe()
        self.answer = os.fdopen(reading, "rb")
        self.ended = False

        def work() -> None:
            with contextlib.suppress(BrokenPipeError), os.fdopen(writing, "wb") as out:
                write(out)

        self.thread = threading.Thread(target=work, daemon=True)
        self.thread.start()

    def status(self, timeout_s: float) -> int | None:
        return 0

    def end(self) -> None:
        self.ended = True


VIDEO = Expected(MediaKind.VIDEO, 16, MediaLimits())
STILL = np.zeros((40, 40, 3), np.uint8)


def frames_of(count: int) -> list[Frame]:
    return [Frame(i, float(i), STILL) for i in range(count)]


def write_clip(out: Any, count: int) -> None:
    for frame in frames_of(count):
        child_protocol.write_frame(out, frame)
    child_protocol.write_facts(out, Facts(40, 40, float(count), 1.0, "h264"))


def test_frames_are_told_while_the_child_still_decodes() -> None:
    seen_first = threading.Event()

    def write(out: Any) -> None:
        first, second = frames_of(2)
        child_protocol.write_frame(out, first)
        assert seen_first.wait(60), "the parent waited for the whole answer"
        child_protocol.write_frame(out, second)
        child_protocol.write_facts(out, Facts(40, 40, 2.0, 1.0, "h264"))

    told: list[tuple[int, threading.Thread]] = []

    def on_frame(frame: Frame) -> None:
        told.append((frame.index, threading.current_thread()))
        seen_first.set()

    child = PipeChild(write)
    frames, _ = sandbox.converse(
        child, 90.0, lambda pipe, tell: child_protocol.read_answer(pipe, VIDEO, tell), on_frame
    )
    assert [frame.index for frame in frames] == [0, 1]
    assert told == [(0, threading.current_thread()), (1, threading.current_thread())]
    assert child.ended


def test_what_is_raised_over_a_frame_ends_the_child() -> None:
    def on_frame(frame: Frame) -> None:
        raise JobCancelledError

    child = PipeChild(lambda out: write_clip(out, 2))
    with pytest.raises(JobCancelledError):
        sandbox.converse(child, 90.0, lambda pipe, tell: child_protocol.read_answer(pipe, VIDEO, tell), on_frame)
    assert child.ended


def test_time_spent_on_frames_is_not_the_childs() -> None:
    child = PipeChild(lambda out: write_clip(out, 3))
    child.thread.join(60)  # all of it is in the pipe
    wall_s = 1.0
    looked: list[int] = []

    def on_frame(frame: Frame) -> None:
        if not looked:
            time.sleep(wall_s + 0.5)
        looked.append(frame.index)

    frames, _ = sandbox.converse(
        child, wall_s, lambda pipe, tell: child_protocol.read_answer(pipe, VIDEO, tell), on_frame
    )
    assert (len(frames), looked) == (3, [0, 1, 2])


def test_frames_of_a_clip_are_told_in_order(clips: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(clips["mp4"])
    told: list[Frame] = []
    media = decode_media(tmp_path / "x", MediaSettings(), SandboxSettings(), on_frame=told.append)
    assert [id(frame) for frame in told] == [id(frame) for frame in media.frames]
