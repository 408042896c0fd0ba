"""What every process of a server works with: its settings, and what they name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from utils.config import Settings
from web_app.db.session import Database
from web_app.jobs.queue import JobQueue
from web_app.jobs.shared import Shared
from web_app.paths import InstancePaths
from web_app.storage.bucket import open_store
from web_app.storage.files import MediaStore


@dataclass(frozen=True)
class Instance:
    """One for a process; `close` gives the database connections back."""

    settings: Settings
    paths: InstancePaths
    database: Database
    store: MediaStore
    queue: JobQueue
    shared: Shared

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """By the settings alone: nothing is created, and nothing is asked of the database yet."""
        database = Database.of(settings)
        paths, store = InstancePaths.of(settings), open_store(settings)
        shared = Shared(settings, paths, database, store)
        return cls(settings, paths, database, store, JobQueue(database, settings.jobs), shared)

    def close(self) -> None:
        """Give the connections back."""
        self.database.close()
