"""Signed documents: a report carries an Ed25519 signature over its canonical JSON, and the public key that fits it.

A key inside a document proves only that nothing was changed since it was signed. Who signed it is proved by a key that
the reader has from elsewhere: the keys document of the server (`/.well-known/telltale-keys.json`), or a fingerprint.

Source: RFC 8032 (Ed25519), RFC 8785 (JSON Canonicalization Scheme).
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from utils.errors import ReportError

KEYS_DOCUMENT = "telltale-keys"
SCHEME = {"algorithm": "Ed25519", "canonical": "RFC 8785"}
FINGERPRINT = re.compile(r"[0-9a-f]{64}")

State = Literal["unsigned", "broken", "unknown", "expired", "whole", "trusted"]
"""Without a signature; changed since it was signed; whole, but signed with a key that is not trusted, or one that was
retired before; whole, where nobody said which keys to trust; whole and signed with a trusted key."""


@dataclass(frozen=True)
class Signature:
    """What can be said of a document's signature: `key` is the fingerprint of its key, empty without one."""

    state: State
    key: str
    sentence: str

    @property
    def holds(self) -> bool:
        """Whether nothing speaks against the document."""
        return self.state in ("unsigned", "whole", "trusted")


def canonical(document: Any) -> bytes:
    """The one way to write a JSON value.

    Raises:
        ReportError: it holds what canonical JSON cannot: NaN, integers above 2^53, or broken text.
    """
    try:
        return rfc8785.dumps(document)
    except (rfc8785.CanonicalizationError, RecursionError) as error:
        raise ReportError(f"It cannot be written as canonical JSON: {error}.") from error


def parse_unique(text: bytes | str) -> Any:
    """A JSON value in which no name comes twice, so that two readers cannot understand it differently.

    Raises:
        ValueError: it is none.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) != len(pairs):
            raise ValueError("a name comes twice")
        return values

    return json.loads(text, object_pairs_hook=unique)


def fingerprint(public_key: bytes) -> str:
    """SHA-256 of a public key of 32 bytes, 64 hexadecimal digits."""
    return hashlib.sha256(public_key).hexdigest()


def sign(document: Mapping[str, Any], private_key: bytes) -> dict[str, Any]:
    """The document with its signature; the same document and key give the same one.

    Args:
        document: JSON values.
        private_key: 32 bytes.
    """
    key = Ed25519PrivateKey.from_private_bytes(private_key)
    public = key.public_key().public_bytes_raw()
    head = {**SCHEME, "key": fingerprint(public), "public_key": base64.b64encode(public).decode()}
    signed = {**document, "signature": head}
    value = base64.b64encode(key.sign(canonical(signed))).decode()
    return {**document, "signature": {**head, "value": value}}


def check_signature(untrusted: Mapping[str, Any], trusted: Mapping[str, str | None] | None = None) -> Signature:
    """Hold a document against its signature.

    Args:
        untrusted: the document; its member `analysed`, ISO 8601, is held against the end of a trusted key.
        trusted: until when each key was in use (None: still), by fingerprint; None where nobody said whom to trust.
    """
    if "signature" not in untrusted:
        if trusted is None:
            return Signature("unsigned", "", "It is not signed: anybody may have written or changed it.")
        return Signature("unknown", "", "It is not signed, so none of the trusted keys stands behind it.")
    broken = "The signature does not fit: the report, or its signature, was changed after it was signed."
    try:
        given = dict(untrusted["signature"])
        value, public = _decode(given.pop("value")), _decode(given["public_key"])
        key = fingerprint(public)
        if {**SCHEME, "key": key, "public_key": given["public_key"]} != given:
            return Signature("broken", "", broken)
        Ed25519PublicKey.from_public_bytes(public).verify(value, canonical({**untrusted, "signature": given}))
    except (InvalidSignature, ReportError, KeyError, TypeError, ValueError):
        return Signature("broken", "", broken)
    if trusted is None:
        return Signature(
            "whole", key, f"It is as it was signed, with the key {key}. Who has that key, the report itself cannot "
            "prove: compare it with the server's, or name a trusted one with --key.",
        )  # fmt: skip
    if key not in trusted:
        return Signature("unknown", key, f"It was signed with the key {key}, which is none of the trusted ones.")
    until = trusted[key]
    if until is not None and _is_later(untrusted.get("analysed"), until):
        return Signature("expired", key, f"It was signed with the key {key}, which had been retired by then ({until}).")
    return Signature("trusted", key, f"It is as it was signed, with the trusted key {key}.")


def _decode(untrusted_text: Any) -> bytes:
    """The bytes of a base64 text that is written in the one usual way: no other text stands for the same bytes."""
    decoded = base64.b64decode(untrusted_text, validate=True)
    if base64.b64encode(decoded).decode() != untrusted_text:
        raise ValueError("no canonical base64")
    return decoded


def _is_later(untrusted_moment: Any, until: str) -> bool:
    """Whether a moment comes after another; what is no moment does."""
    try:
        return dt.datetime.fromisoformat(untrusted_moment) > dt.datetime.fromisoformat(until)
    except (TypeError, ValueError):
        return True


def read_keys(named: str) -> dict[str, str | None]:
    """The keys that somebody trusts, for `check_signature`.

    Args:
        named: a keys document, the path of one, or one fingerprint.

    Raises:
        ReportError: it is none of them.
    """
    text = named
    with contextlib.suppress(OSError, ValueError):  # no file has that name
        text = Path(named).read_text(encoding="utf-8", errors="replace")
    if FINGERPRINT.fullmatch(text.strip().lower()):
        return {text.strip().lower(): None}
    try:
        document = parse_unique(text)
        if document["document"] != KEYS_DOCUMENT:
            raise ValueError("another kind of document")
        until = {entry["key"]: entry["until"] for entry in document["keys"]}
        moments = [dt.datetime.fromisoformat(moment) for moment in until.values() if moment is not None]
        if any(moment.tzinfo is None for moment in moments):
            raise ValueError("a time without a zone")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ReportError(
            "The trusted keys are neither a fingerprint of 64 hexadecimal digits nor a keys document "
            "(/.well-known/telltale-keys.json of the server)."
        ) from error
    return until
