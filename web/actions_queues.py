"""The forms that change queues: pause, limits, rates and rules for groups. Each goes back to where it came from."""

from __future__ import annotations

from collections.abc import Callable

from flask import request
from werkzeug.wrappers import Response

from jobq import operations
from jobq.flow import Rate
from jobq.web import fields
from jobq.web.actions import back
from jobq.web.context import current_page, named
from jobq.web.routes import Route


def queue_pause() -> Response:
    """Pause a queue."""
    return _set_pause(operations.pause, "is paused", "was paused already")


def queue_resume() -> Response:
    """Let a queue go on."""
    return _set_pause(operations.resume, "goes on", "was not paused")


def queue_set() -> Response:
    """Set a queue's limit, rates and rule for its groups, all that the form shows: an empty field clears."""
    page = current_page()
    queue = named("queue")
    with page.database.write() as conn:
        change = operations.configure(
            conn,
            page.settings.schema,
            queue,
            actor=page.actor(),
            reason=fields.text("reason"),
            limit=fields.whole("limit"),
            rate=_rate("rate", "burst"),
            groups=fields.text("groups"),
            group_rate=_rate("group_rate", "group_burst"),
        )
    said = change.after.describe()
    return back("queue", said if change.changed else f"Nothing changed. {said}", name=queue)


def queue_set_group() -> Response:
    """Set or clear the limit of one group."""
    page = current_page()
    queue, group, limit = named("queue"), request.form.get("group", "").strip(), fields.whole("limit")
    with page.database.write() as conn:
        changed = operations.configure_group(
            conn, page.settings.schema, queue, group, limit=limit, actor=page.actor(), reason=fields.text("reason")
        )
    what = "has no limit of its own any more" if limit is None else f"runs at most {limit:,} at a time"
    return back("queue", f"Group {group} {what}." if changed else "Nothing changed: it was so before.", name=queue)


def _rate(name: str, burst_name: str) -> Rate | None:
    text, burst = fields.text(name), fields.whole(burst_name)
    # The browser leaves the burst where it was when only the rate is emptied.
    return None if text is None else Rate.parse(text, burst=1 if burst is None else burst, name=name)


def _set_pause(change: Callable[..., bool], done: str, not_done: str) -> Response:
    page = current_page()
    queue = named("queue")
    with page.database.write() as conn:
        changed = change(conn, page.settings.schema, queue, actor=page.actor(), reason=fields.text("reason"))
    return back("queues", f"Queue {queue} {done if changed else not_done}.")


ROUTES = [
    Route("/queues/pause", "POST", queue_pause, needs="pause"),
    Route("/queues/resume", "POST", queue_resume, needs="pause"),
    Route("/queues/set", "POST", queue_set, needs="configure"),
    Route("/queues/set-group", "POST", queue_set_group, needs="configure"),
]
