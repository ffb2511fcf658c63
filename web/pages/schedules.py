"""Schedules: all of them, and one with its ticks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from flask import abort

from jobq import queries
from jobq.errors import InvalidOption
from jobq.filters import JobFilter
from jobq.queries import ScheduleInfo
from jobq.ticks import zone
from jobq.web.context import current_page, subject
from jobq.web.listing import listing, wanted
from jobq.web.routes import Route

# Schedules that a list looks through.
_MOST = 5_000
_SORTS: dict[str, Callable[[ScheduleInfo], Any]] = {
    "schedule": lambda info: info.name.casefold(),
    "next": lambda info: info.next_at if info.status == "ticking" else None,
    "last": lambda info: info.last_tick,
    "status": lambda info: info.status,
}


def schedules() -> str:
    """The schedules by name: what ticks when, and what does not."""
    page = current_page()
    asked = wanted("schedules", _SORTS, "schedule")
    with page.database.read() as reader:
        found = reader(queries.schedules, limit=_MOST, preview=0, default=[])
        now = reader.now()
    it = listing(asked, found, _texts, _SORTS)
    return page.render(
        "schedules.html",
        it=it,
        # Computed for the rows that are shown only.
        following={info.name: queries.next_ticks(info, now, 1) for info in it.rows},
        bound=_MOST if len(found) == _MOST else None,
        now=now,
        clock=clock,
        says=says,
    )


def _texts(info: ScheduleInfo) -> tuple[str, ...]:
    return info.name, info.task, info.queue, info.status, info.words, info.cron or "", info.app or ""


def schedule() -> str:
    """One schedule: its next ticks, and the outcomes of the last ones."""
    return _schedule(subject())


def schedule_at(name: str) -> str:
    """The same at an address that a person would type; links use the other, which takes every name as it is."""
    return _schedule(name)


def _schedule(name: str) -> str:
    page = current_page()
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
    # Browsers make another path of a name such as `..`; in a query it stays as it is.
    Route("/schedule", "GET", schedule, needs="view"),
    Route("/schedules/<path:name>", "GET", schedule_at, needs="view"),
]
