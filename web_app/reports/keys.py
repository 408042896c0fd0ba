"""The server's keys for signing reports: made at the first start, kept in the instance folder, published, replaced.

Only the present key can sign; of those before it the public part and its period are kept, so that old reports can be
checked. The file is read for each report: a key that a command replaced is in use at once.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from utils.errors import ConfigError
from utils.files import create_once, locked, replace_file
from utils.signatures import KEYS_DOCUMENT, SCHEME, fingerprint, sign
from web_app.db.models import utc_now


@dataclass(frozen=True)
class ReportKeys:
    path: Path

    @classmethod
    def of(cls, path: Path) -> ReportKeys:
        """Those of a file, with a first one where there is none; processes that start together get the same one."""
        create_once(path, lambda: json.dumps(_with_fresh_key([])).encode())
        keys = cls(path)
        keys._read()
        return keys

    def sign(self, document: dict[str, Any]) -> dict[str, Any]:
        return sign(document, base64.b64decode(self._read()["private"]))

    def public(self) -> dict[str, Any]:
        """The keys document: every key with its period, the present one first, without what could sign."""
        return {name: value for name, value in self._read().items() if name != "private"}

    def rotate(self) -> str:
        """Replace the present key, whose private part is gone then; the new one's fingerprint."""
        with locked(self.path.with_name(f"{self.path.name}.lock")):
            now, earlier = utc_now().isoformat(), self._read()["keys"]
            retired = [{**entry, "until": entry["until"] or now} for entry in earlier]
            replaced = _with_fresh_key(retired)
            replace_file(self.path, json.dumps(replaced).encode(), mode=0o600)
        return str(replaced["keys"][0]["key"])

    def _read(self) -> dict[str, Any]:
        try:
            read: dict[str, Any] = json.loads(self.path.read_bytes())
            own = Ed25519PrivateKey.from_private_bytes(base64.b64decode(read["private"]))
            if fingerprint(own.public_key().public_bytes_raw()) != read["keys"][0]["key"]:
                raise ValueError("the private key is not that of the first public one")
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise ConfigError(
                f"The keys for signing reports cannot be read ({error}): put back {self.path.name} from a backup, "
                "or delete it and a new key is made; keep its public keys for the reports of before."
            ) from error
        return read


def _with_fresh_key(earlier: list[dict[str, Any]]) -> dict[str, Any]:
    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()
    entry = {
        "key": fingerprint(public), "algorithm": SCHEME["algorithm"], "public_key": base64.b64encode(public).decode(),
        "from": utc_now().isoformat(), "until": None,
    }  # fmt: skip
    private_text = base64.b64encode(private.private_bytes_raw()).decode()
    return {"document": KEYS_DOCUMENT, "keys": [entry, *earlier], "private": private_text}
