"""One job, live or finished."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from jobq.errors import JobNotFound
from jobq.filters import MAX_ID
from jobq.queries.rows import fetch, with_json
from jobq.queries.values import Attempt, JobDetail


def get_job(conn: Connection[Any], schema: str, id: int) -> JobDetail:
    """Return the job with its attempts, wherever it is. Raises JobNotFound, also for one that retention has
    dropped.
    """
    rows = fetch(conn, schema, "job_detail", {"id": id}) if 0 <= id <= MAX_ID else []
    if not rows:
        raise JobNotFound(f"job {id}: there is none with this id, neither live nor in the history still kept")
    attempts = fetch(conn, schema, "job_attempts", {"id": id})
    return JobDetail(**with_json(rows[0]), attempts=[Attempt(**row) for row in reversed(attempts)])
