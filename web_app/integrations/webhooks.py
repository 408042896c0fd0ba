"""Telling other servers that an analysis has ended: messages are rows, sent by the worker until somebody takes them.

Nothing has to be remembered when a job ends: `collect` finds the ended jobs that a webhook has not been told of, so
that a crash loses no message. The receiver may get one twice and knows it by its `webhook-id`.

Source: Standard Webhooks 1.0 (headers and signature).
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import undefer

from utils.errors import AddressRefusedError, FetchError
from utils.log import get_logger
from web_app.db.models import FINAL, DeliveryRow, DetectionRow, JobRow, WebhookRow, utc_now
from web_app.db.session import Database
from web_app.integrations.http_client import Rules, open_url
from web_app.jobs.heartbeat import log_and_continue
from web_app.jobs.shared import Instance

SECRET_PREFIX = "whsec_"  # noqa: S105 - marks a secret, is none
SECRET_BYTES = 24
PENDING, DELIVERED, GIVEN_UP = "pending", "delivered", "given_up"
BACKOFF_S = (10, 60, 300, 1800, 7200, 18000, 36000)
"""Seconds before the second and each further attempt; after the last, a message is given up."""
ATTEMPT_S = 10.0
CLAIM_S = 60.0  # a worker that dies while it sends leaves the message to the others after this
POLL_S = 2.0
PORTION = 100
KEEP_DAYS = 30
FORGET_EVERY_S = 86400.0
MAX_ERROR_CHARACTERS = 300

log = get_logger(__name__)


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The header `webhook-signature`: HMAC-SHA-256 over id, time and body, in base64.

    Args:
        secret: `whsec_` and base64.
        timestamp: the header `webhook-timestamp`, seconds since 1970.
    """
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def collect(database: Database, now: dt.datetime) -> int:
    """Write a message for each ended analysis that its owner's webhooks have not been told of; returns how many.

    A webhook is told of what ended after it was made. Other workers may collect at the same moment; the unique index
    lets one of them win.
    """
    told = sa.exists().where(DeliveryRow.webhook_id == WebhookRow.id, DeliveryRow.job_public_id == JobRow.public_id)
    ended = (
        sa.select(WebhookRow, DetectionRow)
        .join(DetectionRow, DetectionRow.client_id == WebhookRow.client_id)
        .join(JobRow, JobRow.id == DetectionRow.job_id)
        .where(
            JobRow.state.in_(FINAL), JobRow.finished_at >= WebhookRow.created_at,
            JobRow.finished_at >= now - dt.timedelta(days=KEEP_DAYS), DetectionRow.expires_at.is_(None), ~told,
        )
        .options(undefer(DetectionRow.speech_version))
        .order_by(JobRow.id)
        .limit(PORTION)
    )  # fmt: skip
    with database.read() as session:
        if session.scalar(sa.select(WebhookRow.id).limit(1)) is None:
            return 0
        found = session.execute(ended).all()
    if not found:
        return 0
    try:
        with database.write() as session:
            for webhook, detection in found:
                session.add(
                    DeliveryRow(
                        webhook_id=webhook.id, job_public_id=detection.job.public_id, payload=message_of(detection),
                        state=PENDING, due_at=now,
                    )
                )  # fmt: skip
    except IntegrityError:  # another worker was first, or a webhook is gone: the next look sees what is left
        return 0
    return len(found)


def message_of(row: DetectionRow) -> dict[str, Any]:
    return {
        "type": f"analysis.{row.job.state}",
        "timestamp": (row.job.finished_at or utc_now()).isoformat(),
        "data": {
            "id": row.job.public_id,
            "state": row.job.state,
            "name": row.display_name,
            "sha256": row.media.sha256,
            "prediction": row.prediction,
            "fake_probability": row.fake_probability,
            "model_version": row.model_version,
            "speech_version": row.speech_version,
            "error": row.job.error_code,
        },
    }


def claim_message(database: Database, now: dt.datetime) -> tuple[DeliveryRow, WebhookRow] | None:
    """Take the message that is due for longest; the attempt is counted, and the next one is due already."""
    with database.write() as session:
        row = session.scalar(
            sa.select(DeliveryRow)
            .where(DeliveryRow.state == PENDING, DeliveryRow.due_at <= now)
            .order_by(DeliveryRow.due_at)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        if row is None:
            return None
        row.attempts += 1
        row.due_at = now + dt.timedelta(seconds=CLAIM_S)
        return row, session.get_one(WebhookRow, row.webhook_id)


def send(message: DeliveryRow, webhook: WebhookRow, rules: Rules) -> int:
    """Post a message and return the status of the answer.

    Raises:
        AddressRefusedError: the address has become one that is not allowed.
        FetchError: there was no answer.
    """
    body = json.dumps(message.payload, separators=(",", ":")).encode()
    timestamp = int(time.time())
    message_id = f"msg_{message.id}"
    headers = {
        "Content-Type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(webhook.secret, message_id, timestamp, body),
    }
    with open_url(webhook.url, rules, ATTEMPT_S, method="POST", body=body, headers=headers, redirects=0) as answer:
        return answer.status


def deliver_one(database: Database, rules: Rules, now: dt.datetime) -> bool:
    """Try the next message; False when none is due."""
    claimed = claim_message(database, now)
    if claimed is None:
        return False
    message, webhook = claimed
    status, error = None, None
    try:
        status = send(message, webhook, rules)
        if not 200 <= status < 300:
            error = f"The receiver answered {status}."
    except (AddressRefusedError, FetchError) as failure:
        error = failure.detail
    values: dict[str, Any] = {"status": status, "error": error and error[:MAX_ERROR_CHARACTERS]}
    if error is None:
        values["state"] = DELIVERED
    elif status == 410 or message.attempts > len(BACKOFF_S):  # gone for good, or tried often enough
        values["state"] = GIVEN_UP
    else:
        values["due_at"] = now + dt.timedelta(seconds=BACKOFF_S[message.attempts - 1])
    with database.write() as session:
        session.execute(sa.update(DeliveryRow).where(DeliveryRow.id == message.id).values(**values))
    log.info("webhook message %d: attempt %d, %s", message.id, message.attempts, error or f"taken with {status}")
    return True


def forget_old(database: Database, now: dt.datetime) -> None:
    """Delete messages that ended long ago; their analyses are too old to be collected again."""
    before = now - dt.timedelta(days=2 * KEEP_DAYS)
    with database.write() as session:
        session.execute(sa.delete(DeliveryRow).where(DeliveryRow.state != PENDING, DeliveryRow.created_at < before))


@contextmanager
def sending(instance: Instance) -> Iterator[None]:
    """Messages are collected and sent by a thread while the block runs, if `[api] webhooks` is on.

    The end waits for the attempt under way, which lasts a few seconds at most.
    """
    if instance.settings.api.webhooks != "on":
        yield
        return
    ended = threading.Event()
    told = (instance.database, Rules.of(instance.settings.api), ended)
    thread = threading.Thread(target=_send_until, args=told, name="messenger", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(ATTEMPT_S + 1)


def _send_until(database: Database, rules: Rules, ended: threading.Event) -> None:
    forget_at = 0.0
    while not ended.wait(POLL_S):
        with log_and_continue("tell webhooks"):
            if time.monotonic() >= forget_at:
                forget_at = time.monotonic() + FORGET_EVERY_S
                forget_old(database, utc_now())
            collect(database, utc_now())
            while not ended.is_set() and deliver_one(database, rules, utc_now()):
                continue
