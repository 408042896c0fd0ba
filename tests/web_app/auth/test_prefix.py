"""Below a path prefix: addresses begin with it, whether the proxy cuts it off or not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask

from tests.web_app.helpers import make_settings
from utils.config import PageSettings
from utils.errors import ConfigError
from web_app.auth.prefix import checked_prefix


@pytest.mark.parametrize("path", ["/desk/telltale/", "/", "/desk/telltale/history", "/history"])
def test_pages_are_served_below_the_prefix(make_app: Callable[..., Flask], tmp_path: Path, path: str) -> None:
    settings = dataclasses.replace(make_settings(tmp_path), page=PageSettings(prefix="/desk/telltale/"))
    answer = make_app(settings).test_client().get(path)
    assert answer.status_code == 200
    assert 'data-base="/desk/telltale/"' in answer.text
    assert 'href="/static' not in answer.text


@pytest.mark.parametrize("text", ["telltale", "/a//b", "/a b", "https://a.example/x", "/../x", "/a?b"])
def test_prefix_that_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="prefix"):
        checked_prefix(text)


def test_prefix_is_normalised() -> None:
    assert checked_prefix(" /a/b/ ") == "/a/b"
    assert checked_prefix("/") == ""
