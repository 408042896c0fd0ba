"""What the history finds, on both databases, also where there is more than is counted and names have an index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from tests.web_app.helpers import media_bytes, multipart, running_worker, upload
from utils.config import Settings
from web_app.api import detections, reports
from web_app.db import names
from web_app.db.models import DetectionRow, JobRow
from web_app.services import Services

NAMES = ("Straße 1.png", "IMG_0001.PNG", "Sitzung_10%.png", "it's one.png", "ab.png")


@pytest.fixture
def settings(both_databases: Settings) -> Settings:
    return both_databases


@pytest.fixture(params=[0, 20_000], ids=["many", "few"])
def found(request: pytest.FixtureRequest, served: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the analyses under `NAMES` and of a video, the oldest first; asked by the index of names and without."""
    monkeypatch.setattr(detections, "FEW", request.param)
    made = [upload(served, media_bytes(size=300 + n), "/api/detect?wait=1", name) for n, name in enumerate(NAMES)]
    made.append(upload(served, media_bytes("mp4", "real fake"), "/api/detect?wait=1", "clip.mp4"))
    return [answer.get_json()["id"] for answer in made]


@pytest.fixture
def served(client: FlaskClient, settings: Settings) -> Iterator[FlaskClient]:
    with running_worker(settings):
        yield client


def ask(client: FlaskClient, **query: Any) -> tuple[list[str], int, bool]:
    answer = client.get("/api/history", query_string=query)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    said = answer.get_json()
    return [item["id"] for item in said["items"]], said["total"], said["more"]


def test_a_part_of_a_name_is_found_in_any_case(served: FlaskClient, found: list[str]) -> None:
    asked = {"img_": [1], "PNG": [4, 3, 2, 1, 0], "10%": [2], "%": [2], "_0": [1], "t's o": [3], 'a"b': [], "raße": [0],
             "b.": [4], "nowhere": [], "g\u0007": [], "a AND b": [], "*": []}  # fmt: skip
    for text, numbers in asked.items():
        wanted = [found[number] for number in numbers]
        assert ask(served, text=text) == (wanted, len(wanted), False), text
    served.delete(f"/api/detections/{found[1]}")
    assert ask(served, text="img_")[0] == []
    assert ask(served, text="png", kind="image", prediction="fake", since="2020-01-01", until="2100-01-01")[1] == 4


def test_filters_and_days(served: FlaskClient, found: list[str]) -> None:
    assert ask(served, kind="video") == ([found[5]], 1, False)
    assert served.get("/api/history?kind=video").get_json()["items"][0]["overall"] == "fake"
    assert ask(served, prediction="fake")[0] == found[::-1]  # the video by what faces and voice say together
    assert ask(served, prediction="real")[0] == [found[5]]
    assert ask(served, since="2100-01-01")[1] == ask(served, until="2020-01-01")[1] == 0
    assert ask(served, since="2020-01-01", until="2100-01-01")[1] == 6
    listing = served.get("/api/history.csv?text=png&prediction=fake").get_data(as_text=True)
    assert listing.count("\r\n") == 6


def test_a_table_goes_on_where_an_analysis_is_deleted_meanwhile(
    served: FlaskClient, found: list[str], parts: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    def by_ids(ids: Sequence[int]) -> sa.Select[DetectionRow]:
        with parts.database.write() as session:
            session.execute(sa.delete(JobRow).where(JobRow.public_id == found[5]))
        return detections.by_ids(ids)

    monkeypatch.setattr(reports, "ROWS_AT_A_TIME", 2)
    monkeypatch.setattr(reports, "by_ids", by_ids)
    lines = served.get("/api/history.csv").get_data(as_text=True).splitlines()[1:]
    assert [each for line in lines for each in found[:5] if each in line] == found[4::-1]


def test_what_is_not_counted_is_told(served: FlaskClient, found: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detections, "COUNTED", 2)
    pages = [ask(served, page=page, per_page=2) for page in (1, 2, 3, 4, 9)]
    listed = found[::-1]
    assert pages == [
        (listed[:2], 4, True), (listed[2:4], 6, False), (listed[4:], 6, False), ([], 6, False), ([], 6, False)
    ]  # fmt: skip


def test_others_find_only_their_own(
    found: list[str], served: FlaskClient, parts: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also who has more than a share of all, and so asks the index, where others have names that match, too."""
    there, asked = {"REMOTE_ADDR": "192.0.2.7"}, []

    def counted(text: str) -> sa.ColumnElement[bool]:
        asked.append(text)
        return names.matches(text)

    monkeypatch.setattr(detections, "matches", counted)

    def totals() -> list[int]:
        queries = ("", "?text=png", "?text=photo", "?prediction=fake", "?kind=video")
        answers = [served.get(f"/api/history{query}", environ_overrides=there) for query in queries]
        return [answer.get_json()["total"] for answer in answers]

    assert totals() == [0, 0, 0, 0, 0]
    made = []
    for number in range(3):
        body, mime = multipart(media_bytes(size=400 + number)), "multipart/form-data; boundary=b"
        answer = served.post("/api/detect?wait=1", data=body, content_type=mime, environ_overrides=there)
        made.append(answer.get_json()["id"])
        few = detections.FEW or not parts.database.is_sqlite or number < 2  # of nine a quarter is two
        assert totals() == [number + 1, number + 1, number + 1, number + 1, 0]
        assert asked == ([] if few else ["png", "photo"])
    assert ask(served, text="photo")[0] == made[::-1]  # an administrator's
