"""The files of the score record: free portraits changed in many ways, and clips made of them; the same bytes each time.

The pictures come with scikit-image and matplotlib (in the public domain) and with Telltale's self-test.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import cv2
import numpy as np
from matplotlib.cbook import get_sample_data
from PIL import Image
from skimage import data as free

from utils.detection.selftest import KNOWN_FOLDER
from utils.types import Pixels

Picture = Image.Image


def write_files(folder: Path, names: tuple[str, ...] = ()) -> list[Path]:
    """Write the files into an existing folder.

    Returns:
        Their paths in the order of the record.
    """
    made = {**_PHOTOS, **_DAMAGED, **_CLIPS}
    for name in names or made:
        (folder / name).write_bytes(made[name]())
    return [folder / name for name in names or made]


def is_clip(path: Path) -> bool:
    """Whether a file of the record is one of the clips."""
    return path.name in _CLIPS


def _astronaut() -> Picture:
    return Image.fromarray(free.astronaut())


def _hopper() -> Picture:
    path = get_sample_data("grace_hopper.jpg", asfileobj=False)
    with Image.open(path) as picture:
        return picture.convert("RGB")


def _blended() -> Picture:
    with Image.open(KNOWN_FOLDER / "astronaut_blended.png") as picture:
        return picture.convert("RGB")


def _scene(width: int, height: int, *people: tuple[Picture, int, int, int]) -> Picture:
    """Soft coloured noise with pictures on it, each given with its side, x and y in pixels."""
    coarse = np.random.default_rng(width).integers(60, 200, (6, 8, 3), np.uint8)
    canvas = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    for picture, side, x, y in people:
        canvas.paste(picture.resize((side, side), Image.Resampling.BICUBIC), (x, y))
    return canvas


def _saved(picture: Picture, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def _free_file(name: str) -> bytes:
    """A picture of scikit-image's package, as it lies there."""
    return (Path(free.__file__).parent / name).read_bytes()


def _turned() -> bytes:
    """A JPEG that lies on its side, with the EXIF word that says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return _saved(_hopper().rotate(90, expand=True), "JPEG", quality=90, exif=exif.tobytes())


def _alpha() -> Picture:
    picture = _astronaut().convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    return picture


def _dark() -> Picture:
    pixels = cv2.GaussianBlur(np.asarray(_astronaut()), (0, 0), 2.0)
    return Image.fromarray((pixels * 0.25).astype(np.uint8))


def _noisy() -> Picture:
    noise = np.random.default_rng(3).normal(0, 12, (512, 512, 3))
    return Image.fromarray(np.clip(free.astronaut() + noise, 0, 255).astype(np.uint8))


def _crowd() -> Picture:
    people = [(_astronaut() if i % 2 else _blended(), 230 + 10 * i, 330 * (i % 5), 340 * (i // 5)) for i in range(10)]
    return _scene(1650, 680, *people)


def _two() -> Picture:
    return _scene(
        1000, 560, (_astronaut(), 500, 20, 30), (_blended().transpose(Image.Transpose.FLIP_LEFT_RIGHT), 440, 540, 60)
    )


_PHOTOS: dict[str, Callable[[], bytes]] = {
    "astronaut.png": lambda: _free_file("astronaut.png"),
    "blended.png": lambda: _saved(_blended(), "PNG"),
    "hopper.jpg": lambda: _saved(_hopper(), "JPEG", quality=92),
    "blended-q30.jpg": lambda: _saved(_blended(), "JPEG", quality=30),
    "lossy.webp": lambda: _saved(_astronaut(), "WEBP", quality=60),
    "lossless.webp": lambda: _saved(_hopper().crop((60, 0, 460, 400)), "WEBP", lossless=True),
    "grey.png": lambda: _saved(_hopper().convert("L"), "PNG"),
    "alpha.png": lambda: _saved(_alpha(), "PNG"),
    "palette.png": lambda: _saved(_astronaut().quantize(64), "PNG"),
    "cmyk.jpg": lambda: _saved(_astronaut().convert("CMYK"), "JPEG", quality=85),
    "turned.jpg": _turned,
    "upside-down.jpg": lambda: _saved(_astronaut().rotate(180), "JPEG", quality=90),
    "dark.jpg": lambda: _saved(_dark(), "JPEG", quality=80),
    "noisy.png": lambda: _saved(_noisy(), "PNG"),
    "large.jpg": lambda: _saved(_hopper().resize((2200, 2600), Image.Resampling.BICUBIC), "JPEG", quality=80),
    "cut-off.jpg": lambda: _saved(_astronaut().crop((225, 20, 512, 400)), "JPEG", quality=90),
    "small.png": lambda: _saved(_astronaut().crop((130, 0, 330, 220)).resize((80, 88)), "PNG"),
    "small-face.jpg": lambda: _saved(_scene(640, 480, (_astronaut(), 150, 300, 200)), "JPEG", quality=95),
    "two-faces.jpg": lambda: _saved(_two(), "JPEG", quality=90),
    "crowd.jpg": lambda: _saved(_crowd(), "JPEG", quality=88),
    "cat.png": lambda: _free_file("chelsea.png"),
    "coffee.jpg": lambda: _saved(Image.fromarray(free.coffee()), "JPEG", quality=75),
    "page.png": lambda: _free_file("page.png"),
}

_DAMAGED: dict[str, Callable[[], bytes]] = {
    "half.jpg": lambda: (data := _saved(_astronaut(), "JPEG", quality=90))[: len(data) * 6 // 10],
    "half.png": lambda: (data := _free_file("astronaut.png"))[: len(data) // 2],
    "flipped-bits.jpg": lambda: _with_noise(_saved(_astronaut(), "JPEG", quality=90)),
    "tiny.png": lambda: _saved(_astronaut().resize((16, 16)), "PNG"),
    "animated.gif": lambda: _free_file("no_time_for_that_tiny.gif"),
    "garbage.mp4": lambda: np.random.default_rng(4).bytes(5000),
}


def _with_noise(data: bytes) -> bytes:
    """Some bytes of the last third are other ones."""
    changed = bytearray(data)
    for at in np.random.default_rng(5).integers(len(data) * 2 // 3, len(data) - 2, 12):
        changed[at] ^= 0x15
    return bytes(changed)


def _wander(seconds: float, rate: int, side: int = 260, size: tuple[int, int] = (480, 360)) -> Iterator[Pixels]:
    """The blended portrait wanders over a soft background."""
    portrait, count = _blended(), round(seconds * rate)
    for number in range(count):
        at = number / max(1, count)
        x = int((size[0] - side) * (0.5 + 0.45 * np.sin(5 * at)))
        y = int((size[1] - side) * (0.5 + 0.45 * np.cos(3 * at)))
        yield np.asarray(_scene(*size, (portrait, side + int(20 * at), x, y)))


def _meet(seconds: float, rate: int) -> Iterator[Pixels]:
    """One person, and a second one who is there in the second half only."""
    portrait, hopper, count = _astronaut(), _hopper(), round(seconds * rate)
    for number in range(count):
        first = (portrait, 280, 10 + number, 40)
        yield np.asarray(_scene(640, 360, *([first] if number < count // 2 else [first, (hopper, 250, 370, 60)])))


def _visit(seconds: float, rate: int) -> Iterator[Pixels]:
    """Somebody is there in the third quarter only."""
    empty, seen = np.asarray(_scene(320, 256)), np.asarray(_scene(320, 256, (_hopper(), 220, 50, 20)))
    count = round(seconds * rate)
    for number in range(count):
        yield np.roll(seen if count // 2 <= number < count * 3 // 4 else empty, number // 4, axis=1)


def _nobody(seconds: float, rate: int) -> Iterator[Pixels]:
    for number in range(round(seconds * rate)):
        yield np.roll(np.asarray(_scene(320, 240)), 5 * number, axis=1)


def _clip(frames: Iterator[Pixels], container: str, codec: str, rate: int, rotation: int = 0, **options: str) -> bytes:
    """Frames encoded with one thread, so that the bytes are the same on every machine."""
    out = io.BytesIO()
    with av.open(out, "w", format=container, options={"fflags": "+bitexact"}) as sink:
        stream = sink.add_stream(codec, rate=rate)
        stream.codec_context.thread_count = 1
        stream.options = options
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if rotation:
            stream.set_display_rotation(rotation)
        for number, pixels in enumerate(frames):
            if not number:
                stream.height, stream.width = pixels.shape[:2]
            planes = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2YUV_I420)
            sink.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        sink.mux(stream.encode(None))
    return out.getvalue()


_CLIPS: dict[str, Callable[[], bytes]] = {
    "wander.mp4": lambda: _clip(_wander(2, 12), "mp4", "libx264", 12, preset="veryfast", crf="28"),
    "meet.mov": lambda: _clip(_meet(1.2, 10), "mov", "mpeg4", 10, qscale="4"),
    "long.mkv": lambda: _clip(_visit(40, 2), "matroska", "libx264", 2, preset="veryfast"),
    "short.webm": lambda: _clip(_wander(0.6, 10), "webm", "libvpx", 10, 0, deadline="good", **{"cpu-used": "5"}),
    "three-frames.avi": lambda: _clip(_wander(0.3, 10), "avi", "mjpeg", 10),
    "turned.mp4": lambda: _clip(
        (np.rot90(p) for p in _wander(0.8, 10, 300, (512, 384))), "mp4", "libx264", 10, rotation=90, preset="veryfast"
    ),
    "nobody.flv": lambda: _clip(_nobody(2, 8), "flv", "flv", 8),
    "half.mkv": lambda: (
        data := _clip(_wander(2, 8, 220, (320, 240)), "matroska", "libx264", 8, preset="veryfast", g="4")
    )[: len(data) // 2],
}
