"""Jobs: the list, one of them, and what is read from them as files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from flask import Response, abort, redirect, request, url_for
from werkzeug.exceptions import BadRequest
from werkzeug.wrappers import Response as BaseResponse

from jobq import queries
from jobq.failures import fingerprint
from jobq.filters import MAX_LENGTH, STATES, JobFilter
from jobq.web import diffs, show, timeline
from jobq.web.context import current_page, filters, job_filter, number, ordering
from jobq.web.routes import Route

_PAGE = 50
TICKED_ACTIONS = (("retry", "Retry"), ("cancel", "Cancel"))
BULK_ACTIONS = (
    ("retry", "Retry"), ("cancel", "Cancel"), ("snooze", "Snooze"), ("move", "Move"), ("delete", "Delete for good"),
)  # fmt: skip
_PARTS = {"args": "Arguments", "result": "Result", "headers": "Headers"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tab:
    """A state to narrow the list to, and the filter that does it."""

    state: str | None
    q: str
    here: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """JSON as it is shown. `cut`: not the whole; `size` is the whole's."""

    text: str
    cut: bool
    size: str


def jobs() -> str | tuple[str, int] | BaseResponse:
    """Jobs that fit a filter, newest first; or the job itself where only its id was typed."""
    page = current_page()
    try:
        selected = job_filter(filters())
    except BadRequest as error:
        # What was typed stays in the field, beside what is wrong with it.
        return page.render("jobs_bad.html", q=request.args.get("q", "")[:MAX_LENGTH], text=error.description or ""), 400
    order, before = ordering()
    typed = request.args.get("q", "").strip()
    with page.database.read() as reader:
        found = reader(queries.search_jobs, selected, limit=_PAGE, before=before, order=order, name="jobs")
        now = reader.now()
    if found is not None and typed.isascii() and typed.isdigit() and [str(row.id) for row in found.rows] == [typed]:
        return redirect(url_for(".job", id=found.rows[0].id), 303)
    q = str(selected)
    if found is None:
        return page.render("partial.html", title="Jobs", now=now)
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
        ticked_actions=TICKED_ACTIONS,
        bulk_actions=BULK_ACTIONS,
    )


def job(id: int) -> str:
    """One job: what it is, its outcome, and its attempts."""
    page = current_page()
    with page.database.read() as reader:
        found = reader(queries.get_job, id, name="job")
        why = reader(queries.why_waiting, found) if found is not None else None
        now = reader.now()
    if found is None:
        return page.render("partial.html", title=f"Job {id}", now=now)
    payloads = [
        (name, title, _payload(page.redact(value, name)))
        for name, title in _PARTS.items()
        if (value := getattr(found, name)) is not None and not (name == "headers" and not value)
    ]
    return page.render(
        "job.html",
        job=found,
        now=now,
        why=why,
        life=timeline.life(found),
        diffs=diffs.diffs(found.attempts),
        failure=fingerprint(found.task, found.error) if found.state == "failed" and found.error else None,
        payloads=payloads,
        same_task=str(JobFilter(task=found.task)),
        same_group=str(JobFilter(queue=found.queue, group=found.group_key)) if found.group_key else None,
    )


def job_part(id: int, part: str) -> Response:
    """The whole of a job's arguments, result or headers, as a file."""
    page = current_page()
    if part not in _PARTS:
        abort(404)
    with page.database.read() as reader:
        found = reader.need(queries.get_job, id)
    text = json.dumps(page.redact(getattr(found, part), part), ensure_ascii=False, indent=2)
    # A lone surrogate, which JSON may hold and UTF-8 not, is written as JSON escapes it.
    data = text.encode("utf-8", "surrogatepass" if text.isascii() else "backslashreplace")
    return Response(
        data + b"\n",
        mimetype="application/json",
        headers={"Content-Disposition": f'attachment; filename="job-{id}-{part}.json"'},
    )


def jobs_ndjson() -> Response:
    """Every job that fits a filter, a line each, as far as the tables go."""
    page = current_page()
    selected = job_filter(filters())
    before = number("before", None)
    # Its connection is open for as long as the reader takes: it has one of its own, and few may have one.
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
    """What may be typed next into a search field: texts that could replace it whole."""
    page = current_page()
    text = request.args.get("q", "")
    cursor = request.args.get("cursor", "")
    if "\x00" in text or len(text) > MAX_LENGTH:
        abort(400, f"q: give at most {MAX_LENGTH} characters, none of them NUL.")
    at = int(cursor) if cursor.isascii() and cursor.isdigit() and len(cursor) <= 5 else None
    with page.database.read() as reader:
        found = reader(queries.suggest, text, at, default=[])
    return Response(json.dumps({"suggestions": found}), mimetype="application/json")


def _tabs(selected: JobFilter) -> list[Tab]:
    # There are seldom any: the overview links to them, and a filter shows them.
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
    text = show.pretty(value)
    whole = json.dumps(value, ensure_ascii=False)
    return Payload(text=text, cut="more characters)" in text, size=show.size(len(whole.encode("utf-8", "replace"))))


ROUTES = [
    Route("/jobs", "GET", jobs, needs="view"),
    Route("/jobs/<int:id>", "GET", job, needs="view"),
    Route("/jobs/<int:id>/<any(args, result, headers):part>.json", "GET", job_part, needs="view"),
    Route("/jobs.ndjson", "GET", jobs_ndjson, needs="export"),
    Route("/suggest", "GET", suggest, needs="view"),
]
