"""Who is at the other end of the connection, and by which name they reached us.

A proxy's forwarding headers are believed only from the addresses that `[security] trusted_proxies` names, and are
dropped otherwise: nobody can move a rate limit or a log line by sending X-Forwarded-For. Host names are checked,
because a web site can point its own name at 127.0.0.1 and then read a server that listens there (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from utils.config import SecuritySettings, ServerSettings
from utils.errors import ConfigError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

FORWARDED = "telltale.forwarded"
FORWARDING_HEADERS = (
    "HTTP_FORWARDED", "HTTP_X_REAL_IP", "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PORT", "HTTP_X_FORWARDED_BY", "HTTP_X_FORWARDED_PREFIX",
)  # fmt: skip
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_PREFIX = re.compile(r"(/(?!\.\.?(/|$))[A-Za-z0-9._~-]+)+")
MAX_HOPS = 32  # of X-Forwarded-For that are looked at, from its end


class ProxyHeaders:
    """WSGI middleware: the client's address and scheme from a trusted proxy, and the path under which it offers the
    server, whether it cuts that off or not; all forwarding headers dropped.

    `environ[FORWARDED]` says whether there were any, trusted or not.
    """

    def __init__(self, application: WSGIApplication, trusted: tuple[Network, ...]) -> None:
        self._application = application
        self._trusted = trusted

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        untrusted_hops = environ.get("HTTP_X_FORWARDED_FOR", "")
        untrusted_scheme = environ.get("HTTP_X_FORWARDED_PROTO", "").rpartition(",")[2].strip().lower()
        untrusted_prefix = environ.get("HTTP_X_FORWARDED_PREFIX", "").rpartition(",")[2].strip().rstrip("/")
        environ[FORWARDED] = False
        for name in FORWARDING_HEADERS:
            environ[FORWARDED] |= environ.pop(name, None) is not None
        peer = environ.get("REMOTE_ADDR", "")
        if is_within(peer, self._trusted):
            environ["REMOTE_ADDR"] = client_address(peer, untrusted_hops, self._trusted)
            if untrusted_scheme in ("http", "https"):
                environ["wsgi.url_scheme"] = untrusted_scheme
            if _PREFIX.fullmatch(untrusted_prefix):
                path = environ.get("PATH_INFO", "")
                if path == untrusted_prefix or path.startswith(f"{untrusted_prefix}/"):
                    environ["PATH_INFO"] = path.removeprefix(untrusted_prefix)
                environ["SCRIPT_NAME"] = untrusted_prefix
        return self._application(environ, start_response)


def client_address(peer: str, untrusted_hops: str, trusted: tuple[Network, ...]) -> str:
    """The last address that a trusted proxy saw and that is not itself one.

    Args:
        untrusted_hops: X-Forwarded-For; only what trusted proxies appended, its right end, is believed.
    """
    address = peer
    for hop in reversed(untrusted_hops.split(",")[-MAX_HOPS:]):
        found = ip_address(hop.strip())
        if found is None or not is_within(address, trusted):
            break
        address = str(found)
    return address


def ip_address(text: str) -> Address | None:
    """An address; None for what is none."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def is_within(address: str, networks: tuple[Network, ...]) -> bool:
    """Whether an address lies in one of the networks; False for what is no address."""
    found = ip_address(address)
    return found is not None and any(found in network for network in networks)


def is_loopback(address: str) -> bool:
    """Whether an address, or the name localhost, is this very machine."""
    found = ip_address(address)
    return address.lower() == "localhost" if found is None else found.is_loopback


def networks(setting: str, text: str) -> tuple[Network, ...]:
    """What a setting, by its name, lists.

    Raises:
        ConfigError: an entry is neither an address nor a network.
    """
    try:
        return tuple(ipaddress.ip_network(entry) for entry in entries(text))
    except ValueError as error:
        raise ConfigError(f"{setting} must hold addresses or networks such as 10.1.0.0/16: {error}.") from error


def allowed_hosts(server: ServerSettings, security: SecuritySettings) -> frozenset[str] | None:
    """Names that requests may use in their Host header; None allows any.

    Raises:
        ConfigError: `[security] hosts` holds something that is no host name.
    """
    names = entries(security.hosts)
    for name in names:
        if host_name(name) != name.strip("[]").lower():
            raise ConfigError(f"[security] hosts must hold names without scheme, port or path, not {name!r}.")
    if names:
        return frozenset(name.strip("[]").lower() for name in names)
    return LOOPBACK_NAMES | {server.host.lower()} if is_loopback(server.host) else None


def host_name(untrusted_host: str) -> str:
    """The name of a Host header in lower case, without port and brackets; empty if there is none."""
    try:
        return urlsplit(f"//{untrusted_host}").hostname or ""
    except ValueError:
        return ""


def entries(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
