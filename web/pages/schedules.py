"""Schedules: all of them, and one with its ticks."""

from __future__ import annotations

from datetime import datetime

from flask import abort, request

from jobq import queries
from jobq.errors import InvalidOption
from jobq.filters import JobFilter
from jobq.queries import ScheduleInfo
from jobq.ticks import zone
from jobq.web.context import current_page
from jobq.web.routes import Route

# Each with its next ticks, which are computed anew for every look.
_PAGE = 100


def schedules() -> str:
    """The schedules by name: what ticks when, and what does not."""
    page = current_page()
    after = request.args.get("after") or None
    if after is not None and ("\x00" in after or len(after) > 200):
        abort(400, "after: give at most 200 characters, none of them NUL.")
    with page.database.read() as reader:
        found = reader(queries.schedules, after=after, limit=_PAGE + 1, preview=2, default=[])
        now = reader.now()
    more = found[_PAGE - 1].name if len(found) > _PAGE else None
    return page.render(
        "schedules.html", schedules=found[:_PAGE], more=more, after=after, now=now, clock=clock, says=says
    )


def schedule(name: str) -> str:
    """One schedule: its next ticks, and what became of the last ones."""
    page = current_page()
    if "\x00" in name:
        abort(404)
    with page.database.read() as reader:
        found = reader(queries.schedule, name)
        ticks = reader(queries.schedule_ticks, name, default=[])
        now = reader.now()
    if found is None:
        abort(404, "There is no schedule of this name.")
    return page.render(
        "schedule.html",
        it=found,
        ticks=ticks,
        now=now,
        clock=clock,
        says=says,
        task_q=str(JobFilter(task=found.task)),
    )


def clock(info: ScheduleInfo, tick: datetime, *, brief: bool = False) -> str:
    """Return a tick by the clock of the schedule's zone. Unless `brief` with what that is of UTC, for a time may come twice."""
    try:
        there = tick.astimezone(zone(info.timezone))
    except InvalidOption:
        there = tick
    if brief:
        return there.strftime("%a %d %b, %H:%M" + (":%S" if there.second else ""))
    return there.strftime("%a %d %b %Y, %H:%M" + (":%S" if there.second else "") + " (%z)")


_SAYS = {
    "withdrawn": "Its application no longer declares it.",
    "undeclared": "No live worker declares it: it goes on when one starts, and makes up for what it missed.",
    "late": "It is due, and no worker has looked at it.",
}


def says(info: ScheduleInfo) -> str:
    """Return why a schedule does not tick, in a sentence; '' where it does, or is paused."""
    return info.last_error or "" if info.status == "broken" else _SAYS.get(info.status, "")


ROUTES = [
    Route("/schedules", "GET", schedules, needs="view"),
    # A schedule's name may have slashes in it.
    Route("/schedules/<path:name>", "GET", schedule, needs="view"),
]
