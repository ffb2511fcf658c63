"""Jobs: the list, one job, downloads, and the forms that change single or selected jobs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from flask import Response, abort, redirect, request, url_for
from werkzeug.exceptions import BadRequest
from werkzeug.wrappers import Response as BaseResponse

from jobq import operations, queries
from jobq._core.fingerprint import fingerprint
from jobq.filters import MAX_LENGTH, JobFilter
from jobq.job import STATES
from jobq.web import forms
from jobq.web.context import current_page, filters, int_arg, job_filter, ordering
from jobq.web.database import Reader
from jobq.web.forms import redirect_with_note
from jobq.web.rendering import diffs, formatting, step_table, timeline, workflow_times
from jobq.web.routes import Route

_PAGE = 50
SELECTED_ACTIONS = (("retry", "Retry"), ("cancel", "Cancel"))
BULK_ACTIONS = (
    ("retry", "Retry"), ("cancel", "Cancel"), ("snooze", "Snooze"), ("move", "Move"), ("delete", "Delete"),
)  # fmt: skip
_PARTS = {"args": "Arguments", "result": "Result", "headers": "Headers"}
# The most ids in one form; a bulk operation has no such limit.
_MAX_SELECTED = 500
# The newest of a job: the JSON has more.
_STEPS = 50
MOST_SIGNALS = 100
_CHANGES: dict[str, Callable[..., operations.Changed]] = {
    "retry": operations.retry,
    "run_now": operations.run_now,
    "cancel": operations.cancel,
    "snooze": operations.snooze,
    "move": operations.move,
    "delete": operations.delete,
}
_DONE = {
    "retry": "Retried",
    "run_now": "Made due",
    "cancel": "Cancelled",
    "snooze": "Snoozed",
    "move": "Moved",
    "delete": "Deleted",
}
_DONE_ONE = {
    "retry": "The job is due now.",
    "run_now": "The job is due now.",
    "cancel": "The job is cancelled. If it is running, it is asked to stop.",
    "snooze": "The job is snoozed.",
    "move": "The job is moved.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tab:
    """A tab that narrows the list to one state, and its filter."""

    state: str | None
    q: str
    here: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """Formatted JSON. `cut`: the text is shortened; `size` is that of the whole value."""

    text: str
    cut: bool
    size: str


def jobs() -> str | tuple[str, int] | BaseResponse:
    """List the jobs that match a filter, newest first. A filter that is only an id leads to that
    job.
    """
    page = current_page()
    try:
        selected = job_filter(filters())
    except BadRequest as error:
        # Keep the typed text in the field, next to the error.
        return page.render(
            "jobs_invalid_filter.html", q=request.args.get("q", "")[:MAX_LENGTH], text=error.description or ""
        ), 400
    order, before = ordering()
    typed = request.args.get("q", "").strip()
    with page.database.read() as reader:
        found = reader(queries.search_jobs, selected, limit=_PAGE, before=before, order=order, name="jobs")
        now = reader.now()
    if found is not None and typed.isascii() and typed.isdigit() and [str(row.id) for row in found.rows] == [typed]:
        return redirect(url_for(".job", id=found.rows[0].id), 303)
    q = str(selected)
    if found is None:
        return page.render("unavailable.html", title="Jobs", now=now)
    return page.render(
        "jobs.html",
        found=found,
        q=q,
        before=before,
        order=order,
        by_finish=found.order == "finished",
        finished_only=not selected.reads(live=True) and not selected.ids,
        sortable=found.order == "finished" or order == "id",
        now=now,
        tabs=_tabs(selected),
        may_change=page.may("bulk"),
        selected_actions=SELECTED_ACTIONS,
        bulk_actions=BULK_ACTIONS,
    )


def job(id: int) -> str:
    """Show one job: its data, its outcome, its attempts, and the steps and signals of a durable one."""
    page = current_page()
    with page.database.read() as reader:
        found = reader(queries.get_job, id, name="job")
        why = reader(queries.why_waiting, found) if found is not None else None
        steps, signals, waits = _durable(reader, found)
        now = reader.now()
    if found is None:
        return page.render("unavailable.html", title=f"Job {id}", now=now)
    payloads = [
        (name, title, _payload(page.redact(value, name)))
        for name, title in _PARTS.items()
        if (value := getattr(found, name)) is not None and not (name == "headers" and not value)
    ]
    axis = workflow_times.axis(found, steps.steps[0].started_at if steps.left_out else None)
    return page.render(
        "job.html",
        job=found,
        steps=step_table.step_rows(found, steps.steps, axis, page.redact),
        steps_total=steps.total,
        axis=axis,
        signals=step_table.signal_rows(signals, page.redact),
        most_signals=MOST_SIGNALS,
        awaited=waits.signals,
        suspended=bool(waits.waits),
        now=now,
        why=why,
        timeline=timeline.timeline(found, suspended=bool(waits.waits)),
        diffs=diffs.diffs(found.attempts),
        failure=fingerprint(found.task, found.error) if found.state == "failed" and found.error else None,
        payloads=payloads,
        same_task=str(JobFilter(task=found.task)),
        same_group=str(JobFilter(queue=found.queue, group=found.group_key)) if found.group_key else None,
    )


def _durable(
    reader: Reader, found: queries.JobDetail | None
) -> tuple[queries.JobSteps, list[queries.SignalInfo], queries.JobWaits]:
    """Return the steps of a job, the signals to it, and what it waits for; a job that never ran has no steps."""
    steps, waits = queries.JobSteps(), queries.JobWaits()
    if found is None:
        return steps, [], waits
    if found.claims:
        steps = reader(queries.job_steps, found.id, limit=_STEPS, default=steps)
    if steps.total and found.finished_at is None and found.state != "running":
        waits = reader(queries.job_waits, found.id, default=waits)
    return steps, reader(queries.job_signals, found.id, limit=MOST_SIGNALS, default=[]), waits


def job_part(id: int, part: str) -> Response:
    """Return a job's whole arguments, result or headers as a file."""
    page = current_page()
    if part not in _PARTS:
        abort(404)
    with page.database.read() as reader:
        found = reader.require(queries.get_job, id)
    text = json.dumps(page.redact(getattr(found, part), part), ensure_ascii=False, indent=2)
    # JSON may contain lone surrogates, which UTF-8 cannot encode; they are written as JSON escapes.
    data = text.encode("utf-8", "surrogatepass" if text.isascii() else "backslashreplace")
    return Response(
        data + b"\n",
        mimetype="application/json",
        headers={"Content-Disposition": f'attachment; filename="job-{id}-{part}.json"'},
    )


def jobs_ndjson() -> Response:
    """Export every job that matches a filter, one JSON object per line."""
    page = current_page()
    selected = job_filter(filters())
    before = int_arg("before", None)
    # The export lasts as long as its reader: it has its own connection, and the number of these is
    # limited.
    stream = page.database.stream()
    connection = stream.__enter__()

    def lines() -> Iterator[bytes]:
        try:
            for line in queries.export(
                connection, page.settings.schema, selected, before_id=before, redact=page_redact
            ):
                yield line.encode("utf-8", "backslashreplace")
        finally:
            stream.__exit__(None, None, None)

    page_redact = page.redact
    return Response(
        lines(),
        mimetype="application/x-ndjson",
        headers={"Content-Disposition": 'attachment; filename="jobs.ndjson"'},
    )


def suggest() -> Response:
    """Return completions of a search field: texts that replace its whole content."""
    page = current_page()
    text = request.args.get("q", "")
    cursor = request.args.get("cursor", "")
    if "\x00" in text or len(text) > MAX_LENGTH:
        abort(400, f"q: expected at most {MAX_LENGTH} characters, none of them NUL.")
    at = int(cursor) if cursor.isascii() and cursor.isdigit() and len(cursor) <= 5 else None
    with page.database.read() as reader:
        found = reader(queries.suggest, text, at, default=[])
    return Response(json.dumps({"suggestions": found}), mimetype="application/json")


def _tabs(selected: JobFilter) -> list[Tab]:
    # Parked jobs are rare: this tab appears only if a filter selects them.
    states = (None, *(state for state in STATES if state != "parked" or state in selected.states))
    return [
        Tab(
            state=state,
            q=str(replace(selected, states=() if state is None else (state,))),
            here=selected.states == (() if state is None else (state,)),
        )
        for state in states
    ]


def _payload(value: Any) -> Payload:
    text = formatting.pretty(value)
    whole = json.dumps(value, ensure_ascii=False)
    return Payload(
        text=text, cut="more characters)" in text, size=formatting.size(len(whole.encode("utf-8", "replace")))
    )


def job_retry(id: int) -> BaseResponse:
    """Retry one job."""
    return _one(id, "retry")


def job_run_now(id: int) -> BaseResponse:
    """Make a job due now that waits for a retry or for its start time."""
    return _one(id, "run_now")


def job_cancel(id: int) -> BaseResponse:
    """Cancel one job, or ask it to stop."""
    return _one(id, "cancel")


def job_snooze(id: int) -> BaseResponse:
    """Delay the start of one job."""
    return _one(id, "snooze")


def job_move(id: int) -> BaseResponse:
    """Change the queue or the priority of one job."""
    return _one(id, "move")


def job_delete(id: int) -> BaseResponse:
    """Delete one job and its attempts."""
    return _one(id, "delete")


def jobs_change() -> BaseResponse:
    """Change the selected jobs of the list."""
    page = current_page()
    action = request.form.get("action", "")
    if action not in _CHANGES:
        abort(400, f"action={action[:50]!r}: expected one of {', '.join(_CHANGES)}.")
    page.require(action)
    texts = request.form.getlist("id")
    if len(texts) > _MAX_SELECTED:
        abort(400, f"id: expected at most {_MAX_SELECTED} jobs. Use a filter to change more.")
    ids = [id for text in texts if (id := int_arg("id", None, source={"id": text})) is not None]
    options = forms.options(action)
    where = {name: forms.text(name) for name in ("q", "order", "before")}
    if not ids:
        return redirect_with_note("jobs", "No job was selected. Nothing changed.", **where)
    changed = _change(ids, action, options)
    said = f"{_DONE[action]}: {len(changed.done)}."
    if changed.refused:
        first = min(changed.refused)
        said += f" Refused: {len(changed.refused)} (job {first}: {changed.refused[first]})."
    return redirect_with_note("jobs", said, **where)


def _one(id: int, action: str) -> BaseResponse:
    changed = _change([id], action, forms.options(action))
    if not changed.done:
        return redirect_with_note("job", f"Nothing changed: {changed.refused[id]}.", id=id)
    if action == "delete":
        return redirect_with_note("jobs", f"Job {id} is deleted.")
    return redirect_with_note("job", _DONE_ONE[action], id=id)


def _change(ids: Sequence[int], action: str, options: dict[str, Any]) -> operations.Changed:
    page = current_page()
    change = partial(_CHANGES[action], actor=page.actor(), reason=forms.text("reason"), **options)
    with page.database.write() as conn:
        return change(conn, page.settings.schema, ids)


ROUTES = [
    Route("/jobs", "GET", jobs, needs="view"),
    Route("/jobs/<int:id>", "GET", job, needs="view"),
    Route("/jobs/<int:id>/<any(args, result, headers):part>.json", "GET", job_part, needs="view"),
    Route("/jobs.ndjson", "GET", jobs_ndjson, needs="export"),
    Route("/suggest", "GET", suggest, needs="view"),
    Route("/jobs/<int:id>/retry", "POST", job_retry, needs="retry"),
    Route("/jobs/<int:id>/run-now", "POST", job_run_now, needs="run_now"),
    Route("/jobs/<int:id>/cancel", "POST", job_cancel, needs="cancel"),
    Route("/jobs/<int:id>/snooze", "POST", job_snooze, needs="snooze"),
    Route("/jobs/<int:id>/move", "POST", job_move, needs="move"),
    Route("/jobs/<int:id>/delete", "POST", job_delete, needs="delete"),
    # The view also checks the action's own permission.
    Route("/jobs/change", "POST", jobs_change, needs="bulk"),
]
