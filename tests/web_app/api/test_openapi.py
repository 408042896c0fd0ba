"""The OpenAPI document covers every route, and docs/api.md names every route and error code."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.web_app.helpers import make_settings
from utils.config import SecuritySettings
from utils.errors import TelltaleError
from web_app.api import api_routes, openapi_file, schemas
from web_app.api.page_examples import EXAMPLES
from web_app.auth.keys import SCOPES, create_key
from web_app.paths import ROOT


def api_rules(app: Flask) -> set[tuple[str, str]]:
    return {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/api/")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }


def every_code() -> set[str]:
    pending, codes = [TelltaleError], set()
    while pending:
        cls = pending.pop()
        pending.extend(cls.__subclasses__())
        if cls.__module__ == "utils.errors":
            codes.add(cls.code)
    return codes


def test_every_route_is_described_and_answers_below_both_prefixes(app: Flask, client: FlaskClient) -> None:
    document = client.get("/api/openapi.json").get_json()
    described = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert [server["url"] for server in document["servers"]] == ["/api/v1", "/api"]
    assert {(method, prefix + path) for method, path in described for prefix in ("/api", "/api/v1")} == api_rules(app)
    assert len(described) >= 16


def test_every_operation_says_what_it_does(client: FlaskClient) -> None:
    document = client.get("/api/openapi.json").get_json()
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    assert all(operation["summary"].endswith((".", ":")) or operation["summary"] for operation in operations)
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    assert all("default" in operation["responses"] for operation in operations)


def test_every_reference_resolves(client: FlaskClient) -> None:
    answer = client.get("/api/openapi.json")
    known = answer.get_json()["components"]["schemas"]
    names = set(re.findall(r"#/components/schemas/(\w+)", answer.get_data(as_text=True)))
    assert {"Job", "Problem", "Result", "FeedbackRequest"} <= names
    assert names <= set(known)


def test_the_guide_names_every_route_and_code(app: Flask) -> None:
    guide = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    for method, path in api_rules(app):
        if not path.startswith("/api/v1/"):
            assert f"`{method} {path}`" in guide, f"{method} {path} is not in docs/api.md"
    for code in every_code():
        assert f"| `{code}` |" in guide, f"{code} is not in docs/api.md"


def test_examples_are_what_the_models_say(client: FlaskClient) -> None:
    models = {
        model.__name__: model
        for route in api_routes()
        for answer in (*route.answers.values(), route.request)
        for model in (answer if isinstance(answer, tuple) else (answer,))
        if isinstance(model, type)
    } | {"Problem": schemas.Problem, "Webhook": schemas.Webhook}
    components = client.get("/api/openapi.json").get_json()["components"]["schemas"]
    assert set(EXAMPLES) == set(models), "every model that a route takes or gives has an example"
    for name, example in EXAMPLES.items():
        models[name].model_validate(example)
        assert components[name]["examples"] == [example]


def test_the_file_is_that_of_the_code_and_takes_nothing_away() -> None:
    """Adding to the API needs `make openapi`; taking away needs it with ARGS=--allow-breaks."""
    kept = json.loads(openapi_file.OPENAPI_FILE.read_text(encoding="utf-8"))
    assert openapi_file.find_breaks(kept, openapi_file.current_document()) == []
    assert openapi_file.document_text(kept) == openapi_file.document_text(openapi_file.current_document()), (
        "run: make openapi"
    )


def broken(path: str, value: object = None) -> dict[str, Any]:
    """The description without what the path of keys leads to, or with another value there."""
    document = copy.deepcopy(openapi_file.current_document())
    place: Any = document
    *keys, last = path.split("|")
    for key in keys:
        place = place[key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return document


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("paths|/detect", None, "POST /detect is gone"),
        ("paths|/history|get", None, "GET /history is gone"),
        ("paths|/detect/image|post|responses|202", None, "POST /detect/image no longer answers 202"),
        ("paths|/history|get|parameters", [], "GET /history no longer takes the parameter kind"),
        (
            "paths|/detections/{id}/report|get|responses|200|content", {},
            "GET /detections/{id}/report no longer answers 200 as application/json",
        ),
        ("components|schemas|Result|properties|prediction", None, "Result.prediction is gone"),
        ("components|schemas|Result|properties|id", {"type": "integer"}, "Result.id has another type"),
        ("components|schemas|Result|required", [], "Result.id may now be absent"),
        ("components|schemas|Links", None, "the model Links is gone"),
        (
            "components|schemas|FeedbackRequest|required", ["id", "feedback", "note"],
            "FeedbackRequest.note is now required",
        ),
    ],
)  # fmt: skip
def test_breaks_are_seen(path: str, value: object, sentence: str) -> None:
    assert sentence in openapi_file.find_breaks(openapi_file.current_document(), broken(path, value))


def test_the_command_refuses_breaks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "openapi.json"
    old = openapi_file.current_document()
    old["paths"]["/gone"] = {"get": {"responses": {}, "parameters": []}}
    path.write_text(json.dumps(old), encoding="utf-8")
    assert openapi_file.main([], path) == 1
    assert "GET /gone is gone" in capsys.readouterr().err
    assert "/gone" in path.read_text(encoding="utf-8")
    assert openapi_file.main(["--allow-breaks"], path) == 0
    assert "/gone" not in path.read_text(encoding="utf-8")
    assert openapi_file.main([], path) == 0


def test_every_route_has_a_scope_that_is_asked_for(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    """Where keys are on, nobody without one gets past, whatever the route; the open ones are these alone."""
    settings = dataclasses.replace(make_settings(tmp_path), security=SecuritySettings(keys="on"))
    client = make_app(settings).test_client()
    routes = api_routes()
    for route in routes:
        for prefix in ("/api", "/api/v1"):
            address = prefix + re.sub(r"<\w+>", "nix", route.path)
            answer = client.open(address, method=route.method)
            asked = (answer.status_code, (answer.get_json(silent=True) or {}).get("code")) == (401, "unauthorized")
            assert asked == (route.scope is not None), f"{route.method} {address}"
    assert {route.path for route in routes if route.scope is None} <= {
        "/health", "/ready", "/openapi.json", "/docs", "/docs/<name>",
    }  # fmt: skip


def test_a_key_opens_what_its_scopes_say_and_no_more(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    settings = dataclasses.replace(make_settings(tmp_path), security=SecuritySettings(keys="on"))
    app = make_app(settings)
    for scope in SCOPES:
        text = create_key(app.extensions["telltale"].database, scope, [scope])
        for route in api_routes():
            if route.scope is None:
                continue
            address = "/api" + re.sub(r"<\w+>", "nix", route.path)
            answer = app.test_client().open(
                address, method=route.method, headers={"Authorization": f"Bearer {text}"}, buffered=True
            )
            refused = (answer.status_code, (answer.get_json(silent=True) or {}).get("code")) == (403, "forbidden")
            assert refused == (route.scope != scope), f"{scope}: {route.method} {address} {answer.status_code}"


def test_the_page_of_the_api_is_ours_alone(client: FlaskClient) -> None:
    page = client.get("/api/docs")
    assert page.mimetype == "text/html"
    for address in re.findall(r'(?:href|src)="([^"]+)"', page.text):
        assert address.startswith("/")
        with client.get(address) as answer:
            assert answer.status_code == 200
    assert client.get("/api/docs/index.html").status_code == 404
    assert client.get("/api/docs/..%2f__init__.py").status_code == 404
