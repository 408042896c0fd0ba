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
from time import monotonic

from flask import request

from utils.config import SecuritySettings
from utils.errors import RateLimitError, UnauthorizedError
from web_app.auth.identity import Caller, caller, is_api
from web_app.auth.network import ip_address

ADDRESS_FACTOR = 10
WRONG_KEYS_PER_MINUTE = 10
REMEMBERED = 20_000  # callers or addresses per bucket; who was silent for longest is forgotten first
FREE_ENDPOINTS = frozenset({"static", "api.get_health", "api_v1.get_health"})
UPLOAD_VIEWS = frozenset({"detect", "detect_image", "detect_video", "detect_audio", "detect_url", "create_batch"})
IPV6_PREFIX = 64  # what one customer usually gets


class TokenBuckets:
    """A bucket per key that holds a minute's worth of tokens, 0 for no limit, and fills evenly."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str, cost: float = 1.0) -> float:
        """Take a token, or with a cost of 0 only look; 0 if there was one, else the seconds until there is."""
        if not self._per_minute:
            return 0.0
        with self._lock:
            now = monotonic()
            tokens, then = self._buckets.pop(key, (float(self._per_minute), now))
            tokens = min(float(self._per_minute), tokens + (now - then) * self._per_minute / 60.0)
            enough = tokens >= 1.0
            self._buckets[key] = (tokens - cost if enough else tokens, now)
            if len(self._buckets) > REMEMBERED:
                self._buckets.popitem(last=False)
            return 0.0 if enough else (1.0 - tokens) * 60.0 / self._per_minute


class Limits:
    def __init__(self, settings: SecuritySettings) -> None:
        self.wrong_keys = TokenBuckets(WRONG_KEYS_PER_MINUTE)
        allowed = {"requests": settings.requests_per_minute, "uploads": settings.uploads_per_minute}
        self._buckets = {
            what: (TokenBuckets(per_minute), TokenBuckets(per_minute * ADDRESS_FACTOR))
            for what, per_minute in allowed.items()
        }

    def take(self, what: str, asking: Caller | None, address: str) -> None:
        """Count one of `requests` or `uploads`, of a caller who is known or not, from an address.

        Raises:
            RateLimitError: that is one too many.
        """
        of_caller, of_address = self._buckets[what]
        pairs = [(of_address, address), *([(of_caller, asking.id)] if asking else [])]
        _refuse(max(bucket.take(key, 0.0) for bucket, key in pairs), what)  # before: a refusal costs no token
        for bucket, key in pairs:
            bucket.take(key)

    def enforce(self) -> None:
        """Count the present request.

        Raises:
            RateLimitError: that is one too many.
        """
        if request.endpoint in FREE_ENDPOINTS:
            return
        address = _address()
        _refuse(self.wrong_keys.take(address, 0.0), "wrong keys")
        try:
            asking = caller()
        except UnauthorizedError:
            if "Authorization" in request.headers:  # a first visit without a key is no guess
                self.wrong_keys.take(address)
            self.take("requests", None, address)
            return
        if not asking.local:
            self.take("requests", asking, address)
        if is_api() and (request.endpoint or "").rpartition(".")[2] in UPLOAD_VIEWS:
            self.count_upload()

    def count_upload(self) -> None:
        """Count one more upload of the present request, whose first was counted when it came.

        Raises:
            RateLimitError: that is one too many.
        """
        if not caller().local:
            self.take("uploads", caller(), _address())

    def note_wrong_key(self) -> None:
        self.wrong_keys.take(_address())


def _address() -> str:
    return address_key(request.remote_addr or "")


def address_key(address: str) -> str:
    """What one customer of a provider has: an IPv4 address, or an IPv6 network of 64 bits."""
    found = ip_address(address)
    if isinstance(found, ipaddress.IPv6Address):
        mapped = found.ipv4_mapped
        return str(mapped) if mapped else str(ipaddress.ip_network((int(found), IPV6_PREFIX), strict=False))
    return address if found is None else str(found)


def _refuse(wait_s: float, what: str) -> None:
    if wait_s > 0:
        seconds = max(1, math.ceil(wait_s))
        raise RateLimitError(f"Too many {what} in a minute; try again in {seconds} s.", retry_after_s=seconds)
