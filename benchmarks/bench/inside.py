"""What is measured within this process: experts, face detection, decoding, whole pictures and clips, many photos."""

from __future__ import annotations

import dataclasses
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.bench.media import scene, write_clip, write_photos
from benchmarks.bench.reference import ReferencePipeline
from benchmarks.bench.timing import Row, compare, rows_of
from models.cards import IMAGE_EXPERTS, expert_card
from models.preprocess import prepare
from utils.detection.batch import analyse_files
from utils.detection.pipeline import Analyser, analyse, load_analyser
from utils.faces.crops import crop_for_networks
from utils.media import decode_media
from utils.media.images import decode_image
from utils.media.limits import MediaLimits
from utils.media.video import decode_video
from utils.types import Pixels


@dataclass(frozen=True)
class Bench:
    """What the sections share; `rounds` is of what takes less than a second, slower things get a third of them."""

    analyser: Analyser
    folder: Path
    rounds: int
    short: bool = False

    @property
    def slow_rounds(self) -> int:
        return max(1, self.rounds // 3)

    def photo(self) -> Path:
        return write_photos(self.folder / "one", 1)[0]

    def clip(self) -> Path:
        path = self.folder / "clip.mp4"
        if not path.exists():
            small = {"seconds": 1.0, "width": 320, "height": 240} if self.short else {}
            write_clip(path, **small)  # type: ignore[arg-type]
        return path

    def alone(self, expert: str) -> Any:
        """The product's engine with one expert."""
        return load_analyser(self.analyser.settings, experts=(expert,)).engine

    def crops(self, count: int) -> list[Pixels]:
        """Crops of the portrait, as the experts get them."""
        out: list[Pixels] = []
        number = 0
        while len(out) < count:
            pixels = scene(640, 480, number)
            out += [crop_for_networks(pixels, face).pixels for face in self.analyser.detector.detect(pixels)[:1]]
            number += 1
        return out


def experts(bench: Bench) -> list[Row]:
    """Each image expert in torch and in the product's engine, and all of them, at batches of 1 and 16.

    The product's figures include the making of its inputs from crops; torch gets its inputs ready made.
    """
    networks = ReferencePipeline(bench.analyser).ensemble
    engines = {name: bench.alone(name) for name in IMAGE_EXPERTS if name in networks.experts}
    rows: list[Row] = []
    for batch in (1, 16):
        crops = np.stack(bench.crops(batch))
        images = torch.from_numpy(crops).permute(0, 3, 1, 2).float().div(255)
        rounds = bench.rounds if batch == 1 else bench.slow_rounds
        for name, engine in engines.items():
            ready = prepare(images, expert_card(name, tiny=networks.tiny))
            product = f"{engine.name} {engine.precisions[name]}"
            variants = {
                "torch float32": _forward(networks.experts[name], ready),
                f"the product: {product}": lambda e=engine, c=crops: e.answer_batch(c),  # type: ignore[misc]
            }
            rows += compare(f"{name}, batch {batch}", variants, rounds)
    return rows


def _forward(network: torch.nn.Module, images: torch.Tensor) -> Callable[[], object]:
    def run() -> object:
        with torch.inference_mode():
            return network(images)

    return run


def detection(bench: Bench) -> list[Row]:
    """The face detector on pictures of several sizes, and what a size costs that it has not seen before."""
    detector = bench.analyser.detector
    sizes = ((640, 360), (1280, 720), (1920, 1080), (640, 640), (320, 320))
    pictures = {f"{w} x {h}": scene(w, h) for w, h in sizes}
    rows = compare("face detection", {k: lambda p=p: detector.detect(p) for k, p in pictures.items()}, bench.rounds)  # type: ignore[misc]
    firsts = []
    for width in range(330, 330 + 32 * (2 if bench.short else 8), 32):
        fresh = scene(width, 230)
        started = time.perf_counter()
        detector.detect(fresh)
        firsts.append(1000 * (time.perf_counter() - started))
    return [*rows, *rows_of("face detection, new size", {"first picture of a size": firsts}, {})]


def decoding(bench: Bench) -> list[Row]:
    """A photo and a clip: the decoder alone in this process, and through the confined child."""
    settings, limits = bench.analyser.settings, MediaLimits()
    data = bench.photo().read_bytes()
    photo, clip = bench.photo(), bench.clip()

    def child(path: Path, **how: Any) -> Callable[[], object]:
        return lambda: decode_media(path, settings.media, settings.sandbox, **how)

    rows = compare(
        "decode, photo of 1280 x 960",
        {"decoder alone, no child": lambda: decode_image(io.BytesIO(data), limits), "a new child": child(photo)},
        bench.rounds,
    )
    frames = settings.media.frames
    rows += compare(
        "decode, clip",
        {
            "every frame, no child": lambda: decode_video(clip, 10**6, limits) if bench.short else _all_frames(clip),
            "16 frames, no child": lambda: decode_video(clip, frames, limits),
            "16 frames, a new child": child(clip),
        },
        bench.slow_rounds,
    )
    return rows


def _all_frames(path: Path) -> None:
    import av

    with av.open(str(path)) as source:
        source.streams.video[0].codec_context.thread_count = 1
        for _ in source.decode(video=0):
            pass


def image(bench: Bench) -> list[Row]:
    """A photo with one face from file to report."""
    return _whole(bench, "image, end to end", bench.photo(), bench.rounds)


def video(bench: Bench) -> list[Row]:
    """A clip of 10 s, 720p, 16 frames, one person from file to report."""
    return _whole(bench, "video, end to end", bench.clip(), bench.slow_rounds)


def _whole(bench: Bench, section: str, path: Path, rounds: int) -> list[Row]:
    reference = ReferencePipeline(bench.analyser)
    report = analyse(path, bench.analyser)
    plain = reference.analyse(path)
    found = [face.verdict.probability for face in report.faces]
    stages: dict[str, list[float]] = {}

    def product() -> None:
        for stage, ms in analyse(path, bench.analyser).times_ms.items():
            stages.setdefault(stage, []).append(ms)

    engine = bench.analyser.engine
    faces = [face for face in report.faces if face.frames]
    crops = bench.crops(sum(len(face.frames) for face in faces))
    quality = np.stack([np.zeros(4, np.float32)] * len(crops))
    rows = compare(
        section,
        {
            "reference": lambda: reference.analyse(path),
            "product": product,
            "the networks' forward passes alone": lambda: engine.mix(engine.run(crops), quality),
        },
        rounds,
        notes={"reference": f"P(fake) {_shown(plain)}", "product": f"P(fake) {_shown(found)}"},
    )
    rows.append(Row(section, "product / networks alone", round(rows[1].value / rows[2].value, 3), "times"))
    # stages that overlap take part in each other's time
    return rows + rows_of(f"{section}, stages of the product", {"total": stages.pop("total"), **stages}, {})


def _shown(probabilities: list[float | None]) -> str:
    return ", ".join("none" if p is None else f"{p:.4f}" for p in probabilities)


def photos(bench: Bench) -> list[Row]:
    """Many photos as `inference.py` takes them: files per second, and the share of the time in the networks."""
    paths = write_photos(bench.folder / "many", 6 if bench.short else 100)
    for _ in analyse_files(paths[:2], bench.analyser):
        pass
    engine = _Counting(bench.analyser.engine)
    started = time.perf_counter()
    results = list(analyse_files(paths, dataclasses.replace(bench.analyser, engine=engine)))
    wall = time.perf_counter() - started
    if any(result.error is not None for result in results):
        raise RuntimeError("a photo could not be analysed")
    section = f"{len(paths)} photos"
    return [
        Row(section, "photos per second", round(len(paths) / wall, 2), "per s"),
        Row(section, "share of the time in the networks", round(100 * engine.seconds / wall, 1), "%"),
        Row(section, "photos per pass through the networks", round(len(paths) / engine.passes, 2), "photos"),
    ]


class _Counting:
    """An engine that adds up how long it computes, and how often."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.seconds = 0.0
        self.passes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def run(self, *arguments: Any, **named: Any) -> Any:
        started = time.perf_counter()
        self.passes += 1
        try:
            return self._engine.run(*arguments, **named)
        finally:
            self.seconds += time.perf_counter() - started


SECTIONS: dict[str, Callable[[Bench], list[Row]]] = {
    "experts": experts,
    "detection": detection,
    "decoding": decoding,
    "image": image,
    "video": video,
    "photos": photos,
}
