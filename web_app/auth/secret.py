"""The instance's random key: it signs sessions and turns addresses into anonymous ids."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

SECRET_BYTES = 32


def load_secret(path: Path) -> bytes:
    """The instance's random key, made at the first start; processes that start together get the same one."""
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    if not path.exists():
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, secrets.token_bytes(SECRET_BYTES))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        try:
            os.link(fresh, path)  # fails if another process was first, where rename would replace its key
        except FileExistsError:
            return path.read_bytes()
        finally:
            fresh.unlink()
    return path.read_bytes()
