"""Sound: of a recording, or of a video beside its frames, in as mono of one sampling rate.

Runs in the confined child. The container is opened and read as a video's is (`packets.py`); the samples leave in pieces
while the next ones are decoded, and are counted on the way: what a header says of its length binds nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, BinaryIO

import av
import numpy as np

from utils.errors import DecoderLimitError, MediaCorruptError, MediaError, UnsupportedMediaError
from utils.media.headers import is_truncated
from utils.media.limits import Facts, MediaLimits
from utils.media.packets import FAILURES, MAX_BROKEN, Decoder, declared_s, opened, reason
from utils.media.sniff import MediaFormat
from utils.types import SAMPLE_RATE, Floats, SoundInfo

OnSamples = Callable[[Floats], None]

MAX_RATE_HZ, MAX_CHANNELS = 384_000, 32
CANCELLED = 0.001
"""Of the loudest channel's power: with less in their mean the channels cancel each other, and that one is heard."""
LEAST_LATE_S, MOST_LATE_S = 0.05, 10.0
"""Sound that begins so much after or before the first frame is moved to its place; more is taken for damage."""
ENDS_EARLY_S = 1.0
"""A recording that is this much shorter than its header says has lost its end."""


def decode_recording(
    untrusted_file: BinaryIO, container: MediaFormat, limits: MediaLimits, on_samples: OnSamples
) -> Facts:
    """Decode a file that is sound alone.

    Args:
        on_samples: given each piece, (n,) float32, -1..1, mono, `SAMPLE_RATE` per second.

    Raises:
        UnsupportedMediaError: no sound in it, or a codec, rate or number of channels that we do not take.
        MediaTooLongError: longer than allowed, by the header or by its samples.
        DecoderLimitError: it changes its form too often.
        MediaCorruptError: nothing could be decoded.
    """
    cut = is_truncated(untrusted_file, container.name)
    info, damaged = _decode(untrusted_file, container, limits, on_samples)
    if not info.duration_s:
        raise MediaCorruptError("No sound of the recording could be decoded.")
    notices = ("truncated",) if cut or damaged else ()
    return Facts(0, 0, info.duration_s, None, info.codec, notices, sound=info)


def add_sound(
    facts: Facts, untrusted_file: BinaryIO, container: MediaFormat, limits: MediaLimits, on_samples: OnSamples | None
) -> Facts:
    """What is known of a video, with its sound; one that cannot be decoded costs a notice and not the video.

    Args:
        untrusted_file, container, limits: as of `decode_recording`.
        on_samples: as there; None only tells what sound there is.
    """
    try:
        with opened(untrusted_file, container, limits, sound=True) as (_, stream):
            info = _info(stream)
    except MediaError:
        return facts  # no sound that we know of
    notices = facts.notices
    if on_samples is not None:
        try:
            info, damaged = _decode(untrusted_file, container, limits, on_samples, beside_frames=True)
        except MediaError:
            damaged = True
        if damaged or not info.duration_s:
            notices += ("sound_damaged",)
    return replace(facts, sound=info, notices=notices)


def _info(stream: Any) -> SoundInfo:
    context = stream.codec_context
    rate, channels = context.sample_rate or SAMPLE_RATE, context.channels or 1
    if rate > MAX_RATE_HZ or channels > MAX_CHANNELS:
        raise UnsupportedMediaError(f"Sound of {rate} Hz and {channels} channels is not supported.")
    return SoundInfo(codec=context.codec.canonical_name, rate_hz=rate, channels=channels)


def _decode(
    file: BinaryIO, container: MediaFormat, limits: MediaLimits, on_samples: OnSamples, *, beside_frames: bool = False
) -> tuple[SoundInfo, bool]:
    """All samples of the best sound stream, from the first frame on where there are frames; what it is, and whether
    damage was met."""
    with opened(file, container, limits, sound=True) as (source, stream):
        late_s = _late_s(source, stream) if beside_frames else 0.0
        info, mixer, decoder = _info(stream), _Mixer(limits, on_samples, late_s), Decoder(source, stream)
        for frame in decoder.frames():
            try:
                mixer.add(frame)
            except FAILURES as error:
                decoder.note(error)
        mixer.add(None)
        # a container's own length is that of its frames, too
        length = declared_s(source, stream, container) if stream.duration or not beside_frames else None
    seconds = mixer.count / SAMPLE_RATE
    short = length is not None and length > seconds - late_s + ENDS_EARLY_S
    return replace(info, duration_s=round(seconds, 6)), decoder.damaged or short


def _late_s(source: Any, stream: Any) -> float:
    """Seconds from the first frame to where the sound begins; 0 where that is little, unknown or not to be believed."""
    frames = source.streams.best("video")
    if frames is None or None in (frames.start_time, frames.time_base, stream.start_time, stream.time_base):
        return 0.0
    late_s = float(stream.start_time * stream.time_base - frames.start_time * frames.time_base)
    return late_s if LEAST_LATE_S <= abs(late_s) <= MOST_LATE_S else 0.0


class _Mixer:
    """Brings frames of any form to mono float samples, and hands them on.

    Args:
        late_s: of silence that comes first; where it is negative, so much of the sound is left out.
    """

    def __init__(self, limits: MediaLimits, on_samples: OnSamples, late_s: float) -> None:
        self._limits, self._on_samples = limits, on_samples
        self._shift = round(late_s * SAMPLE_RATE)
        self._form: tuple[object, ...] | None = None
        self._forms = 0
        self._resampler: Any = None
        self._waiting: list[Floats] = []
        self.count = 0

    def add(self, frame: Any | None) -> None:
        """Take the next frame; None for the end."""
        form = None if frame is None else (frame.sample_rate, frame.layout.name, frame.format.name)
        if form != self._form:
            self._run(None)
            self._form, self._forms = form, self._forms + 1
            self._resampler = None
        if frame is None:
            return
        if self._resampler is None:
            if self._forms > MAX_BROKEN:
                raise DecoderLimitError(f"The sound changes its form more than {MAX_BROKEN} times.")
            if frame.sample_rate > MAX_RATE_HZ or frame.layout.nb_channels > MAX_CHANNELS:
                raise UnsupportedMediaError("The sound takes a form in its middle that is not supported.")
            self._resampler = av.AudioResampler(format="fltp", layout=frame.layout, rate=SAMPLE_RATE)
        frame.pts = None  # gaps and jumps of the clock are no sound
        self._run(frame)

    def _run(self, frame: Any | None) -> None:
        if self._resampler is None:
            return
        try:
            self._waiting += [out.to_ndarray() for out in self._resampler.resample(frame)]
        except ValueError as error:
            raise MediaCorruptError(f"The sound cannot be resampled ({reason(error)}).") from error
        if self._waiting and (frame is None or sum(piece.shape[1] for piece in self._waiting) >= SAMPLE_RATE):
            self._hand_on(np.concatenate(self._waiting, 1))
            self._waiting = []

    def _hand_on(self, channels: Floats) -> None:
        """Mix samples of all channels, (C, N), and send them."""
        if not np.isfinite(channels).all():
            raise MediaCorruptError("The sound holds values that are no numbers.")
        mono = channels.mean(0)  # no channel can clip
        powers = np.square(channels).mean(1)
        if np.square(mono).mean() < CANCELLED * powers.max():
            mono = channels[powers.argmax()]
        moved = np.pad(mono, (max(0, self._shift), 0))[max(0, -self._shift) :]
        mono, self._shift = moved, min(0, self._shift + len(mono))
        self.count += len(mono)
        self._limits.check_duration(self.count / SAMPLE_RATE)
        self._on_samples(np.clip(mono, -1, 1).astype(np.float32, copy=False))
