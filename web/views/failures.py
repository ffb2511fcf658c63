"""Failures: permanently failed jobs, grouped by task and error."""

from __future__ import annotations

from flask import abort

from jobq import queries
from jobq.filters import JobFilter
from jobq.web.context import current_page
from jobq.web.listing import PAGE_SIZE, ListPage, list_query
from jobq.web.rendering import charts
from jobq.web.routes import Route
from jobq.web.views.jobs import BULK_ACTIONS


def failures() -> str:
    """List the groups of failed jobs, the largest first by default."""
    page = current_page()
    asked = list_query("failures", queries.FAILURE_SORTS, "-jobs")
    with page.database.read() as reader:
        found = reader(
            queries.failures,
            known=page.failures,
            text=asked.text,
            sort=asked.sort,
            descending=asked.descending,
            offset=asked.offset,
            limit=PAGE_SIZE,
        )
        now = reader.now()
    if found is None:
        return page.render("unavailable.html", title="Failures", now=now)
    it = ListPage(query=asked, rows=found.groups, number=found.number, total=found.total)
    return page.render("failures.html", found=found, it=it, now=now, line=charts.spark)


def failure(fingerprint: str) -> str:
    """Show one group, its newest jobs, and the form that retries them."""
    page = current_page()
    with page.database.read() as reader:
        found = reader(queries.failure, fingerprint, known=page.failures, name="failure")
        newest = reader(queries.get_job, found.group.last_id, name="traceback") if found is not None else None
        now = reader.now()
    if found is None:
        if reader.missing:
            return page.render("unavailable.html", title="Failures", now=now)
        abort(404, "None of the newest failed jobs has this error: they were retried or deleted, or are too old.")
    attempt = newest.attempts[-1] if newest is not None and newest.attempts else None
    return page.render(
        "failure.html",
        found=found,
        group=found.group,
        attempt=attempt,
        now=now,
        line=charts.spark,
        bulk_actions=[(name, label) for name, label in BULK_ACTIONS if name in ("retry", "move", "delete")],
        q=str(JobFilter(failure=fingerprint, task=found.group.task)),
    )


ROUTES = [
    Route("/failures", "GET", failures, needs="view"),
    Route("/failures/<fingerprint>", "GET", failure, needs="view"),
]
