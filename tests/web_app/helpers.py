"""What the tests of the server share: media whose bytes tell a fake analysis what to do, and its reports."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.web_app.db import postgres
from utils.config import JobSettings, MediaSettings, ServerSettings, Settings, StorageSettings, WeightsSettings
from utils.detection.verdict import fuse
from utils.errors import MediaCorruptError
from utils.evidence.answer import to_provenance
from utils.media_types import Provenance
from utils.types import (
    Box,
    ExpertScore,
    FaceReport,
    FrameScore,
    MediaInfo,
    MediaKind,
    Notice,
    Outcome,
    Report,
    SoundInfo,
    SpeechReport,
    SpeechWindow,
    Verdict,
)
from utils.weights import CURRENT, SPEECH_FOLDER
from web_app.jobs.runner import Analyse, Progress, WorkerTasks, run_worker
from web_app.jobs.shared import Instance

if TYPE_CHECKING:  # a fake worker, which starts often, loads none of it
    from flask.testing import FlaskClient
    from werkzeug.test import TestResponse

HEADS = {
    "png": b"\x89PNG\r\n\x1a\n",
    "jpeg": b"\xff\xd8\xff\xe0",
    "mp4": b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2",
    "flac": b"fLaC\x00\x00\x00\x22",
}
SOUND = SoundInfo(codec="flac", rate_hz=44100, channels=2, duration_s=4.0)
STAGES = ("decode", "detect", "experts", "decide")
PROBABILITIES = {"fake": 0.93, "real": 0.08, "inconclusive": 0.51}


def media_bytes(media_format: str = "png", order: str = "fake", size: int = 300) -> bytes:
    """Content that sniffs as the format; `fake_analyse` does what `order` says."""
    return (HEADS[media_format] + f"|{order}|".encode()).ljust(size, b"\x07")


def order_of(content: bytes) -> str:
    return content.split(b"|")[1].decode()


def make_report(
    content: bytes = b"x",
    outcome: Outcome = Outcome.FAKE,
    kind: MediaKind = MediaKind.IMAGE,
    *,
    probability: float | None = None,
    spread: float = 0.05,
) -> Report:
    """A report as the pipeline makes it, with one face and two experts, or with none; of sound, with a voice."""
    p = PROBABILITIES.get(outcome.value) if probability is None else probability
    if kind is MediaKind.AUDIO:
        return make_voice_report(content, outcome)
    video = kind is MediaKind.VIDEO
    info = MediaInfo(
        kind=kind, format="mp4" if video else "png", mime="video/mp4" if video else "image/png", width=640, height=480,
        size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), duration_s=4.0 if video else None,
        fps=25.0 if video else None, codec="h264" if video else None,
    )  # fmt: skip
    verdict = Verdict(
        outcome, "A headline.", p, None if p is None else (max(0.0, p - spread), min(1.0, p + spread)),
        (Notice("agreement", "The experts agree."),),
    )  # fmt: skip
    faces: tuple[FaceReport, ...] = ()
    if p is not None:
        experts = (
            ExpertScore(name="cnn", title="CNN", looks_at="noise", available=True, probability=p, weight=1.0),
            ExpertScore(
                name="lstm", title="BiLSTM", looks_at="motion", available=False, probability=None, weight=0.0,
                missing_because="It needs a video.",
            ),
        )  # fmt: skip
        frames = (FrameScore(0, 0.0, p, Box(1, 2, 30, 40)),)
        faces = (FaceReport(id=0, verdict=verdict, experts=experts, frames=frames, quality={"face_px": 29.0}),)
    return Report(
        media=info, verdict=verdict, faces=faces, deciding_face=0 if faces else None, model_version="v-test",
        model_sha256="0" * 64, threshold=0.5, times_ms={"total": 12.5},
    )  # fmt: skip


def make_provenance(state: str = "valid") -> Provenance:
    """What a file says of itself: credentials, a generator, a camera, an editor, and two savings."""
    return to_provenance(
        {
            "marks": [[0, "", "png", "parameters", '{"sui_image_params": "<b>"}']],
            "camera": ["exif", "Canon EOS R5"],
            "steps": ["saved by Adobe Photoshop 25.1 on 2024-05-01"],
            "credentials": {
                "state": state, "signer": "Example Signer", "issuer": "Example Org", "made_with": "Example Maker 1.0",
                "actions": ["c2pa.created"], "source_types": ["trainedAlgorithmicMedia"], "ingredients": ["before.jpg"],
                "generator": "ImageModel", "own": ["generator"],
                "problems": ["assertion.dataHash.mismatch"] if state == "broken" else [],
            },
            "compression": {"quality": 85, "quality_before": 40, "tables": "standard"},
            "failed": [],
        }
    )  # fmt: skip


def make_voice(outcome: Outcome) -> SpeechReport:
    """What a voice of four seconds says."""
    p = PROBABILITIES.get(outcome.value)
    verdict = Verdict(outcome, "A headline.", p, None if p is None else (p - 0.05, p + 0.05), (Notice("heard", "So."),))
    windows = () if p is None else tuple(SpeechWindow(start, start + 2.0, p) for start in (0.0, 1.0, 2.0))
    return SpeechReport(
        verdict=verdict, windows=windows, speech_s=0.0 if p is None else 3.2, duration_s=4.0, model_version="s-test",
        model_sha256="1" * 64, threshold=0.5,
    )  # fmt: skip


def make_voice_report(content: bytes, outcome: Outcome) -> Report:
    """A report on a recording."""
    info = MediaInfo(
        kind=MediaKind.AUDIO, format="flac", mime="audio/flac", width=0, height=0, size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(), duration_s=4.0, codec="flac", sound=SOUND,
    )  # fmt: skip
    speech = make_voice(outcome)
    return Report(
        media=info, verdict=speech.verdict, faces=(), deciding_face=None, model_version="v-test",
        model_sha256="0" * 64, threshold=0.5, times_ms={"total": 12.5, "speech": 3.0}, speech=speech,
    )  # fmt: skip


def fake_analyse(path: Path, progress: Progress) -> Report:
    """Do what the file's content orders: answer with an outcome, fail, crash, or take a while."""
    content = path.read_bytes()
    order, _, argument = order_of(content).partition(" ")
    kind = MediaKind.IMAGE if content[:4] in (HEADS["png"][:4], HEADS["jpeg"][:4]) else MediaKind.VIDEO
    if content.startswith(HEADS["flac"]) or argument == "alone":
        kind = MediaKind.AUDIO
    for index, stage in enumerate(STAGES):
        progress(stage, index / len(STAGES))
    if order == "corrupt":
        raise MediaCorruptError("Nothing could be decoded.")
    if order == "crash":
        raise RuntimeError("a fault that the tests put here")
    if order == "sleep":
        until = time.monotonic() + float(argument)
        while time.monotonic() < until:
            time.sleep(0.02)
            progress("experts", 0.6)
        order = "fake"
    if order == "deaf":  # a stage that never reports progress
        time.sleep(float(argument))
        order = "fake"
    report = make_report(content, Outcome(order), kind)
    if argument in tuple(Outcome):  # a video whose voice says this
        voice = make_voice(Outcome(argument))
        info = dataclasses.replace(report.media, sound=SOUND)
        together = fuse(report.verdict, voice.verdict)
        return dataclasses.replace(report, media=info, speech=voice, overall=together)
    return report


def make_settings(
    folder: Path, *, server: dict[str, Any] | None = None, on_postgres: bool = bool(postgres.CHOSEN), **jobs: Any
) -> Settings:
    """Settings that write below `folder`, with short intervals; keywords replace keys of [jobs]."""
    database_url = postgres.database_url(folder) if on_postgres else ""
    return Settings(
        server=ServerSettings(**(server or {})),
        storage=StorageSettings(instance_dir=str(folder / "instance"), database_url=database_url),
        media=MediaSettings(max_file_mb=1),
        jobs=dataclasses.replace(JobSettings(poll_s=0.02, lease_s=5.0), **jobs),
    )


def choose_speech(root: Path) -> WeightsSettings:
    """A folder of weights with a version of speech chosen; for fake workers, which need nothing else to be there."""
    for name in ("s1", "s2"):
        (root / SPEECH_FOLDER / name).mkdir(parents=True)
    (root / SPEECH_FOLDER / CURRENT).write_text("s1\n", encoding="utf-8")
    return WeightsSettings(dir=str(root))


def accept_weights(settings: Settings) -> str:
    return "v-test"


@contextmanager
def running_worker(
    settings: Settings, analyse: Analyse = fake_analyse, *, tasks: WorkerTasks | None = None, **facts: Any
) -> Iterator[threading.Event]:
    """A worker in a thread; it has ended when the block ends."""
    stop, instance = threading.Event(), Instance.of(settings)
    tasks = tasks or WorkerTasks(facts=lambda: facts)
    thread = threading.Thread(target=run_worker, args=(instance, analyse, stop), kwargs={"tasks": tasks})
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(180)
        assert not thread.is_alive()
        instance.close()


def clean_up(instance: Instance, days: int, now: dt.datetime) -> int:
    """What a worker deletes at this moment where analyses are kept so many days; how many analyses."""
    storage = dataclasses.replace(instance.settings.storage, retention_days=days)
    changed = dataclasses.replace(instance, settings=dataclasses.replace(instance.settings, storage=storage))
    from web_app import worker

    return worker.clean_up(changed, now)


@contextmanager
def listening(application: Any) -> Iterator[int]:
    """The port of this machine where a WSGI application answers while the block runs."""
    from werkzeug.serving import make_server

    def answer(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        # werkzeug leaves an answer, and the file in it, open when the browser drops the connection while it is sent
        with contextlib.closing(application(environ, start_response)) as parts:
            yield from parts

    server = make_server("127.0.0.1", 0, answer, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def stored_files(parts: Instance) -> list[Path]:
    """All files of the uploads folder, whatever they are."""
    return sorted(path for path in parts.paths.uploads.rglob("*") if path.is_file())


def multipart(content: bytes, name: str = "photo.png") -> bytes:
    """The body of an upload, with the boundary `b`."""
    head = f'--b\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    return head.encode() + content + b"\r\n--b--\r\n"


def upload(
    client: FlaskClient, content: bytes, route: str = "/api/detect", name: str = "photo.png", **keywords: Any
) -> TestResponse:
    return client.post(route, data=multipart(content, name), content_type="multipart/form-data; boundary=b", **keywords)


def wait_until(condition: Callable[[], Any], seconds: float = 180.0) -> Any:
    """The first true value of the condition; fails the test if there is none in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")


def job_state(client: FlaskClient, public_id: str) -> str:
    return str(client.get(f"/api/jobs/{public_id}").get_json()["state"])
