"""Many files at once: the next ones are examined while the networks work on the last ones.

The steps are those of `pipeline.py` (`examine`, `score`, `make_report`) with a queue between the first and the second;
its users are `inference.py` and the server's worker. What fails concerns its own file only.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

from utils.detection.cli import FileResult, check_readable
from utils.detection.people import People
from utils.detection.pipeline import Analyser, OnScores, examine, make_report, no_progress, score
from utils.errors import TelltaleError
from utils.faces.search import Progress
from utils.files import file_sha256
from utils.log import escape, get_logger
from utils.types import Media, Report

EXAMINERS = 2
"""Files that are decoded at the same time; while one decodes in its child, another is searched for faces."""
AHEAD = 8
"""Files that are ready or nearly so while the networks work; they wait as crops, without their pixels."""

log = get_logger(__name__)
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Work:
    """One file to analyse together with others; the arguments are those of `analyse`."""

    path: Path
    progress: Progress = no_progress
    on_media: Callable[[Media], None] | None = None
    on_scores: OnScores | None = None


@dataclass(frozen=True)
class _Waiting:
    """A file on its way: its hash, and its people once they are cut out; None where an earlier file is its equal."""

    work: Work
    sha256: str = ""
    people: Future[People] | None = None


def analyse_files(
    paths: Iterable[Path], analyser: Analyser, *, progress: Callable[[Path, str, float], None] | None = None
) -> Iterator[FileResult]:
    """Analyse files, each result in its turn; those that are ready by then go through the networks together.

    A file with the content of an earlier one gets that one's report.

    Args:
        progress: called in the caller's thread with file, stage and 0..1; what it raises ends the work.
    """
    tell = progress or (lambda path, stage, done: None)
    known: dict[str, Report] = {}
    for batch in _in_batches(paths, analyser, tell):
        tell(batch[0].work.path, "experts", 0.5)
        results = iter(_judge([one for one in batch if one.people is not None], analyser))
        for one in batch:
            started = time.perf_counter()
            if one.people is not None:
                result = next(results)
            elif one.sha256 in known:
                result = known[one.sha256]
            else:  # the earlier one failed, perhaps for lack of time or memory
                (result,) = analyse_together([one.work], analyser)
            tell(one.work.path, "decide", 1.0)
            ms = 1000 * (time.perf_counter() - started)
            if isinstance(result, Exception):
                yield FileResult(one.work.path, None, _failure(one.work.path, result), ms)
                continue
            known.setdefault(one.sha256, result)
            yield FileResult(one.work.path, result, None, ms if one.people is None else result.times_ms["total"])


def analyse_together(works: Sequence[Work], analyser: Analyser) -> list[Report | Exception]:
    """Analyse several files through the networks together; what a progress call raises is its own file's end only."""
    with ThreadPoolExecutor(EXAMINERS, thread_name_prefix="examine") as pool:
        waiting = [_Waiting(work, people=_submit(pool, work, analyser)) for work in works]
    return _judge(waiting, analyser)


def _submit(pool: ThreadPoolExecutor, work: Work, analyser: Analyser) -> Future[People]:
    return pool.submit(examine, work.path, analyser, progress=work.progress, on_media=work.on_media)


def _in_batches(
    paths: Iterable[Path], analyser: Analyser, tell: Callable[[Path, str, float], None]
) -> Iterator[list[_Waiting]]:
    """The files in order, as many together as are ready; the next ones are being examined meanwhile."""
    met: set[str] = set()
    rest = iter(paths)
    ahead: deque[_Waiting] = deque()
    pool = ThreadPoolExecutor(EXAMINERS, thread_name_prefix="examine")

    def fill() -> None:
        while len(ahead) < AHEAD and (path := next(rest, None)) is not None:
            work, sha256 = Work(path), _attempt(_sha256, path)
            if isinstance(sha256, Exception):
                failed: Future[People] = Future()
                failed.set_exception(sha256)
                ahead.append(_Waiting(work, people=failed))
            else:
                ahead.append(_Waiting(work, sha256, None if sha256 in met else _submit(pool, work, analyser)))
                met.add(sha256)

    try:
        fill()
        while ahead:
            batch = [ahead.popleft()]
            tell(batch[0].work.path, "decode", 0.0)
            if batch[0].people is not None:
                batch[0].people.exception()  # waits for it
            while ahead and (ahead[0].people is None or ahead[0].people.done()):
                batch.append(ahead.popleft())
            fill()
            yield batch
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _judge(waiting: Sequence[_Waiting], analyser: Analyser) -> list[Report | Exception]:
    """Score and report whoever could be examined; where that fails for several together, each by itself."""
    results: list[Report | Exception | People] = [_attempt(one.people.result) for one in waiting if one.people]
    group = {i: people for i, people in enumerate(results) if isinstance(people, People)}

    def alive() -> list[int]:
        return [i for i in group if isinstance(results[i], People)]

    def tell(stage: str, done: float) -> None:
        for i in alive():
            if isinstance(said := _attempt(waiting[i].work.progress, stage, done), Exception):
                results[i] = said
        if not alive():
            raise _NobodyLeftError

    try:
        tell("experts", 0.5)
        scores = score(list(group.values()), analyser, lambda done: tell("experts", 0.5 + 0.45 * done))
        for i, scored in zip(group, scores, strict=True):
            if i in alive():
                results[i] = report = _attempt(make_report, group[i], scored, analyser)
                if isinstance(report, Report) and (on_scores := waiting[i].work.on_scores) is not None:
                    on_scores(group[i], scored, report)
    except _NobodyLeftError:
        log.debug("every file of a batch was given up")
    except Exception as error:  # noqa: BLE001 - whatever it is, each gets its own chance
        if len(group) > 1:
            log.warning("%d media could not be scored together (%s); each by itself", len(group), type(error).__name__)
        for i in alive():
            results[i] = error if len(group) == 1 else _judge([waiting[i]], analyser)[0]
    return [result for result in results if not isinstance(result, People)]


class _NobodyLeftError(Exception):
    """Every file of a batch has been given up while its networks ran."""


def _attempt(do: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T | Exception:
    """What a call gives or raises, so that it is its own file's matter only."""
    try:
        return do(*arguments, **named)
    except Exception as error:  # noqa: BLE001 - handed on as this file's result
        return error


def _failure(path: Path, error: Exception) -> TelltaleError:
    """The error as the user is told it; a fault of ours is logged."""
    if isinstance(error, TelltaleError):
        return error
    log.error("%s could not be analysed", escape(str(path)), exc_info=error)
    return TelltaleError(f"{type(error).__name__}: {escape(str(error))}")


def _sha256(path: Path) -> str:
    check_readable(path)
    return file_sha256(path)
