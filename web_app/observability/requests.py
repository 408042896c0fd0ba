"""What each request leaves behind: an id in its answer and log lines, a line about it where it matters, and figures.

Prometheus metrics at /metrics tell what this process answered, and how store, queue and workers stand.

Only `admin` may read them: somebody at this machine while keys are off, or a key with that scope. Labels are routes of
the table, never paths or names that users choose.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
from collections.abc import Callable, Iterable

import sqlalchemy as sa
from flask import Flask, Response, current_app, g, request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import MethodNotAllowed

from utils.config import Settings
from utils.log import get_logger, log_fields
from web_app.db.models import JobRow, JobState, MediaRow, utc_now
from web_app.db.session import Database
from web_app.observability.health import living_workers
from web_app.paths import InstancePaths

HEADER = "X-Request-Id"
LOOKING = ("GET", "HEAD", "OPTIONS")
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

log = get_logger(__name__)


class HouseCollector(Collector):
    """What the database and the disk say at the moment of the question."""

    def __init__(self, settings: Settings, database: Database, lengths: Callable[[], dict[str, int]]) -> None:
        self._settings = settings
        self._database = database
        self._lengths = lengths

    def collect(self) -> Iterable[Metric]:
        free = shutil.disk_usage(InstancePaths.of(self._settings).instance).free
        yield GaugeMetricFamily("telltale_disk_free_bytes", "Room left for uploads.", value=free)
        jobs, count = (JobRow.task, JobRow.state), sa.func.count()
        held = sa.select(JobRow.worker_id, count).where(JobRow.state == JobState.RUNNING).group_by(JobRow.worker_id)
        try:
            with self._database.read() as session:
                by_state = {tuple(row[:2]): row[2] for row in session.execute(sa.select(*jobs, count).group_by(*jobs))}
                waiting = sa.select(sa.func.min(JobRow.created_at)).where(JobRow.state == JobState.QUEUED)
                oldest = session.scalar(waiting)
                files, size = session.execute(sa.select(count, sa.func.sum(MediaRow.size_bytes))).one()
                alive = living_workers(session, self._settings)
                running = dict(session.execute(held).all())
        except SQLAlchemyError:
            yield GaugeMetricFamily("telltale_database_up", "Whether the database answers.", value=0)
            return
        wait_s = max(0.0, (utc_now() - oldest).total_seconds()) if oldest is not None else 0.0
        yield _gauge("telltale_jobs", "Jobs in the database by task and state.", ("task", "state"), by_state.items())
        yield GaugeMetricFamily("telltale_oldest_waiting_seconds", "Age of the oldest waiting job.", value=wait_s)
        yield GaugeMetricFamily("telltale_media_files", "Stored files.", value=files)
        yield GaugeMetricFamily("telltale_media_bytes", "Their size together.", value=size or 0)
        yield GaugeMetricFamily("telltale_workers", "Workers that were heard of recently.", value=len(alive))
        in_hand = {(row.id, str(row.facts.get("model_version"))): running.get(row.id, 0) for row in alive}
        yield _gauge("telltale_worker_running", "Jobs in each worker's hands.", ("worker", "version"), in_hand.items())
        lengths = {(name,): length for name, length in self._lengths().items()}
        yield _gauge("telltale_queue_ids", "Ids that wait in the broker.", ("queue",), lengths.items())
        yield GaugeMetricFamily("telltale_database_up", "Whether the database answers.", value=1)


def _gauge(name: str, about: str, labels: tuple[str, ...], values: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    gauge = GaugeMetricFamily(name, about, labels=labels)
    for each, value in values:
        gauge.add_metric(each, value)
    return gauge


def install(
    app: Flask,
    settings: Settings,
    database: Database,
    require_admin: Callable[[], object],
    lengths: Callable[[], dict[str, int]],
) -> None:
    """Count each answer and add the route, which asks `require_admin` first.

    `lengths` are those of the broker's queues, by name.
    """
    registry = CollectorRegistry()
    registry.register(HouseCollector(settings, database, lengths))
    requests = Counter("telltale_http_requests", "Requests answered.", ("method", "route", "status"), registry=registry)
    seconds = Histogram(
        "telltale_http_request_seconds", "Time to the answer's head.", ("route",), registry=registry, buckets=BUCKETS_S
    )
    received = Counter("telltale_received_bytes", "Bytes of request bodies.", registry=registry)

    @app.after_request
    def count(response: Response) -> Response:
        route = request.url_rule.rule if request.url_rule is not None else "none"
        requests.labels(request.method if route != "none" else "any", route, response.status_code).inc()
        seconds.labels(route).observe(time.perf_counter() - g.request_began)
        received.inc(request.content_length or 0)
        return response

    @app.get("/metrics")
    def metrics() -> Response:
        require_admin()
        return app.response_class(generate_latest(registry), mimetype=CONTENT_TYPE_LATEST)


def begin() -> None:
    """Give the request an id of ours; what a client sends under that name is not looked at."""
    g.request_id = secrets.token_hex(8)
    g.request_began = time.perf_counter()
    g.log_context = contextlib.ExitStack()
    g.log_context.enter_context(log_fields(request_id=g.request_id))


def say(response: Response) -> Response:
    """Name the id in the answer. Requests that only look and succeed are logged at debug: pages ask many of them."""
    response.headers[HEADER] = g.request_id
    quiet = request.method in LOOKING and response.status_code < 400
    took_ms = round((time.perf_counter() - g.request_began) * 1e3, 1)
    route = _route()
    named = (request.view_args or {}).get("id")
    log.log(
        10 if quiet else 20, "%s %s %d %.1f ms", request.method, route, response.status_code, took_ms,
        extra={"method": request.method, "route": route, "status": response.status_code, "took_ms": took_ms,
               **({"job_id": str(named)[:64]} if named else {})},
    )  # fmt: skip
    return response


def _route() -> str:
    """The rule that the request's path has, also where it does not take the method."""
    rule, refused, adapter = request.url_rule, request.routing_exception, current_app.create_url_adapter(request)
    if adapter and isinstance(refused, MethodNotAllowed) and refused.valid_methods:
        rule, _ = adapter.match(method=next(iter(refused.valid_methods)), return_rule=True)
    return "unknown route" if rule is None else rule.rule


def end(_error: BaseException | None) -> None:
    """Later lines of this thread are not the request's."""
    stack = g.pop("log_context", None)
    if stack is not None:
        stack.close()
