"""Schedules: the list, one schedule with its ticks, and the forms that change schedules."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from flask import abort, request
from werkzeug.wrappers import Response

from jobq import operations, queries
from jobq.cron import LONGEST_INTERVAL, NoNextRun, when, zone
from jobq.errors import InvalidOption
from jobq.filters import JobFilter
from jobq.queries import ScheduleInfo
from jobq.schedule import MISSED, Schedule
from jobq.web import forms
from jobq.web.context import current_page, name_from_address
from jobq.web.forms import redirect_with_note
from jobq.web.listing import list_page, list_query
from jobq.web.routes import Route

# The most schedules that the list reads.
_MAX_LISTED = 5_000
_SORTS: dict[str, Callable[[ScheduleInfo], Any]] = {
    "schedule": lambda info: info.name.casefold(),
    "next": lambda info: info.next_at if info.status == "ticking" else None,
    "last": lambda info: info.last_tick,
    "status": lambda info: info.status,
}


def schedules() -> str:
    """List the schedules: when each ticks next, or why it does not."""
    page = current_page()
    asked = list_query("schedules", _SORTS, "schedule")
    with page.database.read() as reader:
        found = reader(queries.schedules, limit=_MAX_LISTED, preview=0, default=[])
        now = reader.now()
    it = list_page(asked, found, _texts, _SORTS)
    return page.render(
        "schedules.html",
        it=it,
        # Computed only for the rows that are shown.
        following={info.name: queries.next_ticks(info, now, 1) for info in it.rows},
        bound=_MAX_LISTED if len(found) == _MAX_LISTED else None,
        now=now,
        clock=clock,
        status_text=status_text,
    )


def _texts(info: ScheduleInfo) -> tuple[str, ...]:
    return info.name, info.task, info.queue, info.status, info.description, info.cron or "", info.app or ""


def schedule() -> str:
    """Show one schedule: its next ticks, and the jobs of its last ticks."""
    return _schedule(name_from_address())


def schedule_at(name: str) -> str:
    """Show one schedule at an address that a person would type. Links use `schedule`, which
    supports every name.
    """
    return _schedule(name)


def _schedule(name: str) -> str:
    page = current_page()
    with page.database.read() as reader:
        found = reader(queries.schedule, name)
        ticks = reader(queries.schedule_ticks, name, default=[])
        now = reader.now()
    if found is None:
        abort(404, "No schedule has this name.")
    return page.render(
        "schedule.html",
        it=found,
        ticks=ticks,
        now=now,
        clock=clock,
        status_text=status_text,
        task_q=str(JobFilter(task=found.task)),
    )


def clock(info: ScheduleInfo, tick: datetime, *, brief: bool = False) -> str:
    """Return the local time of a tick in the schedule's zone, with the UTC offset unless `brief`: a
    local time may occur twice.
    """
    try:
        there = tick.astimezone(zone(info.timezone))
    except InvalidOption:
        there = tick
    if brief:
        return there.strftime("%a %d %b, %H:%M" + (":%S" if there.second else ""))
    return there.strftime("%a %d %b %Y, %H:%M" + (":%S" if there.second else "") + " (%z)")


_STATUS_TEXTS = {
    "withdrawn": "Its application no longer declares it.",
    "undeclared": "No live worker declares it. When one starts, the schedule resumes and catches up on missed ticks.",
    "late": "It is due, but no worker has processed it.",
}


def status_text(info: ScheduleInfo) -> str:
    """Return why a schedule does not tick, in a sentence; '' if it does, or if it is paused."""
    return info.last_error or "" if info.status == "broken" else _STATUS_TEXTS.get(info.status, "")


def schedule_pause() -> Response:
    """Pause a schedule."""
    return _set_pause(operations.pause_schedule, "is paused", "was already paused")


def schedule_resume() -> Response:
    """Resume a schedule."""
    return _set_pause(operations.resume_schedule, "is resumed", "was not paused")


def schedule_remove() -> Response:
    """Remove a schedule that was added at run time, or that no application declares any more."""
    name, values = _asked()
    page = current_page()
    with page.database.write() as conn:
        operations.remove_schedule(conn, page.settings.schema, name, **values)
    return redirect_with_note("schedules", f"Schedule {name} is removed. Its jobs stay.")


def schedule_run() -> Response:
    """Insert one job of a schedule now."""
    name, values = _asked()
    page = current_page()
    with page.database.write() as conn:
        job = operations.run_schedule(conn, page.settings.schema, name, **values)
    return redirect_with_note(
        "job", f"This job of schedule {name} is inserted. The schedule itself is unchanged.", id=job
    )


def schedule_add() -> Response:
    """Add a schedule at run time."""
    page = current_page()
    name, values = _asked()
    missed = request.form.get("missed", "last")
    if missed not in MISSED:
        abort(400, f"missed={missed[:50]!r}: expected one of {', '.join(MISSED)}.")
    every = forms.seconds("every")
    if every is not None and every > LONGEST_INTERVAL.total_seconds():
        abort(400, "every: expected at most 100 years.")
    rule = when(forms.text("cron"), None if every is None else timedelta(seconds=every), forms.text("timezone"))
    given: dict[str, Any] = {
        "queue": forms.text("queue"),
        "priority": forms.whole("priority"),
        "group": forms.text("group"),
        "key": forms.text("key"),
        "expires_in": forms.seconds("expires_in"),
    }
    made = Schedule(
        name=name,
        task=forms.text("task") or "",
        when=rule,
        args=_object("args", '{"customer": 42}'),
        headers=_object("headers", '{"tags": ["nightly"]}'),
        missed=missed,  # type: ignore[arg-type]  # checked above
        tick_argument=forms.text("tick_argument"),
        **{name: value for name, value in given.items() if value is not None},
    )
    try:
        with page.database.write() as conn:
            operations.set_schedule(conn, page.settings.schema, made, **values)
    except NoNextRun:
        abort(400, "cron, every: the schedule would never tick again.")
    return redirect_with_note("schedules", f"Schedule {name} is added: {rule.describe()}.")


def _object(name: str, example: str) -> dict[str, Any]:
    text = forms.text(name)
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        abort(400, f"{name}: expected a JSON object, such as {example}.")
    return found


def _asked() -> tuple[str, dict[str, Any]]:
    # Our forms send the name in the address, unchanged. If a user typed it, surrounding white space
    # is removed.
    name = request.args.get("schedule") or forms.text("schedule") or ""
    return name, {"actor": current_page().actor(), "reason": forms.text("reason")}


def _set_pause(change: Callable[..., bool], done: str, not_done: str) -> Response:
    page = current_page()
    name, values = _asked()
    with page.database.write() as conn:
        changed = change(conn, page.settings.schema, name, **values)
    return redirect_with_note("schedules", f"Schedule {name} {done if changed else not_done}.")


ROUTES = [
    Route("/schedules", "GET", schedules, needs="view"),
    # Browsers make another path of a name such as `..`; in a query it stays as it is.
    Route("/schedule", "GET", schedule, needs="view"),
    Route("/schedules/<path:name>", "GET", schedule_at, needs="view"),
    Route("/schedules/pause", "POST", schedule_pause, needs="schedule"),
    Route("/schedules/resume", "POST", schedule_resume, needs="schedule"),
    Route("/schedules/remove", "POST", schedule_remove, needs="schedule"),
    Route("/schedules/run", "POST", schedule_run, needs="schedule"),
    Route("/schedules/add", "POST", schedule_add, needs="schedule_add"),
]
