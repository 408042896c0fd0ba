"""Sessions of the page: a browser cannot send an Authorization header by itself, so a key opens one.

The cookie holds 256 random bits and the database their hash: a session ends when its row goes, for every copy of the
cookie, and is worth nothing once its key is revoked.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import secrets

import sqlalchemy as sa

from web_app.auth.keys import ApiKey, find_public
from web_app.db.models import SessionRow, utc_now
from web_app.db.session import Database

SESSION_AGE_S = 12 * 3600
TOKEN_BYTES = 32


def begin_session(database: Database, public: str) -> str:
    """Open a session for a key, and clear away those that are over.

    Args:
        database: where sessions are.
        public: the key's public part.

    Returns:
        What the cookie holds.
    """
    token = secrets.token_hex(TOKEN_BYTES)
    now = utc_now()
    with database.write() as session:
        session.execute(sa.delete(SessionRow).where(SessionRow.ends_at <= now))
        session.add(
            SessionRow(token_sha256=_hash(token), public=public, ends_at=now + dt.timedelta(seconds=SESSION_AGE_S))
        )
    return token


def find_session(database: Database, untrusted_token: str) -> ApiKey | None:
    """The key behind a cookie; None when there is no such session, it is over, or its key has ended."""
    if not untrusted_token:
        return None
    with database.read() as session:
        row = session.get(SessionRow, _hash(untrusted_token))
    return find_public(database, row.public) if row is not None and utc_now() < row.ends_at else None


def end_session(database: Database, untrusted_token: str) -> None:
    """End a session for every copy of its cookie; one that is not there is fine."""
    if not untrusted_token:
        return
    with database.write() as session:
        session.execute(sa.delete(SessionRow).where(SessionRow.token_sha256 == _hash(untrusted_token)))


def _hash(untrusted_token: str) -> str:
    return hashlib.sha256(untrusted_token.encode(errors="surrogatepass")).hexdigest()
