"""One tree of errors: each class has a stable code, an HTTP status and a sentence that tells the user what to do.

The command line prints `str(error)`, the server turns `to_problem` into RFC 9457 problem JSON; nothing is swallowed.
Everyone may import this file; it imports nothing of ours.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any


class TelltaleError(Exception):
    """Base of all our errors.

    Args:
        detail: what happened this time, with the values that matter, as one sentence.
        remedy: what to do this time; None for what the class says.
    """

    code: str = "internal"
    status: int = 500
    title: str = "Something went wrong inside Telltale"
    remedy: str = "Try again; if it happens again, report it with the code and the time."

    def __init__(self, detail: str = "", *, remedy: str | None = None, **facts: Any) -> None:
        super().__init__(detail or self.title)
        self.remedy = remedy or self.remedy
        self.detail = detail or self.title
        self.facts = facts

    def __str__(self) -> str:
        return f"[{self.code}] {self.detail} {self.remedy}"

    def to_problem(self) -> dict[str, Any]:
        """RFC 9457 members, with ours: `code`, `remedy` and the facts of this case."""
        return {
            "type": f"urn:telltale:error:{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "remedy": self.remedy,
            **self.facts,
        }


class BadRequestError(TelltaleError):
    code, status, title = "bad_request", 400, "The request is not of the expected form"
    remedy = "Compare the request with the API description and send it again."


class NotFoundError(TelltaleError):
    code, status, title = "not_found", 404, "There is nothing under this address"
    remedy = "Check the id; entries may have been deleted."


class ConflictError(TelltaleError):
    code, status, title = "conflict", 409, "The current state does not allow this"
    remedy = "Read the state first, then try again."


class InvalidFieldError(TelltaleError):
    code, status, title = "invalid_field", 422, "A field of the request has a value that is not allowed"
    remedy = "Correct the fields that `errors` names."


class UnauthorizedError(TelltaleError):
    code, status, title = "unauthorized", 401, "This server asks for an API key"
    remedy = "Send `Authorization: Bearer KEY`, or open the page and sign in with a key."


class ForbiddenError(TelltaleError):
    code, status, title = "forbidden", 403, "Your key does not allow this"
    remedy = "Ask whoever runs this server for a key with this scope."


class CrossSiteError(TelltaleError):
    code, status, title = "cross_site", 403, "Another web site tried to use this server in your name"
    remedy = "Open Telltale's own page and do it there; programs need not send Origin or Sec-Fetch-Site."


class IdempotencyError(TelltaleError):
    code, status, title = "idempotency_key", 422, "This Idempotency-Key has been used for another request"
    remedy = "Take a new key for each new request, and the old one only to repeat the very same."


class AddressRefusedError(TelltaleError):
    code, status, title = "address_refused", 422, "Telltale does not connect to this address"
    remedy = "Use http or https on its usual port and a host on the public internet; docs/api.md has the rules."


class FetchError(TelltaleError):
    code, status, title = "fetch_failed", 422, "The file could not be fetched from its address"
    remedy = "Check the address, or download the file and upload it."


class ReportError(TelltaleError):
    code, status, title = "report", 422, "This is not a report that Telltale can check"
    remedy = "Download it again from the page or from /api/detections/{id}/report, as JSON."


class FeedbackError(TelltaleError):
    code, status, title = "feedback", 422, "This feedback does not say what the right answer is"
    remedy = "Send `actual` as real or fake; media without a face take no feedback."


class NothingNewError(TelltaleError):
    code, status, title = "nothing_new", 422, "There is nothing new to learn from"
    remedy = "Give feedback, or accept what waits on the review page; then start the training again."


class NotAvailableError(TelltaleError):
    code, status, title = "not_available", 501, "This server does not offer that"
    remedy = "Switch it on in config.ini."


class UnavailableError(TelltaleError):
    code, status, title = "unavailable", 503, "The server cannot do this at the moment"
    remedy = "Try again in a few seconds; /api/ready names what is wrong."


class StorageFullError(TelltaleError):
    code, status, title = "storage_full", 507, "There is no room left on the server's disk"
    remedy = "Delete old analyses or give the instance folder more room."


class QueueFullError(TelltaleError):
    code, status, title = "queue_full", 429, "Too many analyses are waiting"
    remedy = "Wait for the time in Retry-After and send it again."


class RateLimitError(TelltaleError):
    code, status, title = "rate_limited", 429, "Too many requests"
    remedy = "Wait for the time in Retry-After; [security] of config.ini holds the limits."


class MediaError(TelltaleError):
    """The uploaded medium cannot be analysed."""

    code, status, title = "media_error", 422, "The file cannot be analysed"
    remedy = "Try another copy of the file."


class MediaUnreadableError(MediaError):
    code, status, title = "media_unreadable", 422, "The file cannot be opened"
    remedy = "Check that the path is right and that you may read it."


class EmptyFileError(BadRequestError, MediaError):
    """A file without a byte, which is no upload and no medium."""

    remedy = "Copy it again."


class UnsupportedMediaError(MediaError):
    code, status, title = "unsupported_media", 415, "This kind of file is not supported"
    remedy = (
        "Send JPEG, PNG, WebP, HEIC, AVIF, GIF, BMP, TIFF, MP4, MOV, MKV, WebM, AVI, FLV, MPEG, MPEG-TS, WMV, OGV, "
        "WAV, FLAC, MP3, M4A, AAC, Ogg, WMA, AMR."
    )


class ContentEncodingError(TelltaleError):
    code, status, title = "content_encoding", 415, "The body of the request is compressed"
    remedy = "Send it as it is, without Content-Encoding; media are compressed already."


class MediaTooLargeError(MediaError):
    code, status, title = "media_too_large", 413, "The file is larger than allowed"
    remedy = "Send a smaller file, or raise the limit in config.ini, section [media]."


class MediaDimensionsError(MediaError):
    code, status, title = "media_dimensions", 422, "The picture size is outside the limits"
    remedy = "Send the picture in another size, or change the limit in config.ini, section [media]."


class MediaTooLongError(MediaError):
    code, status, title = "media_too_long", 422, "The video or recording is longer than allowed"
    remedy = "Cut the part that matters, or raise max_duration_s in config.ini, section [media]."


class MediaCorruptError(MediaError):
    code, status, title = "media_corrupt", 422, "The file is damaged and nothing in it could be decoded"
    remedy = "Open it in a viewer; if that fails too, get another copy."


class DecoderLimitError(MediaError):
    code, status, title = "decoder_limit", 422, "Decoding the file took more time or memory than allowed"
    remedy = "Re-encode the file, or raise the limits in config.ini, section [sandbox]."


class DecoderCrashedError(MediaError):
    code, status, title = "decoder_crashed", 422, "The decoder stopped while reading the file"
    remedy = "The file may be damaged or hostile; re-encode it with a tool you trust."


class WeightsError(TelltaleError):
    """Weights are missing, mismatched or unverified; nothing is computed with such weights."""

    code, status, title = "weights", 503, "The networks' weights cannot be used"
    remedy = "Run `make setup`; `python inference.py --selftest` names what is missing."


class WeightsMissingError(WeightsError):
    code, title = "weights_missing", "Weights are missing"


class WeightsCorruptError(WeightsError):
    code, title = "weights_corrupt", "Weights do not match their checksum or shape"
    remedy = "Restore the file from the repository (`git checkout -- trained_models`) or run `make setup` again."


class ConfigError(TelltaleError):
    code, status, title = "config", 500, "The configuration is not valid"
    remedy = "Correct config.ini (or the TELLTALE_ variable); config.ini says of every key what it means and takes."


class TrainingDataError(TelltaleError):
    code, status, title = "training_data", 422, "The training data cannot be used"
    remedy = "See data/README.md for the folder layout and the least number of files."


class JobCancelledError(TelltaleError):
    code, status, title = "cancelled", 409, "The analysis was cancelled"
    remedy = "Upload the file again to analyse it."


class WorkerLostError(TelltaleError):
    code, status, title = "worker_lost", 500, "The analysis was started three times and never finished"
    remedy = "The file may be the cause; re-encode it, and report it if it is harmless."


def error_of(code: str, detail: str) -> TelltaleError:
    """The error with this code, as it was stored in a job's row; an unknown code becomes `internal`."""
    pending: list[type[TelltaleError]] = [TelltaleError]
    while pending:
        candidate = pending.pop(0)
        if candidate.code == code:
            return candidate(detail)
        pending.extend(candidate.__subclasses__())
    return TelltaleError(detail)


def require_torch(what: str, remedy: str = "`make setup` (without SERVE=1) adds it to `.venv/bin/python`.") -> None:
    """Look for torch, which an installation that only serves need not have; it is not imported.

    Args:
        what: needs it, the beginning of a sentence.

    Raises:
        NotAvailableError: torch is not installed.
    """
    if find_spec("torch") is None:
        raise NotAvailableError(f"{what} needs PyTorch, which is not installed.", remedy=remedy)


def plainly(error: TelltaleError | ModuleNotFoundError) -> str:
    """What to tell whoever ran a command: an error of ours, or which package this Python lacks."""
    if isinstance(error, TelltaleError):
        return str(error)
    remedy = "`make setup` installs what it needs into `.venv`; then call `.venv/bin/python`."
    return str(NotAvailableError(f"{sys.executable} lacks the package {error.name}.", remedy=remedy))
