"""What fails: dead letters by task and error."""

from __future__ import annotations

from flask import abort

from jobq import queries
from jobq.filters import JobFilter
from jobq.web import charts
from jobq.web.context import current_page
from jobq.web.listing import PAGE, Listing, wanted
from jobq.web.pages.jobs import BULK_ACTIONS
from jobq.web.routes import Route


def failures() -> str:
    """Groups of failed jobs, the largest first or as asked for."""
    page = current_page()
    asked = wanted("failures", queries.FAILURE_SORTS, "-jobs")
    with page.database.read() as reader:
        found = reader(
            queries.failures,
            known=page.failures,
            text=asked.text,
            sort=asked.sort,
            descending=asked.descending,
            offset=asked.offset,
            limit=PAGE,
        )
        now = reader.now()
    if found is None:
        return page.render("partial.html", title="Failures", now=now)
    it = Listing(wanted=asked, rows=found.groups, number=found.number, total=found.total)
    return page.render("failures.html", found=found, it=it, now=now, line=charts.spark)


def failure(fingerprint: str) -> str:
    """One group, its newest jobs, and the way to run them again."""
    page = current_page()
    with page.database.read() as reader:
        found = reader(queries.failure, fingerprint, known=page.failures, name="failure")
        newest = reader(queries.get_job, found.group.last_id, name="traceback") if found is not None else None
        now = reader.now()
    if found is None:
        if reader.missing:
            return page.render("partial.html", title="Failures", now=now)
        abort(
            404, "No job among the newest dead letters failed like this: they were run again, deleted, or are too old."
        )
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
