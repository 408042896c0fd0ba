"""Where the server keeps what it writes: every path below the instance folder, from the settings alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from utils.config import Settings
from utils.errors import ConfigError
from utils.weights import SPEECH_FOLDER, weights_root

ROOT = Path(__file__).resolve().parent.parent
"""The repository's root; relative folders of the settings start here, wherever the server was started from."""
OPENAPI = ROOT / "docs" / "openapi.json"
"""The description of the API, which `make openapi` writes."""
PRIVATE = 0o077
"""The umask of server and worker: what they write is readable and writable by their user only."""


class InstancePaths:
    """The instance folder and the places in it; nothing is created by asking for a path.

    `features` holds what was derived from media that users gave feedback on, one folder each, and no pictures; `golden`
    the user's own golden sets, as `python -m utils.feedback.golden add` makes them; `report_keys` signs reports.
    """

    def __init__(self, instance: Path) -> None:
        self.instance = instance
        self.uploads = instance / "uploads"
        self.features = instance / "features"
        self.golden = instance / "golden"
        self.database = instance / "telltale.sqlite3"
        self.feedback_log = instance / "feedback_log.jsonl"
        self.training_history = instance / "rl_training_history.jsonl"
        self.speech_history = instance / "rl_training_history_speech.jsonl"
        self.secret = instance / "secret"
        self.report_keys = instance / "report_keys.json"

    @classmethod
    def of(cls, settings: Settings) -> InstancePaths:
        """The paths for `[storage] instance_dir`; a relative folder starts at the repository's root."""
        return cls(ROOT / settings.storage.instance_dir)

    def create(self) -> None:
        """Make the folders, readable by their owner only; also those that were made by hand before.

        Raises:
            ConfigError: they cannot be made or written.
        """
        for folder in (self.instance, self.uploads, self.features):
            try:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                if folder.stat().st_mode & PRIVATE:
                    folder.chmod(0o700)
            except OSError as error:
                raise ConfigError(
                    f"[storage] instance_dir: {folder} cannot be made or used ({error.strerror})."
                ) from error
            if not os.access(folder, os.W_OK | os.X_OK):
                raise ConfigError(f"[storage] instance_dir: {folder} cannot be written by this user.")


class Branch(NamedTuple):
    """Versions of faces or of speech: the folder they lie in, their history, and the users' own golden sets."""

    name: str
    root: Path
    history: Path
    golden: Path


def branches(settings: Settings) -> tuple[Branch, Branch]:
    """That of faces, and that of speech, whether it has versions or not."""
    root, paths = weights_root(settings), InstancePaths.of(settings)
    faces = Branch("faces", root, paths.training_history, paths.golden)
    return faces, Branch("speech", root / SPEECH_FOLDER, paths.speech_history, paths.golden / SPEECH_FOLDER)
