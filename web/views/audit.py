"""The audit: what operators changed."""

from __future__ import annotations

from jobq import queries
from jobq.web.context import current_page, int_arg, text_arg
from jobq.web.routes import Route

_PAGE = 50
# Suggestions for the filter, which accepts any text.
_ACTIONS = (
    "retry", "cancel", "run_now", "snooze", "move", "delete", "send_signal", "pause", "resume", "configure", "configure_group",
    "worker_quiet", "worker_stop", "worker_resume",
    "operation_start", "operation_pause", "operation_resume", "operation_cancel", "operation_done", "operation_failed",
    "schedule_set", "schedule_pause", "schedule_resume", "schedule_remove", "schedule_run",
    "cancel_workflow", "retry_workflow", "undo_workflow",
    "user_add", "user_set_role", "user_set_password", "user_remove",
)  # fmt: skip


def audit() -> str:
    """List the audit, newest first."""
    page = current_page()
    before = int_arg("before", None)
    wanted = {name: text_arg(name) for name in ("actor", "action")}
    with page.database.read() as reader:
        found = reader(queries.audit_log, limit=_PAGE + 1, before_id=before, **wanted, default=[])
        now = reader.now()
    more = found[_PAGE - 1].id if len(found) > _PAGE else None
    return page.render(
        "audit.html", entries=found[:_PAGE], more=more, before=before, now=now, wanted=wanted, actions=_ACTIONS
    )


ROUTES = [Route("/audit", "GET", audit, needs="view")]
