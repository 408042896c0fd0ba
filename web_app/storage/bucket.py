"""Many machines: the files lie in a bucket of an S3 server; what is worked on is copied here and dropped afterwards.

An upload is written here first, counted, hashed and judged as on one machine, and is in the bucket before its row is
written. A worker fetches what it analyses, checked by the hash in its name, and sends what it made of it. Clean copies
are handed out by the S3 server itself, at an address that holds for some minutes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from utils.config import Settings
from utils.errors import ConfigError, MediaCorruptError, UnavailableError
from utils.files import file_sha256
from utils.log import get_logger
from web_app.paths import InstancePaths
from web_app.storage.files import DERIVED_SUFFIXES, PART_SUFFIX, IncomingFile, MediaStore, StoredFile

PREFIX = "uploads/"  # of our keys, so that the bucket may hold other things, too
RETRY_S = 2
LINK_S = 300  # how long an address of a clean copy holds
KEPT_S = 3600.0  # what a server has fetched to hand it out (thumbnails, frames) is dropped later than that
TRIES = 3
BLOCK = 1 << 20

log = get_logger(__name__)


class BucketAwayError(UnavailableError):
    """The S3 server does not answer, or refuses for a reason that may pass; a job that meets it is tried again."""


class Bucket:
    """A bucket by its address, such as https://s3.example.org/telltale; keys and region come as boto3 finds them.

    Raises:
        ConfigError: boto3 is not installed, or the address names no bucket.
    """

    def __init__(self, address: str) -> None:
        try:
            import boto3
            from boto3.s3.transfer import TransferConfig
            from botocore.config import Config
        except ImportError as error:
            raise ConfigError("[storage] files = s3 needs `pip install -r requirements-scale.txt`.") from error
        parts = urlsplit(address)
        self.name = parts.path.strip("/")
        self.origin = f"{parts.scheme}://{parts.netloc}"
        if parts.scheme not in ("http", "https") or not self.name or "/" in self.name:
            raise ConfigError("[storage] s3_url must be an address with a bucket, such as https://s3.example.org/name.")
        config = Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            connect_timeout=3,
            read_timeout=30,
            retries={"max_attempts": TRIES, "mode": "standard"},
            request_checksum_calculation="when_required",  # servers other than Amazon's may not know the newer ones
            response_checksum_validation="when_required",
        )
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        self._client: Any = boto3.client("s3", endpoint_url=self.origin, region_name=region, config=config)
        self._transfer = TransferConfig(use_threads=False)

    def require(self) -> None:
        """Look whether the bucket can be used.

        Raises:
            ConfigError: it is not there, not ours, or no server answers.
        """
        try:
            with self._told():
                self._client.head_bucket(Bucket=self.name)
        except (BucketAwayError, FileNotFoundError) as error:
            raise ConfigError(
                f"[storage] s3_url: the bucket {self.name} cannot be used ({error.__cause__})."
            ) from error

    def put(self, path: Path, key: str, mime: str = "application/octet-stream") -> None:
        """Send a file, in several parts where it is large; it can be had as a download of this type only.

        Raises:
            BucketAwayError: see there; also for `get`, `size` and `keys`.
        """
        with self._told():
            about = {"ContentType": mime, "ContentDisposition": "attachment"}
            self._client.upload_file(str(path), self.name, key, ExtraArgs=about, Config=self._transfer)

    def get(self, key: str, path: Path) -> None:
        """Fetch a file.

        Raises:
            FileNotFoundError: there is none under this key.
        """
        with self._told(), path.open("wb") as file:
            shutil.copyfileobj(self._client.get_object(Bucket=self.name, Key=key)["Body"], file, BLOCK)

    def size(self, key: str) -> int | None:
        """Bytes of a file; None where there is none."""
        with contextlib.suppress(FileNotFoundError), self._told():
            return int(self._client.head_object(Bucket=self.name, Key=key)["ContentLength"])
        return None

    def delete(self, *keys: str) -> None:
        """Delete files; those that are gone already are fine."""
        with self._told():
            for key in keys:  # a request for each: the one for many asks for a checksum that not all servers know
                self._client.delete_object(Bucket=self.name, Key=key)

    def keys(self, prefix: str) -> Iterator[tuple[str, float]]:
        """Each key below a prefix, and when it was written in seconds since 1970."""
        with self._told():
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix):
                for found in page.get("Contents", ()):
                    yield found["Key"], found["LastModified"].timestamp()

    def link(self, key: str, mime: str, name: str) -> str:
        """An address that hands a file out for some minutes, as a download with this type and name."""
        wanted = {
            "Bucket": self.name, "Key": key, "ResponseContentType": mime,
            "ResponseContentDisposition": f'attachment; filename="{name}"', "ResponseCacheControl": "private, no-cache",
        }  # fmt: skip
        return str(self._client.generate_presigned_url("get_object", Params=wanted, ExpiresIn=LINK_S))

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        from boto3.exceptions import S3UploadFailedError
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                raise FileNotFoundError(str(error)) from error
            raise self._away(error) from error
        except (BotoCoreError, S3UploadFailedError) as error:
            raise self._away(error) from error

    def _away(self, error: Exception) -> BucketAwayError:
        log.warning("the bucket: %s", error)
        return BucketAwayError("The store of files does not answer.", retry_after_s=RETRY_S)


class BucketStore(MediaStore):
    """The files of a bucket, with copies in a folder of this process."""

    def __init__(self, bucket: Bucket, folder: Path, max_bytes: int, reserve_bytes: int = 0) -> None:
        super().__init__(folder / f"here-{os.getpid()}", max_bytes, reserve_bytes)
        self.bucket = bucket
        self.origin = bucket.origin
        self._drop_at = 0.0
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def prepare(self) -> None:
        """Look whether the bucket can be used, and delete the copies of processes that are gone."""
        self.bucket.require()
        for folder in self.folder.parent.glob("here-*"):
            if folder != self.folder and not Path(f"/proc/{folder.name.removeprefix('here-')}").exists():
                shutil.rmtree(folder, ignore_errors=True)

    def incoming(self) -> IncomingFile:
        return _IncomingToBucket(self)

    def path(self, stored_name: str, suffix: str = "") -> Path:
        """Where a copy of a stored file lies; it is fetched where there is none.

        Raises:
            BucketAwayError: see there.
        """
        path = super().path(stored_name, suffix)
        if not path.exists():
            self._fetch(stored_name + suffix, path)
        return path

    def size(self, stored_name: str, suffix: str = "") -> int | None:
        return self.bucket.size(PREFIX + stored_name + suffix)

    def shows(self, stored_name: str, *, done: bool) -> bool:
        return done

    def link(self, stored_name: str, suffix: str, mime: str, name: str) -> str | None:
        return self.bucket.link(PREFIX + stored_name + suffix, mime, name)

    def share(self, stored_name: str, mime: str) -> None:
        for suffix in DERIVED_SUFFIXES:
            path = MediaStore.path(self, stored_name, suffix)
            if path.exists():
                self.bucket.put(path, PREFIX + stored_name + suffix, mime)
        self.drop(stored_name)

    def drop(self, stored_name: str) -> None:
        for suffix in ("", *DERIVED_SUFFIXES):
            MediaStore.path(self, stored_name, suffix).unlink(missing_ok=True)

    def remove(self, stored_name: str) -> None:
        self.drop(stored_name)
        try:
            self.bucket.delete(*(PREFIX + stored_name + suffix for suffix in ("", *DERIVED_SUFFIXES)))
        except BucketAwayError:
            log.warning("a deleted file stays in the bucket until the next start of a server")

    def derived(self) -> list[Path]:
        return []  # what is made of a file goes with it, see `files`

    def files(self) -> Iterator[tuple[str, float]]:
        for key, written in self.bucket.keys(PREFIX):
            name = key.removeprefix(PREFIX)
            yield name.rpartition(".")[0] if name.endswith(DERIVED_SUFFIXES) else name, written

    def _fetch(self, name: str, path: Path) -> None:
        """Bring a file here, whole or not at all; nothing where the bucket has none."""
        if time.monotonic() >= self._drop_at:
            self._drop_at = time.monotonic() + KEPT_S / 10
            self._drop_old()
        path.parent.mkdir(exist_ok=True, mode=0o700)
        part = path.with_name(f"{path.name}.{os.urandom(4).hex()}{PART_SUFFIX}")
        try:
            self.bucket.get(PREFIX + name, part)
            wanted = path.name.partition("-")[0]
            if not name.endswith(DERIVED_SUFFIXES) and file_sha256(part) != wanted:
                raise MediaCorruptError("The stored file is another than was uploaded.")
            part.rename(path)
        except FileNotFoundError:
            return
        finally:
            part.unlink(missing_ok=True)

    def _drop_old(self) -> None:
        before = time.time() - KEPT_S
        for path in self.folder.glob("*/*"):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    path.unlink()


class _IncomingToBucket(IncomingFile):
    """An upload that is in the bucket when it is finished, and here no more."""

    _store: BucketStore

    def finish(self) -> StoredFile:
        stored = super().finish()
        try:
            self._store.bucket.put(MediaStore.path(self._store, stored.name), PREFIX + stored.name)
        finally:
            self._store.drop(stored.name)
        return stored


def open_store(settings: Settings) -> MediaStore:
    """The store of an instance: its own folder, or the bucket that it shares."""
    media, storage = settings.media, settings.storage
    place = (InstancePaths.of(settings).uploads, media.max_file_mb * 1_000_000, storage.reserve_mb * 1_000_000)
    return BucketStore(Bucket(storage.s3_url), *place) if storage.files == "s3" else MediaStore(*place)
