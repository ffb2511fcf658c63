"""Why a job is not running, or what it does: one sentence. The first obstacle is named."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from psycopg import Connection

from jobq._core.durations import roughly
from jobq._core.text import be, one_line, plural
from jobq._postgres.statements import fetch
from jobq.queries.fleet import workers
from jobq.queries.groups import queue_settings
from jobq.queries.parked import why_parked
from jobq.queries.reasons.blocked import gated
from jobq.queries.reasons.steps import suspended
from jobq.queries.values import COUNT_LIMIT, Attempt, JobDetail, WorkerInfo

# Most characters of an error in a sentence.
_ERROR = 120


def why_waiting(conn: Connection[Any], schema: str, job: JobDetail) -> str | None:
    """Return one sentence on what a live job waits for or does; None for a finished job.

    It describes the time of the call, not the time at which `job` was read. It may quote the
    job's last error.
    """
    match job.state:
        case "ready":
            return _ready(conn, schema, job)
        case "scheduled":
            return _scheduled(conn, schema, job)
        case "running":
            return _running(conn, schema, job)
        case "waiting" if job.group_key is not None:
            return _waiting(conn, schema, job)
        case "parked" if job.parked_at is not None:
            return why_parked(conn, schema, job)
        case "parked" | "waiting":
            return f"It is {job.state}: nothing claims it until it is put back."
        case _:
            return None


def _ready(conn: Connection[Any], schema: str, job: JobDetail) -> str:
    (facts,) = _facts(conn, schema, job)
    if facts["paused_at"] is not None:
        return _paused(job, facts) + "."
    working = _working(conn, schema, job)
    if isinstance(working, str):
        return working
    settings = queue_settings(conn, schema, job.queue)
    if settings.limited and (said := gated(conn, schema, job, settings)) is not None:
        return said
    slots, taken = sum(worker.slots for worker in working), sum(worker.running for worker in working)
    ahead = f"{_ahead(facts['ahead'])} ahead of it" if facts["ahead"] else ""
    if taken >= slots:
        full = _full(working, taken, slots)
        return f"{full}, and {ahead}." if ahead else f"{full}; it is next."
    if ahead:
        return f"{ahead[0].upper()}{ahead[1:]}."
    return "It is being claimed right now."


def _waiting(conn: Connection[Any], schema: str, job: JobDetail) -> str:
    (facts,) = _facts(conn, schema, job)
    if job.run_at > job.read_at:
        due = _due(conn, schema, job) + "; then it is for its group's turn"
        return f"{_but_paused(job, facts, due)}."
    if facts["paused_at"] is not None:
        return _paused(job, facts) + "."
    working = _working(conn, schema, job)
    if isinstance(working, str):
        return working
    settings = queue_settings(conn, schema, job.queue)
    said = gated(conn, schema, job, settings)
    if said is not None:
        return said
    slots, taken = sum(worker.slots for worker in working), sum(worker.running for worker in working)
    if taken >= slots:
        return f"{_full(working, taken, slots)}; its group is next."
    return "It is being claimed right now."


def _full(working: list[WorkerInfo], taken: int, slots: int) -> str:
    return f"All slots of the {plural(len(working), 'worker')} that can run it are taken ({taken} of {slots})"


def _working(conn: Connection[Any], schema: str, job: JobDetail) -> list[WorkerInfo] | str:
    """Return the workers that can run the job, or a sentence on why there are none."""
    alive = [worker for worker in workers(conn, schema) if worker.health != "silent"]
    if not alive:
        return "No worker is alive: start one with `jobq worker`."
    serving = [worker for worker in alive if worker.queues is None or job.queue in worker.queues]
    if not serving:
        if len(alive) == 1:
            return f"The only worker alive does not serve queue {job.queue}."
        return f"None of the {len(alive)} workers alive serves queue {job.queue}."
    knowing = [worker for worker in serving if job.task in worker.tasks]
    if not knowing:
        if len(serving) == 1:
            return f"The only worker serving queue {job.queue} does not know task {job.task}."
        return f"None of the {len(serving)} workers serving queue {job.queue} knows task {job.task}."
    working = [worker for worker in knowing if worker.state == "running"]
    if not working:
        states = " or ".join(sorted({worker.state for worker in knowing}))
        return f"{_all(knowing, states)}, and no other can run it."
    return working


def _scheduled(conn: Connection[Any], schema: str, job: JobDetail) -> str:
    (facts,) = _facts(conn, schema, job)
    return f"{_but_paused(job, facts, _due(conn, schema, job))}."


def _due(conn: Connection[Any], schema: str, job: JobDetail) -> str:
    last = job.attempts[-1] if job.attempts else None
    is_retry = last is not None and last.retry_at is not None and last.claims == job.claims
    if job.claims and not is_retry and (said := suspended(conn, schema, job.id, job.read_at)) is not None:
        return said
    due = f"It is due in {roughly((job.run_at - job.read_at).total_seconds())}"
    if last is not None and is_retry:
        due += f": attempt {last.attempt} of {job.max_attempts} {_end(last)}, and it is tried again then"
    elif job.parked_at is not None:
        due += f": the code of the worker that claimed it could not run it ({one_line(job.parked_reason, _ERROR)})"
    elif job.claims and not job.attempt:
        due += ": it was put off until then, and no attempt has been counted so far"
    elif job.claims:
        due += ": it has run before, and was put off until then"
    else:
        due += ": it was enqueued for then"
    return due


def _but_paused(job: JobDetail, facts: dict[str, Any], due: str) -> str:
    if facts["paused_at"] is not None:
        pause = _paused(job, facts)
        due += f"; but {pause[0].lower()}{pause[1:]}"
    return due


def _running(conn: Connection[Any], schema: str, job: JobDetail) -> str:
    worker = next((worker for worker in workers(conn, schema) if worker.id == job.worker_id), None)
    if worker is None:
        return "Its worker is gone: the job is put back within a minute or two."
    where = f"{worker.host}, process {worker.pid}"
    if worker.health == "silent":
        return f"Its worker ({where}) has not been heard of for {roughly(worker.heartbeat_seconds)}: the job is being put back."
    said = f"It runs on {where}"
    if job.started_at is not None:
        spent = (job.read_at - job.started_at).total_seconds()
        said = f"It has been running for {roughly(spent)} on {where}"
        if job.timeout is not None:
            left = job.timeout - spent
            said += f", and has {roughly(left)} left" if left > 0 else f", and its time was over {roughly(-left)} ago"
    if job.cancel_requested_at is not None:
        ago = roughly((job.read_at - job.cancel_requested_at).total_seconds())
        said += f"; it was asked to stop {ago} ago"
    return said + "."


def _facts(conn: Connection[Any], schema: str, job: JobDetail) -> list[dict[str, Any]]:
    params = {
        "queue": job.queue, "priority": job.priority, "run_at": job.run_at, "id": job.id,
        "bound": COUNT_LIMIT + 1 if job.state == "ready" else 0,
    }  # fmt: skip
    return fetch(conn, schema, "jobs_ahead", params)


def _paused(job: JobDetail, facts: dict[str, Any]) -> str:
    since: datetime = facts["paused_at"]
    said = f"Queue {job.queue} has been paused for {roughly((job.read_at - since).total_seconds())}"
    if facts["paused_by"]:
        said += f" by {facts['paused_by']}"
    return said + (f" ({one_line(facts['pause_reason'], _ERROR)})" if facts["pause_reason"] else "")


def _end(attempt: Attempt) -> str:
    what = {
        "timeout": "ran out of time",
        "crashed": "ended with its process",
        "released": "was interrupted because its process was ended on account of another job",
    }.get(attempt.outcome, "failed")
    text = ": ".join(part for part in (attempt.error_type, one_line(attempt.message, _ERROR)) if part)
    return f"{what} with {text}" if text and what == "failed" else what


def _all(some: list[WorkerInfo], states: str) -> str:
    if len(some) == 1:
        return f"The only worker that serves it is {states} and claims nothing"
    return f"All {len(some)} workers that serve it are {states} and claim nothing"


def _ahead(number: int) -> str:
    if number > COUNT_LIMIT:
        return f"more than {COUNT_LIMIT:,} jobs are"
    return f"{plural(number, 'job')} {be(number)}"
