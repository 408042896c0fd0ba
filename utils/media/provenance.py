"""What a file says of itself, read in a confined child of its own: beside the decoding, which it can never disturb."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

from utils.config import MediaSettings, SandboxSettings
from utils.errors import ConfigError, DecoderCrashedError, TelltaleError
from utils.evidence.answer import to_provenance, unread
from utils.log import get_logger
from utils.media.child_protocol import read_header, reported
from utils.media.fork_server import ForkServer
from utils.media.sandbox import ask, converse, open_regular, start
from utils.media_types import Provenance

log = get_logger(__name__)


def check_trust_list(path: str) -> str:
    """The absolute path of the setting [evidence] trust_list, empty where there is none.

    Raises:
        ConfigError: it cannot be read, or holds no certificate.
    """
    if not path:
        return ""
    try:
        held = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"[evidence] trust_list {path} cannot be read ({error.strerror}).") from error
    from cryptography.x509 import load_pem_x509_certificates

    try:
        load_pem_x509_certificates(held)
    except ValueError as error:
        raise ConfigError(f"[evidence] trust_list {path} holds no certificates in PEM form ({error}).") from error
    return str(Path(path).resolve())


def read_provenance(
    path: Path, media: MediaSettings, sandbox: SandboxSettings, trust_list: str, decoders: ForkServer | None = None
) -> Provenance:
    """What a file says of itself; what cannot be read is told in a notice, and nothing is raised for it.

    Arguments are those of `decode_media` and `check_trust_list`.
    """
    try:
        with open_regular(path) as file:
            asked = ask(file, media, sandbox, evidence=trust_list)
            return converse(start(asked, file, decoders), asked.wall_s, lambda pipe, tell: _receive(pipe))
    except TelltaleError as error:
        log.info("what %s says of itself could not be read: %s", path.name, error.detail)
        return unread(error.code)


def _receive(untrusted_pipe: BinaryIO) -> Provenance:
    untrusted: dict[str, Any] = read_header(untrusted_pipe)
    if "error" in untrusted:
        raise reported(untrusted)
    try:
        return to_provenance(untrusted.get("evidence"))
    except (ValueError, TypeError) as error:
        raise DecoderCrashedError(f"The decoder gave an answer that breaks the rules: {error}.") from error
