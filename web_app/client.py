"""A client for Telltale's API with nothing but the standard library: uploads with progress, and patience.

    from web_app.client import DeepfakeClient

    client = DeepfakeClient("http://localhost:5000")
    print(client.detect("photo.jpg")["prediction"])

It repeats a request when the server asks to wait (429, 503 with Retry-After) or the connection breaks; an
`Idempotency-Key` makes sure that a repeated upload is analysed once. docs/api.md describes what the answers hold.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import http.client
import json
import secrets
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

API = "/api/v1"
CHUNK_BYTES = 64 * 1024
BACKOFF_S = 0.5
LONGEST_PAUSE_S = 60.0
WEBHOOK_AGE_S = 300

Progress = Callable[[str, float], None]
"""Called with `upload` or a stage of the analysis (`queued`, `decode`, `detect`, `experts`, `decide`), and 0..1."""


class ApiError(Exception):
    """The server refused: `code` and `remedy` as docs/api.md lists them, `problem` with all the facts."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        self.status = status
        self.problem = problem
        self.code = str(problem.get("code", f"http_{status}"))
        self.remedy = str(problem.get("remedy", ""))
        super().__init__(f"[{self.code}] {problem.get('detail', 'no further word')} {self.remedy}".strip())


@dataclass(frozen=True)
class Answer:
    """An answer of the server: status, headers by their lower-case names, body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body, a JSON object."""
        return dict(json.loads(self.body))


class DeepfakeClient:
    """The way to one server.

    Args:
        base_url: where it is, with its path prefix if it has one.
        key: an API key; None where keys are off.
        retries: how often a request is repeated before its error is raised.
        timeout_s: of each wait for the other side, seconds.
        context: of TLS; None verifies against the system's authorities.
        sleep: waits that many seconds.
    """

    def __init__(
        self,
        base_url: str = "http://localhost:5000",
        *,
        key: str | None = None,
        retries: int = 4,
        timeout_s: float = 150.0,
        context: ssl.SSLContext | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._url = urlsplit(base_url.rstrip("/"))
        if self._url.scheme not in ("http", "https") or not self._url.hostname:
            raise ValueError(f"{base_url!r} is no address such as http://localhost:5000")
        self._headers = {"User-Agent": "telltale-client", "Accept": "application/json"}
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"
        self._retries, self._timeout_s, self._context, self._sleep = retries, timeout_s, context, sleep

    def detect(
        self, path: Path | str, *, again: bool = False, keep: bool = True, progress: Progress | None = None
    ) -> dict[str, Any]:
        """Analyse a picture or video and wait for its report.

        Args:
            path: the file.
            again: analyse it although you sent it before.
            keep: whether the server keeps file and analysis.
            progress: told how far it is.

        Raises:
            ApiError: the server refused, or the analysis failed.
            OSError: the server cannot be reached, or the file not be read.
        """
        query = {"again": str(int(again)), **({} if keep else {"keep": "0"})}
        if progress is not None and keep:
            query["wait"] = "0"  # so that the stages can be followed
        answer = self._upload(f"/detect?{urlencode(query)}", [Path(path)], progress, secrets.token_hex(16))
        return answer.json() if answer.status == 200 else self.wait(answer.json()["id"], progress=progress)

    def detect_url(self, url: str) -> dict[str, Any]:
        """Analyse a file from the internet, where the server allows that, and wait for its report."""
        answer = self.request("POST", "/detect/url?wait=1", {"url": url})
        return answer.json() if answer.status == 200 else self.wait(answer.json()["id"])

    def batch(self, paths: Sequence[Path | str], *, progress: Progress | None = None) -> dict[str, Any]:
        """Analyse several files with one request; `items` of the answer says which were taken."""
        return self._upload("/batch", [Path(path) for path in paths], progress, None).json()

    def wait(
        self, id: str, *, progress: Progress | None = None, timeout_s: float = 600.0, look_s: float = 0.3
    ) -> dict[str, Any]:
        """Wait for the report of an analysis.

        Raises:
            ApiError: it failed or was cancelled.
            TimeoutError: it has not ended after `timeout_s`.
        """
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            job = self.job(id)
            if progress is not None:
                progress(job["stage"] or job["state"], job["fraction"])
            if job["state"] == "done":
                return dict(job["result"])
            if job["state"] in ("failed", "cancelled"):
                problem = job["error"] or {"code": "cancelled", "detail": "The analysis was cancelled."}
                raise ApiError(int(problem.get("status", 409)), problem)
            self._sleep(look_s)
        raise TimeoutError(f"analysis {id} has not ended after {timeout_s:g} s")

    def job(self, id: str) -> dict[str, Any]:
        """The state of an analysis."""
        return self.request("GET", f"/jobs/{quote(id, safe='')}").json()

    def batch_state(self, id: str) -> dict[str, Any]:
        """The state of a batch."""
        return self.request("GET", f"/batch/{quote(id, safe='')}").json()

    def history(self, **filters: str) -> Iterator[dict[str, Any]]:
        """Your analyses, newest first, page after page; filters are those of `GET /api/history`."""
        page = 1
        while True:
            found = self.request("GET", f"/history?{urlencode({**filters, 'page': page})}").json()
            yield from found["items"]
            if page * found["per_page"] >= found["total"]:
                return
            page += 1

    def report(self, id: str, format: str = "json") -> bytes:
        """The report of an analysis as a file: `json`, `html` or `pdf`."""
        return self.request("GET", f"/detections/{quote(id, safe='')}/report?{urlencode({'format': format})}").body

    def feedback(self, id: str, feedback: str, **more: str) -> dict[str, Any]:
        """Say whether a verdict was `correct` or `incorrect`; `actual`, `category` and `note` may follow."""
        return self.request("POST", "/feedback", {"id": id, "feedback": feedback, **more}).json()

    def delete(self, id: str) -> None:
        """Delete an analysis with its file."""
        self.request("DELETE", f"/detections/{quote(id, safe='')}")

    def request(self, method: str, path: str, values: dict[str, Any] | None = None) -> Answer:
        """Any request of the API.

        Args:
            method: of HTTP.
            path: below /api/v1.
            values: the JSON body.

        Raises:
            ApiError: the server refused.
            OSError: it cannot be reached.
        """
        headers = {"Content-Type": "application/json"} if values is not None else {}
        body = None if values is None else json.dumps(values).encode()
        return self._patiently(lambda: self._send(method, path, headers, body))

    def _upload(self, path: str, files: Sequence[Path], progress: Progress | None, key: str | None) -> Answer:
        boundary = secrets.token_hex(16)
        parts = [(_part_head(file, boundary), file) for file in files]
        end = f"--{boundary}--\r\n".encode()
        total = sum(len(head) + file.stat().st_size + 2 for head, file in parts) + len(end)
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", "Content-Length": str(total)}
        if key is not None:
            headers["Idempotency-Key"] = key

        def body() -> Iterator[bytes]:
            sent = 0
            for chunk in _body(parts, end):
                yield chunk
                sent += len(chunk)
                if progress is not None:
                    progress("upload", min(sent / total, 1.0))

        return self._patiently(lambda: self._send("POST", path, headers, body()))

    def _patiently(self, send: Callable[[], Answer]) -> Answer:
        for attempt in range(self._retries + 1):
            last = attempt == self._retries
            try:
                answer = send()
            except (OSError, http.client.HTTPException):
                if last:
                    raise
                self._sleep(BACKOFF_S * 2**attempt)
                continue
            if answer.status in (429, 503) and not last:
                self._sleep(_pause_s(answer.headers.get("retry-after"), attempt))
                continue
            if answer.status >= 400:
                raise ApiError(answer.status, _problem(answer))
            return answer
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _send(self, method: str, path: str, headers: dict[str, str], body: Any) -> Answer:
        host, port = self._url.hostname or "", self._url.port
        connection = (
            http.client.HTTPSConnection(host, port, timeout=self._timeout_s, context=self._context)
            if self._url.scheme == "https"
            else http.client.HTTPConnection(host, port, timeout=self._timeout_s)
        )
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused half-way: the answer says why
                connection.request(method, f"{self._url.path}{API}{path}", body, {**self._headers, **headers})
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()


def verify_webhook(secret: str, headers: dict[str, str], body: bytes, now: float | None = None) -> dict[str, Any]:
    """What a webhook's message says, once its signature has been checked; for those who receive them.

    Args:
        secret: from the registration, `whsec_` and base64.
        headers: of the request; `webhook-id`, `webhook-timestamp` and `webhook-signature`, in any case.
        body: exactly as it arrived.
        now: seconds since 1970; None takes the clock.

    Raises:
        ValueError: the signature is wrong, or the message older than five minutes.
    """
    given = {name.lower(): value for name, value in headers.items()}
    signed = f"{given.get('webhook-id', '')}.{given.get('webhook-timestamp', '')}.".encode() + body
    digest = hmac.new(base64.b64decode(secret.removeprefix("whsec_")), signed, hashlib.sha256).digest()
    expected = "v1," + base64.b64encode(digest).decode()
    if not any(hmac.compare_digest(expected, each) for each in given.get("webhook-signature", "").split()):
        raise ValueError("the signature does not belong to this message")
    if abs((time.time() if now is None else now) - int(given["webhook-timestamp"])) > WEBHOOK_AGE_S:
        raise ValueError("the message is too old")
    return dict(json.loads(body))


def _part_head(file: Path, boundary: str) -> bytes:
    name = file.name.replace("\\", "_").replace('"', "_").replace("\r", "_").replace("\n", "_")
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    return head.encode("utf-8", "replace")


def _body(parts: Sequence[tuple[bytes, Path]], end: bytes) -> Iterator[bytes]:
    for head, file in parts:
        yield head
        with file.open("rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk
        yield b"\r\n"
    yield end


def _pause_s(untrusted_seconds: str | None, attempt: int) -> float:
    try:
        asked = float(untrusted_seconds or "")
    except ValueError:
        asked = BACKOFF_S * 2**attempt
    return min(max(asked, 0.0), LONGEST_PAUSE_S)


def _problem(answer: Answer) -> dict[str, Any]:
    try:
        return answer.json()
    except ValueError:
        return {"code": f"http_{answer.status}", "detail": answer.body[:200].decode("utf-8", "replace")}
