"""API keys: made and revoked by a command, shown once, stored as a hash.

A key is `tt_<public>_<secret>`: the public part finds the row and names the owner of what the key uploads, the secret
part is 192 random bits, so that one round of SHA-256 is enough and no password hash is needed.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence

import sqlalchemy as sa

from utils.errors import InvalidFieldError, NotFoundError
from web_app.db.models import ApiKeyRow, utc_now
from web_app.db.session import Database

SCOPES = ("analyse", "feedback", "moderate", "admin")
DEFAULT_SCOPES = "analyse,feedback"
KEY_OWNER = "key:"
"""What the id of a caller with a key begins with; its public part follows."""
PUBLIC_BYTES, SECRET_BYTES = 6, 24
MAX_NAME_CHARACTERS, MOST_DAYS = 64, 36_500
_KEY = re.compile(rf"tt_([0-9a-f]{{{PUBLIC_BYTES * 2}}})_([0-9a-f]{{{SECRET_BYTES * 2}}})")
_NOBODY = "0" * 64  # compared with when no row has the public part, so that both cases cost the same


def create_key(database: Database, name: str, scopes: Sequence[str], days: int = 0) -> str:
    """Make a key.

    Args:
        name: for people, 1 to 64 visible characters.
        days: how long it is valid; 0 for ever.

    Returns:
        The whole key. It cannot be shown again.

    Raises:
        InvalidFieldError: the name, a scope or the days are not allowed.
    """
    unknown = ", ".join(sorted(set(scopes) - set(SCOPES)))
    if unknown or not scopes:
        raise InvalidFieldError(f"There is no scope {unknown!r}.", remedy=f"Scopes are {', '.join(SCOPES)}.")
    if not name.isprintable() or not 1 <= len(name.strip()) <= MAX_NAME_CHARACTERS:
        raise InvalidFieldError("This is no name.", remedy=f"Give it 1 to {MAX_NAME_CHARACTERS} visible characters.")
    if not 0 <= days <= MOST_DAYS:
        raise InvalidFieldError(f"A key cannot be valid for {days} days.", remedy=f"Name 1 to {MOST_DAYS}, 0 for ever.")
    public, secret = secrets.token_hex(PUBLIC_BYTES), secrets.token_hex(SECRET_BYTES)
    with database.write() as session:
        session.add(
            ApiKeyRow(
                public=public,
                name=name.strip(),
                secret_sha256=_hash(secret),
                scopes=",".join(scope for scope in SCOPES if scope in scopes),
                expires_at=utc_now() + dt.timedelta(days=days) if days else None,
            )
        )
    return f"tt_{public}_{secret}"


def find_key(database: Database, untrusted_key: str) -> ApiKeyRow | None:
    """The key if it is known, neither revoked nor expired, and its secret is right; compared in constant time."""
    matched = _KEY.fullmatch(untrusted_key)
    if matched is None:
        return None
    row = find_public(database, matched.group(1))
    right = hmac.compare_digest(_hash(matched.group(2)), row.secret_sha256 if row is not None else _NOBODY)
    return row if right else None


def find_public(database: Database, public: str) -> ApiKeyRow | None:
    """The key with this public part if it is still valid; for sessions, whose signature has been checked."""
    in_time = sa.or_(ApiKeyRow.expires_at.is_(None), ApiKeyRow.expires_at > utc_now())
    with database.read() as session:
        return session.scalar(
            sa.select(ApiKeyRow).where(ApiKeyRow.public == public, ApiKeyRow.revoked_at.is_(None), in_time)
        )


def revoke_key(database: Database, public: str) -> None:
    """End a key, and the sessions that it opened, at once.

    Raises:
        NotFoundError: no key in use has this public part.
    """
    with database.write() as session:
        row = session.scalar(sa.select(ApiKeyRow).where(ApiKeyRow.public == public, ApiKeyRow.revoked_at.is_(None)))
        if row is None:
            raise NotFoundError(f"There is no key {public!r} in use.", remedy="Name one that `keys list` shows.")
        row.revoked_at = utc_now()


def list_keys(database: Database) -> list[str]:
    """A line for each key, oldest first: public part, state, days it was made and ends, scopes, name."""
    with database.read() as session:
        rows = session.scalars(sa.select(ApiKeyRow).order_by(ApiKeyRow.id)).all()
    lines, now = [], utc_now()
    for row in rows:
        state = "revoked" if row.revoked_at else "expired" if row.expires_at and row.expires_at <= now else "in use"
        days = f"{row.created_at:%Y-%m-%d}  {row.expires_at or 'for ever'!s:<10.10}"
        lines.append(f"{row.public}  {state:<8} {days}  {row.scopes:<32} {row.name}")
    return lines


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
