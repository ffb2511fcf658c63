"""The same reads as JSON. Times are ISO 8601, durations seconds; secret fields are hidden as on the pages."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from flask import Response

from jobq import queries
from jobq.diagnostics.metrics import CONTENT_TYPE, render
from jobq.web.context import current_page, filters, job_filter, number, ordering
from jobq.web.routes import Route

_SECRETIVE = ("args", "headers", "result", "progress")


def api_overview() -> Response:
    """Counts, queues, workers, the last hour and the newest failures."""
    return _read(queries.overview)


def api_stats() -> Response:
    """The numbers alone."""
    return _read(queries.stats)


def api_queues() -> Response:
    """Every queue."""
    return _read(lambda conn, schema: {"queues": queries.queues(conn, schema)})


def api_jobs() -> Response:
    """A page of jobs by id or, where they have all finished, by when they did (``order``); ``before`` of the answer, given as
    ``before``, continues it.
    """
    selected = job_filter(filters())
    limit = number("limit", 50, 200) or 50
    order, before = ordering()

    def search(conn: Any, schema: str) -> Any:
        found = queries.search_jobs(conn, schema, selected, limit=limit, before=before, order=order)
        return {
            "jobs": found.rows,
            "order": found.order,
            "before": None if found.before is None else str(found.before),
            "before_id": found.before_id,
            "complete": found.complete,
            "searched": found.searched,
            "floor_id": found.floor_id,
        }

    return _read(search)


def api_job(id: int) -> Response:
    """One job with its attempts."""
    return _read(lambda conn, schema: queries.get_job(conn, schema, id))


def api_schedules() -> Response:
    """The first 1,000 schedules by name."""
    return _read(lambda conn, schema: {"schedules": queries.schedules(conn, schema, limit=1000)})


def api_workers() -> Response:
    """Every worker."""
    return _read(lambda conn, schema: {"workers": queries.workers(conn, schema)})


def api_chores() -> Response:
    """The maintenance chores."""
    return _read(lambda conn, schema: {"chores": queries.chores(conn, schema)})


def api_audit() -> Response:
    """Operators' actions, newest first."""
    limit, before = number("limit", 50, 200) or 50, number("before", None)
    return _read(lambda conn, schema: {"audit": queries.audit_log(conn, schema, limit=limit, before_id=before)})


def metrics() -> Response:
    """Numbers about all queues, the workers and the findings, for Prometheus."""
    page = current_page()
    with page.database.read() as reader:
        text = reader.need(render)
    return Response(text, content_type=CONTENT_TYPE)


def _read(query: Callable[[Any, str], Any]) -> Response:
    page = current_page()
    with page.database.read() as reader:
        found = reader.need(query)
    return Response(json.dumps(plain(found), ensure_ascii=False) + "\n", mimetype="application/json")


def plain(value: Any) -> Any:
    """Return `value` as what JSON knows, without what this request's role may not see. Every JSON answer goes through it."""
    if isinstance(value, queries.WorkerInfo):
        return {name: plain(item) for name, item in asdict(value).items()} | {"health": value.health}
    if is_dataclass(value) and not isinstance(value, type):
        redact = current_page().redact
        fields = {name: getattr(value, name) for name in value.__dataclass_fields__}
        return {name: redact(item, name) if name in _SECRETIVE else plain(item) for name, item in fields.items()}
    if isinstance(value, dict):
        return {
            str(name): current_page().redact.filter(item) if name == "filter" and isinstance(item, str) else plain(item)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return str(value) if isinstance(value, UUID) else value


ROUTES = [
    Route("/api/overview", "GET", api_overview, needs="view"),
    Route("/api/stats", "GET", api_stats, needs="view"),
    Route("/api/queues", "GET", api_queues, needs="view"),
    Route("/api/jobs", "GET", api_jobs, needs="view"),
    Route("/api/jobs/<int:id>", "GET", api_job, needs="view"),
    Route("/api/schedules", "GET", api_schedules, needs="view"),
    Route("/api/workers", "GET", api_workers, needs="view"),
    Route("/api/chores", "GET", api_chores, needs="view"),
    Route("/api/audit", "GET", api_audit, needs="view"),
    Route("/metrics", "GET", metrics, needs="view"),
]
