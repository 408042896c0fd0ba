"""The report document as pydantic models; docs/report.schema.json is made of them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from web_app.api.schemas import Result, Schema


class ModelFacts(Schema):
    """Which networks answered."""

    version: str
    sha256: str = Field(min_length=64, max_length=64, description="of the version's list of checksums")


class ReportDocument(Schema):
    """The report of one analysis, made to be kept, passed on and checked."""

    document: Literal["telltale-report"]
    document_version: Literal[1]
    telltale_version: str = Field(description="of the program that wrote the document")
    id: str
    name: str = Field(description="of the file, as it was given")
    analysed: str = Field(description="end of the analysis, ISO 8601, UTC")
    sha256: str = Field(min_length=64, max_length=64, description="of the input file")
    model: ModelFacts
    settings: dict[str, float | str] = Field(description="that the score depends on, by their names in config.ini")
    limits: list[str] = Field(description="what the method cannot say")
    analysis: Result
    reproduce: str = Field(description="the command that replays the analysis")
