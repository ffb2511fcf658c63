"""Insert NewJobs with one INSERT on the caller's connection, or one function call with keys."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from jobq._core.json_text import ascii_only
from jobq._postgres import sql
from jobq._postgres.adapters import (
    AsyncExecutor,
    Executor,
    Rows,
    async_executor,
    check_kind,
    check_kind_async,
    sync_executor,
)
from jobq._postgres.server_errors import not_encodable
from jobq.errors import InvalidOption, KeyConflict
from jobq.job import InsertResult, JobOptions, NewJob

Parameters: TypeAlias = dict[str, "str | None"]
Make: TypeAlias = Callable[[Sequence[NewJob]], Parameters]

# Bounds the memory of one statement, here and in the server. Larger batches were measured to take
# longer for each job of 1 kB. A keyed batch is one statement of any size: its locks are taken in
# the order of the keys, and a conflict that raises must undo all of it.
_ROWS = 5_000
_CHARACTERS = 2 * 1024 * 1024

# Stand-ins for missing values in the array of a column: see
# _postgres/sql/enqueue/enqueue_keyed.sql.
_MISSING = {"run_at": "-infinity", "delay": "NaN", "timeout": "NaN", "expires_in": "NaN", "key": "", "group_key": ""}


def insert(connection: object, schema: str, jobs: Sequence[NewJob]) -> list[InsertResult]:
    """Insert `jobs` on `connection`, in its transaction, and return their results in order.

    Raises KeyConflict (the call then inserts nothing), InvalidOption, UnsupportedConnection,
    ConnectionNotUsable, PermissionDenied and SchemaError.
    """
    if not jobs:
        check_kind(connection)
        return []
    executor = sync_executor(connection)
    name, parameters, chunks = _plan(jobs)
    statement = sql.statement(name, schema)
    first, *rest = chunks
    if not rest:
        return _run(executor, statement, parameters, first)
    done: list[InsertResult] = []
    with executor.together():
        for chunk in (first, *rest):
            done += _run(executor, statement, parameters, chunk)
    return done


async def insert_async(connection: object, schema: str, jobs: Sequence[NewJob]) -> list[InsertResult]:
    """Insert `jobs` on an asynchronous connection, like `insert`."""
    if not jobs:
        check_kind_async(connection)
        return []
    executor = await async_executor(connection)
    name, parameters, chunks = _plan(jobs)
    statement = sql.statement(name, schema)
    first, *rest = chunks
    if not rest:
        return await _run_async(executor, statement, parameters, first)
    done: list[InsertResult] = []
    async with executor.together():
        for chunk in (first, *rest):
            done += await _run_async(executor, statement, parameters, chunk)
    return done


def _plan(jobs: Sequence[NewJob]) -> tuple[str, Make, Iterable[Sequence[NewJob]]]:
    """Return the statement for `jobs`, the function for its parameters, and the parts of `jobs`."""
    if len(jobs) == 1:
        return ("enqueue_one" if jobs[0].options.key is None else "enqueue_one_keyed"), _one, (jobs,)
    options = _distinct(jobs)
    if _keyed(options):
        return "enqueue_keyed", _keyed_columns, (jobs,)
    shared = _shared(options)
    return "enqueue", lambda chunk: _columns(chunk, shared), _chunks(jobs)


def _run(executor: Executor, statement: sql.Statement, make: Make, jobs: Sequence[NewJob]) -> list[InsertResult]:
    try:
        rows = executor.execute(statement, make(jobs))
    except UnicodeEncodeError:
        # Nothing was sent.
        try:
            rows = executor.execute(statement, make(_in_ascii(jobs)))
        except UnicodeEncodeError as error:
            raise not_encodable(error) from None
    return _outcome(jobs, rows)


async def _run_async(
    executor: AsyncExecutor, statement: sql.Statement, make: Make, jobs: Sequence[NewJob]
) -> list[InsertResult]:
    try:
        rows = await executor.execute(statement, make(jobs))
    except UnicodeEncodeError:
        try:
            rows = await executor.execute(statement, make(_in_ascii(jobs)))
        except UnicodeEncodeError as error:
            raise not_encodable(error) from None
    return _outcome(jobs, rows)


def _in_ascii(jobs: Sequence[NewJob]) -> list[NewJob]:
    """Return `jobs` with JSON escapes for characters that the session's encoding may lack."""
    return [NewJob.checked(job.options, ascii_only(job.args_json)) for job in jobs]


def _distinct(jobs: Sequence[NewJob]) -> list[JobOptions]:
    """Return the distinct options in `jobs`. Jobs that were made alike share theirs."""
    return list({id(job.options): job.options for job in jobs}.values())


def _keyed(options: Iterable[JobOptions]) -> bool:
    """Return whether any job has a key. Raises InvalidOption if `on_conflict` is mixed."""
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


def _one(jobs: Sequence[NewJob]) -> Parameters:
    [job] = jobs
    options = job.options
    parameters = {**options.columns, "args": job.args_json}
    return parameters if options.key is None else parameters | _key(options)


def _key(options: JobOptions) -> Parameters:
    return {
        "key": options.key,
        "holds": options.key_holds,
        "period": str(options.key_period),
        "on_conflict": options.on_conflict,
        "scope": options.key_scope,
    }


def _shared(options: Sequence[JobOptions]) -> Parameters:
    """Return the columns that are equal in all `options`."""
    return {
        name: value
        for name, value in options[0].columns.items()
        if len(options) == 1 or all(each.columns[name] == value for each in options)
    }


def _columns(jobs: Sequence[NewJob], shared: Parameters) -> Parameters:
    """Return each column.

    It is one value if `shared`, else a JSON array with an element for each job.
    """
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
    return {name: _array([row[name] for row in rows], _MISSING.get(name, "")) for name in rows[0]}


def _array(values: Iterable[str | None], missing: str) -> str:
    """Return an array in PostgreSQL's text form.

    Drivers check each element's type, which is slower.
    """
    texts = [missing if value is None else value for value in values]
    return "{" + ",".join(['"' + v.replace("\\", "\\\\").replace('"', '\\"') + '"' for v in texts]) + "}"


def _outcome(jobs: Sequence[NewJob], rows: Rows) -> list[InsertResult]:
    """Return the results in `rows`: only ids for jobs without keys; otherwise ids and outcomes."""
    if len(rows[0]) == 1:
        return [InsertResult(job_id, True, False) for (job_id,) in rows]
    for job_id, created, _, ord_, other in rows:
        options = jobs[ord_ - 1].options
        if options.key is None or created:
            continue
        if other is not None:
            # It is bytes in a session whose client encoding is SQL_ASCII.
            task = other.decode() if isinstance(other, bytes) else other
            raise KeyConflict(options.key, job_id, task or None, shared=True)
        if options.on_conflict == "raise":
            raise KeyConflict(options.key, job_id, options.task)
    return [InsertResult(job_id, created, replaced) for job_id, created, replaced, _, _ in rows]
