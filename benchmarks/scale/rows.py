"""What a large history costs: answers over a million rows, and the cost of a photo beside few and many."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import statistics
import tempfile
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import sqlalchemy as sa
from flask.testing import FlaskClient

from benchmarks.reliability.common import Figure, Server, ask, percentile
from benchmarks.servers import Postgres, free_port, temporary
from tests.web_app.helpers import accept_weights, make_settings, media_bytes, running_worker, upload
from utils.config import Settings
from web_app.app import create_app
from web_app.db import names
from web_app.db.models import utc_now
from web_app.services import EXTENSION, Services

SERIES = "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < :rows) "
FILL = (
    "INSERT INTO jobs (public_id, task, state, fraction, attempts, created_at, started_at, finished_at) "
    "SELECT {text}, 'analyse', 'done', 1, 1, {time}, {time}, {time} FROM s",
    "INSERT INTO media (sha256, size_bytes, format, mime, kind, stored_name, created_at) "
    "SELECT {text}, 1, 'png', 'image/png', {kind}, {text}, {time} FROM s",
    "INSERT INTO detections (job_id, media_id, media_kind, client_id, display_name, prediction, fake_probability, "
    "model_version, notices) SELECT n, n, {kind}, 'client-' || n % 100, "
    "CASE n % 3 WHEN 0 THEN 'photo-' WHEN 1 THEN 'IMG_' ELSE 'Screenshot ' END || n || '.png', "
    "CASE WHEN n % 10000 = 0 THEN 'inconclusive' WHEN n % 3 = 0 THEN 'fake' ELSE 'real' END, .5, 'v6', '[]' FROM s",
)
KIND = "CASE n % 100 WHEN 0 THEN 'video' ELSE 'image' END"
DIALECTS = {
    "sqlite": {"text": "printf('%032x', n)", "time": "datetime('now', '-' || (:rows - n) || ' minutes') || '.000000'"},
    "postgresql": {"text": "lpad(to_hex(n), 32, '0')", "time": "now() - (:rows - n) * interval '1 minute'"},
}
WARM = 20
TURNS = 7


def asked() -> dict[str, str]:
    """What is asked of a history, and how it is called; a year is half of a million rows."""
    year = (utc_now() - dt.timedelta(days=365)).date().isoformat()
    return {
        "first page": "", "page 50": "page=50", "page 40,000": "page=40000", "name seldom": "text=photo-4242",
        "name often": "text=photo", "fakes": "prediction=fake", "inconclusive": "prediction=inconclusive",
        "videos": "kind=video", "since a year": f"since={year}", "until a year ago": f"until={year}",
        "name, verdict, year": f"text=photo&prediction=fake&since={year}",
    }  # fmt: skip


@contextlib.contextmanager
def server(rows: int, url: str = "") -> Iterator[tuple[FlaskClient, Services, Settings]]:
    """An application over so many analyses that are done; SQLite where no address of a database is given."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        plain = make_settings(Path(folder), server={"port": free_port()})
        security = dataclasses.replace(plain.security, uploads_per_minute=0, requests_per_minute=0)
        storage = dataclasses.replace(plain.storage, database_url=url)
        settings = dataclasses.replace(plain, storage=storage, security=security)
        app = create_app(settings, verify=accept_weights)
        parts = app.extensions[EXTENSION]
        try:
            fill(parts, rows)
            yield app.test_client(), parts, settings
        finally:
            parts.close()


def fill(parts: Services, rows: int) -> None:
    """Make so many analyses, a minute apart, of a hundred clients; one photo in a hundred is a video."""
    database = parts.database
    with database.write() as session:
        if not database.is_sqlite:  # made at once in the end
            session.execute(sa.text(f"DROP INDEX IF EXISTS {names.INDEX}"))
        for statement in FILL:
            words = DIALECTS[database.url.get_backend_name()]
            session.execute(sa.text(SERIES + statement.format(kind=KIND, **words)), {"rows": rows})
        if not database.is_sqlite:
            session.execute(sa.text("SET LOCAL maintenance_work_mem = '256MB'"))
            session.execute(sa.text(names.POSTGRES[-1]))
    if not database.is_sqlite:  # as autovacuum does
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("VACUUM ANALYZE"))


def history(rows: int, times: int) -> list[Figure]:
    """The answers of a server of its own process over so many analyses: how long, on both databases.

    Args:
        times: requests for each question, one after the other over one connection, after `WARM` that do not count.
    """
    figures: list[Figure] = []
    for kind in ("SQLite", "PostgreSQL"):
        with contextlib.ExitStack() as held:
            url = held.enter_context(temporary(Postgres)).url if kind == "PostgreSQL" else ""
            _, _, settings = held.enter_context(server(rows, url))
            asking = held.enter_context(contextlib.closing(held.enter_context(Server(settings)).connect()))
            addresses = {name: f"/api/history?{query}" for name, query in asked().items()}
            told, worst = [], 0.0
            for name, address in {**addresses, "statistics": "/api/rl/stats"}.items():
                took = [_asked_ms(asking, address) for _ in range(WARM + times)][WARM:]
                p50, p99 = percentile(took, 0.5), percentile(took, 0.99)
                told.append(f"{name} {p50:.0f}, {p99:.0f}")
                worst = max(worst, p99)
            name = f"{rows:,} analyses in {kind}, p50 and p99 of {times} requests after {WARM}"
            figures.append(Figure(name, f"{' · '.join(told)} ms", "p99 100 ms", worst <= 100, timed=True))
    return figures


def _asked_ms(connection: HTTPConnection, address: str) -> float:
    began = time.perf_counter()
    status, answer = ask(connection, "GET", address)
    took = 1e3 * (time.perf_counter() - began)
    assert status == 200, answer
    return took


def cost(most: int, photos: int) -> list[Figure]:
    """Seconds of the processor that one more photo costs beside a thousand and so many, on SQLite.

    Server, worker and database are one process; the stand-in costs next to nothing, so that growth would show.
    The sizes take turns, so that a machine that slows down slows all of them.
    """
    sizes = [size for size in (1_000, 10_000) if size < most] + [most]
    spent: dict[int, list[float]] = {size: [] for size in sizes}
    with contextlib.ExitStack() as held:
        servers = {size: held.enter_context(server(size)) for size in sizes}
        for turn in range(TURNS):
            for size, (client, _, settings) in servers.items():
                with running_worker(settings):
                    _analyse(client, turn, 0)
                    began = time.process_time()
                    for number in range(1, 1 + photos // TURNS):
                        _analyse(client, turn, number)
                    spent[size].append((time.process_time() - began) / (photos // TURNS))
    costs = {size: 1e3 * statistics.median(values) for size, values in spent.items()}
    growth = max(costs.values()) / costs[sizes[0]] - 1
    name = f"what one more photo costs beside {', '.join(f'{size:,}' for size in sizes)}"
    value = ", ".join(f"{each:.1f}" for each in costs.values())
    return [Figure(name, f"{value} ms: {100 * growth:+.0f} %", "within 5 %", growth <= 0.05, timed=True)]


def _analyse(client: FlaskClient, turn: int, number: int) -> None:
    answer = upload(client, media_bytes("png", "fake", 400 + 1000 * turn + number), "/api/detect?wait=1")
    assert answer.status_code == 200, answer.get_data(as_text=True)
