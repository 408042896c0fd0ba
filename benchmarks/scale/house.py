"""Everything that many machines are made of, on loopback: servers, an application, workers as they are needed."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from flask.testing import FlaskClient

from benchmarks.reliability.common import processor_s, wait_until
from benchmarks.servers import S3, Postgres, Redis, temporary
from tests.web_app.helpers import accept_weights, make_settings, media_bytes, upload
from utils.config import Settings, WeightsSettings
from web_app.app import create_app
from web_app.db.models import FINAL, JobRow, WorkerRow
from web_app.jobs.supervisor import settings_environ
from web_app.services import EXTENSION, Services

ENGINE_S = 0.5
PATIENCE_S = 200.0


@dataclasses.dataclass
class House:
    """Servers, an application and its client, and the processes of the moment, workers most of all."""

    postgres: Postgres
    redis: Redis
    s3: S3
    settings: Settings
    parts: Services
    client: FlaskClient
    folder: Path
    workers: list[subprocess.Popen[bytes]] = dataclasses.field(default_factory=list)

    def start_worker(self, *arguments: str, settings: Settings | None = None) -> None:
        """Start a worker with the stand-in for the analysis."""
        self.start("tests.web_app.fake_worker", *arguments, settings=settings or self.settings)

    def start(self, *command: str, settings: Settings) -> None:
        """Start a module with these settings."""
        environ = {**os.environ, **settings_environ(settings), "OMP_NUM_THREADS": "1"}
        self.workers.append(subprocess.Popen([sys.executable, "-m", *command], env=environ))  # noqa: S603

    def wait_until(self, condition: Callable[[], Any]) -> None:
        """Until it holds.

        Raises:
            RuntimeError: a process has ended meanwhile; what it said stands above, on standard error.
        """

        def holds() -> Any:
            for process in self.workers:
                if process.poll() is not None:
                    raise RuntimeError(f"{process.args!r} has ended with {process.returncode}; see above")
            return condition()

        wait_until(holds, PATIENCE_S)

    def wait_for_workers(self) -> None:
        """Until as many have been heard of."""
        self.wait_until(lambda: self.count(WorkerRow) >= len(self.workers))

    def stop_workers(self) -> None:
        for worker in self.workers:
            worker.terminate()
        for worker in self.workers:
            worker.wait()
        self.workers.clear()

    def forget_jobs(self) -> None:
        with self.parts.database.write() as session:
            session.execute(sa.delete(JobRow))

    def processor_s(self) -> tuple[float, float]:
        """Seconds of the processor that the workers have needed so far, and that the three servers have."""
        servers = [server.pid for server in (self.postgres, self.redis, self.s3)]
        return processor_s([worker.pid for worker in self.workers]), processor_s(servers)

    def count(self, table: type[WorkerRow] | type[JobRow], *where: sa.ColumnElement[bool]) -> int:
        with self.parts.database.read() as session:
            return session.scalar(sa.select(sa.func.count()).select_from(table).where(*where)) or 0

    def wait_for_jobs(self) -> None:
        """Until each has ended."""
        self.wait_until(lambda: not self.count(JobRow, JobRow.state.not_in(FINAL)))

    def send(self, number: int, seconds: float = ENGINE_S, **keywords: Any) -> Any:
        """Upload a clip that takes the stand-in so long; the answer."""
        content = media_bytes("mp4", f"deaf {seconds}", 400 + number)
        return upload(self.client, content, "/api/detect?wait=0", **keywords)

    def rows(self) -> list[JobRow]:
        with self.parts.database.read() as session:
            return list(session.scalars(sa.select(JobRow).order_by(JobRow.id)))

    def machine(self, name: str, weights: Path) -> Settings:
        """Settings of a machine with a folder and weights of its own; database, broker and bucket are the same."""
        folder = self.folder / name
        own = shutil.copytree(weights, folder / "trained_models", symlinks=True)
        storage = dataclasses.replace(self.settings.storage, instance_dir=str(folder / "instance"))
        return dataclasses.replace(self.settings, storage=storage, weights=WeightsSettings(dir=str(own)))


@contextlib.contextmanager
def house(lease_s: float = 60.0, weights: Path | None = None) -> Iterator[House]:
    """All servers, empty.

    Args:
        weights: of the server; None for the configured ones.
    """
    with contextlib.ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        postgres, redis = held.enter_context(temporary(Postgres)), held.enter_context(temporary(Redis))
        s3 = held.enter_context(temporary(S3))
        os.environ.update(S3.KEYS)
        plain = make_settings(folder, engine="celery", broker_url=redis.url, lease_s=lease_s, max_waiting=100_000)
        storage = dataclasses.replace(
            plain.storage, database_url=postgres.url, files="s3", s3_url=s3.bucket("telltale")
        )
        security = dataclasses.replace(plain.security, uploads_per_minute=0, requests_per_minute=0)
        settings = dataclasses.replace(plain, storage=storage, security=security)
        if weights is not None:
            settings = dataclasses.replace(settings, weights=WeightsSettings(dir=str(weights)))
        app = create_app(settings, verify=accept_weights)
        parts = app.extensions[EXTENSION]
        found = House(postgres, redis, s3, settings, parts, app.test_client(), folder)
        held.callback(parts.close)
        held.callback(found.stop_workers)
        yield found
