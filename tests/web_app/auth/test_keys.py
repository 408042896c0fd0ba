"""API keys: made once, stored as a hash, compared in constant time, ended by revoking or by time."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac

import pytest
import sqlalchemy as sa

from utils.errors import InvalidFieldError, NotFoundError
from web_app.auth.keys import create_key, find_key, revoke_key
from web_app.db.models import ApiKeyRow, utc_now
from web_app.services import Services


def test_a_key_is_found_with_its_scopes(parts: Services) -> None:
    found = find_key(parts.database, create_key(parts.database, " desk ", ["feedback", "analyse"]))
    assert found is not None
    assert (found.name, found.scopes) == ("desk", "analyse,feedback")


def test_only_the_hash_is_stored(parts: Services) -> None:
    whole = create_key(parts.database, "desk", ["analyse"])
    secret = whole.rpartition("_")[2]
    with parts.database.read() as session:
        row = session.scalars(sa.select(ApiKeyRow)).one()
    assert row.secret_sha256 == hashlib.sha256(secret.encode()).hexdigest()
    parts.database.close()
    assert secret.encode() not in b"".join(path.read_bytes() for path in parts.paths.instance.glob("telltale*"))


@pytest.mark.parametrize("damage", ["secret", "public", "case", "empty", "prefix", "longer"])
def test_a_wrong_key_is_not_found(parts: Services, damage: str) -> None:
    whole = create_key(parts.database, "desk", ["analyse"])
    _, public, secret = whole.split("_")
    wrong = {
        "secret": f"tt_{public}_{'0' * len(secret)}", "public": f"tt_{'0' * len(public)}_{secret}",
        "case": whole.upper(), "empty": "", "prefix": whole[3:], "longer": whole + "0",
    }[damage]  # fmt: skip
    assert find_key(parts.database, wrong) is None


def test_known_and_unknown_keys_are_compared_alike(parts: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    real = hmac.compare_digest

    def compare(a: str, b: str) -> bool:
        compared.append((len(a), len(b)))
        return real(a, b)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    find_key(parts.database, create_key(parts.database, "desk", ["analyse"]))
    find_key(parts.database, f"tt_{'1' * 12}_{'2' * 48}")
    assert compared == [(64, 64), (64, 64)]


def test_a_revoked_key_ends(parts: Services) -> None:
    whole = create_key(parts.database, "desk", ["analyse"])
    revoke_key(parts.database, whole.split("_")[1])
    assert find_key(parts.database, whole) is None
    with pytest.raises(NotFoundError):
        revoke_key(parts.database, whole.split("_")[1])


def test_a_key_expires(parts: Services) -> None:
    whole = create_key(parts.database, "desk", ["analyse"], days=1)
    assert find_key(parts.database, whole) is not None
    with parts.database.write() as session:
        session.execute(sa.update(ApiKeyRow).values(expires_at=utc_now() - dt.timedelta(seconds=1)))
    assert find_key(parts.database, whole) is None


@pytest.mark.parametrize(
    ("name", "scopes"), [("", ["analyse"]), ("a\nb", ["analyse"]), ("x" * 65, ["analyse"]), ("a", []), ("a", ["root"])]
)
def test_names_and_scopes_are_checked(parts: Services, name: str, scopes: list[str]) -> None:
    with pytest.raises(InvalidFieldError):
        create_key(parts.database, name, scopes)
