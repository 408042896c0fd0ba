"""Addresses behind proxies, and the names that requests may use."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask, request
from flask.testing import FlaskClient

from tests.web_app.helpers import make_settings
from utils.config import SecuritySettings, ServerSettings
from utils.errors import ConfigError
from web_app.auth.network import allowed_hosts, client_address, host_name, networks

TRUSTED = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("2001:db8::/32"))


@pytest.mark.parametrize(
    ("hops", "address"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("1.2.3.4, 198.51.100.7", "198.51.100.7"),
        ("198.51.100.7, 10.0.0.9", "198.51.100.7"),
        ("10.0.0.8, 10.0.0.9", "10.0.0.8"),
        ("2001:db8::5, 10.0.0.9", "2001:db8::5"),
        ("", "10.0.0.1"),
        ("nonsense", "10.0.0.1"),
        ("198.51.100.7, nonsense", "10.0.0.1"),
    ],
)
def test_the_last_address_that_a_trusted_proxy_saw_counts(hops: str, address: str) -> None:
    assert client_address("10.0.0.1", hops, TRUSTED) == address


def seen(app: Flask, peer: str, **headers: str) -> tuple[str, str]:
    """Address and scheme that a view sees."""
    found: list[tuple[str, str]] = []
    app.before_request_funcs.setdefault(None, []).insert(
        0, lambda: found.append((request.remote_addr or "", request.scheme))
    )
    app.test_client().get(
        "/api/health", environ_overrides={"REMOTE_ADDR": peer},
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )  # fmt: skip
    return found[-1]


def test_only_a_trusted_proxy_is_believed(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    settings = dataclasses.replace(make_settings(tmp_path), security=SecuritySettings(trusted_proxies="10.0.0.0/8"))
    forged = {"X_Forwarded_For": "203.0.113.9", "X_Forwarded_Proto": "https"}
    app = make_app(settings)
    assert seen(app, "10.1.1.1", **forged) == ("203.0.113.9", "https")
    assert seen(app, "198.51.100.1", **forged) == ("198.51.100.1", "http")


@pytest.mark.parametrize("path", ["/desk/telltale/", "/", "/desk/telltale/history", "/history"])
def test_pages_are_served_below_the_path_of_a_trusted_proxy(
    make_app: Callable[..., Flask], tmp_path: Path, path: str
) -> None:
    settings = dataclasses.replace(make_settings(tmp_path), security=SecuritySettings(trusted_proxies="127.0.0.1"))
    client = make_app(settings).test_client()
    answer = client.get(path, headers={"X-Forwarded-Prefix": "/desk/telltale/"})
    assert answer.status_code == 200
    assert 'data-base="/desk/telltale/"' in answer.text
    assert 'href="/static' not in answer.text


@pytest.mark.parametrize("prefix", ["telltale", "/a//b", "/a b", "https://a.example/x", "/../x", "/a/..", "/a?b", "/"])
def test_a_path_that_is_none_is_not_believed(make_app: Callable[..., Flask], tmp_path: Path, prefix: str) -> None:
    settings = dataclasses.replace(make_settings(tmp_path), security=SecuritySettings(trusted_proxies="127.0.0.1"))
    answer = make_app(settings).test_client().get("/", headers={"X-Forwarded-Prefix": prefix})
    assert 'data-base="/"' in answer.text


def test_a_path_is_believed_from_a_trusted_proxy_only(client: FlaskClient) -> None:
    assert 'data-base="/"' in client.get("/", headers={"X-Forwarded-Prefix": "/evil"}).text


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP"])
def test_who_comes_through_a_proxy_is_not_at_this_machine(client: FlaskClient, header: str) -> None:
    assert client.get("/metrics").status_code == 200
    assert client.get("/metrics", headers={header: "127.0.0.1"}).status_code == 403


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:5000", "localhost.evil.example", "127.0.0.1.evil.example", ""]
)
def test_a_name_that_is_not_ours_is_refused(client: FlaskClient, host: str) -> None:
    answer = client.get("/api/history", headers={"Host": host})
    assert answer.status_code == 400


@pytest.mark.parametrize("host", ["localhost", "localhost:5000", "127.0.0.1:81", "[::1]:5000", "LOCALHOST"])
def test_this_machines_names_are_answered(client: FlaskClient, host: str) -> None:
    assert client.get("/api/health", headers={"Host": host}).status_code == 200


def test_hosts_are_those_of_the_settings() -> None:
    loopback, everywhere = ServerSettings(), ServerSettings(host="0.0.0.0")
    assert allowed_hosts(everywhere, SecuritySettings()) is None
    assert allowed_hosts(everywhere, SecuritySettings(hosts="a.example, B.example")) == {"a.example", "b.example"}
    assert "localhost" in (allowed_hosts(loopback, SecuritySettings()) or ())
    assert host_name("[::1]:5000") == "::1"


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("hosts", "https://a.example"),
        ("hosts", "a.example:80"),
        ("trusted_proxies", "proxy.example"),
        ("trusted_proxies", "10.0.0.1/8"),
    ],
)
def test_settings_that_cannot_be_understood_stop_the_start(key: str, text: str) -> None:
    security = SecuritySettings(**{key: text})
    with pytest.raises(ConfigError, match=rf"\[security\] {key}"):
        allowed_hosts(ServerSettings(), security) if key == "hosts" else networks(
            "[security] trusted_proxies", security.trusted_proxies
        )
