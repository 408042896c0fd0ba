"""What a file says of itself, as the API gives it; see `utils/provenance_types.py`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from web_app.api.schemas import Schema


class NoticeModel(Schema):
    code: str
    text: str


class MarkModel(Schema):
    """One thing that the file carries, with what it proves."""

    code: str
    name: str
    says: Literal["generated", "edited", "captured", "tool"]
    proof: Literal["signed", "stated", "usual"] = Field(description="anybody can write what is only stated or usual")
    where: str
    value: str = Field(description="what stands there, shortened")
    text: str


class CredentialsModel(Schema):
    """The file's Content Credentials (C2PA)."""

    state: Literal["absent", "valid", "untrusted", "broken"]
    text: str
    signer: str | None
    issuer: str | None
    signed_at: str | None
    made_with: str | None
    source_types: list[str] = Field(description="IPTC digital source types of the actions")
    actions: list[str]
    ingredients: list[str]
    problems: list[str] = Field(description="codes of C2PA, where broken")


class CompressionModel(Schema):
    """How a JPEG was saved."""

    quality: int
    quality_before: int | None = Field(description="of the saving before, where its traces are clear")
    tables: Literal["standard", "own"]
    texts: list[str]


class ProvenanceModel(Schema):
    """What the file says of itself; no verdict depends on it."""

    statement: str | None = Field(description="where the file states that a generative model made or changed it")
    credentials: CredentialsModel
    marks: list[MarkModel]
    compression: CompressionModel | None
    notices: list[NoticeModel]
