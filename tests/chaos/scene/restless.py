"""Tasks whose jobs come back at once, and never succeed."""

from __future__ import annotations

from jobq import Backoff, JobQ, Snooze

q = JobQ()


@q.task(max_attempts=100_000, backoff=Backoff(base=0.001, cap=0.002))
def failing() -> None:
    raise RuntimeError("again")


@q.task
def snoozing() -> None:
    raise Snooze(0)
