"""The pages that show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import abort

from jobq import queries
from jobq.web import pictures
from jobq.web.context import current_page, filters, job_filter, number
from jobq.web.health import problems

_PAGE = 50


def overview() -> str:
    """The whole at a glance."""
    page = current_page()
    with page.database.read() as conn:
        seen = queries.overview(conn, page.settings.schema)
    return page.render(
        "overview.html",
        seen=seen,
        now=seen.read_at,
        problems=problems(seen, page.head),
        hour=pictures.hour(seen.throughput),
    )


def queues() -> str:
    """Every queue, with pause and resume."""
    page = current_page()
    with page.database.read() as conn:
        found = queries.queues(conn, page.settings.schema)
        now = _now(conn)
    return page.render("queues.html", queues=found, now=now)


def jobs() -> str:
    """Jobs that fit a filter, newest first."""
    page = current_page()
    wanted = filters()
    selected = job_filter(wanted)
    before = number("before", None)
    with page.database.read() as conn:
        found = queries.search_jobs(conn, page.settings.schema, selected, limit=_PAGE, before_id=before)
        known = queries.queue_names(conn, page.settings.schema)
        now = _now(conn)
    return page.render(
        "jobs.html", found=found, wanted=wanted, before=before, known=known, now=now, states=queries.STATES
    )


def job(id: int) -> str:
    """One job: what it is, what became of it, and its attempts."""
    page = current_page()
    with page.database.read() as conn:
        found = queries.get_job(conn, page.settings.schema, id)
    return page.render("job.html", job=found, now=found.read_at, spans=pictures.timeline(found))


def workers() -> str:
    """Workers and the maintenance chores."""
    page = current_page()
    with page.database.read() as conn:
        found = queries.workers(conn, page.settings.schema)
        chores = queries.chores(conn, page.settings.schema)
        now = _now(conn)
    return page.render("workers.html", workers=found, chores=chores, now=now)


def audit() -> str:
    """What operators did."""
    page = current_page()
    before = number("before", None)
    with page.database.read() as conn:
        found = queries.audit_log(conn, page.settings.schema, limit=_PAGE + 1, before_id=before)
        now = _now(conn)
    more = found[_PAGE - 1].id if len(found) > _PAGE else None
    return page.render("audit.html", entries=found[:_PAGE], more=more, before=before, now=now)


def nothing(anything: str) -> str:
    """Any other address: our own page says that there is nothing."""
    abort(404)


def _now(conn: Any) -> Any:
    # The age of a thing is told by the database's clock, which also wrote when it began.
    return conn.execute("SELECT now()").fetchone()[0]


ROUTES: list[tuple[str, str, Callable[..., Any]]] = [
    ("/", "GET", overview),
    ("/queues", "GET", queues),
    ("/jobs", "GET", jobs),
    ("/jobs/<int:id>", "GET", job),
    ("/workers", "GET", workers),
    ("/audit", "GET", audit),
    ("/<path:anything>", "GET", nothing),
]
