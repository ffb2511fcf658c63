"""Operators' writes: retry, cancel, pause, resume. One module for the command line and the status page.

Each writes who did what into `audit`, in the same transaction. On a connection without an open transaction
each call, and each batch of a filter variant, commits by itself; inside the caller's transaction it is a
savepoint, and locks last until the caller commits: keep that short, since a worker that finishes one of the
jobs waits for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from psycopg import Connection
from psycopg.rows import dict_row

from jobq.errors import InvalidOption, UnknownQueue
from jobq.sql import statement

RETRYABLE_STATES = ("failed", "cancelled", "expired", "scheduled")
CANCELLABLE_STATES = ("ready", "scheduled", "parked", "waiting", "running")
_FINISHED = ("succeeded", "failed", "cancelled", "expired")
_BATCH = 500
# Ids looked at by one statement: no filter has an index of its own.
_WINDOW = 20_000
_MAX_ID = 2**63 - 1

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, for the audit: a `name`, and where they came in by the page, the `role` they had and their `address`."""

    name: str
    role: str | None = None
    address: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """What an operation did: the ids done, in order, and for each other one why not."""

    done: list[int] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)


def retry(
    conn: Connection[Any], schema: str, ids: Collection[int], *, actor: str, reason: str | None = None
) -> Changed:
    """Run jobs again, now: dead ones (failed, cancelled, expired) go back under the same id with all their
    attempts; those that wait for a retry or for their time become due. Others are refused.

    Raises InvalidOption for an unusable `actor` or `reason`.
    """
    return _in_batches(conn, schema, ids, _retry_batch, _Note("retry", actor, reason))


def cancel(
    conn: Connection[Any], schema: str, ids: Collection[int], *, actor: str, reason: str | None = None
) -> Changed:
    """Cancel jobs: those that do not run are finished as ``cancelled`` at once; running ones are asked to
    stop.

    Raises InvalidOption for an unusable `actor` or `reason`.
    """
    return _in_batches(conn, schema, ids, _cancel_batch, _Note("cancel", actor, reason))


def retry_where(
    conn: Connection[Any],
    schema: str,
    *,
    actor: str,
    state: str = "failed",
    queue: str | None = None,
    task: str | None = None,
    limit: int | None = None,
    reason: str | None = None,
    progress: Progress | None = None,
) -> Changed:
    """:func:`retry` every job in `state` (and `queue`, and `task`) that exists at the call, oldest first, up
    to `limit`.

    Goes in batches of 500; `progress` is told the number of jobs looked at after each. Raises InvalidOption
    for a state outside RETRYABLE_STATES.
    """
    _one_of("state", state, RETRYABLE_STATES)
    where = _Filter(state, queue, task)
    note = _Note("retry", actor, reason)
    return _where(conn, schema, where, limit=limit, batch=_retry_batch, note=note, progress=progress)


def cancel_where(
    conn: Connection[Any],
    schema: str,
    *,
    actor: str,
    state: str = "ready",
    queue: str | None = None,
    task: str | None = None,
    limit: int | None = None,
    reason: str | None = None,
    progress: Progress | None = None,
) -> Changed:
    """:func:`cancel` every job in `state` (and `queue`, and `task`); as :func:`retry_where`.

    Raises InvalidOption for a state outside CANCELLABLE_STATES.
    """
    _one_of("state", state, CANCELLABLE_STATES)
    where = _Filter(state, queue, task)
    note = _Note("cancel", actor, reason)
    return _where(conn, schema, where, limit=limit, batch=_cancel_batch, note=note, progress=progress)


def count_where(
    conn: Connection[Any],
    schema: str,
    *,
    state: str,
    queue: str | None = None,
    task: str | None = None,
    bound: int = 10_001,
) -> int:
    """Return how many jobs :func:`retry_where` or :func:`cancel_where` would touch, counting no further than
    `bound`.
    """
    _one_of("state", state, (*CANCELLABLE_STATES, *_FINISHED))
    where = _Filter(state, queue, task)
    after, count = -1, 0
    while count < bound and (ids := _matching(conn, schema, where, after=after, last=_MAX_ID, limit=bound - count)):
        after, count = ids[-1], count + len(ids)
    return count


def pause(conn: Connection[Any], schema: str, queue: str, *, actor: str, reason: str | None = None) -> bool:
    """Pause `queue`: no more of its jobs are claimed; those that run go on. False when it was paused already.

    Raises UnknownQueue for a queue without a row, without jobs and without a worker serving it by name.
    """
    return _set_pause(conn, schema, queue, "pause_queue", _Note("pause", actor, reason))


def resume(conn: Connection[Any], schema: str, queue: str, *, actor: str, reason: str | None = None) -> bool:
    """Let `queue` go on. False when it was not paused. Raises UnknownQueue as :func:`pause` does."""
    return _set_pause(conn, schema, queue, "resume_queue", _Note("resume", actor, reason))


# --- How ---------------------------------------------------------------------------------------------------


class _Note:
    """What the audit says of an operation."""

    __slots__ = ("action", "actor", "reason")

    def __init__(self, action: str, actor: str, reason: str | None) -> None:
        self.action = action
        self.actor = _text("actor", actor, 200)
        self.reason = _text("reason", reason, 1000) if reason else None
        if not self.actor.strip():
            raise InvalidOption(f"actor={actor!r}: say who does this")


@dataclass(frozen=True, slots=True)
class _Filter:
    state: str
    queue: str | None
    task: str | None


_Batch = Callable[[Connection[Any], str, Sequence[int], _Note], Changed]


def _in_batches(conn: Connection[Any], schema: str, ids: Collection[int], batch: _Batch, note: _Note) -> Changed:
    total = Changed()
    ordered = sorted(set(ids))
    for start in range(0, len(ordered), _BATCH):
        _run_batch(conn, schema, ordered[start : start + _BATCH], batch=batch, note=note, total=total, target={})
    return total


def _where(
    conn: Connection[Any],
    schema: str,
    where: _Filter,
    *,
    limit: int | None,
    batch: _Batch,
    note: _Note,
    progress: Progress | None,
) -> Changed:
    if limit is not None and limit < 1:
        raise InvalidOption(f"limit={limit!r}: give a number of at least 1")
    named = {name: value for name in ("state", "queue", "task") if (value := getattr(where, name)) is not None}
    total = Changed()
    # Jobs that come to match while this runs are not followed: a retried job that fails at once is not
    # retried forever.
    last = _rows(conn, schema, "jobs_below", {"before": _MAX_ID})[0]["id"] or 0
    after, seen = -1, 0
    while limit is None or seen < limit:
        size = _BATCH if limit is None else min(_BATCH, limit - seen)
        ids = _matching(conn, schema, where, after=after, last=last, limit=size)
        if not ids:
            break
        _run_batch(conn, schema, ids, batch=batch, note=note, total=total, target={"filter": named})
        after, seen = ids[-1], seen + len(ids)
        if progress is not None:
            progress(seen)
    return total


def _run_batch(
    conn: Connection[Any],
    schema: str,
    ids: Sequence[int],
    *,
    batch: _Batch,
    note: _Note,
    total: Changed,
    target: Mapping[str, Any],
) -> None:
    with conn.transaction():
        changed = batch(conn, schema, ids, note)
        if changed.done:
            _audit(conn, schema, note, {"ids": changed.done, **target})
    total.done.extend(changed.done)
    total.refused.update(changed.refused)


def _retry_batch(conn: Connection[Any], schema: str, ids: Sequence[int], note: _Note) -> Changed:
    possible = [id for id in ids if 0 <= id <= _MAX_ID]
    done = _ids(conn, schema, "redrive", {"ids": possible})
    done |= _ids(conn, schema, "run_now", {"ids": possible, "channel": schema})
    why = {
        "ready": "it is ready to run already",
        "running": "it is running",
        "parked": "it is parked, and goes on by itself",
        "waiting": "it is waiting for another job, and goes on by itself",
        "succeeded": "it has succeeded",
    }
    return Changed(done=sorted(done), refused=_refused(conn, schema, ids, done, why))


def _cancel_batch(conn: Connection[Any], schema: str, ids: Sequence[int], note: _Note) -> Changed:
    possible = [id for id in ids if 0 <= id <= _MAX_ID]
    error = f"cancelled by {note.actor}" + (f": {note.reason}" if note.reason else "")
    done = _ids(conn, schema, "cancel_idle", {"ids": possible, "error": error})
    left = [id for id in possible if id not in done]
    if left:
        done |= _ids(conn, schema, "cancel_running", {"ids": left, "channel": schema})
    why = {state: f"it has {state} already" for state in ("succeeded", "failed", "expired")}
    why["cancelled"] = "it is cancelled already"
    return Changed(done=sorted(done), refused=_refused(conn, schema, ids, done, why))


def _refused(
    conn: Connection[Any], schema: str, ids: Sequence[int], done: set[int], why: Mapping[str, str]
) -> dict[int, str]:
    left = [id for id in ids if id not in done]
    if not left:
        return {}
    known = [id for id in left if 0 <= id <= _MAX_ID]
    states = {row["id"]: row["state"] for row in _rows(conn, schema, "job_states", {"ids": known})}
    busy = "a worker or another operator is changing it at this moment: try again"
    return {id: why.get(states[id], busy) if id in states else "there is no job with this id" for id in left}


def _set_pause(conn: Connection[Any], schema: str, queue: str, name: str, note: _Note) -> bool:
    _text("queue", queue, 100)
    with conn.transaction():
        if not _rows(conn, schema, "queue_known", {"queue": queue})[0]["known"]:
            raise UnknownQueue(f"queue {queue!r}: no job, worker or setting has this name; see `jobq queues list`")
        params = {"queue": queue, "actor": note.actor, "reason": note.reason}
        changed = bool(_rows(conn, schema, name, params))
        if changed:
            conn.execute("SELECT pg_notify(%s, 'queues')", (schema,))
            _audit(conn, schema, note, {"queue": queue})
    return changed


def _audit(conn: Connection[Any], schema: str, note: _Note, target: Mapping[str, Any]) -> None:
    params = {"actor": note.actor, "action": note.action, "reason": note.reason, "target": json.dumps(target)}
    conn.execute(statement("audit_write", schema).query, params)


def _matching(conn: Connection[Any], schema: str, where: _Filter, *, after: int, last: int, limit: int) -> list[int]:
    """Return the next matching ids, at least one while there are any, from one window of ids."""
    name = "matching_finished" if where.state in _FINISHED else "matching_live"
    params = {"state": where.state, "queue": where.queue, "task": where.task, "limit": limit}
    while True:
        above = _rows(conn, schema, "jobs_above", {"after": after})[0]["id"]
        if above is None or above > last:
            return []
        window = {"after": above - 1, "last": min(above - 1 + _WINDOW, last)}
        if rows := _rows(conn, schema, name, params | window):
            return [row["id"] for row in rows]
        after = window["last"]


def _ids(conn: Connection[Any], schema: str, name: str, params: Mapping[str, Any]) -> set[int]:
    return {row["id"] for row in _rows(conn, schema, name, params)}


def _rows(conn: Connection[Any], schema: str, name: str, params: Mapping[str, Any]) -> list[dict[str, Any]]:
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement(name, schema).query, params).fetchall()


def _one_of(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise InvalidOption(f"{name}={value!r}: give one of {', '.join(known)}")


def _text(name: str, value: str, longest: int) -> str:
    if "\x00" in value or len(value) > longest:
        raise InvalidOption(f"{name}={value[:50]!r}: give at most {longest} characters, none of them NUL")
    return value
