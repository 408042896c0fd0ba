"""Is this installation fit for use? Weights, decoders, sandbox and known pictures, each as one check with a sentence.

`inference.py --selftest` prints the list. Every check runs the code of the product: the pipeline, its verified loading
of weights, and the decoding child.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.base_weights import PINNED, VIT_FILE, VIT_SHA256, require_file
from utils.config import Settings
from utils.errors import TelltaleError
from utils.types import Outcome, Pixels
from utils.weights import CHECKSUMS, current_name, read_document, verify_version, weights_root

if TYPE_CHECKING:
    from utils.detection.pipeline import Analyser

REFERENCE_FILE = "selftest.json"
SIDE = 96
CLIP_FRAMES = 20
COLOUR_TOLERANCE = 20.0
"""How far a lossy format may move the mean of a colour channel, 0..255."""


KNOWN_FOLDER = Path(__file__).resolve().parent / "known_pair"
KNOWN_TOLERANCE = 0.02


@dataclass(frozen=True)
class KnownPicture:
    """A picture that is shipped: its file in `known_pair`, what it really is, and the sha256 of the file."""

    file: str
    label: str
    sha256: str


KNOWN_PAIR = (
    KnownPicture("astronaut.png", "real", "3ac56f7f1b65f36b2d80b3c9d54087d7e6a0fd9241b49419c0ddc2b5186367f1"),
    KnownPicture("astronaut_blended.png", "fake", "12a0b1c3f0ec8cc55ab4d369084aa165f8480fe094b4dc105fa380d05e109e18"),
)
"""A photograph and a self-blend of it."""


@dataclass(frozen=True)
class Check:
    """One line of the self-test; `passed` is None where the check could not be made, and `text` says why."""

    name: str
    passed: bool | None
    text: str


def run_selftest(settings: Settings, *, experts: tuple[str, ...] | None = None) -> list[Check]:
    """Run every check; one that fails does not stop the others.

    Args:
        experts: names of the experts to load; None loads those of the settings.
    """
    from utils.detection.pipeline import load_analyser
    from utils.detection.processor import format_precisions

    root = weights_root(settings)
    checks = [*check_base_weights(root / "base"), check_version(settings)]
    analyser = None
    try:
        analyser = load_analyser(settings, device=settings.detection.device, experts=experts)
    except TelltaleError as error:
        checks.append(Check("networks", False, str(error)))
    else:
        missing = "".join(f"; {name} is missing: {why}" for name, why in analyser.missing.items())
        checks.append(Check("networks", True, f"{', '.join(analyser.experts)} loaded{missing}"))
        checks.append(Check("engine", True, f"{analyser.engine.name}: {format_precisions(analyser.engine.precisions)}"))
    with tempfile.TemporaryDirectory() as scratch:
        checks += check_decoders(settings, Path(scratch))
        checks.append(check_sandbox())
        if analyser is None:
            checks.append(Check("known pictures", None, "there are no networks to analyse them with"))
        else:
            reference = root / analyser.version / REFERENCE_FILE
            checks += check_known_pictures(analyser, reference, Path(scratch))
    return checks


def _check(name: str, look: Callable[..., tuple[bool | None, str]], *given: Any) -> Check:
    """A check by what a look gives; an error of ours is a failure, in its own words."""
    try:
        return Check(name, *look(*given))
    except TelltaleError as error:
        return Check(name, False, str(error))


def check_base_weights(folder: Path) -> Iterator[Check]:
    """The sha256 of each base weight file against the pinned one."""

    def look(path: Path, sha256: str) -> tuple[bool, str]:
        require_file(path, sha256)
        return True, f"sha256 {sha256[:12]}... is the pinned one"

    for name, sha256 in ((VIT_FILE, VIT_SHA256), *((pinned.saved_as, pinned.member_sha256) for pinned in PINNED[1:])):
        yield _check(f"base weights {name}", look, folder / name, sha256)


def check_version(settings: Settings) -> Check:
    """The sha256 of every file of the version in use; a version of tiny test networks is no version to use."""

    def look() -> tuple[bool, str]:
        root = weights_root(settings)
        version = verify_version(root, settings.weights.version or current_name(root))
        if version.tiny:
            return False, f"{version.name} is made of tiny test networks; its verdicts mean nothing"
        count = len(read_document(version.folder / CHECKSUMS))
        return True, f"version {version.name}: {count} files have their recorded sha256"

    return _check("trained weights", look)


def check_decoders(settings: Settings, scratch: Path) -> Iterator[Check]:
    """Send pictures and a clip of known colours through the decoding child and look at what comes back."""
    from utils.media import decode_media

    def look(path: Path, write: Callable[[Path], None]) -> tuple[bool, str]:
        write(path)
        media = decode_media(path, settings.media, settings.sandbox)
        wanted = colour_field().mean(axis=(0, 1))
        off = max(float(np.abs(frame.pixels.mean(axis=(0, 1)) - wanted).max()) for frame in media.frames)
        whole = all(frame.pixels.shape == (SIDE, SIDE, 3) for frame in media.frames)
        whole &= len(media.frames) == (min(settings.media.frames, CLIP_FRAMES) if write is write_clip else 1)
        size = f"{media.info.width} x {media.info.height}"
        text = f"frames: {len(media.frames)} of {size}, colours within {off:.1f} of 255"
        return whole and off <= COLOUR_TOLERANCE, text

    for name, write in _SAMPLES.items():
        yield _check(f"decoder {name}", look, scratch / f"colours.{name}", write)


def check_sandbox() -> Check:
    """Which protections the decoding child has on this machine; none at all is a failure."""
    from utils.media import sandbox_level
    from utils.media.sandbox_limits import PROTECTIONS

    def look() -> tuple[bool, str]:
        active = sandbox_level()
        absent = ", ".join(name for name in PROTECTIONS if name not in active)
        return bool(active), f"{len(active)} of {len(PROTECTIONS)} protections{absent and f'; not here: {absent}'}"

    return _check("sandbox", look)


def check_known_pictures(analyser: Analyser, reference: Path, scratch: Path) -> Iterator[Check]:
    """A picture without a face must give `no_face`; a known pair, real and fake, must give the recorded probabilities.

    Args:
        reference: `selftest.json` of the version, as `record_known_pair` made it.
    """
    from utils.detection.pipeline import analyse

    def look() -> tuple[bool, str]:
        write_picture(scratch / "no_face.png")
        outcome = analyse(scratch / "no_face.png", analyser).verdict.outcome
        return outcome is Outcome.NO_FACE, f"the outcome is {outcome.value}"

    yield _check("picture without a face", look)
    for picture in KNOWN_PAIR:
        yield _check(f"known {picture.label} picture", _look_at_known, picture, analyser, reference)


def known_probability(picture: KnownPicture, analyser: Analyser) -> float:
    """P(fake) of a picture of the known pair.

    Raises:
        TelltaleError: the picture is not there, has other bytes, cannot be decoded, or no face is found in it.
    """
    from utils.detection.pipeline import analyse

    probability = analyse(require_file(KNOWN_FOLDER / picture.file, picture.sha256), analyser).verdict.probability
    if probability is None:
        raise TelltaleError(f"No face was found in {picture.file}.")
    return probability


def record_known_pair(analyser: Analyser) -> dict[str, dict[str, float]]:
    """What `selftest.json` of a new version says: the probabilities of the known pair and how far they may be off.

    Raises:
        TelltaleError: see `known_probability`.
    """
    return {
        picture.file: {"probability": round(known_probability(picture, analyser), 6), "tolerance": KNOWN_TOLERANCE}
        for picture in KNOWN_PAIR
    }


def _look_at_known(picture: KnownPicture, analyser: Analyser, reference: Path) -> tuple[bool | None, str]:
    if not reference.is_file():
        return None, f"this version has no {REFERENCE_FILE}"
    if analyser.missing:
        return None, "the recorded probability is that of all experts together"
    try:
        expected = json.loads(reference.read_text(encoding="utf-8"))[picture.file]
        wanted, tolerance = float(expected["probability"]), float(expected["tolerance"])
    except (KeyError, TypeError, ValueError) as error:
        return False, f"{REFERENCE_FILE} cannot be read: {type(error).__name__}: {error}"
    found = known_probability(picture, analyser)
    text = f"{picture.file}: you should see P(fake) {wanted:.3f}, give or take {tolerance:g}; here it is {found:.3f}"
    return abs(found - wanted) <= tolerance, text


def colour_field() -> Pixels:
    """A smooth picture without a face, (96, 96, 3) uint8, the same everywhere; its channels differ in their means."""
    down, right = np.mgrid[0:SIDE, 0:SIDE] / (SIDE - 1)
    return np.stack([40 + 180 * right, 30 + 120 * down, 200 - 150 * right * down], axis=-1).astype(np.uint8)


def write_picture(path: Path, pixels: Pixels | None = None) -> None:
    """Write a picture in the format of the suffix; None writes `colour_field`."""
    from PIL import Image

    Image.fromarray(colour_field() if pixels is None else pixels).save(path)


def write_clip(path: Path) -> None:
    """Write `colour_field` as a clip of 20 frames, one tenth of a second each, MPEG-4 in MP4."""
    import av

    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(10))
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        for _ in range(CLIP_FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(colour_field(), format="rgb24")))
        container.mux(stream.encode())


_SAMPLES: dict[str, Callable[[Path], None]] = {
    "jpg": write_picture,
    "png": write_picture,
    "webp": write_picture,
    "mp4": write_clip,
}
