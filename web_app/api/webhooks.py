"""Webhooks: addresses that are told when a caller's analyses end; `integrations/webhooks.py` sends."""

from __future__ import annotations

import base64
import secrets
from typing import Any

import sqlalchemy as sa
from flask import Response, current_app, jsonify, request
from sqlalchemy.orm import Session

from utils.errors import ConflictError, NotAvailableError, NotFoundError
from web_app.api.parse import parse_json
from web_app.api.present import moment
from web_app.api.schemas import UrlRequest
from web_app.auth import identity
from web_app.db.models import DeliveryRow, WebhookRow
from web_app.integrations.http_client import check_url
from web_app.integrations.webhooks import SECRET_BYTES, SECRET_PREFIX
from web_app.services import services

MAX_PER_CALLER = 10
DELIVERIES_SHOWN = 50


def create_webhook() -> Response:
    """Register an address for `analysis.done`, `.failed` and `.cancelled`; its secret is shown this once."""
    parts = services()
    if parts.settings.api.webhooks != "on":
        raise NotAvailableError("Webhooks are switched off ([api] webhooks).")
    said = parse_json(UrlRequest, request)
    check_url(said.url, parts.outbound)
    owner = identity.caller().id
    secret = SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
    row = WebhookRow(public_id=secrets.token_hex(16), client_id=owner, url=said.url, secret=secret)
    with parts.database.write() as session:
        mine = session.scalar(sa.select(sa.func.count()).where(WebhookRow.client_id == owner)) or 0
        if mine >= MAX_PER_CALLER:
            raise ConflictError(f"You have {mine} webhooks, and no more than {MAX_PER_CALLER} are allowed.")
        session.add(row)
    answer = jsonify({**_present(row), "secret": secret})
    answer.status_code = 201
    return answer


def list_webhooks() -> Response:
    """Your webhooks, oldest first, without their secrets."""
    parts = services()
    with parts.database.read() as session:
        rows = session.scalars(
            sa.select(WebhookRow).where(WebhookRow.client_id == identity.caller().id).order_by(WebhookRow.id)
        ).all()
    return jsonify(items=[_present(row) for row in rows])


def remove_webhook(id: str) -> Response:
    """Forget a webhook with all its deliveries."""
    parts = services()
    with parts.database.write() as session:
        session.delete(_require(session, id))
    return current_app.response_class(status=204)


def list_deliveries(id: str) -> Response:
    """What was sent to a webhook, newest first: state, attempts, and the last answer or error."""
    parts = services()
    with parts.database.read() as session:
        row = _require(session, id)
        deliveries = session.scalars(
            sa.select(DeliveryRow)
            .where(DeliveryRow.webhook_id == row.id)
            .order_by(DeliveryRow.id.desc())
            .limit(DELIVERIES_SHOWN)
        ).all()
    return jsonify(items=[_delivery(each) for each in deliveries])


def _require(session: Session, public_id: str) -> WebhookRow:
    row = session.scalar(sa.select(WebhookRow).where(WebhookRow.public_id == public_id))
    if row is None or not identity.caller().owns(row.client_id):
        raise NotFoundError("There is no webhook with this id.")
    return row


def _present(row: WebhookRow) -> dict[str, Any]:
    return {"id": row.public_id, "url": row.url, "created": moment(row.created_at)}


def _delivery(row: DeliveryRow) -> dict[str, Any]:
    return {
        "analysis": row.job_public_id,
        "type": row.payload["type"],
        "state": row.state,
        "attempts": row.attempts,
        "status": row.status,
        "error": row.error,
        "next_attempt": moment(row.due_at) if row.state == "pending" else None,
        "created": moment(row.created_at),
    }
