"""The page's reads as JSON. Times are ISO 8601, durations are seconds; secret fields are hidden as
on the pages.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from flask import Response, abort

from jobq import queries
from jobq.diagnostics.metrics import CONTENT_TYPE, render
from jobq.web.context import current_page, filters, int_arg, job_filter, ordering, text_arg
from jobq.web.rendering import step_table
from jobq.web.routes import Route

_REDACTED_FIELDS = ("args", "headers", "result", "progress", "payload")


def api_overview() -> Response:
    """Counts, queues, workers, the last hour and the newest failures."""
    return _read(queries.overview)


def api_stats() -> Response:
    """Counts and rates only."""
    return _read(queries.stats)


def api_queues() -> Response:
    """Every queue."""
    return _read(lambda conn, schema: {"queues": queries.queues(conn, schema)})


def api_jobs() -> Response:
    """One page of jobs, by id or, for finished states, by the time they finished (``order``).

    To continue, pass the response's ``before`` as ``before``.
    """
    selected = job_filter(filters())
    limit = int_arg("limit", 50, 200) or 50
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


def api_job_steps(id: int) -> Response:
    """The newest steps of a durable job, at most ``limit`` (1,000), oldest first; what it waits for;
    and the newest signals to it.
    """
    limit = int_arg("limit", 1_000, 10_000) or 1_000

    def read(conn: Any, schema: str) -> Any:
        queries.get_job(conn, schema, id)
        found = queries.job_steps(conn, schema, id, limit=limit)
        return {
            "steps": found.steps,
            "left_out": found.left_out,
            "waits": queries.job_waits(conn, schema, id).waits,
            "signals": queries.job_signals(conn, schema, id, limit=limit),
        }

    return _read(read)


def api_schedules() -> Response:
    """The first 1,000 schedules by name."""
    return _read(lambda conn, schema: {"schedules": queries.schedules(conn, schema, limit=1000)})


def api_workflows() -> Response:
    """One page of workflow runs, newest first: ``name``, ``state``, ``limit``.

    To continue, pass the response's ``before_id`` as ``before``.
    """
    limit, before = int_arg("limit", 50, 200) or 50, int_arg("before", None)
    name, state = text_arg("name"), text_arg("state")

    def read(conn: Any, schema: str) -> Any:
        found = queries.workflows(conn, schema, name=name, state=state, before=before, limit=limit)
        return {"workflows": found, "before_id": found[-1].id if len(found) == limit else None}

    return _read(read)


def api_workflow(id: int) -> Response:
    """One workflow run with its first nodes, at most ``limit`` (2,000), the signals that its jobs
    wait for, and the newest signals to it.
    """
    limit = int_arg("limit", 2_000, 10_000) or 2_000

    def read(conn: Any, schema: str) -> Any:
        found = queries.get_workflow(conn, schema, id, limit=limit)
        if found is None:
            abort(404, f"There is no workflow run {id}, or it has been deleted.")
        return {
            "run": found.run,
            "nodes": found.nodes,
            "left_out": found.left_out,
            "waits": queries.run_waits(conn, schema, id),
            "signals": queries.run_signals(conn, schema, id),
        }

    return _read(read)


def api_workers() -> Response:
    """Every worker."""
    return _read(lambda conn, schema: {"workers": queries.workers(conn, schema)})


def api_maintenance_tasks() -> Response:
    """The maintenance tasks."""
    return _read(lambda conn, schema: {"maintenance_tasks": queries.maintenance_tasks(conn, schema)})


def api_audit() -> Response:
    """Operators' actions, newest first."""
    limit, before = int_arg("limit", 50, 200) or 50, int_arg("before", None)
    return _read(lambda conn, schema: {"audit": queries.audit_log(conn, schema, limit=limit, before_id=before)})


def metrics() -> Response:
    """Numbers about all queues, the workers and the findings, for Prometheus."""
    page = current_page()
    with page.database.read() as reader:
        text = reader.require(render)
    return Response(text, content_type=CONTENT_TYPE)


def _read(query: Callable[[Any, str], Any]) -> Response:
    page = current_page()
    with page.database.read() as reader:
        found = reader.require(query)
    return Response(json.dumps(plain(found), ensure_ascii=False) + "\n", mimetype="application/json")


def plain(value: Any) -> Any:
    """Return `value` as JSON types, without what this request's role may not see. Every JSON
    response goes through it.
    """
    if isinstance(value, queries.WorkerInfo):
        return {name: plain(item) for name, item in asdict(value).items()} | {"health": value.health}
    if is_dataclass(value) and not isinstance(value, type):
        redact = current_page().redact
        fields = {name: getattr(value, name) for name in value.__dataclass_fields__}
        shown = {name: redact(item, name) if name in _REDACTED_FIELDS else plain(item) for name, item in fields.items()}
        if isinstance(value, queries.StepInfo):
            shown["result"] = redact(value.result, step_table.root(value))
            if value.shortened_args is not None and value.kind != "undo":
                shown["shortened_args"] = redact.shortened(value.shortened_args)
        return shown
    if isinstance(value, dict):
        return {
            str(name): current_page().redact.filter(item) if name == "filter" and isinstance(item, str) else plain(item)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple):
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
    Route("/api/jobs/<int:id>/steps", "GET", api_job_steps, needs="view"),
    Route("/api/schedules", "GET", api_schedules, needs="view"),
    Route("/api/workflows", "GET", api_workflows, needs="view"),
    Route("/api/workflows/<int:id>", "GET", api_workflow, needs="view"),
    Route("/api/workers", "GET", api_workers, needs="view"),
    Route("/api/maintenance-tasks", "GET", api_maintenance_tasks, needs="view"),
    Route("/api/audit", "GET", api_audit, needs="view"),
    Route("/metrics", "GET", metrics, needs="view"),
]
