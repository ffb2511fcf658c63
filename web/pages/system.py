"""The database below: what slows claims down, what fills up, and who holds dead rows."""

from __future__ import annotations

from jobq import queries
from jobq.queries import System
from jobq.web import show
from jobq.web.context import current_page
from jobq.web.health import Problem, revision_problem
from jobq.web.routes import Route

# So many transactions back, dead rows begin to cost claims; half of what wraps around is a matter of days.
_OLD_XMIN = 100_000
_CLOCK_SECONDS = 2.0
_FULL = 0.5


def system() -> str:
    """Versions, sizes, vacuum, the horizon and who holds it back, notifications, clocks, chores."""
    page = current_page()
    with page.database.read() as reader:
        found = reader(queries.system)
        now = reader.now()
    if found is None:
        return page.render("partial.html", title="System", now=now)
    return page.render("system.html", it=found, problems=_problems(found), now=now)


def _problems(it: System) -> list[Problem]:
    found = revision_problem(it.revision, it.revision_wanted)
    if it.oldest_xmin_age > _OLD_XMIN:
        text = (
            f"Vacuum cannot remove what the last {it.oldest_xmin_age:,} transactions left behind; the table below says "
            "who holds it back, and claims get slower meanwhile."
        )
        found.append(Problem(level="warn", text=text))
    if it.notify_usage > _FULL:
        text = (
            f"The server's queue of notifications is {it.notify_usage:.0%} full: a session listens and does not read."
        )
        found.append(Problem(level="bad", text=text))
    if it.connections > 0.9 * it.max_connections:
        found.append(Problem(level="warn", text=f"{it.connections} of {it.max_connections} connections are in use."))
    if abs(it.clock_ahead_seconds) > _CLOCK_SECONDS:
        where = "ahead of" if it.clock_ahead_seconds > 0 else "behind"
        text = f"The database's clock is {show.duration(abs(it.clock_ahead_seconds))} {where} this machine's."
        found.append(Problem(level="warn", text=text))
    if it.versions_mixed:
        found.append(
            Problem(
                level="warn", text=f"Workers of several versions are alive: {', '.join(it.versions)}.", page="workers"
            )
        )
    found += [
        Problem(level="warn", text=f"Chore {chore.name} failed: {chore.last_error[:300]}", page="workers")
        for chore in it.chores
        if chore.last_error
    ]
    return found


ROUTES = [Route("/system", "GET", system, needs="view")]
