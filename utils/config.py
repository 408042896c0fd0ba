"""Settings: `config.ini` is read once into frozen dataclasses; `TELLTALE_SECTION__KEY` in the environment overrides it.

Every key is declared here with its default, unit, range and meaning; `docs/configuration.md` and `config.ini` are
tested against this file. Settings never enter a network: callers hand plain values on.
"""

from __future__ import annotations

import configparser
import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from utils.errors import ConfigError

ENV_PREFIX = "TELLTALE_"


def setting(
    default: Any,
    doc: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """Declare one key: its default, what it means, its unit, and the values it may take."""
    return field(default=default, metadata={"doc": doc, "unit": unit, "low": low, "high": high, "choices": choices})


@dataclass(frozen=True)
class ServerSettings:
    host: str = setting("127.0.0.1", "Address the web server listens on; 0.0.0.0 opens it to the network.")
    port: int = setting(5000, "Port of the web server.", low=1, high=65535)
    log_level: str = setting(
        "info", "Least severe level that is logged.", choices=("debug", "info", "warning", "error")
    )
    wait_image_s: float = setting(
        30.0, "How long /api/detect/image waits for the verdict before it answers 202 with a job.",
        unit="seconds", low=0, high=600,
    )  # fmt: skip


@dataclass(frozen=True)
class StorageSettings:
    instance_dir: str = setting("instance", "Where a running server writes: uploads, results, database, logs.")
    database_url: str = setting("", "SQLAlchemy address of the database; empty means SQLite inside instance_dir.")
    retention_days: int = setting(
        0, "Uploads older than this are deleted by the worker; 0 keeps them.", unit="days", low=0, high=3650
    )


@dataclass(frozen=True)
class MediaSettings:
    max_file_mb: int = setting(200, "Largest upload.", unit="MB (10^6 bytes)", low=1, high=4000)
    max_megapixels: float = setting(50.0, "Largest picture or video frame.", unit="megapixels", low=0.1, high=200)
    min_side_px: int = setting(32, "Shortest allowed side of a picture or frame.", unit="pixels", low=8, high=1024)
    max_duration_s: float = setting(600.0, "Longest video.", unit="seconds", low=1, high=7200)
    min_face_px: int = setting(
        40, "Faces whose box is narrower than this are reported but not judged.", unit="pixels", low=16, high=512
    )
    frames: int = setting(16, "Frames taken uniformly from a video.", low=4, high=64)


@dataclass(frozen=True)
class SandboxSettings:
    memory_mb: int = setting(2048, "Address space of the decoding process.", unit="MB", low=256, high=16384)
    cpu_s: int = setting(60, "Processor time of the decoding process.", unit="seconds", low=1, high=600)
    wall_s: float = setting(90.0, "Time the decoding process may take in all.", unit="seconds", low=1, high=900)


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
    max_faces: int = setting(8, "At most this many people are judged, the largest first.", low=1, high=64)


@dataclass(frozen=True)
class WeightsSettings:
    dir: str = setting("trained_models", "Folder with the versions, CURRENT and base/.")
    version: str = setting("", "Version to serve; empty follows the pointer file CURRENT.")


@dataclass(frozen=True)
class JobSettings:
    lease_s: float = setting(
        60.0, "A job whose worker has not been heard of for this long is tried again.", unit="seconds", low=1, high=3600
    )
    attempts: int = setting(3, "A job is given up after this many attempts.", low=1, high=10)
    max_waiting: int = setting(100, "Uploads beyond this many waiting jobs are answered with 429.", low=1, high=100000)
    poll_s: float = setting(0.2, "How often an idle worker looks for work.", unit="seconds", low=0.02, high=10)


@dataclass(frozen=True)
class Settings:
    """Everything from `config.ini`, one attribute per section."""

    server: ServerSettings = field(default_factory=ServerSettings)
    storage: StorageSettings = field(default_factory=StorageSettings)
    media: MediaSettings = field(default_factory=MediaSettings)
    sandbox: SandboxSettings = field(default_factory=SandboxSettings)
    detection: DetectionSettings = field(default_factory=DetectionSettings)
    weights: WeightsSettings = field(default_factory=WeightsSettings)
    jobs: JobSettings = field(default_factory=JobSettings)


def load_settings(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from a file and the environment.

    Args:
        path: an ini file; None reads `config.ini` in the repository's root, defaults where there is none.
        environ: variables to look for overrides in; None takes those of the process.

    Returns:
        The checked settings.

    Raises:
        ConfigError: the file cannot be read, a section or key is unknown, or a value has the wrong type or range.
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
    for name, value in environ.items():
        if name.startswith(ENV_PREFIX) and "__" in name:
            section, _, key = name[len(ENV_PREFIX) :].lower().partition("__")
            given.setdefault(section, {})[key] = value
    section_types = get_type_hints(Settings)
    for section in given:
        if section not in section_types:
            raise ConfigError(f"Section [{section}] is unknown; known are {', '.join(section_types)}.")
    return Settings(**{name: _read_section(name, cls, given.get(name, {})) for name, cls in section_types.items()})


def _read_section(section: str, cls: type[Any], given: Mapping[str, str]) -> Any:
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key in given:
        if key not in fields:
            raise ConfigError(f"[{section}] {key} is unknown; known are {', '.join(fields)}.")
    types = get_type_hints(cls)
    return cls(**{key: _read_value(section, fields[key], types[key], text) for key, text in given.items()})


def _read_value(section: str, declared: dataclasses.Field[Any], kind: type, text: str) -> Any:
    where = f"[{section}] {declared.name}"
    try:
        value = kind(text.strip())
    except ValueError as error:
        raise ConfigError(f"{where} must be {_kind_name(kind)}, not {text!r}.") from error
    low, high, choices = (declared.metadata[k] for k in ("low", "high", "choices"))
    if choices and value not in choices:
        raise ConfigError(f"{where} must be one of {', '.join(choices)}, not {text!r}.")
    if low is not None and not low <= value <= high:  # NaN fails this comparison too
        raise ConfigError(f"{where} must lie in {low:g}..{high:g}, not {text!r}.")
    return value


def _kind_name(kind: type) -> str:
    return {int: "a whole number", float: "a number", str: "a text"}.get(kind, kind.__name__)
