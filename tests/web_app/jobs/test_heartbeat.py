"""The heartbeat: whoever holds a job hears that it is no longer theirs, also where no progress is told."""

from __future__ import annotations

import math

from flask.testing import FlaskClient

from tests.web_app.helpers import media_bytes, upload
from web_app.jobs.heartbeat import Heartbeat
from web_app.services import Services


def test_a_cancelled_job_is_lost_and_another_one_stays(client: FlaskClient, parts: Services) -> None:
    for order in ("fake", "real"):
        upload(client, media_bytes("mp4", order))
    first, second = (parts.queue.claim("w1") for _ in range(2))
    assert first is not None
    assert second is not None
    with (
        Heartbeat(parts.queue, "w1", dict, 0.05) as heartbeat,
        heartbeat.hold("the first", math.inf, first) as lost,
        heartbeat.hold("the second", math.inf, second) as kept,
    ):
        assert parts.queue.cancel(first.public_id)
        assert lost.lost.wait(20)
        assert not kept.lost.is_set()
