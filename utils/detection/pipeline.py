"""The whole analysis of one file, in one readable function: start here to understand Telltale.

bytes -> media -> faces -> experts -> gate -> calibrated probability -> verdict -> report. The web page, REST, the
worker, `inference.py` and the evaluation all call `analyse`, or its three steps through `many.py`; nobody has a second
way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from models.cards import EXPERT_NAMES, expert_card
from utils.base_weights import FACE_FILE
from utils.config import Settings
from utils.cores import usable_cores
from utils.detection.calibration import Calibration, calibration_from_dict
from utils.detection.choice import known_experts, read_experts
from utils.detection.engine import Engine, TrackScores
from utils.detection.engines import load_engine
from utils.detection.precision import format_precisions
from utils.detection.verdict import NOT_FOR_PHOTOS, TOO_SHORT, decide, no_face_verdict, sigmoid
from utils.faces.crops import QUALITY_NAMES, FaceCrop, crop_for_networks, measure_quality
from utils.faces.detector import CenterFaceDetector, FaceDetector
from utils.faces.search import Lookout, Progress
from utils.media import PreparedDecoders, decode_media, prepared_decoders
from utils.types import (
    Box,
    ExpertScore,
    FaceReport,
    FaceTrack,
    Floats,
    FrameScore,
    Media,
    MediaKind,
    Notice,
    Outcome,
    Report,
)
from utils.weights import CALIBRATION_FILE, read_document, verify_current, weights_root


@dataclass(frozen=True)
class Analyser:
    """Everything loaded once: detector, engine, calibration, the decoders' processes, and the settings for them all."""

    settings: Settings
    detector: FaceDetector
    engine: Engine
    calibration: Calibration
    version: str
    version_sha256: str
    experts: tuple[str, ...]
    missing: Mapping[str, str]
    tiny: bool = False
    decoders: PreparedDecoders | None = None


def load_analyser(settings: Settings, *, device: str | None = None, experts: tuple[str, ...] | None = None) -> Analyser:
    """Load the verified version that the settings choose.

    Args:
        settings: from `load_settings`.
        device: overrides the setting.
        experts: overrides the setting.

    Raises:
        WeightsError: weights are missing, damaged or do not fit; nothing is ever computed with random ones.
        ConfigError: an expert's name is unknown, or the device is not there.
    """
    wanted = known_experts(experts) if experts else read_experts(settings.detection.experts)
    decoders = prepared_decoders()
    if decoders is not None:
        decoders.warm(MediaKind.IMAGE)  # ready when the networks are
    version = verify_current(settings)
    root = weights_root(settings)
    threads = settings.detection.threads or usable_cores()
    with ThreadPoolExecutor(1) as beside:
        detector = beside.submit(CenterFaceDetector, root / "base" / FACE_FILE, threads=threads)
        engine, missing = load_engine(
            settings, root, version, device=device or settings.detection.device, threads=threads, experts=wanted
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
        decoders=decoders,
    )


@dataclass(frozen=True)
class Seen:
    """A medium and the people found in it, cut out for the networks: what stands between the decoder and them.

    Args:
        media: decoded; its frames have sizes and times, but their pixels are forgotten.
        people: how many were found.
        tracks: of those who are judged.
        crops: of each track.
        quality: of each track, (T, Q).
        times_ms: of the stages so far.
    """

    media: Media
    people: int
    tracks: list[FaceTrack]
    crops: list[list[FaceCrop]]
    quality: list[Floats]
    times_ms: Mapping[str, float]


def analyse(
    path: Path,
    analyser: Analyser,
    *,
    progress: Progress | None = None,
    on_media: Callable[[Media], None] | None = None,
) -> Report:
    """Analyse one image or video: decode it and find its people, score them, conclude.

    `many.py` does the same with many files at once, by the same three steps.

    Args:
        path: the file; its name is never trusted.
        analyser: from `load_analyser`.
        progress: called at every stage; what it raises ends the analysis (so a user cancels).
        on_media: given the decoded medium once, for what else is made of its frames (the server's thumbnail).

    Returns:
        The report, also when no face was found.

    Raises:
        MediaError: the file is not supported, too large, damaged, or its decoder had to be stopped.
    """
    tell = progress or (lambda stage, done: None)
    seen = see(path, analyser, tell, on_media)
    tell("experts", 0.5)
    (scores,), (experts_ms,) = score([seen], analyser, lambda done: tell("experts", 0.5 + 0.45 * done))
    tell("decide", 0.95)
    report = conclude(seen, scores, analyser, experts_ms)
    tell("decide", 1.0)
    return report


def see(path: Path, analyser: Analyser, tell: Progress, on_media: Callable[[Media], None] | None = None) -> Seen:
    """From bytes to the crops of every person: decode, detect, track, crop, measure. Arguments as of `analyse`.

    Faces are searched for in the frames that have come while the next ones are decoded; the time of `decode` is what
    was spent waiting for frames.
    """
    clock = _Clock()
    tell("decode", 0.0)
    lookout = Lookout(analyser.detector, analyser.settings.media.frames, tell)
    media = decode_media(path, analyser.settings.media, analyser.settings.sandbox, analyser.decoders, lookout.look)
    if on_media is not None:
        on_media(media)
    clock.lap("decode", without_ms=lookout.ms)

    tell("detect", 0.5)
    everybody = lookout.people()
    tracks = everybody[: analyser.settings.detection.max_faces]
    crops = [[crop_for_networks(media.frames[s.frame].pixels, s.face) for s in track.sightings] for track in tracks]
    quality = [np.stack([measure_crop(crop) for crop in of_track]) for of_track in crops]
    clock.lap("detect", without_ms=-lookout.ms)
    return Seen(_without_pixels(media), len(everybody), tracks, crops, quality, clock.times)


def score(
    seen: Sequence[Seen], analyser: Analyser, on_batch: Callable[[float], None] | None = None
) -> tuple[list[list[TrackScores]], list[float]]:
    """Everybody in these media through the networks together.

    Args:
        seen: from `see`.
        analyser: the same.
        on_batch: as of `Engine.score`.

    Returns:
        For each medium the scores of its tracks, and its share of the milliseconds by the number of its crops.
    """
    started = time.perf_counter()
    tracks = [[crop.pixels for crop in of_track] for one in seen for of_track in one.crops]
    quality = [measured for one in seen for measured in one.quality]
    if not tracks:
        scores: Iterator[TrackScores] = iter(())
    else:
        scores = iter(analyser.engine.score(tracks, quality, on_batch))
    of_each = [[next(scores) for _ in one.tracks] for one in seen]
    ms = 1000 * (time.perf_counter() - started)
    counts = [sum(map(len, one.crops)) for one in seen]
    return of_each, [round(ms * count / max(1, sum(counts)), 1) for count in counts]


def conclude(seen: Seen, scores: Sequence[TrackScores], analyser: Analyser, experts_ms: float) -> Report:
    """From the scores of a medium's people to its report."""
    clock = _Clock()
    faces = tuple(
        report_face(track, of_track, measured, crops, seen.media, analyser)
        for track, of_track, measured, crops in zip(seen.tracks, scores, seen.quality, seen.crops, strict=True)
    )
    deciding = max(faces, key=_suspicion) if faces else None
    clock.lap("decide")
    times = {**seen.times_ms, "experts": experts_ms, **clock.times}
    return Report(
        media=seen.media.info,
        verdict=deciding.verdict if deciding else no_face_verdict(),
        faces=faces,
        deciding_face=deciding.id if deciding else None,
        model_version=analyser.version,
        model_sha256=analyser.version_sha256,
        threshold=analyser.settings.detection.threshold,
        times_ms={**times, "total": round(sum(times.values()), 1)},
        notices=seen.media.notices + _people_left_out(seen.people, len(seen.tracks)),
        settings=score_settings(analyser),
    )


def score_settings(analyser: Analyser) -> dict[str, float | str]:
    """What a score depends on, by the names in config.ini; experts, engine and precision are those that really ran."""
    detection, media = analyser.settings.detection, analyser.settings.media
    engine = analyser.engine
    return {
        "threshold": detection.threshold,
        "experts": ",".join(analyser.experts),
        "max_faces": detection.max_faces,
        "device": detection.device,
        "engine": engine.name,
        "precision": format_precisions(engine.precisions),
        "frames": media.frames,
        "min_face_px": media.min_face_px,
    }


def find_people(media: Media, analyser: Analyser, tell: Progress) -> list[FaceTrack]:
    """The people in a medium, the largest face first and no more than `max_faces`; the same ones at each call."""
    lookout = Lookout(analyser.detector, analyser.settings.media.frames, tell)
    for frame in media.frames:
        lookout.look(frame)
    return lookout.people()[: analyser.settings.detection.max_faces]


def _without_pixels(media: Media) -> Media:
    """A medium that takes no memory: whoever waits for the networks has no more use for whole frames."""
    nothing = np.zeros(1, np.uint8)
    blank = tuple(replace(f, pixels=np.broadcast_to(nothing, f.pixels.shape)) for f in media.frames)
    return replace(media, frames=blank)


def _people_left_out(found: int, judged: int) -> tuple[Notice, ...]:
    if found == judged:
        return ()
    return (Notice("people_left_out", f"{found} people were found; only the {judged} most prominent were judged."),)


def measure_crop(crop: FaceCrop) -> Floats:
    """What the gate sees of a crop beside the experts' logits, (Q,) in the order of `QUALITY_NAMES`."""
    return measure_quality(crop.pixels, crop.source_px, crop.detector_score)


def report_face(
    track: FaceTrack, score: TrackScores, quality: Floats, crops: list[FaceCrop], media: Media, analyser: Analyser
) -> FaceReport:
    """What is said about one person: from the ensemble's scores and the crops' quality to the verdict."""
    experts = _expert_scores(score, media, analyser)
    # large videos are decoded smaller; the report speaks of the medium's own pixels
    larger = media.info.width / media.frames[0].pixels.shape[1]
    face_px = float(np.median([crop.source_px for crop in crops])) * larger
    verdict = decide(
        score.logit,
        experts,
        analyser.calibration,
        threshold=analyser.settings.detection.threshold,
        face_px=face_px,
        min_face_px=analyser.settings.media.min_face_px,
    )
    frames = tuple(
        FrameScore(s.frame, media.frames[s.frame].time_s, sigmoid(float(logit)), _scaled(s.face.box, larger))
        for s, logit in zip(track.sightings, score.frame_logits, strict=True)
    )
    means = {name: round(float(value), 4) for name, value in zip(QUALITY_NAMES, quality.mean(0), strict=True)}
    return FaceReport(
        id=track.id, verdict=verdict, experts=experts, frames=frames, quality={"face_px": round(face_px, 1), **means}
    )


def _scaled(box: Box, factor: float) -> Box:
    return box if factor == 1 else Box(box.x0 * factor, box.y0 * factor, box.x1 * factor, box.y1 * factor)


def _expert_scores(score: TrackScores, media: Media, analyser: Analyser) -> tuple[ExpertScore, ...]:
    out = []
    for i, name in enumerate(EXPERT_NAMES):
        card, logit = expert_card(name), float(score.expert_logits[i])
        available = not np.isnan(logit)
        why = analyser.missing.get(name, TOO_SHORT)
        if name == "lstm" and media.info.kind is MediaKind.IMAGE:
            why = NOT_FOR_PHOTOS  # also when it is not loaded: nothing is missed
        out.append(
            ExpertScore(
                name=name,
                title=card.title,
                looks_at=card.looks_at,
                available=available,
                probability=sigmoid(logit) if available else None,
                weight=float(np.clip(score.weights[i], 0, 1)),
                missing_because=None if available else why,
            )
        )
    return tuple(out)


def _suspicion(face: FaceReport) -> tuple[int, float]:
    """A face that can be judged decides before one that cannot (too small); then the most suspicious one."""
    too_small = any(reason.code == "small_face" for reason in face.verdict.reasons)
    if face.verdict.outcome is Outcome.NO_FACE or face.verdict.probability is None:
        return (0, 0.0)
    return (0 if too_small else 1, face.verdict.probability)


class _Clock:
    """Milliseconds per stage."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self.times: dict[str, float] = {}

    def lap(self, stage: str, without_ms: float = 0.0) -> None:
        now = time.perf_counter()
        self.times[stage] = round(1000 * (now - self._last) - without_ms, 1)
        self._last = now


__all__ = [
    "Analyser",
    "Progress",
    "Seen",
    "analyse",
    "conclude",
    "find_people",
    "load_analyser",
    "measure_crop",
    "report_face",
    "score",
    "score_settings",
    "see",
]
