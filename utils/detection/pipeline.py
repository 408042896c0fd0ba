"""The whole analysis of one file, in one readable function, `analyse`: start here to understand Telltale.

path -decode-> media -find_faces-> tracks -cut-> people -score-> what experts and gate say -make_report-> report.
The web page, REST, the worker, the command line, the live camera, close-ups and evaluation take these steps; where many
files come at once, `batch.py` takes them with a queue in between.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from models.cards import EXPERT_NAMES
from utils.base_weights import FACE_FILE
from utils.config import Settings, parse_experts
from utils.detection.calibration import Calibration, calibration_from_dict
from utils.detection.engine import Engine, TrackScores
from utils.detection.engines import load_engine
from utils.detection.face_report import COVER, NO_PHOTO, read_probe, report_face
from utils.detection.moments import seen_notice
from utils.detection.people import People, cut, without_pixels
from utils.detection.processor import format_precisions, usable_cores
from utils.detection.remembered import Remembered, read_remembered
from utils.detection.verdict import deciding_face, fuse, verdict_of_all
from utils.errors import WeightsMissingError
from utils.faces.detector import CenterFaceDetector, FaceDetector
from utils.faces.judgeable import find_turn, turn_upright
from utils.faces.search import FaceSearch, Progress, with_small_faces
from utils.faces.tracking import track_faces, turns_of
from utils.media import ForkServer, decode_media, start_fork_server
from utils.media.provenance import check_trust_list, read_provenance
from utils.speech.judge import SpeechJudge, load_speech
from utils.types import Face, FaceTrack, Frame, Media, MediaKind, Notice, Report
from utils.weights import (
    CALIBRATION_FILE,
    SPEECH_FOLDER,
    current_name,
    has_speech,
    networks_of,
    read_document,
    speech_name,
    verify_current,
    verify_version,
    weights_root,
)

NO_SPEECH_NETWORK = "There are no weights of speech here (`trained_models/speech`), so the voice was not judged."


@dataclass(frozen=True)
class Analyser:
    """Everything loaded once: detector, engine, calibration, the decoders' processes, and the settings for them all.

    `speech` is None where there are no weights of speech, `remembered` where the version learned no corrections;
    `networks` is the checksum of the version whose networks are loaded: its own, or that of the one it learned from.
    """

    settings: Settings
    detector: FaceDetector
    engine: Engine
    calibration: Calibration
    version: str
    version_sha256: str
    experts: tuple[str, ...]
    missing: Mapping[str, str]
    tiny: bool = False
    speech: SpeechJudge | None = None
    trust_list: str = ""
    decoders: ForkServer | None = None
    remembered: Remembered | None = None
    networks: str = ""


class Scores(NamedTuple):
    """What the ensemble says of the people of a medium, and this medium's share of the time, milliseconds."""

    people: list[TrackScores]
    ms: float


OnScores = Callable[[People, Scores, Report], None]


def load_analyser(
    settings: Settings,
    *,
    device: str | None = None,
    experts: tuple[str, ...] | None = None,
    speech: str | None = None,
    loaded: Analyser | None = None,
) -> Analyser:
    """Load the verified version that the settings choose.

    Args:
        speech: the version of speech; None for the one that the settings choose.
        loaded: made with the same arguments; where the version has the same networks, they are not loaded again.

    Raises:
        WeightsError: weights are missing, damaged or do not fit; nothing is ever computed with random ones.
        ConfigError: an expert's name is unknown, or the device is not there.
    """
    trust_list = check_trust_list(settings.evidence.trust_list)
    wanted = parse_experts(",".join(experts) if experts else settings.detection.experts)
    root = weights_root(settings)
    version = verify_version(root, settings.weights.version or current_name(root))
    networks, remembered = networks_of(root, version), read_remembered(version)
    threads = settings.detection.threads or usable_cores()
    heard = speech or (speech_name(settings) if has_speech(root) else None)
    if loaded is not None and loaded.networks == networks.sha256:
        judge = load_speech(root / SPEECH_FOLDER, heard, threads=threads, loaded=loaded.speech) if heard else None
        return replace(loaded, version=version.name, version_sha256=version.sha256, remembered=remembered, speech=judge)
    verify_current(settings)  # the base weights too, half a second
    decoders = start_fork_server()
    if decoders is not None:
        decoders.warm()  # ready when the networks are
    for probe in (COVER, NO_PHOTO):
        read_probe(probe.path, probe.sha256)
    with ThreadPoolExecutor(1) as beside:
        detector = beside.submit(CenterFaceDetector, root / "base" / FACE_FILE, threads=threads)
        engine, missing = load_engine(
            settings, root, networks, device=device or settings.detection.device, threads=threads, experts=wanted
        )
    return Analyser(
        settings=settings,
        detector=detector.result(),
        engine=engine,
        calibration=calibration_from_dict(read_document(version.folder / CALIBRATION_FILE)),
        version=version.name,
        version_sha256=version.sha256,
        experts=tuple(n for n in EXPERT_NAMES if n not in missing),
        missing=missing,
        tiny=version.tiny,
        speech=load_speech(root / SPEECH_FOLDER, heard, threads=threads) if heard else None,
        trust_list=trust_list,
        decoders=decoders,
        remembered=remembered,
        networks=networks.sha256,
    )


def no_progress(stage: str, done: float) -> None:
    """The progress of what nobody watches."""


def analyse(
    path: Path,
    analyser: Analyser,
    *,
    progress: Progress = no_progress,
    on_media: Callable[[Media], None] | None = None,
    on_scores: OnScores | None = None,
) -> Report:
    """Analyse one image, video or recording: find its people and its voice, let the networks score them, and report.

    Args:
        path: the file; its name is never trusted.
        progress: called at every stage; what it raises ends the analysis (so a user cancels).
        on_media: given the decoded medium once, for what else is made of its frames (the server's thumbnail).
        on_scores: given all that the report was made of, and the report (for what learning keeps of it).

    Returns:
        The report, also when no face and no speech was found.

    Raises:
        MediaError: the file is not supported, too large, damaged, or its decoder had to be stopped.
        WeightsMissingError: it is sound alone, and there are no weights of speech.
    """
    people = examine(path, analyser, progress=progress, on_media=on_media)
    progress("experts", 0.5)
    (scores,) = score([people], analyser, lambda done: progress("experts", 0.5 + 0.45 * done))
    progress("decide", 0.95)
    report = make_report(people, scores, analyser)
    if on_scores is not None:
        on_scores(people, scores, report)
    progress("decide", 1.0)
    return report


def examine(
    path: Path,
    analyser: Analyser,
    *,
    progress: Progress = no_progress,
    on_media: Callable[[Media], None] | None = None,
    keep_pixels: bool = False,
    keep_sound: bool = False,
) -> People:
    """Decode a file, find everybody's faces and cut them out; arguments as of `analyse`.

    Faces are searched for in the frames that have come while the next ones are decoded; the time of `decode` is what
    was spent waiting for frames.

    Args:
        keep_pixels: of whole frames, for what changes and cuts them again; the voice of a video and what a file says
            of itself are then left alone.
        keep_sound: its samples, too, where there is a network of speech.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="evidence") as beside:
        settings = analyser.settings
        asked = (path, settings.media, settings.sandbox, analyser.trust_list, analyser.decoders)
        said = None if keep_pixels else beside.submit(read_provenance, *asked)
        people = _examine(path, analyser, progress, on_media, keep_pixels, keep_sound)
        return people if said is None else replace(people, provenance=said.result())


def _examine(
    path: Path,
    analyser: Analyser,
    progress: Progress,
    on_media: Callable[[Media], None] | None,
    keep_pixels: bool,
    keep_sound: bool,
) -> People:
    clock = _Clock()
    progress("decode", 0.0)
    search = FaceSearch(analyser.detector, analyser.settings.media.frames, progress)
    heard = analyser.speech is not None and (keep_sound or not keep_pixels)
    media = decode(path, analyser, search.add, sound=heard)
    if media.info.kind is MediaKind.AUDIO and analyser.speech is None:
        raise WeightsMissingError(NO_SPEECH_NETWORK)
    if on_media is not None:
        on_media(media)
    clock.lap("decode", without_ms=search.ms)
    progress("detect", 0.5)
    tracks, found = _tracks(media, search, analyser)
    if media.frames and (turn := find_turn(analyser.detector, media.frames, found)):
        media = turn_upright(media, turn)
        tracks = find_faces(media, analyser)
    people = cut_for(media, tracks, analyser)
    clock.lap("detect", without_ms=-search.ms)
    speech = None
    if media.samples is not None and analyser.speech is not None and not keep_pixels:
        progress("speech", 0.5)
        speech = analyser.speech.judge(media.samples, threshold=analyser.settings.detection.threshold)
        clock.lap("speech")
    media = media if keep_sound else replace(media, samples=None)
    media = media if keep_pixels else without_pixels(media)
    return replace(people, media=media, times_ms=clock.times, speech=speech)


def decode(
    path: Path, analyser: Analyser, on_frame: Callable[[Frame], None] | None = None, *, sound: bool = False
) -> Media:
    """The frames of a file, and its `sound` if that is wanted, decoded in a confined process.

    Args:
        on_frame: given each frame as soon as it is there, while the next ones are decoded; index 0 begins anew.

    Raises:
        MediaError: see `analyse`.
    """
    settings = analyser.settings
    return decode_media(path, settings.media, settings.sandbox, analyser.decoders, on_frame, sound=sound)


def find_faces(media: Media, analyser: Analyser) -> list[FaceTrack]:
    """Everybody in a medium that is decoded already, the largest face first; the same ones at each call."""
    search = FaceSearch(analyser.detector, analyser.settings.media.frames, no_progress)
    for frame in media.frames:
        search.add(frame)
    return _tracks(media, search, analyser)[0]


def _tracks(media: Media, search: FaceSearch, analyser: Analyser) -> tuple[list[FaceTrack], Sequence[Sequence[Face]]]:
    """Everybody in a medium that was searched, and the faces of each frame; small ones of a large photo too."""
    if media.info.kind is not MediaKind.IMAGE:
        return search.tracks(), search.found
    smallest = analyser.settings.media.min_face_px
    faces = with_small_faces(analyser.detector, media.frames[0].pixels, search.found[0], smallest)
    return list(track_faces([faces])), [faces]


def cut_for(media: Media, tracks: Sequence[FaceTrack], analyser: Analyser) -> People:
    """Cut out whoever the settings of an analyser let judge; see `cut`."""
    settings = analyser.settings
    return cut(media, tracks, min_face_px=settings.media.min_face_px, max_faces=settings.detection.max_faces)


def score(group: Sequence[People], analyser: Analyser, on_batch: Callable[[float], None] | None = None) -> list[Scores]:
    """Everybody in these media through the networks together, and each through the gate.

    Args:
        on_batch: told the share of the crops that are done, 0..1, after each batch; what it raises ends the work.
    """
    started = time.perf_counter()
    judged = [person for people in group for person in people.judged]
    scores, start = [], 0
    if judged:
        answers = analyser.engine.run([crop.pixels for person in judged for crop in person.crops], on_batch)
        for person in judged:
            mine = answers[start : start + len(person.crops)]
            scores.append(analyser.engine.mix(mine, person.quality, analyser.remembered))
            start += len(person.crops)
    of_all = iter(scores)
    of_each = [[next(of_all) for _ in people.judged] for people in group]
    ms = 1000 * (time.perf_counter() - started)
    shares = [sum(len(person.crops) for person in people.judged) / max(1, start) for people in group]
    return [Scores(mine, round(ms * share, 1)) for mine, share in zip(of_each, shares, strict=True)]


def make_report(people: People, scores: Scores, analyser: Analyser) -> Report:
    """From the scores of a medium's people to its report."""
    clock = _Clock()
    pairs = zip(people.judged, scores.people, strict=True)
    turns = turns_of([person.track for person in people.judged])
    faces = tuple(report_face(person, of_person, people.media, turns, analyser) for person, of_person in pairs)
    deciding = deciding_face(faces)
    left_out = _people_left_out(people)
    info, speech, notices = people.media.info, people.speech, people.media.notices
    if info.kind is MediaKind.AUDIO and speech is not None:
        verdict = speech.verdict
    else:
        verdict = verdict_of_all(faces, left_out if people.left_out else None, seen_notice(people.media, 0, ()))
    overall = fuse(verdict, speech.verdict) if info.kind is MediaKind.VIDEO and speech is not None else None
    if info.sound is not None and analyser.speech is None:
        notices += (Notice("speech_missing", NO_SPEECH_NETWORK),)
    clock.lap("decide")
    times = {**people.times_ms, "experts": scores.ms, **clock.times}
    return Report(
        media=people.media.info,
        verdict=verdict,
        faces=faces,
        deciding_face=deciding.id if deciding else None,
        model_version=analyser.version,
        model_sha256=analyser.version_sha256,
        threshold=analyser.settings.detection.threshold,
        times_ms={**times, "total": round(sum(times.values()), 1)},
        notices=notices + ((left_out,) if left_out else ()),
        settings=score_settings(analyser),
        speech=speech,
        overall=overall,
        provenance=people.provenance,
    )


def judge(people: People, analyser: Analyser) -> Report:
    """The report about people who are cut out already."""
    (scores,) = score([people], analyser)
    return make_report(people, scores, analyser)


def score_settings(analyser: Analyser) -> dict[str, float | str]:
    """What a score depends on, by the names in config.ini; experts, engine and precision are those that really ran."""
    detection, media = analyser.settings.detection, analyser.settings.media
    return {
        "threshold": detection.threshold,
        "experts": ",".join(analyser.experts),
        "max_faces": detection.max_faces,
        "device": detection.device,
        "engine": analyser.engine.name,
        "precision": format_precisions(analyser.engine.precisions),
        "frames": media.frames,
        "max_frames": media.max_frames,
        "min_face_px": media.min_face_px,
    }


def _people_left_out(people: People) -> Notice | None:
    shown = len(people.judged)
    if people.found == shown:
        return None
    text = f"{people.found} people were found; only {shown} of them were examined."
    if people.left_out:
        return Notice("people_left_out", f"{text} Any of the others may be manipulated.")
    return Notice("people_left_out", f"{text} The others are too small, cut by the border or unsharp.")


class _Clock:
    """Milliseconds per stage."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self.times: dict[str, float] = {}

    def lap(self, stage: str, without_ms: float = 0.0) -> None:
        now = time.perf_counter()
        self.times[stage] = round(1000 * (now - self._last) - without_ms, 1)
        self._last = now
