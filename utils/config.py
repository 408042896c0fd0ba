"""Settings: `config.ini` is read once into frozen dataclasses; `TELLTALE_SECTION__KEY` in the environment overrides it.

Every key is declared here with its default, unit, range and meaning; `config.ini` is
tested against this file. Settings never enter a network: callers hand plain values on.
"""

from __future__ import annotations

import configparser
import dataclasses
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from utils.errors import ConfigError

ENV_PREFIX = "TELLTALE_"
EXPERTS = ("cnn", "resnext", "vit", "lstm")
REPLAYED = {
    "detection": ("threshold", "experts", "max_faces", "device", "engine", "precision"),
    "media": ("frames", "max_frames", "min_face_px"),
}
"""Settings that a score depends on, by section; a report carries them, and they are taken from it to replay it."""
_LEARNING = (
    *("per_user_day", "phash_distance", "parts", "lr", "lr_scale", "kept_rejected"),
    *("clip", "steps", "batch", "replay_share", "hold", "l2sp", "max_distance"),
)
_CONSTANT = {
    "storage": ("reserve_mb",),
    "media": ("min_side_px", "min_face_px", "frames"),
    "sandbox": ("cpu_s", "wall_s"),
    "jobs": ("lease_s", "attempts", "batch", "poll_s", "longest_s"),
    "api": ("batch_files", "url_timeout_s"),
}
RETIRED = {
    **{(section, key): "Leave it out: its value is fixed." for section, keys in _CONSTANT.items() for key in keys},
    ("detection", "early_answer"): "Leave it out.",
    **{("learning", key): "Leave it out: the version's recipe says it." for key in _LEARNING},
    ("server", "wait_image_s"): "Clients say how long they want to wait: `wait`, or the header `Prefer`.",
    ("page", "prefix"): "Let the proxy send the path as X-Forwarded-Prefix: docs/operations.md.",
    ("server", "arriving_mb"): "A proxy bounds what arrives at the same time: docs/operations.md.",
}
"""Section and key of settings that the release before knew: they are ignored with a warning that says what to do."""

log = logging.getLogger(__name__)


def setting(
    default: Any,
    doc: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    later: bool = False,
) -> Any:
    """Declare one key: its default, what it means, its unit, what it may be, and whether older files lack it."""
    about = {"doc": doc, "unit": unit, "low": low, "high": high, "choices": choices, "later": later}
    return field(default=default, metadata=about)


def constant(default: Any, *, low: float, high: float) -> Any:
    """A value that no configuration changes; a report that is replayed may name another in this range."""
    return field(default=default, metadata={"low": low, "high": high, "choices": ()})


@dataclass(frozen=True)
class ServerSettings:
    host: str = setting("127.0.0.1", "Address the web server listens on; 0.0.0.0 opens it to the network.")
    port: int = setting(5000, "Port of the web server.", low=1, high=65535)
    log_level: str = setting(
        "info", "Least severe level that is logged.", choices=("debug", "info", "warning", "error")
    )
    log_format: str = setting("text", "Form of the log's lines.", choices=("text", "json"))


@dataclass(frozen=True)
class StorageSettings:
    instance_dir: str = setting("instance", "Where a running server writes: uploads, results, database, logs.")
    database_url: str = setting("", "SQLAlchemy address of the database; empty means SQLite inside instance_dir.")
    files: str = setting(
        "local", "Where uploads lie: local is inside instance_dir; s3 is a bucket that other machines share.",
        choices=("local", "s3"), later=True,
    )  # fmt: skip
    s3_url: str = setting(
        "", "Address of the S3 server and the bucket, such as https://s3.example.org/telltale.", later=True
    )
    reserve_mb: int = 200  # MB; with less room left uploads are refused, so that jobs can still be written
    retention_days: int = setting(
        0, "Uploads older than this are deleted by the worker; 0 keeps them.", unit="days", low=0, high=3650
    )
    seen_before: str = setting(
        "on", "Whether it is kept what pictures and faces look like (64 bits each), so that near copies are named.",
        choices=("off", "on"), later=True,
    )  # fmt: skip


@dataclass(frozen=True)
class MediaSettings:
    max_file_mb: int = setting(200, "Largest upload.", unit="MB (10^6 bytes)", low=1, high=4000)
    max_megapixels: float = setting(50.0, "Largest picture or video frame.", unit="megapixels", low=0.1, high=200)
    min_side_px: int = 32  # shortest side of a picture or frame that is taken
    max_duration_s: float = setting(600.0, "Longest video or recording.", unit="seconds", low=1, high=7200)
    min_face_px: int = constant(40, low=16, high=512)  # narrower faces are reported but not judged
    frames: int = constant(16, low=4, high=64)  # taken uniformly from a video, at least
    max_frames: int = setting(
        60, "Most frames of a video that are looked at: one for each second, but never fewer than 16.",
        low=16, high=240, later=True,
    )  # fmt: skip


@dataclass(frozen=True)
class SandboxSettings:
    memory_mb: int = setting(2048, "Address space of the decoding process.", unit="MB", low=256, high=16384)
    cpu_s: int = 60  # processor time of the decoding process; a picture gets 10 at most, a video 12 and 4 per MB
    wall_s: float = 90.0  # time it may take in all; a picture gets 12 at most, a video 12 and 4 per MB


@dataclass(frozen=True)
class DetectionSettings:
    device: str = setting("auto", "Where the networks run.", choices=("auto", "cpu", "cuda"))
    threads: int = setting(0, "Processor threads for the networks; 0 uses all cores.", low=0, high=256)
    threshold: float = setting(
        0.5,
        "No verdict is fake below this probability, none real above it; it widens the undecided band only.",
        low=0.05,
        high=0.95,
    )
    experts: str = setting("all", "Comma-separated experts to run (cnn, resnext, vit, lstm), or all.")
    max_faces: int = setting(
        32, "At most this many people are judged, the largest first; where there are more, nothing is called real.",
        low=1, high=64,
    )  # fmt: skip
    engine: str = setting(
        "auto", "What computes the networks: auto takes openvino on a processor and torch on a GPU.",
        choices=("auto", "torch", "openvino"),
    )  # fmt: skip
    precision: str = setting(
        "auto", "Smallest numbers the openvino engine may compute with, where parity with torch holds: auto (bf16 "
        "where the processor has it, else fp32), bf16 or fp32, or one per expert (vit=fp32,lstm=bf16).",
    )  # fmt: skip
    engine_cache: str = setting("", "Where converted networks are kept; empty means engine inside instance_dir.")
    gpu_compile: str = setting(
        "off", "Whether torch compiles the networks for a GPU: minutes at the start, faster after.",
        choices=("off", "on"),
    )  # fmt: skip


@dataclass(frozen=True)
class WeightsSettings:
    dir: str = setting("trained_models", "Folder with the versions, CURRENT and base/.")
    version: str = setting("", "Version to serve; empty follows the pointer file CURRENT.")


@dataclass(frozen=True)
class EvidenceSettings:
    trust_list: str = setting(
        "", "File of certificates (PEM) whose signers of Content Credentials are trusted; empty trusts nobody.",
        later=True,
    )  # fmt: skip


@dataclass(frozen=True)
class JobSettings:
    engine: str = setting(
        "local", "What brings jobs to the workers: local is the database alone; celery also reaches other machines.",
        choices=("local", "celery"), later=True,
    )  # fmt: skip
    broker_url: str = setting("", "Address of the broker for celery, such as redis://:word@host:6379/0.", later=True)
    lease_s: float = 60.0  # a job whose worker has not been heard of for this long is tried again
    attempts: int = 3  # a job is given up after so many
    max_waiting: int = setting(100, "Uploads beyond this many waiting jobs are answered with 429.", low=1, high=100000)
    batch: int = 8  # waiting pictures that are analysed together, at most
    poll_s: float = 0.2  # how often an idle worker looks for work; one that has just worked looks sooner
    longest_s: float = 1800.0  # a worker whose analysis takes longer is taken for stuck and replaced
    worker_memory_mb: int = setting(
        0, "A worker that holds more memory than this after a job is replaced by a fresh one; 0 for no limit.",
        unit="MB (10^6 bytes)", low=0, high=1000000,
    )  # fmt: skip


@dataclass(frozen=True)
class SecuritySettings:
    keys: str = setting(
        "off", "Whether every caller needs an API key; off gives all rights to this machine only.",
        choices=("off", "on"),
    )  # fmt: skip
    hosts: str = setting(
        "", "Comma-separated names this server answers to; empty means this machine's names while host is a loopback "
        "address, and any name otherwise.",
    )  # fmt: skip
    trusted_proxies: str = setting(
        "",
        "Comma-separated addresses or networks of reverse proxies whose X-Forwarded-For, -Proto and -Prefix are "
        "believed.",
    )
    requests_per_minute: int = setting(
        600, "Requests that one caller may send; an address may send ten times as many; 0 for no limit.",
        unit="per minute", low=0, high=1000000,
    )  # fmt: skip
    uploads_per_minute: int = setting(
        60, "Uploads that one caller may send; an address may send ten times as many; 0 for no limit.",
        unit="per minute", low=0, high=1000000,
    )  # fmt: skip


@dataclass(frozen=True)
class LearningSettings:
    enough: str = setting(
        "trusted", "Whose feedback is learned from: a trusted user's (one who may moderate), what a quorum agrees on, "
        "or only what a moderator accepted; each includes the stricter ones.",
        choices=("trusted", "quorum", "moderator"),
    )  # fmt: skip
    quorum: int = setting(3, "Users who must agree on a medium.", low=2, high=1000)
    anonymous_quorum: str = setting(
        "off", "Whether users without an API key count towards the quorum; one person can come as many of them.",
        choices=("off", "on"),
    )  # fmt: skip
    auto_after: int = setting(
        0, "A training starts by itself after so many newly accepted media; 0 never.", low=0, high=100000
    )
    auto_hours: float = setting(
        0.0, "A training starts by itself this long after the last one if anything new was accepted; 0 never.",
        unit="hours", low=0, high=8760,
    )  # fmt: skip


@dataclass(frozen=True)
class PageSettings:
    closeups: str = setting(
        "on", "Whether readers may ask for heatmaps and stability of a face; each costs many times an analysis.",
        choices=("off", "on"),
    )  # fmt: skip


@dataclass(frozen=True)
class ApiSettings:
    batch_files: int = 50  # files in one request to /api/batch, at most
    url_input: str = setting(
        "off", "Whether /api/detect/url fetches files from the internet for callers.", choices=("off", "on")
    )
    url_timeout_s: float = 30.0  # how long fetching a file from an address may take in all
    webhooks: str = setting(
        "off", "Whether callers may register addresses that are told when an analysis ends.", choices=("off", "on")
    )
    allowed_networks: str = setting(
        "", "Comma-separated networks outside the public internet that URL input and webhooks may reach, on any port."
    )


@dataclass(frozen=True)
class Settings:
    """Everything from `config.ini`, one attribute per section."""

    server: ServerSettings = field(default_factory=ServerSettings)
    storage: StorageSettings = field(default_factory=StorageSettings)
    media: MediaSettings = field(default_factory=MediaSettings)
    sandbox: SandboxSettings = field(default_factory=SandboxSettings)
    detection: DetectionSettings = field(default_factory=DetectionSettings)
    weights: WeightsSettings = field(default_factory=WeightsSettings)
    evidence: EvidenceSettings = field(default_factory=EvidenceSettings)
    jobs: JobSettings = field(default_factory=JobSettings)
    learning: LearningSettings = field(default_factory=LearningSettings)
    security: SecuritySettings = field(default_factory=SecuritySettings)
    page: PageSettings = field(default_factory=PageSettings)
    api: ApiSettings = field(default_factory=ApiSettings)


def load_settings(
    path: Path | None = None, environ: Mapping[str, str] | None = None, *, complete: bool = False
) -> Settings:
    """Read the settings from a file and the environment.

    Args:
        path: an ini file; None reads `config.ini` in the repository's root, defaults where there is none.
        environ: variables that override the file; None takes those of the process. They may give constants too, so that
            the worker of a server runs with what it does.
        complete: refuse a file that leaves out a key which no variable gives either, as a server does: a default that
            nobody chose must not decide who gets in.

    Returns:
        The checked settings.

    Raises:
        ConfigError: the file cannot be read, a section or key is unknown or, with `complete`, missing, or a value has
            the wrong type or range.
    """
    environ = os.environ if environ is None else environ
    # Without a section of defaults, [DEFAULT] is refused like any other unknown section.
    parser = configparser.ConfigParser(interpolation=None, strict=True, default_section="")
    chosen = path if path is not None else Path(__file__).resolve().parent.parent / "config.ini"
    if path is not None and not path.is_file():
        raise ConfigError(f"There is no configuration file {path}.")
    try:
        if chosen.is_file():
            parser.read_string(chosen.read_text(encoding="utf-8-sig"), source=chosen.name)
    except (configparser.Error, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{chosen.name} cannot be read: {error}.") from error
    given = {section: dict(parser.items(section)) for section in parser.sections()}
    _leave_out_retired(given, RETIRED)
    for name, value in environ.items():
        if name.startswith(ENV_PREFIX) and "__" in name:
            section, _, key = name[len(ENV_PREFIX) :].lower().partition("__")
            given.setdefault(section, {})[key] = value
    _leave_out_retired(given, [(section, key) for section, key in RETIRED if key not in _CONSTANT.get(section, ())])
    section_types = get_type_hints(Settings)
    for section in given:
        if section not in section_types:
            raise ConfigError(f"Section [{section}] is unknown; known are {', '.join(section_types)}.")
    read = Settings(**{name: _read_section(name, cls, given.get(name, {})) for name, cls in section_types.items()})
    parse_experts(read.detection.experts)
    if complete:
        _require_every_key(chosen.name, given)
    return read


def _leave_out_retired(given: Mapping[str, dict[str, str]], retired: Iterable[tuple[str, str]]) -> None:
    for section, key in retired:
        if given.get(section, {}).pop(key, None) is not None:
            log.warning("[%s] %s is no longer a setting and is ignored. %s", section, key, RETIRED[section, key])


def _require_every_key(file: str, given: Mapping[str, Mapping[str, str]]) -> None:
    absent = [
        (section, declared)
        for section, cls in get_type_hints(Settings).items()
        for declared in keys_of(cls)
        if declared.name not in given.get(section, {}) and not declared.metadata["later"]
    ]
    if not absent:
        return
    section, first = absent[0]
    low, high, choices = (first.metadata[k] for k in ("low", "high", "choices"))
    takes = f"one of {', '.join(choices)}" if choices else f"{low:g}..{high:g}" if low is not None else "a text"
    others = f" Missing too: {', '.join(f'[{s}] {d.name}' for s, d in absent[1:])}." if absent[1:] else ""
    raise ConfigError(
        f"[{section}] {first.name} is missing in {file}; it takes {takes}, "
        f"and `{first.name} = {first.default}` is what Telltale ships.{others}"
    )


def parse_experts(text: str) -> tuple[str, ...]:
    """Which experts run, as the setting [detection] experts says: names separated by commas, or `all`.

    Raises:
        ConfigError: it names none, or one that is unknown.
    """
    names = EXPERTS if text.strip() == "all" else tuple(n.strip() for n in text.split(",") if n.strip())
    unknown = sorted(set(names) - set(EXPERTS))
    if unknown or not names:
        named = f"names {', '.join(unknown)}" if unknown else "names none"
        raise ConfigError(f"[detection] experts {named}; known are {', '.join(EXPERTS)}, or all.")
    return tuple(dict.fromkeys(names))


def keys_of(cls: type[Any]) -> tuple[dataclasses.Field[Any], ...]:
    """The keys of a section that a configuration may give."""
    return tuple(declared for declared in dataclasses.fields(cls) if "doc" in declared.metadata)


def read_value(section: str, key: str, text: str) -> Any:
    """A value of a section out of text, checked like one of `config.ini`.

    Raises:
        ConfigError: wrong type or range.
    """
    cls = get_type_hints(Settings)[section]
    return _read_value(section, cls.__dataclass_fields__[key], get_type_hints(cls)[key], text)


def _read_section(section: str, cls: type[Any], given: Mapping[str, str]) -> Any:
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key in given:
        if key not in fields:
            raise ConfigError(f"[{section}] {key} is unknown; known are {', '.join(f.name for f in keys_of(cls))}.")
    types = get_type_hints(cls)
    return cls(**{key: _read_value(section, fields[key], types[key], text) for key, text in given.items()})


def _read_value(section: str, declared: dataclasses.Field[Any], kind: type, text: str) -> Any:
    where = f"[{section}] {declared.name}"
    low, high, choices = (declared.metadata.get(k) for k in ("low", "high", "choices"))
    try:
        value = kind(text.strip())
    except ValueError as error:
        span = "" if low is None else f" in {low:g}..{high:g}"
        raise ConfigError(f"{where} must be {_kind_name(kind)}{span}, not {text!r}.") from error
    if choices and value not in choices:
        raise ConfigError(f"{where} must be one of {', '.join(choices)}, not {text!r}.")
    if low is not None and not low <= value <= high:  # NaN fails this comparison too
        raise ConfigError(f"{where} must lie in {low:g}..{high:g}, not {text!r}.")
    return value


def _kind_name(kind: type) -> str:
    return {int: "a whole number", float: "a number", str: "a text"}.get(kind, kind.__name__)
