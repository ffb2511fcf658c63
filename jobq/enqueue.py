"""NewJobs to rows: one INSERT on the caller's connection, or one call of ``enqueue_keyed`` when any has a key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from jobq import sql
from jobq.connections import Rows, async_executor, sync_executor
from jobq.errors import InvalidOption, KeyConflict
from jobq.jobs import NewJob, headers_json
from jobq.tasks import Inserted

# Bounds the memory of one statement, here and in the server. A keyed batch is one statement whatever its size: its locks
# are taken in the order of the keys, and a conflict that raises must undo all of it.
_ROWS = 10_000
_BYTES = 32 * 1024 * 1024


def insert(connection: object, schema: str, jobs: Sequence[NewJob]) -> list[Inserted]:
    """Insert `jobs` on `connection`, in its transaction, and tell what became of each, in the order given.

    Raises KeyConflict (and nothing of this call stays inserted), InvalidOption, UnsupportedConnection,
    ConnectionNotUsable and SchemaError.
    """
    if not jobs:
        return []
    executor = sync_executor(connection)
    if _keyed(jobs):
        return _keyed_outcome(jobs, executor.execute(sql.statement("enqueue_keyed", schema), _keyed_columns(jobs)))
    statement = sql.statement("enqueue", schema)
    first, *rest = _chunks(jobs)
    if not rest:
        return _outcome(executor.execute(statement, _columns(first)))
    done: list[Inserted] = []
    with executor.together():
        for chunk in (first, *rest):
            done += _outcome(executor.execute(statement, _columns(chunk)))
    return done


async def insert_async(connection: object, schema: str, jobs: Sequence[NewJob]) -> list[Inserted]:
    """Insert `jobs` on an asynchronous connection, like `insert`."""
    if not jobs:
        return []
    executor = await async_executor(connection)
    if _keyed(jobs):
        rows = await executor.execute(sql.statement("enqueue_keyed", schema), _keyed_columns(jobs))
        return _keyed_outcome(jobs, rows)
    statement = sql.statement("enqueue", schema)
    first, *rest = _chunks(jobs)
    if not rest:
        return _outcome(await executor.execute(statement, _columns(first)))
    done: list[Inserted] = []
    async with executor.together():
        for chunk in (first, *rest):
            done += _outcome(await executor.execute(statement, _columns(chunk)))
    return done


def _keyed(jobs: Sequence[NewJob]) -> bool:
    """Tell whether any job has a key. Raises InvalidOption when their conflicts cannot be settled together."""
    policies = {job.on_conflict for job in jobs if job.key is not None}
    if {"raise", "replace"} <= policies:
        raise InvalidOption(
            "on_conflict='raise' and on_conflict='replace' in one call: a conflict could not undo the replacing; make two calls"
        )
    return bool(policies)


def _chunks(jobs: Sequence[NewJob]) -> Iterator[Sequence[NewJob]]:
    start = size = 0
    for index, job in enumerate(jobs):
        size += len(job.args_json)
        if index > start and (index - start >= _ROWS or size > _BYTES):
            yield jobs[start:index]
            start, size = index, len(job.args_json)
    yield jobs[start:]


def _columns(jobs: Sequence[NewJob]) -> dict[str, list[Any]]:
    return {
        "tasks": [job.task for job in jobs],
        "args": [job.args_json for job in jobs],
        "queues": [job.queue for job in jobs],
        "priorities": [job.priority for job in jobs],
        "run_ats": [job.run_at for job in jobs],
        "delays": [job.delay for job in jobs],
        "max_attempts": [job.max_attempts for job in jobs],
        "timeouts": [job.timeout for job in jobs],
        "headers": [headers_json(job.headers) if job.headers else "{}" for job in jobs],
    }


def _keyed_columns(jobs: Sequence[NewJob]) -> dict[str, list[Any]]:
    return _columns(jobs) | {
        "keys": [job.key for job in jobs],
        "holds": [job.key_holds for job in jobs],
        "periods": [job.key_period for job in jobs],
        "on_conflicts": [job.on_conflict for job in jobs],
    }


def _outcome(rows: Rows) -> list[Inserted]:
    return [Inserted(id=job_id, created=True, replaced=False) for (job_id,) in rows]


def _keyed_outcome(jobs: Sequence[NewJob], rows: Rows) -> list[Inserted]:
    for ord_, job_id, created, _ in rows:
        job = jobs[ord_ - 1]
        if job.on_conflict == "raise" and job.key is not None and not created:
            raise KeyConflict(job.key, job_id)
    return [Inserted(id=job_id, created=created, replaced=replaced) for _, job_id, created, replaced in rows]
