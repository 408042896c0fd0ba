"""Decoding in a child process: the file goes in as an open descriptor, frames or a copy come out of a pipe.

The parent never parses the medium itself. It looks at the size, the hash and the first bytes, starts the child with a
deadline, and takes its answer apart with the distrust it deserves (`child_protocol.py`). What the child is kept
from is in `sandbox_limits.py`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import math
import os
import queue
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar, cast

from utils.config import MediaSettings, SandboxSettings
from utils.errors import DecoderCrashedError, DecoderLimitError, MediaError, MediaTooLargeError, NotFoundError
from utils.log import get_logger
from utils.media.child_protocol import BrokenAnswerError, Expected, read_answer, read_copy, read_level
from utils.media.fork_server import ForkServer
from utils.media.limits import MediaLimits, span_frames
from utils.media.sandbox_limits import PROTECTIONS
from utils.media.sniff import SNIFF_BYTES, MediaFormat, sniff
from utils.types import Frame, Media, MediaInfo, MediaKind

ROOT = Path(__file__).resolve().parent.parent.parent

# -I leaves the working directory, PYTHONPATH and the user's packages out, so the child is told where our code is.
_START = "import sys; sys.path.insert(0, sys.argv[1]); from utils.media.child import main; main(sys.argv[2])"

# One thread each: more would only take address space, and the child may not start any.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

# glibc then asks for large pages where it takes much memory at once: a fresh child else meets thousands of page faults.
_LARGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}

_KEPT_VARIABLES = ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "TMPDIR", "TEMP")

_PROBE_WALL_S = 20.0

_EXIT_S = 2.0
"""How long a child may take to be gone after its pipe is closed or it was killed, seconds."""

PICTURE_CPU_S, PICTURE_WALL_S = 10, 12.0
"""No picture needs more, whatever is set for videos: 200 megapixels take about four seconds."""

VIDEO_S, VIDEO_S_PER_MB = 12.0, 4.0
"""A video needs no more than this, in all and for each MB (10^6 bytes): ten times what healthy ones take."""

COPY_GROWTH, COPY_HEADER_BYTES = 2, 1_000_000
"""A copy is no larger than the file but for its index: bytes for each of the file, and in all."""

T = TypeVar("T")
Receive = Callable[[BinaryIO, Callable[[Frame], None]], T]

log = get_logger(__name__)


def decode_media(
    path: Path,
    media: MediaSettings,
    sandbox: SandboxSettings,
    decoders: ForkServer | None = None,
    on_frame: Callable[[Frame], None] | None = None,
    *,
    sound: bool = False,
    spans: Sequence[tuple[float, float]] = (),
) -> Media:
    """Decode one file in a confined child process.

    Args:
        path: of the file; its name is not looked at.
        media: what is accepted, and how many frames to take of a video.
        decoders: where children come from that are ready at once; None starts a new program.
        on_frame: called in this thread with each frame while the child decodes the next ones; index 0 again means that
            the child had to begin anew. What it raises ends the decoding.
        sound: whether the samples of a video's sound are wanted; those of a recording come always.
        spans: of a video, first and last second of the only parts that are wanted, in order, as of `decode_video`.

    Returns:
        The medium: facts, upright RGB frames, samples and notices; of kind `audio` where it is sound alone.

    Raises:
        NotFoundError: there is no such file.
        MediaTooLargeError: more bytes than `max_file_mb`.
        UnsupportedMediaError: content that we do not decode.
        MediaDimensionsError: a picture or frame outside the limits.
        MediaTooLongError: a video or recording longer than `max_duration_s`.
        MediaCorruptError: nothing in the file could be decoded.
        DecoderLimitError: the child used up its time or memory.
        DecoderCrashedError: the child died or gave an answer that breaks the rules.
    """
    with open_regular(path) as file:
        asked = ask(file, media, sandbox, sound=sound, spans=spans)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        fmt = asked.format
        moving = fmt.moves or fmt.kind is MediaKind.VIDEO
        most = max(media.frames, media.max_frames) if moving else 1
        most = sum(span_frames(*span) for span in spans) or most
        expected = Expected(fmt.kind, most, asked.limits, fmt.moves)
        child = start(asked, file, decoders)
        frames, facts = converse(child, asked.wall_s, lambda pipe, tell: read_answer(pipe, expected, tell), on_frame)
    kind, mime = MediaKind.IMAGE if facts.duration_s is None else MediaKind.VIDEO, fmt.mime
    if not frames:
        kind, mime = MediaKind.AUDIO, mime.replace("video/", "audio/")
    info = MediaInfo(
        kind=kind, format=fmt.name, mime=mime, width=facts.width, height=facts.height, size_bytes=asked.size_bytes,
        sha256=digest, duration_s=facts.duration_s, fps=facts.fps, codec=facts.codec, sound=facts.sound,
    )  # fmt: skip
    return Media(info, frames, facts.as_notices(), samples=facts.samples)


def copy_media(
    path: Path,
    target: BinaryIO,
    media: MediaSettings,
    sandbox: SandboxSettings,
    decoders: ForkServer | None = None,
) -> None:
    """Write a file again without its metadata, made in a confined child process: the same pixels, frames and samples.

    Args:
        path: of the file; its name is not looked at.
        target: where the copy goes, open and seekable; after an error, what is in it is of no use.

    Raises:
        NotFoundError, MediaError: as of `decode_media`; MediaCorruptError also where content and metadata cannot be
            told apart.
    """
    with open_regular(path) as file:
        asked = ask(file, media, sandbox, copy=True)
        most = COPY_GROWTH * asked.size_bytes + COPY_HEADER_BYTES
        child = start(asked, file, decoders)
        converse(child, asked.wall_s, lambda pipe, tell: read_copy(pipe, target, most))


@dataclass(frozen=True)
class _Asked:
    """What a child is asked, and how long it may take."""

    format: MediaFormat
    size_bytes: int
    limits: MediaLimits
    request: str
    wall_s: float


def ask(file: BinaryIO, media: MediaSettings, sandbox: SandboxSettings, **wanted: object) -> _Asked:
    """Look at a file's size and first bytes, and go back to its beginning; `wanted` as of `child.main`."""
    size = os.fstat(file.fileno()).st_size
    if size > media.max_file_mb * 1_000_000:
        raise MediaTooLargeError(f"The file has {size / 1e6:.1f} MB; {media.max_file_mb} MB are allowed.")
    fmt = sniff(file.read(SNIFF_BYTES))
    limits = MediaLimits.of(media)
    file.seek(0)
    is_picture = fmt.kind is MediaKind.IMAGE
    longest_s = VIDEO_S + VIDEO_S_PER_MB * size / 1e6
    request = {
        "format": fmt.name,
        "frames": media.frames,
        "max_frames": media.max_frames,
        **wanted,
        "limits": [limits.max_megapixels, limits.min_side_px, limits.max_duration_s],
        "memory_mb": sandbox.memory_mb,
        "cpu_s": min(sandbox.cpu_s, PICTURE_CPU_S if is_picture else math.ceil(longest_s)),
    }
    wall_s = min(sandbox.wall_s, PICTURE_WALL_S if is_picture else longest_s)
    return _Asked(fmt, size, limits, json.dumps(request), wall_s)


def start(asked: _Asked, file: BinaryIO, decoders: ForkServer | None) -> Child:
    """Start a child for what is asked of a file, from `decoders` where there are any."""
    if decoders is None:
        return SpawnedChild(child_command(asked.request), file)
    return decoders.start(asked.request, file)


@functools.lru_cache(maxsize=1)
def sandbox_level() -> tuple[str, ...]:
    """The names of the protections that a decoding child has on this machine (of `sandbox_limits.PROTECTIONS`).

    Found out by starting a child that confines itself and reports; asked once per process.

    Raises:
        DecoderCrashedError: the child cannot be started, so nothing can be decoded here either.
    """
    limits = SandboxSettings()
    request = {"format": None, "memory_mb": limits.memory_mb, "cpu_s": limits.cpu_s}
    with Path(os.devnull).open("rb") as nothing:
        child = SpawnedChild(child_command(json.dumps(request)), nothing)
        level = converse(child, _PROBE_WALL_S, lambda pipe, tell: read_level(pipe))
    log.info("the decoding child is confined by: %s", ", ".join(level) or "nothing")
    if missing := [name for name in PROTECTIONS if name not in level]:
        log.warning("this machine refuses the decoding child: %s", ", ".join(missing))
    return level


def child_command(request: str) -> list[str]:
    """The command line of a decoding child for a request as JSON."""
    return [sys.executable, "-I", "-c", _START, str(ROOT), request]


class Child(Protocol):
    """A running decoding child, however it was started.

    Args:
        answer: the pipe that its answer comes out of.
    """

    answer: BinaryIO

    def status(self, timeout_s: float) -> int | None:
        """How it ended (negative: by that signal); None when that is not known after `timeout_s`."""
        ...

    def end(self) -> None:
        """End it and everything that it started, and wait until that is done."""
        ...


class SpawnedChild:
    """A child that is a program of its own.

    Args:
        file: its standard input, open for reading; the child finds its own position.

    Raises:
        DecoderCrashedError: it cannot be started.
    """

    def __init__(self, command: list[str], file: BinaryIO) -> None:
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and our own arguments
                command,
                stdin=file,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=clean_environment(),
                start_new_session=True,
            )
        except OSError as error:
            raise DecoderCrashedError(f"The decoder cannot be started ({error.strerror}).") from error
        self.answer = cast(BinaryIO, self._process.stdout)

    def status(self, timeout_s: float) -> int | None:
        """See `Child`."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def end(self) -> None:
        """See `Child`."""
        if sys.platform == "win32":
            self._process.kill()
        else:
            # The group is gone where the child has ended alone; macOS refuses for a group of zombies.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def clean_environment() -> dict[str, str]:
    """What of this process's environment a child may see: nothing secret."""
    return {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ} | _ONE_THREAD | _LARGE_PAGES


def start_fork_server() -> ForkServer | None:
    """Where children come from that are ready at once; None on systems that have no such thing."""
    return ForkServer(clean_environment()) if ForkServer.available() else None


def converse(child: Child, wall_s: float, receive: Receive[T], on_frame: Callable[[Frame], None] | None = None) -> T:
    """Receive a child's answer before a deadline. Whatever happens, no process of its group is left behind.

    Args:
        wall_s: seconds that it may take in all.
        receive: reads the answer from the pipe, and tells of each frame as it arrives.
        on_frame: called here with these frames; the time that it takes is not the child's.

    Returns:
        What `receive` returned.

    Raises:
        MediaError: the one that `receive` raised.
        DecoderLimitError: the deadline passed, or the child was killed for its use of time or memory.
        DecoderCrashedError: the child ended without a whole answer.
    """
    answer: Future[T] = Future()
    # None ends it; no SimpleQueue, which in Python 3.11 and 3.12 misses the deadline when a signal comes just before
    arrived: queue.Queue[Frame | None] = queue.Queue()
    # Read in a thread, so that the clock can be watched on every platform.
    reader = threading.Thread(
        target=_fulfil, args=(answer, child.answer, receive, arrived), name="media-answer", daemon=True
    )
    reader.start()
    deadline = time.monotonic() + wall_s
    try:
        while (frame := _next(arrived, deadline)) is not None:
            if on_frame is not None:
                on_frame(frame)
        return answer.result(timeout=0)
    except TimeoutError as error:
        raise DecoderLimitError(f"Decoding took longer than {wall_s:g} seconds.") from error
    except BrokenAnswerError as error:
        raise _why_it_ended(child) from error
    finally:
        child.end()
        reader.join(_EXIT_S)
        if not reader.is_alive():
            child.answer.close()
        # an error's trace holds this frame; with them here, a refused answer's pixels would stay
        frame = None
        del answer, reader, arrived


def _next(arrived: queue.Queue[Frame | None], deadline: float) -> Frame | None:
    """The next frame; None at the end, or when there is none at the deadline."""
    with contextlib.suppress(queue.Empty):
        return arrived.get(timeout=max(0.0, deadline - time.monotonic()))
    return None


def _fulfil(answer: Future[T], pipe: BinaryIO, receive: Receive[T], arrived: queue.Queue[Frame | None]) -> None:
    try:
        answer.set_result(receive(pipe, arrived.put))
    except BaseException as error:  # noqa: BLE001 - raised again by the waiting thread
        answer.set_exception(error)
    finally:
        arrived.put(None)
        del answer, arrived  # as in converse


def _why_it_ended(child: Child) -> MediaError:
    """The error that a child's exit status stands for, after it closed its pipe without a whole answer."""
    status = child.status(_EXIT_S)
    if status is None:
        return DecoderCrashedError("The decoder stopped answering.")
    if status >= 0:
        return DecoderCrashedError(f"The decoder ended with status {status} before its answer was whole.")
    name = signal.Signals(-status).name
    if name == "SIGXCPU":
        return DecoderLimitError("Decoding took more processor time than allowed.")
    if name == "SIGKILL":
        return DecoderLimitError("The decoder was killed by the system, for its memory or its processor time.")
    return DecoderCrashedError(f"The decoder was ended by {name}.")


@contextlib.contextmanager
def open_regular(path: Path) -> Iterator[io.BufferedReader]:
    """Open a regular file for reading; anything else (a pipe would block, a device never ends) is refused."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        descriptor = os.open(path, flags)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(f"There is no file {path.name}.") from error
    except OSError as error:
        raise MediaError(f"{path.name} cannot be opened ({error.strerror}).") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise MediaError(f"{path.name} is not a file with content of its own.")
    with os.fdopen(descriptor, "rb") as file:
        yield file
