"""What keeps a job from starting in a queue with a limit, a rate or a rule for its groups, in one sentence."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from jobq.flow import QueueSettings, Rate
from jobq.queries.rows import fetch
from jobq.queries.values import COUNT_LIMIT, JobDetail


def gated(conn: Connection[Any], schema: str, job: JobDetail, settings: QueueSettings) -> str | None:
    """Return what a job, ready or waiting for its group's turn, waits for by the queue's settings; None: for nothing of that.

    The order is that in which it would have to give way: the group first, then the queue, then the line of turns.
    """
    params = {"queue": job.queue, "group": job.group_key, "id": job.id, "bound": COUNT_LIMIT + 1}
    (facts,) = fetch(conn, schema, "job_gate", params)
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
    limit = facts["group_limit"] if rule is not None else None
    if rule is not None and limit is None:
        limit = 1 if rule.mode == "ordered" else rule.limit
    if rule is not None and rule.mode == "ordered":
        if facts["group_held"]:
            return f"It is blocked by job {facts['running_id']} {of}, which is running."
        if rule.retry != "pass" and facts["before"]:
            head = facts["head_id"]
            if facts["head_in"] > 0:
                what = "waits for its retry" if facts["head_claims"] else "is due"
                return f"It is blocked by job {head} {of}, which {what} in {brief_span(facts['head_in'])}."
            return f"{_jobs(facts['before'])} {of} {_are(facts['before'])} before it, job {head} first."
        if facts["before_due"]:
            return f"{_jobs(facts['before_due'])} {of} {_are(facts['before_due'])} before it."
    elif limit is not None and facts["group_held"] >= limit:
        return f"Its group {job.group_key} has {facts['group_held']:,} of {limit:,} running."
    wait = _until(settings.group_rate, facts["group_paid"])
    if wait > 0:
        return f"The rate {of}, {settings.group_rate}, is used up: the next start is in {brief_span(wait)}."
    return None


def _queue(job: JobDetail, settings: QueueSettings, facts: dict[str, Any]) -> str | None:
    if settings.limit is not None and facts["held"] >= settings.limit:
        return f"The limit is full: {facts['held']:,} of {settings.limit:,} are running in queue {job.queue}."
    wait = _until(settings.rate, facts["queue_paid"])
    if wait > 0:
        return f"The rate of queue {job.queue}, {settings.rate}, is used up: the next start is in {brief_span(wait)}."
    return None


def _turn(facts: dict[str, Any]) -> str | None:
    if facts["turn_in"] is None:
        if facts["turns_seen"] > COUNT_LIMIT:
            return f"Its group's turn comes: more than {COUNT_LIMIT:,} turns are before it."
        if facts["group_held"]:
            return "Its group's turn comes when one of its running jobs ends."
        return "Its group has no turn in the line, which should not be: a worker gives it one within a minute."
    if facts["turn_in"] > 0:
        return f"Its group's turn comes in {brief_span(facts['turn_in'])}."
    if facts["turns_before"]:
        number = facts["turns_before"]
        groups = "1 group is" if number == 1 else f"{number:,} groups are"
        return f"Its group's turn comes: {groups} before it."
    return None


def _until(rate: Rate | None, paid: float | None) -> float:
    """Return in how many seconds the next start is paid for, as claim_managed reckons."""
    if rate is None or paid is None:
        return 0.0
    ahead = (rate.burst - 1) * rate.share
    return paid + min(0.05, ahead / 2) - ahead


def _jobs(number: int) -> str:
    if number > COUNT_LIMIT:
        return f"More than {COUNT_LIMIT:,} jobs"
    return "1 job" if number == 1 else f"{number:,} jobs"


def brief_span(seconds: float) -> str:
    """Return a duration for a sentence, to a tenth where it is short."""
    return f"{max(seconds, 0.1):.1f} s" if seconds < 2 else span(seconds)


def span(seconds: float) -> str:
    """Return a duration for a sentence, in its largest unit."""
    seconds = max(seconds, 0)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"
