"""The OpenAPI document covers every route, and docs/api.md names every error code."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from benchmarks.openapi import EXAMPLES, documents
from tests.web_app.helpers import make_settings
from utils.config import SecuritySettings
from utils.errors import TelltaleError
from web_app.api.feedback import FeedbackRequest
from web_app.api.learning import DecisionRequest
from web_app.api.routing import ROUTES
from web_app.api.schemas import Problem, Result
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


def test_the_guide_names_every_code() -> None:
    guide = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    for code in every_code():
        assert f"`{code}`" in guide, f"{code} is not in docs/api.md"


def test_examples_are_what_the_models_say() -> None:
    models = {model.__name__: model for model in (Problem, Result, FeedbackRequest, DecisionRequest)}
    assert models.keys() == EXAMPLES.keys()
    for name, model in models.items():
        model.model_validate(EXAMPLES[name])


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_the_files_are_those_of_the_code(path: Path) -> None:
    """So that every change of the API stands in a diff."""
    assert path.read_text(encoding="utf-8") == documents()[path], "run: make openapi"


def test_every_route_has_a_scope_that_is_asked_for(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    """Where keys are on, nobody without one gets past, whatever the route; the open ones are these alone."""
    settings = dataclasses.replace(make_settings(tmp_path), security=SecuritySettings(keys="on"))
    client = make_app(settings).test_client()
    for route in ROUTES:
        for prefix in ("/api", "/api/v1"):
            address = prefix + re.sub(r"<\w+>", "nix", route.path)
            answer = client.open(address, method=route.method)
            asked = (answer.status_code, (answer.get_json(silent=True) or {}).get("code")) == (401, "unauthorized")
            assert asked == (route.scope is not None), f"{route.method} {address}"
            assert answer.headers.get("WWW-Authenticate") == ("Bearer" if asked else None)
    assert {route.path for route in ROUTES if route.scope is None} <= {
        "/health", "/ready", "/openapi.json", "/docs",
    }  # fmt: skip


def test_a_key_opens_what_its_scopes_say_and_no_more(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    settings = dataclasses.replace(make_settings(tmp_path), security=SecuritySettings(keys="on"))
    app = make_app(settings)
    for scope in SCOPES:
        text = create_key(app.extensions["telltale"].database, scope, [scope])
        for route in ROUTES:
            if route.scope is None:
                continue
            address = "/api" + re.sub(r"<\w+>", "nix", route.path)
            answer = app.test_client().open(
                address, method=route.method, headers={"Authorization": f"Bearer {text}"}, buffered=True
            )
            problem = answer.get_json(silent=True) or {}
            refused = (answer.status_code, problem.get("code"), problem.get("scope")) == (403, "forbidden", route.scope)
            assert refused == (route.scope != scope), f"{scope}: {route.method} {address} {answer.status_code}"
