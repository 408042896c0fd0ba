"""Settings: `config.ini` is read once into frozen dataclasses; `TELLTALE_SECTION__KEY` in the environment overrides it.

Every key is declared here with its default and what it may be; what it means stands once, in `config.ini`, whose
defaults and ranges are tested against this file. Settings never enter a network: callers hand plain values on.
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
    ("detection", "engine_cache"): "Nothing is kept there any more: delete the folder, or engine inside instance_dir.",
    **{("learning", key): "Leave it out: the version's recipe says it." for key in _LEARNING},
    ("server", "wait_image_s"): "Clients say how long they want to wait: `wait`, or the header `Prefer`.",
    ("page", "prefix"): "Let the proxy send the path as X-Forwarded-Prefix: docs/operations.md.",
    ("server", "arriving_mb"): "A proxy bounds what arrives at the same time: docs/operations.md.",
}
"""Section and key of settings that the release before knew: they are ignored with a warning that says what to do."""

_KINDS = {int: "a whole number", float: "a number", str: "a text"}

log = logging.getLogger(__name__)


def setting(
    default: Any,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    later: bool = False,
) -> Any:
    """Declare one key: its default, what it may be, and whether older files lack it."""
    return field(default=default, metadata={"low": low, "high": high, "choices": choices, "later": later})


def constant(default: Any, *, low: float, high: float) -> Any:
    """A value that no configuration changes; a report that is replayed may name another in this range."""
    return field(default=default, metadata={"low": low, "high": high, "choices": ()})


@dataclass(frozen=True)
class ServerSettings:
    host: str = setting("127.0.0.1")
    port: int = setting(5000, low=1, high=65535)
    log_level: str = setting("info", choices=("debug", "info", "warning", "error"))
    log_format: str = setting("text", choices=("text", "json"))


@dataclass(frozen=True)
class StorageSettings:
    instance_dir: str = setting("instance")
    database_url: str = setting("")
    files: str = setting("local", choices=("local", "s3"), later=True)
    s3_url: str = setting("", later=True)
    reserve_mb: int = 200  # MB; with less room left uploads are refused, so that jobs can still be written
    retention_days: int = setting(0, low=0, high=3650)
    seen_before: str = setting("on", choices=("off", "on"), later=True)


@dataclass(frozen=True)
class MediaSettings:
    max_file_mb: int = setting(200, low=1, high=4000)
    max_megapixels: float = setting(50.0, low=0.1, high=200)
    min_side_px: int = 32  # shortest side of a picture or frame that is taken
    max_duration_s: float = setting(600.0, low=1, high=7200)
    min_face_px: int = constant(40, low=16, high=512)  # narrower faces are reported but not judged
    frames: int = constant(16, low=4, high=64)  # taken uniformly from a video, at least
    max_frames: int = setting(60, low=16, high=240, later=True)


@dataclass(frozen=True)
class SandboxSettings:
    memory_mb: int = setting(2048, low=256, high=16384)
    cpu_s: int = 60  # processor time of the decoding process; a picture gets 10 at most, a video 12 and 4 per MB
    wall_s: float = 90.0  # time it may take in all; a picture gets 12 at most, a video 12 and 4 per MB


@dataclass(frozen=True)
class DetectionSettings:
    device: str = setting("auto", choices=("auto", "cpu", "cuda"))
    threads: int = setting(0, low=0, high=256)
    threshold: float = setting(0.5, low=0.05, high=0.95)
    experts: str = setting("all")
    max_faces: int = setting(32, low=1, high=64)
    engine: str = setting("auto", choices=("auto", "torch", "openvino"))
    precision: str = setting("auto")
    gpu_compile: str = setting("off", choices=("off", "on"))


@dataclass(frozen=True)
class WeightsSettings:
    dir: str = setting("trained_models")
    version: str = setting("")


@dataclass(frozen=True)
class EvidenceSettings:
    trust_list: str = setting("", later=True)


@dataclass(frozen=True)
class JobSettings:
    engine: str = setting("local", choices=("local", "celery"), later=True)
    broker_url: str = setting("", later=True)
    lease_s: float = 60.0  # a job whose worker has not been heard of for this long is tried again
    attempts: int = 3  # a job is given up after so many
    max_waiting: int = setting(100, low=1, high=100000)
    batch: int = 8  # waiting pictures that are analysed together, at most
    poll_s: float = 0.2  # how often an idle worker looks for work; one that has just worked looks sooner
    longest_s: float = 1800.0  # a worker whose analysis takes longer is taken for stuck and replaced
    worker_memory_mb: int = setting(0, low=0, high=1000000)


@dataclass(frozen=True)
class SecuritySettings:
    keys: str = setting("off", choices=("off", "on"))
    hosts: str = setting("")
    trusted_proxies: str = setting("")
    requests_per_minute: int = setting(600, low=0, high=1000000)
    uploads_per_minute: int = setting(60, low=0, high=1000000)


@dataclass(frozen=True)
class LearningSettings:
    enough: str = setting("trusted", choices=("trusted", "quorum", "moderator"))
    quorum: int = setting(3, low=2, high=1000)
    anonymous_quorum: str = setting("off", choices=("off", "on"))
    auto_after: int = setting(0, low=0, high=100000)
    auto_hours: float = setting(0.0, low=0, high=8760)


@dataclass(frozen=True)
class PageSettings:
    closeups: str = setting("on", choices=("off", "on"))


@dataclass(frozen=True)
class ApiSettings:
    batch_files: int = 50  # files in one request to /api/batch, at most
    url_input: str = setting("off", choices=("off", "on"))
    url_timeout_s: float = 30.0  # how long fetching a file from an address may take in all
    webhooks: str = setting("off", choices=("off", "on"))
    allowed_networks: str = setting("")


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
    return tuple(declared for declared in dataclasses.fields(cls) if "later" in declared.metadata)


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
        raise ConfigError(f"{where} must be {_KINDS[kind]}{span}, not {text!r}.") from error
    if choices and value not in choices:
        raise ConfigError(f"{where} must be one of {', '.join(choices)}, not {text!r}.")
    if low is not None and not low <= value <= high:  # NaN fails this comparison too
        raise ConfigError(f"{where} must lie in {low:g}..{high:g}, not {text!r}.")
    return value
