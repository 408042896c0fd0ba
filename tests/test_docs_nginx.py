"""The nginx example of docs/operations.md is well formed, made of directives that exist, and fits the server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from utils.config import Settings
from web_app.auth.network import FORWARDING_HEADERS
from web_app.storage.upload import MULTIPART_OVERHEAD

PAGE = Path(__file__).resolve().parent.parent / "docs" / "operations.md"
TOKEN = re.compile(r"[{};]|[^\s{};]+")
ALLOWED = {
    "http": {"limit_conn_zone", "server"},
    "server": {
        "listen", "server_name", "ssl_certificate", "ssl_certificate_key", "client_max_body_size",
        "client_body_timeout", "limit_conn", "location",
    },
    "location": {"proxy_pass", "proxy_set_header", "proxy_buffering", "proxy_read_timeout"},
}  # fmt: skip
"""Directives of nginx that may stand in each context: nginx.org/en/docs/dirindex.html."""
BLOCKS = {"server", "location"}
VARIABLES = {"$binary_remote_addr", "$host", "$proxy_add_x_forwarded_for", "$scheme"}


class Directive(NamedTuple):
    context: str
    words: tuple[str, ...]


def parse(text: str) -> list[Directive]:
    """Every directive with its context; fails where braces or semicolons do not fit, or a name is unknown there."""
    contexts, words, found = ["http"], [], []
    for token in TOKEN.findall(text):
        if token in ("{", ";"):
            assert words, f"nothing stands before {token}"
            assert words[0] in ALLOWED[contexts[-1]], f"{words[0]} in {contexts[-1]}"
            assert (token == "{") == (words[0] in BLOCKS), f"{words[0]} ends with {token}"
            found.append(Directive(contexts[-1], tuple(words)))
            contexts += [words[0]] if token == "{" else []
            words = []
        elif token == "}":
            assert not words, f"{words} has no semicolon"
            assert len(contexts) > 1, "a brace too many"
            contexts.pop()
        else:
            words.append(token)
    assert not words
    assert contexts == ["http"]
    return found


@pytest.mark.parametrize(
    "broken",
    ["server { listen 80; ", "server { listen 80 }", "server { lisen 80; }", "proxy_pass http://x;", "server; ", "}"],
)
def test_the_parser_refuses_what_nginx_would(broken: str) -> None:
    with pytest.raises(AssertionError):
        parse(broken)


def test_the_example_is_well_formed_and_fits() -> None:
    (text,) = re.findall(r"^```nginx\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.M | re.S)
    found = parse(text)
    assert set(re.findall(r"\$\w+", text)) <= VARIABLES
    settings = Settings()
    given = {each.words[0]: each.words[1:] for each in found}
    assert given["proxy_pass"] == (f"http://{settings.server.host}:{settings.server.port}",)
    size = int(given["client_max_body_size"][0].removesuffix("m")) * 1024 * 1024
    assert size >= settings.media.max_file_mb * 1_000_000 + MULTIPART_OVERHEAD
    headers = {each.words[1] for each in found if each.words[0] == "proxy_set_header"}
    known = {"HTTP_" + header.upper().replace("-", "_") for header in headers - {"Host"}}
    assert known <= set(FORWARDING_HEADERS)
    assert headers >= {"Host", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Prefix"}
    zone = given["limit_conn_zone"][1].removeprefix("zone=").partition(":")[0]
    assert given["limit_conn"][0] == zone
