"""Durable tasks that run in the process of the test: a tester, and what the database has of their steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from jobq import JobQ, JobRef, current_job
from jobq.operations import retry
from jobq.testing import JobqTester


class Durable:
    """An application on a fresh database, whose tasks are made by the test."""

    def __init__(self, tester: JobqTester) -> None:
        self.tester = tester
        self.app = tester.app
        self._made = 0

    def task(self, function: Callable[..., Any], **options: Any) -> Any:
        """Return `function` as a durable task with two attempts and a name of its own."""
        self._made += 1
        name = f"{function.__name__}-{self._made}"
        return self.app.task(**{"durable": True, "max_attempts": 2, "backoff": [0], "name": name, **options})(function)

    def run(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Run a job of `function` to its end, with all its retries and timeouts, and return its result."""
        return self.finish(self.task(function, **options).submit(*args))

    def start(self, function: Callable[..., Any], *args: Any, **options: Any) -> JobRef[Any]:
        """Run a job of `function` until nothing is due, and return it."""
        job: JobRef[Any] = self.task(function, **options).submit(*args)
        self.tester.drain()
        return job

    def finish(self, job: JobRef[Any]) -> Any:
        """Run `job` to its end, and return its result."""
        self.tester.drain(with_scheduled=True)
        return job.result(timeout=0)

    def go_on(self, job: JobRef[Any]) -> Any:
        """Retry `job`, which has failed, run it to its end, and return its result."""
        retry(self.tester.connection, self.app.settings.schema, [job.id], actor="test")
        return self.finish(job)

    def steps(self, job: JobRef[Any]) -> list[tuple[Any, ...]]:
        """Return kind, name, state and arguments of the stored steps, in the order of their places."""
        return self.tester.connection.execute(
            "SELECT kind, name, state, args FROM jobq.job_step WHERE job_id = %s ORDER BY place", (job.id,)
        ).fetchall()

    def errors(self, job: JobRef[Any]) -> list[str]:
        """Return class and text of the errors of the job's attempts."""
        rows = self.tester.connection.execute(
            "SELECT error_type || ': ' || message FROM jobq.job_attempt WHERE job_id = %s ORDER BY claims", (job.id,)
        )
        return [text for (text,) in rows.fetchall()]


@contextmanager
def durable(database_url: str) -> Iterator[Durable]:
    """Yield a `Durable` on this database."""
    q = JobQ(database_url)
    with JobqTester(q, database_url) as tester:
        yield Durable(tester)
    q.close()


def fail_once() -> None:
    """Raise in the first attempt: code after it is reached by a replay."""
    if current_job().attempt == 1:
        raise RuntimeError("the first attempt ends here")
