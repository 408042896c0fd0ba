"""The page of the API: every operation with what it takes and gives, as the OpenAPI document says, below any prefix."""

from __future__ import annotations

from flask.testing import FlaskClient

from web_app.pages.reference import read_operations


def test_every_operation_is_on_the_page(client: FlaskClient) -> None:
    document = client.get("/api/openapi.json").get_json()
    page = client.get("/reference", environ_overrides={"SCRIPT_NAME": "/desk"}).get_data(as_text=True)
    assert 'href="/desk/api/docs"' in page
    assert "/desk/api/v1" in page
    for methods in document["paths"].values():
        for operation in methods.values():
            assert f'id="{operation["operationId"]}"' in page


def test_parameters_bodies_and_answers_are_read() -> None:
    operation = {
        "operationId": "list_things", "summary": "Things.", "description": "Scope: `analyse`.", "tags": ["things"],
        "parameters": [
            {"name": "page", "in": "query", "required": False, "schema": {"minimum": 1, "maximum": 9}},
            {"name": "kind", "in": "query", "required": True, "schema": {"enum": ["a", "b"], "description": "Which."}},
            {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}, "description": "Whose."},
        ],
        "responses": {
            "404": {"description": "`not_found`: Nothing", "content": {}},
            "200": {"description": "OK", "content": {"application/json": {"schema": {"$ref": "#/components/T"}}}},
        },
    }  # fmt: skip
    document = {"paths": {"/things": {"get": operation}}, "components": {"schemas": {"T": {"examples": [{"a": 1}]}}}}
    (found,) = read_operations(document)["things"]
    assert [(one.values, one.description) for one in found.parameters] == [
        ("1 to 9", ""), ("a, b", "Which."), ("string", "Whose."),
    ]  # fmt: skip
    assert found.sent is None
    assert found.answered is not None
    assert (found.answered.mime, found.answered.example) == ("application/json", '{\n  "a": 1\n}')
    assert found.answers == (("404", "`not_found`: Nothing"), ("200", "OK"))
