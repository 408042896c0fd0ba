"""Requests that leave the machine: which addresses are refused, redirects, rebinding, limits of time."""

from __future__ import annotations

import http.server
import ipaddress
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from utils.config import ApiSettings
from utils.errors import AddressRefusedError, ConfigError, FetchError
from web_app.auth.network import Network
from web_app.integrations.http_client import Rules, check_url, open_url, resolve

LOCAL: tuple[Network, ...] = (ipaddress.ip_network("127.0.0.1/32"),)
NAMES = {
    "media.test": ["127.0.0.1"],
    "inside.test": ["10.1.2.3"],
    "both.test": ["8.8.8.8", "192.168.0.1"],
    "no.test": [],
}
Behaviour = Callable[[http.server.BaseHTTPRequestHandler], None]


def by_table(host: str, port: int) -> list[str]:
    return NAMES.get(host, [host])


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[str]:
    """A server on this machine that does `behaviour` for each request; its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            behaviour(self)

        do_POST = do_GET

        def log_message(self, format: str, *arguments: Any) -> None:
            """Nothing: the tests look at the answers."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"media.test:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answer(body: bytes = b"", status: int = 200, **headers: str) -> Behaviour:
    def behave(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return behave


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",  # private
        "169.254.169.254", "100.64.0.1", "100.127.255.255", "192.0.0.8", "192.0.2.1", "198.18.0.1", "198.19.255.255",
        "198.51.100.7", "203.0.113.9", "192.88.99.1", "224.0.0.1", "233.252.0.1", "239.255.255.255", "240.0.0.1",
        "255.255.255.255", "::", "::1", "::ffff:8.8.8.8", "::ffff:127.0.0.1", "::8.8.8.8", "64:ff9b::8.8.8.8",
        "64:ff9b:1::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2002:808:808::1", "2001:db8::1",
        "3fff::1", "fc00::1", "fd12:3456::1", "fe80::1", "fec0::1", "ff02::1", "100::1", "5f00::1", "fe80::1%eth0",
        "nonsense",
    ],
)  # fmt: skip
def test_what_is_not_the_public_internet_is_refused(address: str) -> None:
    rules = Rules(resolver=lambda host, port: [address])
    assert not rules.is_allowed(address, 80)
    with pytest.raises(AddressRefusedError):
        check_url("http://some.test/photo.jpg", rules)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450::1"])
def test_the_public_internet_is_allowed_on_the_usual_ports(address: str) -> None:
    rules = Rules(resolver=lambda host, port: [address])
    assert check_url("https://some.test/photo.jpg?x=1", rules).address == address
    assert check_url("http://some.test:443/", rules).port == 443
    with pytest.raises(AddressRefusedError):
        check_url("http://some.test:22/", rules)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://media.test/a", "file:///etc/passwd", "gopher://media.test/", "data:image/png;base64,AA", "media.test/a",
        "http://", "http:///a", "http://user@media.test/", "http://user:word@media.test/", "http://media.test:99999/",
        "http://media.test:x/", "http://me dia.test/", "http://media.test\\@inside.test/", "http://media.test/\r\nX: y",
        "http://mediä.test/", "http://[::1", "http://" + "a" * 2000, "http://inside.test/", "http://both.test/",
        "http://127.0.0.1/", "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://10.0.0.1:80/",
    ],
)  # fmt: skip
def test_addresses_that_lead_elsewhere_are_refused(url: str) -> None:
    with pytest.raises(AddressRefusedError):
        check_url(url, Rules(resolver=by_table))


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "localhost", "LOCALHOST."])
def test_other_spellings_of_this_machine_are_refused(host: str) -> None:
    with pytest.raises((AddressRefusedError, FetchError)):
        check_url(f"http://{host}/", Rules())


def test_a_name_without_an_address_is_told() -> None:
    with pytest.raises(FetchError):
        check_url("http://no.test/", Rules(resolver=by_table))
    assert resolve("a..b", 80) == []


def test_an_allowed_network_is_reached_on_any_port() -> None:
    rules = Rules.of(ApiSettings(allowed_networks="127.0.0.1/32, fd00::/8"))
    assert rules.is_allowed("127.0.0.1", 8080)
    assert rules.is_allowed("fd00::5", 1)
    assert not rules.is_allowed("127.0.0.2", 80)
    with pytest.raises(ConfigError):
        Rules.of(ApiSettings(allowed_networks="127.0.0.1/8"))


def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    looked_up: list[str] = []
    seen: list[str] = []

    def rebinding(host: str, port: int) -> list[str]:
        looked_up.append(host)
        return ["127.0.0.1"] if len(looked_up) == 1 else ["10.0.0.1"]

    def behave(handler: http.server.BaseHTTPRequestHandler) -> None:
        seen.append(handler.headers["Host"])
        answer(b"hello")(handler)

    with serving(behave) as place, open_url(f"http://{place}/", Rules(LOCAL, rebinding), 10) as got:
        assert got.read() == b"hello"
    assert looked_up == ["media.test"]
    assert seen == [place]


def test_redirects_are_followed_three_times() -> None:
    def behave(handler: http.server.BaseHTTPRequestHandler) -> None:
        left = int(handler.path.rpartition("/")[2])
        found = answer(b"here") if left == 0 else answer(b"", 302, Location=f"/{left - 1}")
        found(handler)

    with serving(behave) as place:
        with open_url(f"http://{place}/3", Rules(LOCAL, by_table), 10) as got:
            assert got.read() == b"here"
        with pytest.raises(FetchError, match="more than 3"), open_url(f"http://{place}/4", Rules(LOCAL, by_table), 10):
            pass


@pytest.mark.parametrize("target", ["http://inside.test/", "http://169.254.169.254/latest", "file:///etc/passwd"])
def test_a_redirect_is_judged_like_the_first_address(target: str) -> None:
    with (
        serving(answer(b"", 302, Location=target)) as place,
        pytest.raises(AddressRefusedError),
        open_url(f"http://{place}/", Rules(LOCAL, by_table), 10),
    ):
        pass


@pytest.mark.parametrize("announced", ["1000000", None])
def test_a_server_that_drips_is_cut_off(announced: str | None) -> None:
    released = threading.Event()

    def drip(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        if announced is not None:
            handler.send_header("Content-Length", announced)
        handler.end_headers()
        while not released.wait(0.05):
            try:
                handler.wfile.write(b"x")
            except OSError:
                return

    started = time.monotonic()
    with serving(drip) as place:
        try:
            with (
                pytest.raises(FetchError, match="too long"),
                open_url(f"http://{place}/", Rules(LOCAL, by_table), 1.0) as got,
            ):
                got.read()
        finally:
            released.set()
    assert time.monotonic() - started < 30


def test_a_server_that_is_none_is_told() -> None:
    def garbage(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"\x00\x01 not http\r\n\r\n")

    with serving(garbage) as place, pytest.raises(FetchError), open_url(f"http://{place}/", Rules(LOCAL, by_table), 10):
        pass


def test_tls_is_verified_for_the_name() -> None:
    with (
        serving(answer(b"x")) as place,
        pytest.raises(FetchError),
        open_url(f"https://{place}/", Rules(LOCAL, by_table), 10),
    ):
        pass
