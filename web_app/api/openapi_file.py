"""docs/openapi.json: the description as a file, so that a change of the API shows in review.

`python -m web_app.api.openapi_file` (make openapi) writes it and refuses to take anything away that clients may use;
`--allow-breaks` writes it all the same.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from web_app.api import PREFIX, VERSIONED_PREFIX, api_routes
from web_app.api.openapi import openapi_document
from web_app.paths import ROOT

OPENAPI_FILE = ROOT / "docs" / "openapi.json"
EXIT_BREAKS = 1


def current_document() -> dict[str, Any]:
    """The description of the present code, as the file holds it."""
    return openapi_document(api_routes(), (VERSIONED_PREFIX, PREFIX))


def find_breaks(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What clients of the old description may miss in the new one, as sentences.

    Looked at are paths, methods, successful statuses and their media types, parameters, fields of models, their types,
    and what has become required.
    """
    return [*_broken_operations(old, new), *_broken_models(old, new)]


def _broken_operations(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    for path, item in old["paths"].items():
        for method, before in item.items():
            now = new["paths"].get(path, {}).get(method)
            name = f"{method.upper()} {path}"
            if now is None:
                yield f"{name} is gone"
                continue
            for status, answer in before["responses"].items():
                if status not in now["responses"]:
                    yield f"{name} no longer answers {status}"
                    continue
                missing = set(answer.get("content", {})) - set(now["responses"][status].get("content", {}))
                yield from (f"{name} no longer answers {status} as {each}" for each in sorted(missing))
            known = {(each["in"], each["name"]): each for each in now["parameters"]}
            for parameter in before["parameters"]:
                if (parameter["in"], parameter["name"]) not in known:
                    yield f"{name} no longer takes the parameter {parameter['name']}"
            earlier = {(each["in"], each["name"]) for each in before["parameters"] if each["required"]}
            yield from (
                f"{name} now requires the parameter {key[1]}"
                for key, each in known.items()
                if each["required"] and key not in earlier
            )


def _broken_models(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    requests = _request_models(new)
    for name, before in old["components"]["schemas"].items():
        now = new["components"]["schemas"].get(name)
        if now is None:
            yield f"the model {name} is gone"
            continue
        fields = now.get("properties", {})
        for field, schema in before.get("properties", {}).items():
            if field not in fields:
                yield f"{name}.{field} is gone"
            elif schema.get("type") != fields[field].get("type") or schema.get("$ref") != fields[field].get("$ref"):
                yield f"{name}.{field} has another type"
        required_before, required_now = set(before.get("required", ())), set(now.get("required", ()))
        if name in requests:
            yield from (f"{name}.{field} is now required" for field in sorted(required_now - required_before))
        else:
            lost = sorted((required_before - required_now) & set(fields))
            yield from (f"{name}.{field} may now be absent" for field in lost)


def _request_models(document: dict[str, Any]) -> set[str]:
    bodies = [op["requestBody"] for item in document["paths"].values() for op in item.values() if "requestBody" in op]
    schemas = [content["schema"] for body in bodies for content in body["content"].values()]
    return {schema["$ref"].rpartition("/")[2] for schema in schemas if "$ref" in schema}


def document_text(document: dict[str, Any]) -> str:
    """A description as the file holds it."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def main(arguments: list[str] | None = None, path: Path = OPENAPI_FILE) -> int:
    """Write the file.

    Returns:
        0, or 1 when clients would miss something and that was not allowed.
    """
    parser = argparse.ArgumentParser(prog="web_app.api.openapi_file", description="Writes docs/openapi.json.")
    parser.add_argument("--allow-breaks", action="store_true", help="write it although clients will miss something")
    given = parser.parse_args(arguments)
    document = current_document()
    breaks = find_breaks(json.loads(path.read_text(encoding="utf-8")), document) if path.is_file() else []
    for sentence in breaks:
        print(f"break: {sentence}", file=sys.stderr)
    if breaks and not given.allow_breaks:
        print("Nothing was written. Give old clients what they know, or pass --allow-breaks.", file=sys.stderr)
        return EXIT_BREAKS
    path.write_text(document_text(document), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
