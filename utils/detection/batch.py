"""Many files at once: the next ones are decoded and searched for faces while the networks work on the last ones.

Stands between `pipeline.py`, whose three steps it takes (`see`, `score`, `conclude`), and its two users, `inference.py`
and the server's worker. What fails concerns its own file only.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from utils.detection.cli_files import check_readable
from utils.detection.engine import TrackScores
from utils.detection.pipeline import Analyser, Progress, Seen, conclude, score, see
from utils.log import get_logger
from utils.types import Media, Report

LOOKERS = 2
"""Files that are decoded at the same time; while one decodes in its child, another is searched for faces."""
AHEAD = 8
"""Files that are ready or nearly so while the networks work; they wait as crops, without their pixels."""

log = get_logger(__name__)


@dataclass(frozen=True)
class Analysed:
    """What became of one file: a report or what was raised.

    Args:
        path: as it was given.
        report: None if it failed.
        error: None if it did not.
        ms: time spent on this file, shared work by its share; 0 for a file with the content of an earlier one.
    """

    path: Path
    report: Report | None
    error: Exception | None
    ms: float


@dataclass(frozen=True)
class Work:
    """One file to analyse together with others; the arguments are those of `analyse`."""

    path: Path
    progress: Progress
    on_media: Callable[[Media], None] | None = None


@dataclass(frozen=True)
class _Ahead:
    """A file whose turn comes soon; `seen` is None where an earlier file had the same content."""

    path: Path
    content: str
    seen: Future[Seen] | None


def analyse_many(
    paths: Iterable[Path], analyser: Analyser, *, progress: Callable[[Path, str, float], None] | None = None
) -> Iterator[Analysed]:
    """Analyse files, each result in its turn.

    Files that are ready by then go through the networks together. A file with the content of an earlier one gets that
    one's report.

    Args:
        paths: pictures and videos mixed.
        analyser: from `load_analyser`.
        progress: called in the caller's thread with file, stage and 0..1; what it raises ends the work.
    """
    tell = progress or (lambda path, stage, done: None)
    known: dict[str, Report] = {}
    for batch in _in_batches(paths, analyser, tell):
        fresh = [one for one in batch if one.seen is not None]
        tell(batch[0].path, "experts", 0.5)
        results = iter(_judge([one.seen for one in fresh if one.seen is not None], analyser))
        for one in batch:
            started = time.perf_counter()
            result: Report | Exception
            if one.seen is not None:
                result = next(results)
            elif one.content in known:
                result = known[one.content]
            else:  # the earlier one failed, perhaps for lack of time or memory
                result = analyse_together([Work(one.path, _quiet)], analyser)[0]
            tell(one.path, "decide", 1.0)
            if isinstance(result, Exception):
                yield Analysed(one.path, None, result, 1000 * (time.perf_counter() - started))
                continue
            known.setdefault(one.content, result)
            ms = result.times_ms["total"] if one.seen is not None else 1000 * (time.perf_counter() - started)
            yield Analysed(one.path, result, None, ms)


def analyse_together(works: Sequence[Work], analyser: Analyser, *, lookers: int = LOOKERS) -> list[Report | Exception]:
    """Analyse several files through the networks together; what a progress call raises is its own file's end only."""
    with ThreadPoolExecutor(lookers, thread_name_prefix="look-ahead") as pool:
        seen = [pool.submit(see, work.path, analyser, work.progress, work.on_media) for work in works]
    return _judge(seen, analyser, [work.progress for work in works])


def _in_batches(
    paths: Iterable[Path], analyser: Analyser, tell: Callable[[Path, str, float], None]
) -> Iterator[list[_Ahead]]:
    """The files in order, as many together as are ready; the next ones are being looked at meanwhile."""
    met: set[str] = set()
    rest = iter(paths)
    ahead: deque[_Ahead] = deque()
    pool = ThreadPoolExecutor(LOOKERS, thread_name_prefix="look-ahead")

    def fill() -> None:
        while len(ahead) < AHEAD and (path := next(rest, None)) is not None:
            try:
                content = _content(path)
            except Exception as error:  # noqa: BLE001 - handed on as this file's result
                ahead.append(_Ahead(path, "", _ended(error)))
                continue
            ahead.append(_Ahead(path, content, None if content in met else pool.submit(see, path, analyser, _quiet)))
            met.add(content)

    try:
        fill()
        while ahead:
            batch = [ahead.popleft()]
            tell(batch[0].path, "decode", 0.0)
            if batch[0].seen is not None:
                batch[0].seen.exception()  # waits for it
            while ahead and (ahead[0].seen is None or ahead[0].seen.done()):
                batch.append(ahead.popleft())
            fill()
            yield batch
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _judge(
    waiting: Sequence[Future[Seen]], analyser: Analyser, progress: Sequence[Progress] = ()
) -> list[Report | Exception]:
    """Score and conclude what could be seen; where scoring together fails, each by itself."""
    results: list[Report | Exception | None] = [future.exception() for future in waiting]  # type: ignore[misc]
    alive = [i for i, result in enumerate(results) if result is None]

    def tell(stage: str, done: float) -> None:
        for i in alive if progress else ():
            try:
                if results[i] is None:
                    progress[i](stage, done)
            except Exception as error:  # noqa: BLE001 - handed on as this file's result
                results[i] = error
        if all(results[i] is not None for i in alive):
            raise _NobodyLeftError

    seen = {i: waiting[i].result() for i in alive}
    scores: dict[int, tuple[list[TrackScores], float]] = {}
    try:
        tell("experts", 0.5)
        of_each, ms = score(list(seen.values()), analyser, lambda done: tell("experts", 0.5 + 0.45 * done))
        scores = dict(zip(seen, zip(of_each, ms, strict=True), strict=True))
    except _NobodyLeftError:
        alive = []
    except Exception as error:  # noqa: BLE001 - whatever it is, each gets its own chance
        if len(alive) == 1:
            results[alive[0]] = error
        else:
            log.warning("%d media could not be scored together (%s); each by itself", len(alive), type(error).__name__)
            for i in alive:
                if results[i] is None:
                    results[i] = _judge([waiting[i]], analyser, progress[i : i + 1])[0]
    for i in alive:
        if results[i] is None:
            try:
                results[i] = conclude(seen[i], scores[i][0], analyser, scores[i][1])
            except Exception as error:  # noqa: BLE001 - handed on as this file's result
                results[i] = error
    return [result for result in results if result is not None]


class _NobodyLeftError(Exception):
    """Every file of a batch has been given up while its networks ran."""


def _ended(error: Exception) -> Future[Seen]:
    future: Future[Seen] = Future()
    future.set_exception(error)
    return future


def _content(path: Path) -> str:
    check_readable(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _quiet(stage: str, done: float) -> None:
    """The progress of a file that is looked at ahead of its turn."""
