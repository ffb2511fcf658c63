"""What operators did."""

from __future__ import annotations

from flask import abort, request

from jobq import queries
from jobq.web.context import current_page, number
from jobq.web.routes import Route

_PAGE = 50
# What may be chosen from; anything may be typed.
_ACTIONS = (
    "retry", "cancel", "run_now", "snooze", "move", "delete", "pause", "resume", "configure", "configure_group",
    "worker_quiet", "worker_stop", "worker_resume",
    "operation_start", "operation_pause", "operation_resume", "operation_cancel", "operation_done", "operation_failed",
    "schedule_set", "schedule_pause", "schedule_resume", "schedule_remove", "schedule_run",
    "user_add", "user_set_role", "user_set_password", "user_remove",
)  # fmt: skip


def audit() -> str:
    """What operators did, newest first."""
    page = current_page()
    before = number("before", None)
    wanted = {name: _text(name) for name in ("actor", "action")}
    with page.database.read() as reader:
        found = reader(queries.audit_log, limit=_PAGE + 1, before_id=before, **wanted, default=[])
        now = reader.now()
    more = found[_PAGE - 1].id if len(found) > _PAGE else None
    return page.render(
        "audit.html", entries=found[:_PAGE], more=more, before=before, now=now, wanted=wanted, actions=_ACTIONS
    )


def _text(name: str) -> str | None:
    value = request.args.get(name, "").strip()
    if "\x00" in value or len(value) > 200:
        abort(400, f"{name}: give at most 200 characters, none of them NUL.")
    return value or None


ROUTES = [Route("/audit", "GET", audit, needs="view")]
