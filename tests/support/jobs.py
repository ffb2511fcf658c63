"""What the worker tests ask the database."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.rows import dict_row

from tests.support.waiting import wait_until


class Jobs:
    """Looks at one database's jobs through a connection of its own."""

    def __init__(self, url: str) -> None:
        self.connection = psycopg.connect(url, autocommit=True, row_factory=dict_row)

    def close(self) -> None:
        self.connection.close()

    def all(self, query: str, *parameters: Any) -> list[dict[str, Any]]:
        return self.connection.execute(query.encode(), parameters).fetchall()

    def one(self, query: str, *parameters: Any) -> Any:
        """The first column of the only row."""
        (row,) = self.all(query, *parameters)
        return next(iter(row.values()))

    def finished(self, job_id: int) -> dict[str, Any] | None:
        rows = self.all("SELECT * FROM jobq.job_history WHERE id = %s", job_id)
        assert len(rows) <= 1, f"job {job_id} ended {len(rows)} times"
        return rows[0] if rows else None

    def wait(self, job_id: int, *, timeout: float = 30) -> dict[str, Any]:
        """Wait until the job has ended and return its row of history."""
        return wait_until(lambda: self.finished(job_id), timeout=timeout, what=f"the end of job {job_id}") or {}

    def live(self, job_id: int) -> dict[str, Any] | None:
        rows = self.all("SELECT * FROM jobq.job WHERE id = %s", job_id)
        return rows[0] if rows else None

    def attempts(self, job_id: int) -> list[dict[str, Any]]:
        return self.all("SELECT * FROM jobq.job_attempt WHERE job_id = %s ORDER BY claims", job_id)

    def traces(self, job_id: int) -> list[str]:
        return [row["note"] for row in self.all("SELECT note FROM ran WHERE job = %s ORDER BY at", job_id)]
