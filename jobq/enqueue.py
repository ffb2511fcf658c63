"""NewJobs to rows: one INSERT on the caller's connection, or one call of a function when any has a key."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from jobq import sql
from jobq.connections import Rows, async_executor, sync_executor
from jobq.errors import InvalidOption, KeyConflict
from jobq.jobs import JobOptions, NewJob
from jobq.tasks import Inserted

Parameters: TypeAlias = dict[str, "str | None"]

# Bounds the memory of one statement, here and in the server; with more, both were measured to take longer for each
# job of 1 kB. A keyed batch is one statement whatever its size: its locks are taken in the order of
# the keys, and a conflict that raises must undo all of it.
_ROWS = 5_000
_CHARACTERS = 2 * 1024 * 1024


def insert(connection: object, schema: str, jobs: Sequence[NewJob]) -> list[Inserted]:
    """Insert `jobs` on `connection`, in its transaction, and tell what became of each, in the order given.

    Raises KeyConflict (and nothing of this call stays inserted), InvalidOption, UnsupportedConnection,
    ConnectionNotUsable and SchemaError.
    """
    if not jobs:
        return []
    executor = sync_executor(connection)
    if len(jobs) == 1:
        name, parameters = _one(jobs[0])
        return _outcome(jobs, executor.execute(sql.statement(name, schema), parameters))
    options = _distinct(jobs)
    if _keyed(options):
        return _outcome(jobs, executor.execute(sql.statement("enqueue_keyed", schema), _keyed_columns(jobs)))
    statement, shared = sql.statement("enqueue", schema), _shared(options)
    first, *rest = _chunks(jobs)
    if not rest:
        return _outcome(first, executor.execute(statement, _columns(first, shared)))
    done: list[Inserted] = []
    with executor.together():
        for chunk in (first, *rest):
            done += _outcome(chunk, executor.execute(statement, _columns(chunk, shared)))
    return done


async def insert_async(connection: object, schema: str, jobs: Sequence[NewJob]) -> list[Inserted]:
    """Insert `jobs` on an asynchronous connection, like `insert`."""
    if not jobs:
        return []
    executor = await async_executor(connection)
    if len(jobs) == 1:
        name, parameters = _one(jobs[0])
        return _outcome(jobs, await executor.execute(sql.statement(name, schema), parameters))
    options = _distinct(jobs)
    if _keyed(options):
        return _outcome(jobs, await executor.execute(sql.statement("enqueue_keyed", schema), _keyed_columns(jobs)))
    statement, shared = sql.statement("enqueue", schema), _shared(options)
    first, *rest = _chunks(jobs)
    if not rest:
        return _outcome(first, await executor.execute(statement, _columns(first, shared)))
    done: list[Inserted] = []
    async with executor.together():
        for chunk in (first, *rest):
            done += _outcome(chunk, await executor.execute(statement, _columns(chunk, shared)))
    return done


def _distinct(jobs: Sequence[NewJob]) -> list[JobOptions]:
    """Return the options that occur in `jobs`, each once. Jobs that were made alike share theirs."""
    return list({id(job.options): job.options for job in jobs}.values())


def _keyed(options: Iterable[JobOptions]) -> bool:
    """Tell whether any job has a key. Raises InvalidOption when their conflicts cannot be settled together."""
    policies = {each.on_conflict for each in options if each.key is not None}
    if {"raise", "replace"} <= policies:
        raise InvalidOption(
            "on_conflict='raise' and on_conflict='replace' in one call: a conflict could not undo the replacing; make two calls"
        )
    return bool(policies)


def _chunks(jobs: Sequence[NewJob]) -> Iterator[Sequence[NewJob]]:
    start = size = 0
    for index, job in enumerate(jobs):
        size += len(job.args_json)
        if index > start and (index - start >= _ROWS or size > _CHARACTERS):
            yield jobs[start:index]
            start, size = index, len(job.args_json)
    yield jobs[start:]


def _one(job: NewJob) -> tuple[str, Parameters]:
    """Return the statement that inserts a single job, and its parameters."""
    options = job.options
    parameters = {**options.columns, "args": job.args_json}
    if options.key is None:
        return "enqueue_one", parameters
    return "enqueue_one_keyed", parameters | _key(options)


def _key(options: JobOptions) -> Parameters:
    return {
        "key": options.key,
        "holds": options.key_holds,
        "period": str(options.key_period),
        "on_conflict": options.on_conflict,
    }


def _shared(options: Sequence[JobOptions]) -> Parameters:
    """Return the columns that are the same in all of `options`."""
    return {
        name: value
        for name, value in options[0].columns.items()
        if len(options) == 1 or all(each.columns[name] == value for each in options)
    }


def _columns(jobs: Sequence[NewJob], shared: Parameters) -> Parameters:
    """Return each column as one value when it is `shared`, else as a JSON array with one element a job."""
    found: Parameters = {"args": f"[{','.join([job.args_json for job in jobs])}]"}
    for name in jobs[0].options.columns:
        found[name] = shared.get(name)
        alike = name in shared
        found[f"each_{name}"] = "[]" if alike else json.dumps([job.options.columns[name] for job in jobs])
    return found


def _keyed_columns(jobs: Sequence[NewJob]) -> Parameters:
    rows: list[Mapping[str, str | None]] = [
        {**job.options.columns, **_key(job.options), "args": job.args_json} for job in jobs
    ]
    return {name: _array([row[name] for row in rows]) for name in rows[0]}


def _array(values: Iterable[str | None]) -> str:
    """Return an array as PostgreSQL reads it. A driver finds out the type of each element first, which takes it longer."""
    quoted = ["NULL" if v is None else '"' + v.replace("\\", "\\\\").replace('"', '\\"') + '"' for v in values]
    return f"{{{','.join(quoted)}}}"


def _outcome(jobs: Sequence[NewJob], rows: Rows) -> list[Inserted]:
    """Return what `rows` tell: an id each of jobs without keys; else the id, and what became of which."""
    if len(rows[0]) == 1:
        return [Inserted(job_id, True, False) for (job_id,) in rows]
    for job_id, created, _, ord_ in rows:
        options = jobs[ord_ - 1].options
        if options.on_conflict == "raise" and options.key is not None and not created:
            raise KeyConflict(options.key, job_id)
    return [Inserted(job_id, created, replaced) for job_id, created, replaced, _ in rows]
