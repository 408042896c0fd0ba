"""The decoding child: confines itself, decodes the file on its standard input, answers on its standard output.

Started by `sandbox.py`, never imported by anything else. It knows nothing but one open file and the limits.
"""

from __future__ import annotations

import json
import os
from functools import partial
from typing import Any, BinaryIO

from utils.errors import DecoderCrashedError, DecoderLimitError, TelltaleError, UnsupportedMediaError
from utils.media import (
    audio,
    child_protocol,
    clean_film,
    clean_picture,
    heif,
    images,
    packets,
    video,
)
from utils.media.headers import check_header
from utils.media.limits import Facts, MediaLimits
from utils.media.sandbox_limits import confine
from utils.media.sniff import FORMATS, MediaFormat
from utils.types import Frame, MediaKind


def main(request_text: str) -> None:
    """Serve one request (JSON: `format`, `copy`, `evidence`, `frames`, `max_frames`, `sound`, `spans`, `limits`,
    `memory_mb`, `cpu_s`).

    Without a format it reports the level of its protections; with `copy` it sends a clean copy instead of frames; with
    `evidence`, the path of a trust list or an empty text, what the file says of itself; with `sound` the samples of a
    video's sound too.
    """
    request = json.loads(request_text)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints must not write into the answer
    try:
        _serve(request, out)
    except TelltaleError as error:
        child_protocol.write_error(out, error)
    except MemoryError:
        child_protocol.write_error(
            out, DecoderLimitError(f"Decoding needs more than {request['memory_mb']} MB of memory.")
        )
    except Exception as error:  # noqa: BLE001 - reported to the parent, which knows the user
        child_protocol.write_error(
            out, DecoderCrashedError(f"The decoder failed with {type(error).__name__}: {error}.")
        )
    out.flush()
    os._exit(0)  # no clean-up code of libraries runs after untrusted data


def _serve(request: dict[str, Any], out: BinaryIO) -> None:
    container = FORMATS.get(request["format"])
    is_image = container is not None and container.kind is MediaKind.IMAGE
    if container is not None:
        images.load_codecs()  # afterwards no file can be opened any more
    evidence = None
    if container is not None and request.get("evidence") is not None:
        from utils.evidence.reading import EvidenceReader

        evidence = EvidenceReader(request["evidence"])
    level = confine(request["memory_mb"] * 1_000_000, request["cpu_s"])
    if container is None:
        child_protocol.write_level(out, level)
        return
    limits = MediaLimits(*request["limits"])
    with os.fdopen(0, "rb", closefd=False) as untrusted_file:
        check_header(untrusted_file, container.name, limits)
        untrusted_file.seek(0)
        if evidence is not None:
            tags = partial(packets.read_tags, untrusted_file, container, limits) if not is_image else list
            told = evidence.read(untrusted_file, container.name, container.mime, tags)
            child_protocol.write_header(out, {"evidence": told})
            return
        if request.get("copy"):
            _copy(untrusted_file, container, limits, child_protocol.CopyWriter(out))
            return
        if is_image:
            facts = _decode_picture(untrusted_file, container, limits, request, out)
        else:
            facts = _decode_over_time(untrusted_file, container, limits, request, out)
    child_protocol.write_facts(out, facts)


def _decode_picture(
    untrusted_file: BinaryIO, container: MediaFormat, limits: MediaLimits, request: dict[str, Any], out: BinaryIO
) -> Facts:
    """What belongs to a picture, or a clip in a picture's format, once its frames are sent."""
    asked = {"frames": request["frames"], "most": request["max_frames"]}
    frames: tuple[Frame, ...]
    if container.name == "heic" and heif.is_sequence(untrusted_file):
        frames, facts = video.decode_video(untrusted_file, limits=limits, container=FORMATS["mp4"], **asked)
    elif container.moves:
        frames, facts = images.decode_moving(untrusted_file, limits=limits, **asked)
    else:
        frame, facts = images.decode_image(untrusted_file, limits)
        frames = (frame,)
    for frame in frames:
        child_protocol.write_frame(out, frame)
    return facts


def _decode_over_time(
    untrusted_file: BinaryIO, container: MediaFormat, limits: MediaLimits, request: dict[str, Any], out: BinaryIO
) -> Facts:
    """What belongs to a video or recording; frames and samples are sent as they come."""
    on_samples = partial(child_protocol.write_samples, out)
    if container.kind is MediaKind.AUDIO:
        return audio.decode_recording(untrusted_file, container, limits, on_samples)
    on_frame = partial(child_protocol.write_frame, out)
    try:
        _, facts = video.decode_video(
            untrusted_file,
            request["frames"],
            limits,
            container,
            on_frame,
            most=request["max_frames"],
            spans=request["spans"],
        )
    except UnsupportedMediaError as error:
        if not error.facts.get("only_sound"):
            raise
        return audio.decode_recording(untrusted_file, container, limits, on_samples)
    return audio.add_sound(facts, untrusted_file, container, limits, on_samples if request["sound"] else None)


def _copy(
    untrusted_file: BinaryIO, container: MediaFormat, limits: MediaLimits, target: child_protocol.CopyWriter
) -> None:
    if container.name in ("bmp", "tiff"):
        target.write(images.write_again(untrusted_file, container.name, limits))
    elif container.kind is MediaKind.IMAGE:
        target.write(clean_picture.strip(untrusted_file.read(), container.name, limits))
    else:
        clean_film.copy_film(untrusted_file, container, limits, target)
    target.finish()
