"""Webhooks: addresses that are told when a caller's analyses end; `integrations/webhooks.py` sends."""

from __future__ import annotations

import base64
import secrets
from typing import Literal

import sqlalchemy as sa
from pydantic import Field
from sqlalchemy.orm import Session

from utils.errors import AddressRefusedError, ConflictError, FetchError, NotAvailableError
from web_app.api.detect import UrlRequest
from web_app.api.routing import route
from web_app.api.schemas import Moment, Schema
from web_app.auth import identity
from web_app.db.models import DeliveryRow, WebhookRow
from web_app.integrations.http_client import check_url
from web_app.integrations.webhooks import SECRET_BYTES, SECRET_PREFIX
from web_app.services import services

MAX_PER_CALLER = 10
DELIVERIES_SHOWN = 50


class Webhook(Schema):
    """An address that is told when analyses end."""

    id: str
    url: str
    created: Moment


class NewWebhook(Webhook):
    """A webhook with its secret, which is shown this once."""

    secret: str = Field(description="whsec_ and base64; checks the header webhook-signature")


class Webhooks(Schema):
    items: list[Webhook]


class Delivery(Schema):
    """One message to a webhook."""

    analysis: str
    type: str = Field(description="analysis.done, analysis.failed or analysis.cancelled")
    state: Literal["pending", "delivered", "given_up"]
    attempts: int
    status: int | None = Field(description="HTTP status of the last answer")
    error: str | None
    next_attempt: Moment | None
    created: Moment


class Deliveries(Schema):
    items: list[Delivery]


@route("POST", "/webhooks", {201: NewWebhook}, AddressRefusedError, FetchError, NotAvailableError, ConflictError)
def create_webhook(said: UrlRequest) -> NewWebhook:
    """Register an address for `analysis.done`, `.failed` and `.cancelled`; its secret is shown this once."""
    parts = services()
    if parts.settings.api.webhooks != "on":
        raise NotAvailableError("Webhooks are switched off ([api] webhooks).")
    check_url(said.url, parts.outbound)
    owner = identity.caller().id
    secret = SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
    row = WebhookRow(client_id=owner, url=said.url, secret=secret)
    with parts.database.write() as session:
        mine = session.scalar(sa.select(sa.func.count()).where(WebhookRow.client_id == owner)) or 0
        if mine >= MAX_PER_CALLER:
            raise ConflictError(f"You have {mine} webhooks, and no more than {MAX_PER_CALLER} are allowed.")
        session.add(row)
    return NewWebhook.of(row)


@route("GET", "/webhooks", {200: Webhooks})
def list_webhooks(session: Session) -> Webhooks:
    """Your webhooks, oldest first, without their secrets."""
    mine = sa.select(WebhookRow).where(WebhookRow.client_id == identity.caller().id).order_by(WebhookRow.id)
    return Webhooks(items=[Webhook.of(row) for row in session.scalars(mine)])


@route("DELETE", "/webhooks/<id>", {204: None})
def remove_webhook(id: str, session: Session) -> None:
    """Forget a webhook with all its deliveries."""
    session.delete(identity.require_own(session, WebhookRow, id, "webhook"))


@route("GET", "/webhooks/<id>/deliveries", {200: Deliveries})
def list_deliveries(id: str, session: Session) -> Deliveries:
    """What was sent to a webhook, newest first: state, attempts, and the last answer or error."""
    webhook = identity.require_own(session, WebhookRow, id, "webhook")
    sent = sa.select(DeliveryRow).where(DeliveryRow.webhook_id == webhook.id)
    rows = session.scalars(sent.order_by(DeliveryRow.id.desc()).limit(DELIVERIES_SHOWN))
    items = [
        Delivery.of(
            row, analysis=row.job_public_id, type=row.payload["type"],
            next_attempt=row.due_at if row.state == "pending" else None,
        )
        for row in rows
    ]  # fmt: skip
    return Deliveries(items=items)
