"""The pages that show."""

from __future__ import annotations

from jobq import queries
from jobq.web import pictures
from jobq.web.context import current_page, filters, number
from jobq.web.health import problems
from jobq.web.routes import Route

_PAGE = 50


def overview() -> str:
    """The whole at a glance."""
    page = current_page()
    with page.database.read() as reader:
        seen = reader(queries.overview)
        now = reader.now()
    if seen is None:
        return page.render("partial.html", title="Overview", now=now)
    return page.render(
        "overview.html",
        seen=seen,
        now=now,
        problems=problems(seen, page.head),
        hour=pictures.hour(seen.throughput),
    )


def queues() -> str:
    """Every queue, with pause and resume."""
    page = current_page()
    with page.database.read() as reader:
        found = reader(queries.queues, default=[])
        now = reader.now()
    return page.render("queues.html", queues=found, now=now)


def jobs() -> str:
    """Jobs by state, queue and task, newest first."""
    page = current_page()
    wanted = filters()
    before = number("before", None)
    with page.database.read() as reader:
        found = reader(queries.search_jobs, **wanted, limit=_PAGE, before_id=before, name="jobs")
        known = reader(queries.queue_names, default=[])
        now = reader.now()
    if found is None:
        return page.render("partial.html", title="Jobs", now=now)
    return page.render(
        "jobs.html", found=found, wanted=wanted, before=before, known=known, now=now, states=queries.STATES
    )


def job(id: int) -> str:
    """One job: what it is, what became of it, and its attempts."""
    page = current_page()
    with page.database.read() as reader:
        found = reader(queries.get_job, id, name="job")
        now = reader.now()
    if found is None:
        return page.render("partial.html", title=f"Job {id}", now=now)
    return page.render("job.html", job=found, now=now, spans=pictures.timeline(found))


def workers() -> str:
    """Workers and the maintenance chores."""
    page = current_page()
    with page.database.read() as reader:
        found = reader(queries.workers, default=[])
        chores = reader(queries.chores, default=[])
        now = reader.now()
    return page.render("workers.html", workers=found, chores=chores, now=now)


def audit() -> str:
    """What operators did."""
    page = current_page()
    before = number("before", None)
    with page.database.read() as reader:
        found = reader(queries.audit_log, limit=_PAGE + 1, before_id=before, default=[])
        now = reader.now()
    more = found[_PAGE - 1].id if len(found) > _PAGE else None
    return page.render("audit.html", entries=found[:_PAGE], more=more, before=before, now=now)


ROUTES = [
    Route("/", "GET", overview, needs="view"),
    Route("/queues", "GET", queues, needs="view"),
    Route("/jobs", "GET", jobs, needs="view"),
    Route("/jobs/<int:id>", "GET", job, needs="view"),
    Route("/workers", "GET", workers, needs="view"),
    Route("/audit", "GET", audit, needs="view"),
]
