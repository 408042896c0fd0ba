"""The page of the API: every operation with what it takes and gives, as the OpenAPI document says, below any prefix."""

from __future__ import annotations

import re

from flask.testing import FlaskClient

DESK = {"SCRIPT_NAME": "/desk"}


def test_every_operation_is_on_the_page_which_is_ours_alone(client: FlaskClient) -> None:
    document = client.get("/api/openapi.json").get_json()
    page = client.get("/api/docs", environ_overrides=DESK)
    assert page.mimetype == "text/html"
    assert "/desk/api/v1" in page.text
    for methods in document["paths"].values():
        for operation in methods.values():
            assert f'id="{operation["operationId"]}"' in page.text
    for address in re.findall(r'(?:href|src)="([^#"][^"]*)"', page.text):
        assert address.startswith("/desk/")
        with client.get(address.removeprefix("/desk").partition("#")[0]) as answer:
            assert answer.status_code == 200


def test_its_former_address_leads_there(client: FlaskClient) -> None:
    answer = client.get("/reference", environ_overrides=DESK)
    assert (answer.status_code, answer.headers["Location"]) == (308, "/desk/api/docs")


def test_parameters_bodies_and_answers_are_shown(client: FlaskClient) -> None:
    parts = dict(re.findall(r'<details id="(\w+)">(.*?)</details>', client.get("/api/docs").text, flags=re.DOTALL))
    words = {name: " ".join(re.sub(r"<[^>]*>", " ", part).split()) for name, part in parts.items()}
    assert "per_page query (1 to 100)" in words["get_history"]
    assert "face query, required id of the face in the report (0 to 1000)" in words["get_closeup"]
    assert "Request: application/json id required of the analysis (string) feedback required" in words["give_feedback"]
    assert "actual needed after an inconclusive verdict or without a face (real, fake | null)" in words["give_feedback"]
    assert "error (Problem | null) result (Result | null)" in words["get_job"]
    assert "&#34;fake_probability&#34;: 0.93" in words["detect_image"]
    assert "cross_site : Another web site" in words["detect_image"]
