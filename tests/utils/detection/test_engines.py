"""A process that runs converted networks loads no torch."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    ["models.cards", "utils.weights", "utils.detection.pipeline", "utils.detection.batch", "web_app.worker"],
)
def test_module_loads_without_torch(module):
    code = f"import sys, {module}; sys.exit(int('torch' in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


PUT_TOGETHER = """
import sys
from types import SimpleNamespace
from utils.config import Settings, StorageSettings
from web_app.worker import worker_tasks
from web_app.feedback.learner import Learner
from web_app.jobs.derived import CleanCopies
from web_app.db.migrations import migrate
from web_app.jobs.instance import Instance

settings = Settings(storage=StorageSettings(instance_dir=sys.argv[1]))
instance = Instance.of(settings)
instance.paths.create()
migrate(instance.database)
served = SimpleNamespace(refresh=None, facts=dict, analyser=SimpleNamespace(version="none"))
worker_tasks(instance, served, Learner(settings, served), CleanCopies(instance, lambda: None), ())
sys.exit(int("torch" in sys.modules))
"""


def test_worker_is_put_together_without_torch(tmp_path):
    """Learning and close-ups bring it in when somebody asks for them."""
    assert subprocess.run([sys.executable, "-c", PUT_TOGETHER, str(tmp_path)], check=False).returncode == 0
