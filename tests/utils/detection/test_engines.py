"""A process that runs converted networks loads no torch."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    ["models.cards", "utils.weights", "utils.detection.pipeline", "utils.detection.many", "web_app.jobs.worker"],
)
def test_module_loads_without_torch(module):
    code = f"import sys, {module}; sys.exit(int('torch' in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
