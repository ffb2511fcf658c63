"""The whole at a glance."""

from __future__ import annotations

import psycopg

from jobq import diagnostics, queries
from jobq.diagnostics import Finding, Status
from jobq.diagnostics.overview import problems
from jobq.web import charts
from jobq.web.context import current_page
from jobq.web.page import Page
from jobq.web.pages import plots
from jobq.web.routes import Route

_GROUPS = 6


def overview() -> str | tuple[str, int]:
    """How things are in a sentence, in numbers and over time; what fails, and where to look."""
    page = current_page()
    hours = plots.hours()
    found: list[Finding] = []
    try:
        return _overview(page, hours, found)
    except psycopg.ProgrammingError:
        # A table, a column or a function is missing: the page tells of it by what was found, if it got so far.
        if not any(finding.status is Status.FAIL for finding in found):
            raise
        return page.render("partial.html", title="Overview", problems=problems(found)), 503


def _overview(page: Page, hours: int, found: list[Finding]) -> str:
    with page.database.read() as reader:
        snapshot = diagnostics.Snapshot(reader.connection, reader.schema, thorough=False)
        found += list(diagnostics.examine_snapshot(snapshot))
        seen = reader(
            lambda conn, schema: queries.overview(conn, schema, lists=False, counted=snapshot.counted), name="overview"
        )
        series = reader(queries.series, hours=hours, name="charts")
        sparks = reader(queries.sparklines, default={})
        # The same reading as the page of failures has: a group's number must not differ between the two.
        failures = reader(queries.failures, known=page.failures, limit=_GROUPS)
        now = reader.now()
    if seen is None:
        return page.render("partial.html", title="Overview", now=now, problems=problems(found))
    return page.render(
        "overview.html",
        seen=seen,
        now=now,
        problems=problems(found),
        older_failures=seen.counts["failed"],
        series=plots.plot(series),
        hours=hours,
        sparks=sparks,
        failures=failures,
        line=charts.spark,
    )


ROUTES = [Route("/", "GET", overview, needs="view")]
