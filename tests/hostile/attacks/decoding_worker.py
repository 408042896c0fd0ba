"""A worker that decodes for real and detects nothing: `python -m tests.hostile.attacks.decoding_worker`.

Queue, worker loop and the confined child are the product's; only the networks are left out, so that thousands of
malformed files can be tried in minutes. Every decoded file is reported as one without a face.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from utils.config import Settings, load_settings
from utils.media import decode_media, sandbox_level
from utils.types import Outcome, Report, Verdict
from web_app.jobs.runner import Progress, WorkerTasks, run_worker
from web_app.jobs.shared import Instance
from web_app.worker import end_with_parent, stop_on_signals


def decode_only(settings: Settings, path: Path, progress: Progress) -> Report:
    """The report of a medium that was decoded and not looked at."""
    progress("decode", 0.0)
    media = decode_media(path, settings.media, settings.sandbox)
    return Report(
        media=media.info,
        verdict=Verdict(Outcome.NO_FACE, "The file was decoded and not looked at.", None, None),
        faces=(),
        deciding_face=None,
        model_version="none",
        model_sha256="0" * 64,
        threshold=0.5,
        times_ms={},
        notices=media.notices,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker-id")
    parser.add_argument("--supervised", action="store_true")
    given = parser.parse_args()
    stop = stop_on_signals()
    if given.supervised:
        end_with_parent(stop)
    settings = load_settings()
    level = list(sandbox_level())
    run_worker(
        Instance.of(settings),
        lambda path, progress: decode_only(settings, path, progress),
        stop,
        worker_id=given.worker_id,
        tasks=WorkerTasks(facts=lambda: {"model_version": "none", "sandbox": level}),
    )


if __name__ == "__main__":
    main()
