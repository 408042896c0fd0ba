"""What is measured within this process: whole pictures and clips beside the reference, and many photos."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.bench.media import scene, write_clip, write_photos
from benchmarks.bench.processors import SETS, WITHOUT_GLANCE, started
from benchmarks.bench.reference import ReferencePipeline
from benchmarks.bench.timing import Row, compare, rows_of
from utils.detection.batch import analyse_files
from utils.detection.pipeline import Analyser, analyse
from utils.faces.crops import crop_for_networks
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

    def large(self) -> Path:
        """12 megapixels (2 in short)."""
        return write_photos(self.folder / "large", 1, *((1600, 1200) if self.short else (4000, 3000)))[0]

    def clip(self) -> Path:
        path = self.folder / "clip.mp4"
        if not path.exists():
            small = {"seconds": 1.0, "width": 320, "height": 240} if self.short else {}
            write_clip(path, **small)  # type: ignore[arg-type]
        return path

    def crops(self, count: int) -> list[Pixels]:
        """Crops of the portrait, as the experts get them."""
        out: list[Pixels] = []
        number = 0
        while len(out) < count:
            pixels = scene(640, 480, number)
            out += [crop_for_networks(pixels, face).pixels for face in self.analyser.detector.detect(pixels)[:1]]
            number += 1
        return out


def image(bench: Bench) -> list[Row]:
    """A photo with one face from file to report."""
    return _whole(bench, "image, end to end", bench.photo(), bench.rounds)


def large(bench: Bench) -> list[Row]:
    """A large photo, looked at in tiles."""
    return _whole(bench, "large photo, end to end", bench.large(), bench.slow_rounds)


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
    variants = {
        "reference": lambda: reference.analyse(path),
        "product": product,
        "the networks' forward passes alone": lambda: engine.mix(engine.run(crops), quality),
    }
    notes = {"reference": f"P(fake) {_shown(plain)}", "product": f"P(fake) {_shown(found)}"}
    rows = compare(section, variants, rounds, notes)
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
    passes: list[float] = []
    plain = bench.analyser.engine.run

    def timed(*arguments: Any, **named: Any) -> Any:
        begun = time.perf_counter()
        try:
            return plain(*arguments, **named)
        finally:
            passes.append(time.perf_counter() - begun)

    started = time.perf_counter()
    with patch.object(bench.analyser.engine, "run", timed):
        results = list(analyse_files(paths, bench.analyser))
    wall = time.perf_counter() - started
    if any(result.error is not None for result in results):
        raise RuntimeError("a photo could not be analysed")
    section = f"{len(paths)} photos"
    return [
        Row(section, "photos per second", round(len(paths) / wall, 2), "per s"),
        Row(section, "share of the time in the networks", round(100 * sum(passes) / wall, 1), "%"),
        Row(section, "photos per pass through the networks", round(len(paths) / len(passes), 2), "photos"),
    ]


def processors(bench: Bench) -> list[Row]:
    """Photos and a clip as on processors with fewer instructions, with and without what spares time there."""
    reference, rows = ReferencePipeline(bench.analyser), []
    with contextlib.ExitStack() as stack:
        names = list(SETS)[: 2 if bench.short else None]  # without AVX-512, OpenVINO 2026.4 crashes in tiny networks
        kinds = {name: (name, SETS[name]) for name in names}
        kinds |= {f"{name} without int8": (name, "fp32") for name in names if "int8" in SETS[name]}
        ask = {name: stack.enter_context(started(bench.analyser.settings, *kind)) for name, kind in kinds.items()}
        for what, path, rounds in (
            ("image", bench.photo(), bench.rounds),
            ("large photo", bench.large(), bench.slow_rounds),
            ("video", bench.clip(), bench.slow_rounds // 2 or 1),
        ):
            variants = {name: partial(once, f"{WITHOUT_GLANCE}{path}") for name, once in ask.items()}
            if what == "large photo":  # only processors with bf16 have a glance
                variants[f"{names[0]} without the glance"] = variants[names[0]]
            variants[names[0]] = partial(ask[names[0]], str(path))
            notes = {name: f"P(fake) {float(once()):.4f}" for name, once in variants.items()}
            plain: dict[str, Callable[[], object]] = {"reference": partial(reference.analyse, path)}
            rows += compare(f"{what}, by instruction set", plain | variants, rounds, notes)
    return rows


SECTIONS: dict[str, Callable[[Bench], list[Row]]] = {
    "image": image,
    "large": large,
    "video": video,
    "photos": photos,
    "processors": processors,
}
