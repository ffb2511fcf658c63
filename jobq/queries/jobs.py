"""Jobs: the list, the search and the one job. Live jobs and history are seen as one."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from jobq.errors import InvalidOption, JobNotFound
from jobq.filters import HISTORY_STATES, STATES
from jobq.queries.rows import MAX_ID, fetch, with_json
from jobq.queries.values import Attempt, JobDetail, JobPage, JobRow

# Ids looked at by one statement when a filter has no index, and by one search.
_WINDOW = 20_000
_SEARCH = 200_000
_MAX_LIMIT = 1000


def list_jobs(
    conn: Connection[Any],
    schema: str,
    *,
    state: str | None = None,
    queue: str | None = None,
    task: str | None = None,
    limit: int = 50,
    before_id: int | None = None,
) -> list[JobRow]:
    """Return up to `limit` (at most 1,000) jobs with an id below `before_id`, newest first, searching as far
    as it takes.

    `state` is one of STATES; ``scheduled`` is ready with a `run_at` in the future, and ``ready`` means due.
    Raises InvalidOption for another state or a limit out of range.
    """
    rows: list[JobRow] = []
    cursor = before_id
    while True:
        page = search_jobs(conn, schema, state=state, queue=queue, task=task, limit=limit - len(rows), before_id=cursor)
        rows += page.rows
        cursor = page.before_id
        if cursor is None or len(rows) >= limit:
            return rows


def search_jobs(
    conn: Connection[Any],
    schema: str,
    *,
    state: str | None = None,
    queue: str | None = None,
    task: str | None = None,
    limit: int = 50,
    before_id: int | None = None,
) -> JobPage:
    """Like :func:`list_jobs`, but look at no more than 200,000 ids, and say where to go on."""
    if state is not None and state not in STATES:
        raise InvalidOption(f"state={state!r}: give one of {', '.join(STATES)}")
    if not 1 <= limit <= _MAX_LIMIT:
        raise InvalidOption(f"limit={limit!r}: give a number between 1 and {_MAX_LIMIT}")
    before = MAX_ID if before_id is None else before_id
    params: dict[str, Any] = {"state": state, "queue": queue, "task": task}
    name = _statement(state)
    indexed = queue is None and task is None and (state in HISTORY_STATES or state is None)
    if indexed or state == "running":
        # One more than asked tells whether anything is left.
        found = fetch(conn, schema, name, params | {"floor": 0, "before": before, "limit": limit + 1})
        rows = [JobRow(**with_json(row)) for row in found[:limit]]
        return JobPage(rows=rows, before_id=rows[-1].id if len(found) > limit else None, complete=True)

    rows = []
    looked_at = 0
    while looked_at < _SEARCH:
        # A gap in the ids must not be walked through window by window.
        top = fetch(conn, schema, "jobs_below", {"before": before})[0]["id"]
        if top is None:
            return JobPage(rows=rows, before_id=None, complete=True)
        before, floor = top + 1, max(top + 1 - _WINDOW, 0)
        window = params | {"floor": floor, "before": before, "limit": limit - len(rows) + 1}
        found = fetch(conn, schema, name, window)
        if len(rows) + len(found) > limit:
            rows += [JobRow(**with_json(row)) for row in found[:-1]]
            return JobPage(rows=rows, before_id=rows[-1].id, complete=True)
        rows += [JobRow(**with_json(row)) for row in found]
        before = floor
        looked_at += _WINDOW
    return JobPage(rows=rows, before_id=before, complete=len(rows) >= limit)


def get_job(conn: Connection[Any], schema: str, id: int) -> JobDetail:
    """Return the job with its attempts, wherever it is. Raises JobNotFound, also for one that retention has
    dropped.
    """
    rows = fetch(conn, schema, "job_detail", {"id": id}) if 0 <= id <= MAX_ID else []
    if not rows:
        raise JobNotFound(f"job {id}: there is none with this id, neither live nor in the history still kept")
    attempts = fetch(conn, schema, "job_attempts", {"id": id})
    return JobDetail(**with_json(rows[0]), attempts=[Attempt(**row) for row in reversed(attempts)])


def _statement(state: str | None) -> str:
    if state is None:
        return "jobs_all"
    if state in HISTORY_STATES:
        return "jobs_finished"
    return "jobs_running" if state == "running" else "jobs_live"
