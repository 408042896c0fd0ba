"""Requests that leave this machine: to public addresses only, whoever chose the URL.

URL input and webhooks come here. A name is resolved first and every address it has must be allowed; the connection then
goes to the address that was checked, with the name only in Host and TLS, so that a second look-up (DNS rebinding)
changes nothing. Every redirect is checked like the first URL. docs/api.md lists the rules.

Source: OWASP Server-Side Request Forgery Prevention Cheat Sheet; IANA Special-Purpose Address Registries.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urljoin, urlsplit

from utils.config import ApiSettings
from utils.errors import AddressRefusedError, FetchError
from web_app import VERSION
from web_app.auth.network import Address, Network, ip_address, is_within, networks

PORTS = {"http": 80, "https": 443}
MAX_URL_CHARACTERS = 2000
MAX_REDIRECTS = 3
REDIRECTS = frozenset({301, 302, 303, 307, 308})
CONNECT_S = 10.0
SENT = {"User-Agent": f"Telltale/{VERSION}", "Accept-Encoding": "identity", "Connection": "close"}
PUBLIC_IPV6 = ipaddress.ip_network("2000::/3")
REFUSED = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
        "64:ff9b::/96", "64:ff9b:1::/48",  # NAT64
        "2001::/23",  # Teredo and other protocol assignments
        "2001:db8::/32", "2002::/16",  # documentation, 6to4
        "2620:4f:8000::/48", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "ff00::/8",
    )
)  # fmt: skip

Resolver = Callable[[str, int], list[str]]


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name, as text; empty if it has none."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True)
class Rules:
    """What may be connected to.

    Args:
        allowed: networks that are let through although they are not public, on any port.
        context: of TLS; None verifies against the system's authorities.
    """

    allowed: tuple[Network, ...] = ()
    resolver: Resolver = resolve
    context: ssl.SSLContext | None = field(default=None, repr=False)

    @classmethod
    def of(cls, settings: ApiSettings) -> Rules:
        return cls(networks("[api] allowed_networks", settings.allowed_networks))

    def is_allowed(self, address: str, port: int) -> bool:
        """Whether a connection to this address and port may be made; False for what is no address."""
        found = ip_address(address)
        public = found is not None and port in PORTS.values() and is_public(found)
        return public or is_within(address, self.allowed)


def is_public(address: Address) -> bool:
    """Whether an address belongs to the public internet: nothing private, local, shared, tunnelled or reserved."""
    if isinstance(address, ipaddress.IPv6Address) and address not in PUBLIC_IPV6:
        return False  # also IPv4 in disguise: ::ffff:a.b.c.d, ::a.b.c.d
    return address.is_global and not address.is_multicast and not any(address in network for network in REFUSED)


@dataclass(frozen=True)
class Target:
    """A URL that passed the rules, with the address to connect to."""

    url: SplitResult
    host: str
    port: int
    address: str

    @property
    def path(self) -> str:
        return (self.url.path or "/") + (f"?{self.url.query}" if self.url.query else "")


def check_url(untrusted_url: str, rules: Rules) -> Target:
    """Judge a URL and resolve its host.

    Raises:
        AddressRefusedError: it is not http or https, names a user, has another port, or leads to an address that is
            not allowed.
        FetchError: the name has no address.
    """
    if len(untrusted_url) > MAX_URL_CHARACTERS or not untrusted_url.isascii() or not untrusted_url.isprintable():
        raise AddressRefusedError("A URL holds printable ASCII characters only, 2,000 at most; encode others.")
    if " " in untrusted_url or "\\" in untrusted_url:
        raise AddressRefusedError("A URL holds no spaces and no backslashes; encode them.")
    try:
        url = urlsplit(untrusted_url)
        port = url.port or PORTS.get(url.scheme, 0)
    except ValueError as error:
        raise AddressRefusedError(f"This is not a URL: {error}.") from error
    if url.scheme not in PORTS:
        raise AddressRefusedError("Only http and https are fetched.")
    if url.username is not None or url.password is not None:
        raise AddressRefusedError("A URL with a user or a password is not fetched.")
    host = url.hostname
    if not host:
        raise AddressRefusedError("The URL names no host.")
    addresses = rules.resolver(host, port)
    if not addresses:
        raise FetchError(f"The name {host} has no address.")
    if not all(rules.is_allowed(address, port) for address in addresses):
        raise AddressRefusedError(f"{host}, port {port}, does not belong to the public internet.")
    return Target(url, host, port, addresses[0])


class _Connection(http.client.HTTPConnection):
    """A connection to the address that was checked; TLS is negotiated for the name."""

    def __init__(self, target: Target, rules: Rules) -> None:
        super().__init__(target.host, target.port, timeout=CONNECT_S)
        self._target = target
        self._context = rules.context
        self._open: socket.socket | None = None  # http.client lets go of its own while the answer is still read
        self.was_cut = False
        self.default_port = PORTS[target.url.scheme]

    def connect(self) -> None:
        plain = socket.create_connection((self._target.address, self._target.port), self.timeout)
        self.sock = self._open = plain
        if self._target.url.scheme == "https":
            context = self._context or ssl.create_default_context()
            secured = context.wrap_socket(plain, server_hostname=self._target.host, do_handshake_on_connect=False)
            self.sock = self._open = secured
            secured.do_handshake()  # only now, when it can be cut

    def cut(self) -> None:
        """End the connection from another thread: whoever waits for a byte waits no longer."""
        self.was_cut = True
        if self._open is not None:
            with contextlib.suppress(OSError):  # it has ended by itself meanwhile
                socket.socket.shutdown(self._open, socket.SHUT_RDWR)  # below TLS, which would wait for an answer


@contextmanager
def open_url(
    untrusted_url: str,
    rules: Rules,
    seconds: float,
    *,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    redirects: int = MAX_REDIRECTS,
) -> Iterator[http.client.HTTPResponse]:
    """The answer of a URL, after its redirects.

    Args:
        seconds: for everything, also for reading the answer within the block.

    Raises:
        AddressRefusedError: the URL or a redirect is not allowed.
        FetchError: no connection, no proper answer, too many redirects, or out of time.
    """
    until = time.monotonic() + seconds
    url = untrusted_url
    for left in range(redirects, -1, -1):
        target = check_url(url, rules)
        with _connected(target, rules, until) as connection:
            connection.request(method, target.path, body, SENT | dict(headers or {}))
            answer = connection.getresponse()
            place = answer.getheader("Location")
            if answer.status not in REDIRECTS or place is None or not redirects:
                yield answer
                return
            if not left:
                raise FetchError(f"There were more than {redirects} redirects.")
            url = urljoin(url, place)


@contextmanager
def _connected(target: Target, rules: Rules, until: float) -> Iterator[_Connection]:
    """A connection that is cut when the time is over, however slowly the other side drips."""
    left = until - time.monotonic()
    if left <= 0:
        raise FetchError("It took too long.")
    connection = _Connection(target, rules)
    connection.timeout = min(left, CONNECT_S)
    watch = threading.Timer(left, connection.cut)
    watch.daemon = True
    watch.start()
    try:
        yield connection
        if connection.was_cut:  # what was read may end in the middle
            raise FetchError("It took too long.")
    except (OSError, http.client.HTTPException) as error:
        why = f"The server did not answer properly ({type(error).__name__})"
        if connection.was_cut or isinstance(error, TimeoutError):
            why = "It took too long"
        elif isinstance(error, ssl.SSLError):
            why = "The server's TLS certificate or protocol is not accepted"
        raise FetchError(f"{why}.") from error
    finally:
        watch.cancel()
        connection.close()
