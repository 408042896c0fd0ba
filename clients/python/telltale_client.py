"""A client for Telltale's API with nothing but the standard library.

    from telltale_client import DeepfakeClient

    client = DeepfakeClient("http://localhost:5000")
    print(client.detect("photo.jpg")["prediction"])

It repeats a request when the server asks to wait (429, 503 with Retry-After) or the connection breaks; an
`Idempotency-Key` makes sure that a repeated upload is analysed once. docs/api.md describes what the answers hold.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

API = "/api/v1"
CHUNK_BYTES = 64 * 1024
BACKOFF_S, LONGEST_PAUSE_S = 0.5, 60.0

Progress = Callable[[str, float], None]
"""Called with a stage of the analysis (`queued`, `decode`, `detect`, `experts`, `decide`) and its fraction, 0..1."""


class ApiError(Exception):
    """The server refused: `code` and `remedy` as docs/api.md lists them, `problem` with all the facts."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        self.status, self.problem = status, problem
        self.code = str(problem.get("code", f"http_{status}"))
        self.remedy = str(problem.get("remedy", ""))
        super().__init__(f"[{self.code}] {problem.get('detail', 'no further word')} {self.remedy}".strip())


class Answer(NamedTuple):
    """An answer of the server: status, headers by their lower-case names, body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body, a JSON object."""
        return dict(json.loads(self.body))


class DeepfakeClient:
    """The way to one server; every method raises ApiError when it refuses and OSError when it cannot be reached.

    Args:
        base_url: where it is, with its path prefix if it has one.
        key: an API key; None where keys are off.
        retries: how often a request is repeated before its error is raised.
        timeout_s: of each wait for the other side, seconds.
    """

    def __init__(
        self, base_url: str = "http://localhost:5000", *, key: str | None = None, retries: int = 4,
        timeout_s: float = 150.0,
    ) -> None:  # fmt: skip
        self._url = urlsplit(base_url.rstrip("/"))
        if self._url.scheme not in ("http", "https") or not self._url.hostname:
            raise ValueError(f"{base_url!r} is no address such as http://localhost:5000")
        self._headers = {"User-Agent": "telltale-client", "Accept": "application/json"}
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"
        self._retries, self._timeout_s = retries, timeout_s

    def detect(
        self, path: Path | str, *, again: bool = False, keep: bool = True, progress: Progress | None = None
    ) -> dict[str, Any]:
        """Analyse a picture, video or recording and wait for its report.

        Args:
            again: analyse it although you sent it before.
            keep: whether the server keeps file and analysis.
            progress: told how far it is, where it is kept.
        """
        wait = "&wait=0" if progress is not None and keep else ""  # so that the stages can be followed
        key = {"Idempotency-Key": secrets.token_hex(16)}
        answer = self._upload(f"/detect?again={again:d}&keep={keep:d}{wait}", [Path(path)], key)
        return answer.json() if answer.status == 200 else self.wait(answer.json()["id"], progress=progress)

    def batch(self, paths: Sequence[Path | str]) -> dict[str, Any]:
        """Analyse several files with one request; `items` of the answer says which were taken."""
        return self._upload("/batch", [Path(path) for path in paths], {}).json()

    def wait(self, id: str, *, progress: Progress | None = None, timeout_s: float = 600.0) -> dict[str, Any]:
        """Wait for the report of an analysis.

        Raises:
            ApiError: it failed or was cancelled.
            TimeoutError: it has not ended after `timeout_s`.
        """
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            job = self.request("GET", f"/jobs/{quote(id, safe='')}").json()
            if progress is not None:
                progress(job["stage"] or job["state"], job["fraction"])
            if job["state"] == "done":
                return dict(job["result"])
            if job["state"] in ("failed", "cancelled"):
                problem = job["error"] or {"code": "cancelled", "detail": "The analysis was cancelled."}
                raise ApiError(int(problem.get("status", 409)), problem)
            time.sleep(0.3)
        raise TimeoutError(f"analysis {id} has not ended after {timeout_s:g} s")

    def report(self, id: str, format: str = "json") -> bytes:
        """The report of an analysis as a file: `json`, `html` or `pdf`."""
        return self.request("GET", f"/detections/{quote(id, safe='')}/report?format={quote(format)}").body

    def feedback(self, id: str, feedback: str, **more: str) -> dict[str, Any]:
        """Say whether a verdict was `correct` or `incorrect`; `actual`, `category` and `note` may follow."""
        return self.request("POST", "/feedback", {"id": id, "feedback": feedback, **more}).json()

    def request(self, method: str, path: str, values: dict[str, Any] | None = None) -> Answer:
        """Any request of the API: HTTP method, path below /api/v1, and the JSON body."""
        headers = {} if values is None else {"Content-Type": "application/json"}
        body = None if values is None else json.dumps(values).encode()
        return self._send(method, path, headers, lambda: body)

    def _upload(self, path: str, files: Sequence[Path], headers: dict[str, str]) -> Answer:
        boundary = secrets.token_hex(16)
        heads = [_part_head(file.name, boundary) for file in files]
        end = f"--{boundary}--\r\n".encode()

        def body() -> Iterator[bytes]:
            for head, file in zip(heads, files, strict=True):
                yield head
                with file.open("rb") as stream:
                    while chunk := stream.read(CHUNK_BYTES):
                        yield chunk
                yield b"\r\n"
            yield end

        total = sum(len(head) + 2 for head in heads) + sum(file.stat().st_size for file in files) + len(end)
        headers = headers | {"Content-Length": str(total), "Content-Type": f"multipart/form-data; boundary={boundary}"}
        return self._send("POST", path, headers, body)

    def _send(self, method: str, path: str, headers: dict[str, str], body: Callable[[], Any]) -> Answer:
        for attempt in range(self._retries + 1):
            last, pause_s = attempt == self._retries, BACKOFF_S * 2**attempt
            try:
                answer = self._send_once(method, path, headers, body())
            except (OSError, http.client.HTTPException):
                if last:
                    raise
            else:
                if answer.status < 400:
                    return answer
                if last or answer.status not in (429, 503):
                    raise ApiError(answer.status, _problem(answer))
                with contextlib.suppress(ValueError):
                    pause_s = float(answer.headers.get("retry-after", ""))
            time.sleep(min(max(pause_s, 0.0), LONGEST_PAUSE_S))
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _send_once(self, method: str, path: str, headers: dict[str, str], body: Any) -> Answer:
        secure = self._url.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(self._url.hostname or "", self._url.port, timeout=self._timeout_s)
        with contextlib.closing(connection):
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused half-way: the answer says why
                connection.request(method, f"{self._url.path}{API}{path}", body, self._headers | headers)
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())


def _part_head(name: str, boundary: str) -> bytes:
    shown = name.translate(dict.fromkeys(map(ord, '\\"\r\n'), "_"))
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{shown}"\r\n\r\n'
    return head.encode("utf-8", "replace")


def _problem(answer: Answer) -> dict[str, Any]:
    try:
        return answer.json()
    except ValueError:
        code = "media_too_large" if answer.status == 413 else f"http_{answer.status}"  # a proxy's limit is said bare
        return {"code": code, "detail": answer.body[:200].decode("utf-8", "replace")}
