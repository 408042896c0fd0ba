"""The OpenAPI document covers every route, and docs/api.md names every route and error code."""

from __future__ import annotations

import re

from flask import Flask
from flask.testing import FlaskClient

from utils.errors import TelltaleError
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


def test_every_route_is_described(app: Flask, client: FlaskClient) -> None:
    document = client.get("/api/openapi.json").get_json()
    described = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert described == api_rules(app)
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
        assert f"`{method} {path}`" in guide, f"{method} {path} is not in docs/api.md"
    for code in every_code():
        assert f"| `{code}` |" in guide, f"{code} is not in docs/api.md"
