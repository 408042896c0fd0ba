"""A worker process whose trainings never end by themselves: `python -m tests.web_app.feedback.killed_worker`."""

from __future__ import annotations

import time

from tests.web_app.feedback.hand_in import hand_in_worker
from utils.config import load_settings

with hand_in_worker(load_settings()) as trainer:
    trainer.go_on.clear()
    while True:
        time.sleep(1)
