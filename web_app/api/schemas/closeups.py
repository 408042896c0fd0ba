"""Close-ups: a closer look at one face, its heatmaps and whether its verdict holds."""

from __future__ import annotations

from pydantic import Field

from web_app.api.schemas import OutcomeName, Probability, Problem, Schema, StateName

MAX_FACE = 1000


class FaceQuery(Schema):
    face: int = Field(ge=0, le=MAX_FACE, description="id of the face in the report")


class HeatmapQuery(FaceQuery):
    expert: str = Field(min_length=1, max_length=32, description="`cnn`, `resnext` or `vit`")


class MapModel(Schema):
    """Where one expert sees signs of manipulation, and whether the map marks what matters to it."""

    expert: str
    title: str
    method: str
    heatmap: str | None = Field(description="address of a small grey-level PNG; null when nothing raised the suspicion")
    gain: float = Field(description="logit with the marked places kept, less the logit with them blurred away")
    random_gain: float = Field(description="mean of the same over the same map at random places")
    beaten: int = Field(ge=0, description="random masks that the map beats")
    masks: int = Field(ge=1, description="random masks tried")
    faithful: bool = Field(description="the map beats every random mask")


class TrialModel(Schema):
    """The verdict under one change of the medium; the first trial is the medium as it is."""

    code: str
    title: str
    outcome: OutcomeName
    probability: Probability
    flipped: bool = Field(description="another outcome than without the change")


class CloseupResult(Schema):
    face: int
    frame: int = Field(description="frame that the maps belong to, as in the report's `frames`")
    time_s: float
    square: list[float] = Field(min_length=4, max_length=4, description="what the maps cover: x0, y0, x1, y1 in pixels")
    model_version: str
    maps: list[MapModel]
    trials: list[TrialModel]


class Closeup(Schema):
    """A closer look at one face: its state, and once done what it gave."""

    face: int
    state: StateName | None = Field(description="null when nobody has asked for it")
    stage: str | None
    fraction: float = Field(ge=0.0, le=1.0)
    position: int | None = Field(description="jobs ahead of it; null when it does not wait")
    error: Problem | None
    result: CloseupResult | None
