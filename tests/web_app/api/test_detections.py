"""History, single analyses, the files behind them, and deletion."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from tests.web_app.helpers import media_bytes, stored_files, upload, wait_until
from web_app.api.detections import Detection, History
from web_app.services import Services

ORDERS = (("png", "fake"), ("png", "real"), ("mp4", "inconclusive"), ("jpeg", "no_face"), ("mp4", "corrupt"))


@pytest.fixture
def ids(served: FlaskClient) -> list[str]:
    """Five finished analyses, the oldest first."""
    made = [upload(served, media_bytes(*order), "/api/detect?wait=1").get_json()["id"] for order in ORDERS]
    wait_until(lambda: served.get(f"/api/jobs/{made[-1]}").get_json()["state"] == "failed")
    return made


def history(client: FlaskClient, query: str = "") -> dict[str, object]:
    answer = client.get(f"/api/history{query}")
    assert answer.status_code == 200
    History.model_validate(answer.get_json())
    return dict(answer.get_json())


def listed(client: FlaskClient, query: str = "") -> list[str]:
    return [item["id"] for item in history(client, query)["items"]]  # type: ignore[attr-defined]


def test_the_history_is_newest_first(served: FlaskClient, ids: list[str]) -> None:
    assert listed(served) == ids[::-1]
    first = history(served)["items"][0]  # type: ignore[index]
    assert (first["state"], first["error"]["code"], first["prediction"]) == ("failed", "media_corrupt", None)


def test_the_history_is_paged(served: FlaskClient, ids: list[str]) -> None:
    pages = [listed(served, f"?page={page}&per_page=2") for page in (1, 2, 3, 4)]
    assert pages == [ids[:2:-1], ids[2:0:-1], ids[:1], []]
    assert history(served, "?page=2&per_page=2")["total"] == 5


def test_the_history_is_filtered(served: FlaskClient, ids: list[str]) -> None:
    assert listed(served, "?kind=video") == [ids[4], ids[2]]
    assert listed(served, "?prediction=fake") == [ids[0]]
    assert listed(served, "?kind=image&prediction=no_face") == [ids[3]]
    assert history(served, "?kind=image")["total"] == 3


@pytest.mark.parametrize("query", ["page=0", "page=x", "per_page=101", "kind=text", "prediction=maybe", "sort=name"])
def test_strange_queries_are_named(client: FlaskClient, query: str) -> None:
    answer = client.get(f"/api/history?{query}")
    problem = answer.get_json()
    assert (answer.status_code, problem["code"]) == (422, "invalid_field")
    assert problem["errors"][0]["field"] == query.split("=")[0]


def test_an_analysis_is_shown_with_its_name(served: FlaskClient, ids: list[str]) -> None:
    for public_id, (_, order) in zip(ids[:4], ORDERS, strict=False):
        found = served.get(f"/api/detections/{public_id}").get_json()
        Detection.model_validate(found)
        assert (found["prediction"], found["name"], found["feedback"]) == (order, "photo.png", None)


def test_an_analysis_without_a_report_conflicts(client: FlaskClient) -> None:
    public_id = upload(client, media_bytes("mp4")).get_json()["id"]
    answer = client.get(f"/api/detections/{public_id}")
    assert (answer.status_code, answer.get_json()["state"]) == (409, "queued")


def test_deleting_deletes_the_file(served: FlaskClient, ids: list[str], parts: Services) -> None:
    before = len(stored_files(parts))
    answer = served.delete(f"/api/detections/{ids[0]}")
    assert (answer.status_code, answer.data) == (204, b"")
    assert len(stored_files(parts)) == before - 1
    for path in (f"detections/{ids[0]}", f"detections/{ids[0]}/media", f"jobs/{ids[0]}"):
        assert served.get(f"/api/{path}").status_code == 404
    assert ids[0] not in listed(served)
    assert served.delete(f"/api/detections/{ids[0]}").status_code == 404


def test_a_file_that_is_still_needed_stays(served: FlaskClient, parts: Services) -> None:
    film = media_bytes("mp4")
    first, second = (upload(served, film, "/api/detect?again=1").get_json()["id"] for _ in range(2))
    served.delete(f"/api/detections/{first}")
    assert [path.read_bytes() for path in stored_files(parts)] == [film]
    served.delete(f"/api/detections/{second}")
    assert stored_files(parts) == []


def test_a_file_deleted_by_hand_is_told_and_healed(served: FlaskClient, parts: Services) -> None:
    public_id = upload(served, media_bytes("mp4"), "/api/detect?wait=1").get_json()["id"]
    stored_files(parts)[0].unlink()
    assert served.get(f"/api/detections/{public_id}/media").status_code == 404
    upload(served, media_bytes("mp4"))
    assert [path.read_bytes() for path in stored_files(parts)] == [media_bytes("mp4")]
