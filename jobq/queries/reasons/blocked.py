"""Why a job cannot start because of its queue's limit, rate or group rule, in one sentence."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from jobq._core.durations import roughly
from jobq._core.text import be, plural
from jobq._postgres.statements import fetch
from jobq.limits import QueueSettings
from jobq.queries.values import COUNT_LIMIT, JobDetail


def gated(conn: Connection[Any], schema: str, job: JobDetail, settings: QueueSettings) -> str | None:
    """Return which of the queue's settings a job waits for; None if it waits for none of them.

    The job is ready or waits for its group. The reasons are checked in the order in which they
    would block the job: first the group, then the queue, then the ready groups before it.
    """
    params = {"queue": job.queue, "group": job.group_key, "id": job.id, "bound": COUNT_LIMIT + 1}
    (facts,) = fetch(conn, schema, "job_blockers", params)
    grouped = job.state == "waiting" and job.group_key is not None
    said = _group(job, settings, facts) if grouped else None
    if said is None:
        said = _queue(job, settings, facts)
    if said is None and grouped:
        said = _turn(facts)
    return said


def _group(job: JobDetail, settings: QueueSettings, facts: dict[str, Any]) -> str | None:
    rule = settings.groups
    of = f"of its group {job.group_key}"
    limit = None if rule is None else rule.limit_of(facts["group_limit"])
    if rule is not None and rule.mode == "ordered":
        if facts["group_held"]:
            return f"It is blocked by job {facts['running_id']} {of}, which is running."
        if rule.retry != "pass" and facts["before"]:
            head = facts["head_id"]
            if facts["head_in"] > 0:
                what = "waits for its retry" if facts["head_claims"] else "is due"
                return f"It is blocked by job {head} {of}, which {what} in {_soon(facts['head_in'])}."
            return f"{_jobs(facts['before'])} {of} {be(facts['before'])} before it, job {head} first."
        if facts["before_due"]:
            return f"{_jobs(facts['before_due'])} {of} {be(facts['before_due'])} before it."
    elif limit is not None and facts["group_held"] >= limit:
        return f"Its group {job.group_key} has {facts['group_held']:,} of {limit:,} running."
    if (wait := facts["group_wait"] or 0.0) > 0:
        return f"The rate {of}, {settings.group_rate}, is used up: the next start is in {_soon(wait)}."
    return None


def _queue(job: JobDetail, settings: QueueSettings, facts: dict[str, Any]) -> str | None:
    if settings.limit is not None and facts["held"] >= settings.limit:
        return f"The limit is full: {facts['held']:,} of {settings.limit:,} are running in queue {job.queue}."
    if (wait := facts["queue_wait"] or 0.0) > 0:
        return f"The rate of queue {job.queue}, {settings.rate}, is used up: the next start is in {_soon(wait)}."
    return None


def _turn(facts: dict[str, Any]) -> str | None:
    if facts["turn_in"] is None:
        if facts["turns_seen"] > COUNT_LIMIT:
            return f"Its group's turn comes: more than {COUNT_LIMIT:,} turns are before it."
        if facts["group_held"]:
            return "Its group's turn comes when one of its running jobs ends."
        return "Its group has no turn in the line, which should not be: a worker gives it one within a minute."
    if facts["turn_in"] > 0:
        return f"Its group's turn comes in {_soon(facts['turn_in'])}."
    if facts["turns_before"]:
        number = facts["turns_before"]
        return f"Its group's turn comes: {plural(number, 'group')} {be(number)} before it."
    return None


def _soon(seconds: float) -> str:
    return roughly(max(seconds, 0.1))


def _jobs(number: int) -> str:
    if number > COUNT_LIMIT:
        return f"More than {COUNT_LIMIT:,} jobs"
    return plural(number, "job")
