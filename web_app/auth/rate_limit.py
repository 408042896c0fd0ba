"""Rate limits: how many requests and uploads a caller and an address may send, kept in this process's memory.

A caller is whoever `identity.caller` names. An address may do ten times as much as one caller, because a whole
newsroom may share it; it is the connection's own, or what a trusted proxy says, never what a client claims. Somebody at
this machine is not limited.
"""

from __future__ import annotations

import ipaddress
import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

from flask import Flask, current_app, request

from utils.config import Settings
from utils.errors import RateLimitError, UnauthorizedError
from web_app.auth.identity import caller, is_api

ADDRESS_FACTOR = 10
WRONG_KEYS_PER_MINUTE = 10
REMEMBERED = 20_000  # callers or addresses per bucket; who was silent for longest is forgotten first
FREE_ENDPOINTS = frozenset({"static", "api.get_health", "api_v1.get_health"})
UPLOAD_VIEWS = frozenset({"detect", "detect_image", "detect_video", "detect_url", "create_batch"})
UPLOADS = "telltale.uploads"
WRONG_KEYS = "telltale.wrong_keys"
IPV6_PREFIX = 64  # what one customer usually gets


class TokenBuckets:
    """A bucket per key that holds a minute's worth of tokens and fills evenly.

    Args:
        per_minute: tokens a minute, and the most a bucket holds; 0 for no limit.
        clock: seconds that never go back; None for the system's.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] | None = None) -> None:
        self._per_minute = per_minute
        self._clock = clock or monotonic
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> float:
        """Take a token; 0 if there was one, else the seconds until there is."""
        return self._look(key, 1.0)

    def peek(self, key: str) -> float:
        """As `take`, without taking."""
        return self._look(key, 0.0)

    def _look(self, key: str, cost: float) -> float:
        if not self._per_minute:
            return 0.0
        with self._lock:
            now = self._clock()
            tokens, then = self._buckets.pop(key, (float(self._per_minute), now))
            tokens = min(float(self._per_minute), tokens + (now - then) * self._per_minute / 60.0)
            enough = tokens >= 1.0
            self._buckets[key] = (tokens - cost if enough else tokens, now)
            if len(self._buckets) > REMEMBERED:
                self._buckets.popitem(last=False)
            return 0.0 if enough else (1.0 - tokens) * 60.0 / self._per_minute


def install(app: Flask, settings: Settings) -> None:
    """Put the limits of [security] before every request of an application."""
    requests, uploads = settings.security.requests_per_minute, settings.security.uploads_per_minute
    limits = {
        "requests": (TokenBuckets(requests), TokenBuckets(requests * ADDRESS_FACTOR)),
        "uploads": (TokenBuckets(uploads), TokenBuckets(uploads * ADDRESS_FACTOR)),
    }
    wrong_keys = TokenBuckets(WRONG_KEYS_PER_MINUTE)

    def enforce() -> None:
        if request.endpoint in FREE_ENDPOINTS:
            return
        address = address_key(request.remote_addr or "")
        _refuse(wrong_keys.peek(address), "wrong keys")
        try:
            asking = caller()
        except UnauthorizedError:
            if has_credentials():
                wrong_keys.take(address)
            _refuse(limits["requests"][1].take(address), "requests")
            return
        if asking.local:
            return
        upload = is_api() and (request.endpoint or "").rpartition(".")[2] in UPLOAD_VIEWS
        for what in ("requests", "uploads") if upload else ("requests",):
            of_caller, of_address = limits[what]
            _refuse(max(of_caller.take(asking.id), of_address.take(address)), what)

    app.before_request(enforce)
    app.extensions[WRONG_KEYS] = wrong_keys
    app.extensions[UPLOADS] = limits["uploads"]


def note_wrong_key() -> None:
    """Count a wrong key that was typed into the form against the address."""
    buckets: TokenBuckets = current_app.extensions[WRONG_KEYS]
    buckets.take(address_key(request.remote_addr or ""))


def count_upload() -> None:
    """Count one more upload of the present request, whose first was counted when it came.

    Raises:
        RateLimitError: that is one too many.
    """
    asking = caller()
    if asking.local:
        return
    of_caller, of_address = current_app.extensions[UPLOADS]
    address = address_key(request.remote_addr or "")
    _refuse(max(of_caller.take(asking.id), of_address.take(address)), "uploads")


def has_credentials() -> bool:
    """Whether the request tried to say who it is; a first visit without a key is no guess."""
    return "Authorization" in request.headers


def address_key(address: str) -> str:
    """What one customer of a provider has: an IPv4 address, or an IPv6 network of 64 bits."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        mapped = found.ipv4_mapped
        return str(mapped) if mapped else str(ipaddress.ip_network((int(found), IPV6_PREFIX), strict=False))
    return str(found)


def _refuse(wait_s: float, what: str) -> None:
    if wait_s > 0:
        seconds = max(1, math.ceil(wait_s))
        raise RateLimitError(f"Too many {what} in a minute; try again in {seconds} s.", retry_after_s=seconds)
