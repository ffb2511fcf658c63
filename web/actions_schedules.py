"""The forms that change schedules. Each goes back to where it came from."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from flask import abort, request
from werkzeug.wrappers import Response

from jobq import operations
from jobq.schedules import MISSED, Schedule
from jobq.ticks import LONGEST_INTERVAL, NeverAgain, when
from jobq.web import fields
from jobq.web.actions import back
from jobq.web.context import current_page
from jobq.web.routes import Route


def schedule_pause() -> Response:
    """Let a schedule tick no more."""
    return _set_pause(operations.pause_schedule, "is paused", "was paused already")


def schedule_resume() -> Response:
    """Let a schedule go on."""
    return _set_pause(operations.resume_schedule, "goes on", "was not paused")


def schedule_remove() -> Response:
    """Remove a schedule that was made at run time, or is no longer declared."""
    name, values = _asked()
    page = current_page()
    with page.database.write() as conn:
        operations.remove_schedule(conn, page.settings.schema, name, **values)
    return back("schedules", f"Schedule {name} is removed; the jobs that it has inserted stay.")


def schedule_run() -> Response:
    """Insert one job of a schedule now."""
    name, values = _asked()
    page = current_page()
    with page.database.write() as conn:
        job = operations.run_schedule(conn, page.settings.schema, name, **values)
    return back("job", f"This job of schedule {name} is inserted; the schedule goes on as before.", id=job)


def schedule_add() -> Response:
    """Make a schedule at run time."""
    page = current_page()
    name, values = _asked()
    missed = request.form.get("missed", "last")
    if missed not in MISSED:
        abort(400, f"missed={missed[:50]!r}: give one of {', '.join(MISSED)}.")
    every = fields.seconds("every")
    if every is not None and every > LONGEST_INTERVAL.total_seconds():
        abort(400, "every: give at most 100 years.")
    rule = when(fields.text("cron"), None if every is None else timedelta(seconds=every), fields.text("timezone"))
    given: dict[str, Any] = {"queue": fields.text("queue"), "priority": fields.whole("priority")}
    made = Schedule(
        name=name,
        task=fields.text("task") or "",
        when=rule,
        args=_arguments(),
        missed=missed,  # type: ignore[arg-type]  # it was looked at above
        tick_argument=fields.text("tick_argument"),
        **{name: value for name, value in given.items() if value is not None},
    )
    try:
        with page.database.write() as conn:
            operations.set_schedule(conn, page.settings.schema, made, **values)
    except NeverAgain:
        abort(400, "It never ticks again.")
    return back("schedules", f"Schedule {name} is added: {rule.words()}.")


def _arguments() -> dict[str, Any]:
    text = fields.text("args")
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        abort(400, 'args: give a JSON object by parameter name, such as {"customer": 42}.')
    return found


def _asked() -> tuple[str, dict[str, Any]]:
    # The name is as it is in the address of a form of ours; if a user typed it, white space around it is removed.
    name = request.args.get("schedule") or fields.text("schedule") or ""
    return name, {"actor": current_page().actor(), "reason": fields.text("reason")}


def _set_pause(change: Callable[..., bool], done: str, not_done: str) -> Response:
    page = current_page()
    name, values = _asked()
    with page.database.write() as conn:
        changed = change(conn, page.settings.schema, name, **values)
    return back("schedules", f"Schedule {name} {done if changed else not_done}.")


ROUTES = [
    Route("/schedules/pause", "POST", schedule_pause, needs="schedule"),
    Route("/schedules/resume", "POST", schedule_resume, needs="schedule"),
    Route("/schedules/remove", "POST", schedule_remove, needs="schedule"),
    Route("/schedules/run", "POST", schedule_run, needs="schedule"),
    Route("/schedules/add", "POST", schedule_add, needs="schedule_add"),
]
