"""The overview."""

from __future__ import annotations

import psycopg

from jobq import diagnostics, queries
from jobq.diagnostics import Finding, Status
from jobq.diagnostics.overview import problems
from jobq.web.context import current_page
from jobq.web.page import Page
from jobq.web.rendering import charts
from jobq.web.routes import Route
from jobq.web.views import plots

_GROUPS = 6


def overview() -> str | tuple[str, int]:
    """Show the findings, the counts, the charts, and the most frequent failures."""
    page = current_page()
    hours = plots.hours()
    found: list[Finding] = []
    try:
        return _overview(page, hours, found)
    except psycopg.ProgrammingError:
        # A table, a column or a function is missing. If the findings say so, show them.
        if not any(finding.status is Status.FAIL for finding in found):
            raise
        return page.render("unavailable.html", title="Overview", problems=problems(found)), 503


def _overview(page: Page, hours: int, found: list[Finding]) -> str:
    with page.database.read() as reader:
        snapshot = diagnostics.Snapshot(reader.connection, reader.schema, thorough=False)
        found += list(diagnostics.examine_snapshot(snapshot))
        seen = reader(
            lambda conn, schema: queries.overview(conn, schema, lists=False, counted=snapshot.counted), name="overview"
        )
        series = reader(queries.series, hours=hours, name="charts")
        sparks = reader(queries.sparklines, default={})
        # Shared with the page of failures, so that a group's count does not differ between the two.
        failures = reader(queries.failures, known=page.failures, limit=_GROUPS)
        now = reader.now()
    if seen is None:
        return page.render("unavailable.html", title="Overview", now=now, problems=problems(found))
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
