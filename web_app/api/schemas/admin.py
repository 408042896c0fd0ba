"""What a server says of itself, and its webhooks."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from web_app.api.schemas import Moment, Schema


class Health(Schema):
    status: Literal["ok"]


class CheckModel(Schema):
    name: str
    ok: bool
    detail: str


class Ready(Schema):
    """Whether analyses can be made, and what stands in the way."""

    ready: bool
    checks: list[CheckModel]
    warnings: list[str] = Field(description="what does no harm now and will at the next start")
    waiting: int | None = Field(description="jobs that wait for a worker")
    version: str = Field(description="of Telltale")
    model_version: str | None
    workers: list[dict[str, Any]] = Field(description="each living worker with what it says of itself")


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
