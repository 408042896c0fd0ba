"""All uploads on their way share one allowance of room; who goes beyond it is refused, and the others go on."""

from __future__ import annotations

import dataclasses
import gc
import socket
from pathlib import Path

import pytest

from tests.web_app.helpers import make_settings, media_bytes, multipart, wait_until
from tests.web_app.test_app import free_port, serving
from utils.config import MediaSettings, Settings
from web_app.channel import Allowance

HEAD = "POST /api/detect?wait=0 HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
BODY = multipart(media_bytes(size=900_000))
FIRST = 800_000


@pytest.fixture
def listening(tmp_path: Path) -> Settings:
    settings = make_settings(tmp_path, server={"port": free_port(), "arriving_mb": 2})
    return dataclasses.replace(settings, media=MediaSettings(max_file_mb=1))


def begin(settings: Settings) -> socket.socket:
    """Send most of an upload."""
    connection = socket.create_connection(("127.0.0.1", settings.server.port), timeout=30)
    connection.sendall(f"{HEAD}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY[:FIRST])
    return connection


def status(connection: socket.socket) -> int:
    return int(connection.recv(65536).split(b" ")[1])


def upload_whole(settings: Settings) -> int:
    with begin(settings) as connection:
        connection.sendall(BODY[FIRST:])
        return status(connection)


def test_the_newest_is_refused_and_the_others_end_well(listening: Settings) -> None:
    with serving(listening):
        first, second, third = begin(listening), begin(listening), begin(listening)
        assert status(third) == 503
        for connection in (first, second):
            connection.sendall(BODY[FIRST:])
            assert status(connection) == 202
            connection.close()
        third.close()
        assert upload_whole(listening) == 202  # the room is free again


def test_an_upload_that_is_broken_off_gives_its_room_back(listening: Settings) -> None:
    with serving(listening):
        for _ in range(6):
            begin(listening).close()
        wait_until(lambda: upload_whole(listening) == 202, 30)


def test_an_allowance_counts_what_is_held() -> None:
    class Request:
        pass

    allowance = Allowance(100)
    one, other = Request(), Request()
    allowance.note(one, 60)
    allowance.note(other, 41)
    assert allowance.exceeded()
    allowance.note(one, 0)
    allowance.note(one, 0)
    assert not allowance.exceeded()
    allowance.note(one, 60)
    del one
    gc.collect()  # a connection that has ended holds nothing
    assert not allowance.exceeded()
