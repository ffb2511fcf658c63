"""Create schedules at run time; pause, resume, remove and run any schedule.

Workers are notified at once.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from psycopg import Connection

from jobq._core.validation import check_text
from jobq._postgres.statements import execute, fetch
from jobq.cron import NoNextRun, when
from jobq.errors import InvalidOption, UnknownSchedule
from jobq.operations.audit import Actor, AuditRecord
from jobq.schedule import Schedule


def set_schedule(
    conn: Connection[Any],
    schema: str,
    schedule: Schedule,
    *,
    actor: str | Actor,
    reason: str | None = None,
    replace: bool = False,
) -> bool:
    """Create a schedule at run time. Returns True if it is new.

    Its first tick is the next one from now. If a replaced schedule keeps its times, its next tick
    stays the same. A pause stays. The arguments are not compared with the task's signature, because
    the task is not known here; ``JobQ.add_schedule`` does that.

    Args:
        conn: a psycopg connection.
        schema: the schema of jobq's tables.
        schedule: the schedule.
        actor: who the audit log names.
        reason: text for the audit log.
        replace: whether to replace an existing schedule of the same name.

    Raises:
        InvalidOption: the name is taken; if it is declared in code, even with `replace`.
    """
    note = AuditRecord("schedule_set", actor, reason)
    with conn.transaction():
        before = _locked(conn, schema, schedule.name)
        if before is not None and before["source"] == "code":
            raise InvalidOption(
                f"name={schedule.name!r} is taken by a schedule that application {before['app']} declares: "
                "change it there, or choose another name"
            )
        if before is not None and not replace:
            raise InvalidOption(
                f"name={schedule.name!r} is taken by a schedule of task {before['task']}: choose another, or replace it"
            )
        next_at = schedule.when.next(_now(conn))
        made_by = note.actor.name
        if not fetch(conn, schema, "schedule_set", {**schedule.columns(), "next_at": next_at, "made_by": made_by}):
            raise InvalidOption(
                f"name={schedule.name!r} was taken a moment ago by a schedule in code: choose another name"
            )
        after = _locked(conn, schema, schedule.name)
        assert after is not None
        note.write(conn, schema, {"schedule": schedule.name}, before=before and _values(before), after=_values(after))
        _tell(conn, schema)
    return before is None


def remove_schedule(
    conn: Connection[Any], schema: str, name: str, *, actor: str | Actor, reason: str | None = None
) -> None:
    """Remove a schedule. Jobs that it has inserted stay.

    Raises UnknownSchedule. Raises InvalidOption if the application of a live worker declares the
    schedule, because it would come back.
    """
    note = AuditRecord("schedule_remove", actor, reason)
    with conn.transaction():
        before = _known(conn, schema, name)
        if before["declared"]:
            raise InvalidOption(
                f"schedule {name!r} is declared by application {before['app']} and would come back: "
                "pause it, or remove it from the code"
            )
        execute(conn, schema, "schedule_remove", {"name": name})
        note.write(conn, schema, {"schedule": name}, before=_values(before))
        _tell(conn, schema)


def pause_schedule(
    conn: Connection[Any], schema: str, name: str, *, actor: str | Actor, reason: str | None = None
) -> bool:
    """Stop a schedule until it is resumed. Returns False if it was paused.

    Raises UnknownSchedule.
    """
    note = AuditRecord("schedule_pause", actor, reason)
    with conn.transaction():
        _known(conn, schema, name)
        params = {"name": name, "actor": note.actor.name, "reason": note.reason}
        changed = bool(fetch(conn, schema, "schedule_pause", params))
        if changed:
            note.write(conn, schema, {"schedule": name})
            _tell(conn, schema)
    return changed


def resume_schedule(
    conn: Connection[Any], schema: str, name: str, *, actor: str | Actor, reason: str | None = None
) -> bool:
    """Resume a schedule with its next tick. Ticks during the pause are not made up for.

    Returns False if it was not paused. Raises UnknownSchedule.
    """
    note = AuditRecord("schedule_resume", actor, reason)
    with conn.transaction():
        known = _known(conn, schema, name)
        try:
            next_at = when(known["cron"], known["every"], known["timezone"]).next(_now(conn))
        except (InvalidOption, NoNextRun):
            # Written by hand and invalid: a worker will report it.
            next_at = None
        changed = bool(fetch(conn, schema, "schedule_resume", {"name": name, "next_at": next_at}))
        if changed:
            note.write(conn, schema, {"schedule": name})
            _tell(conn, schema)
    return changed


def run_schedule(
    conn: Connection[Any], schema: str, name: str, *, actor: str | Actor, reason: str | None = None
) -> int:
    """Insert one job of a schedule now and return its id.

    This is no tick: the schedule continues as before, paused or not. Raises UnknownSchedule, and
    InvalidOption if another job holds the schedule's key.
    """
    note = AuditRecord("schedule_run", actor, reason)
    with conn.transaction():
        known = _known(conn, schema, name)
        [row] = fetch(conn, schema, "schedule_run", {"name": name})
        if not row["created"]:
            holder = "another job" if row["id"] is None else f"job {row['id']}"
            raise InvalidOption(
                f"schedule {name!r}: its key {known['key']!r} is held by {holder}: try again when that has finished"
            )
        note.write(conn, schema, {"schedule": name, "job": row["id"]})
    return int(row["id"])


def _locked(conn: Connection[Any], schema: str, name: str) -> dict[str, Any] | None:
    check_text("schedule", name, 200)
    found = fetch(conn, schema, "schedule_lock", {"name": name})
    return found[0] if found else None


def _known(conn: Connection[Any], schema: str, name: str) -> dict[str, Any]:
    if (found := _locked(conn, schema, name)) is None:
        raise UnknownSchedule(f"there is no schedule {name!r}; see `jobq schedules list`")
    return found


def _now(conn: Connection[Any]) -> datetime:
    row = conn.execute("SELECT clock_timestamp() AS now").fetchone()
    assert row is not None
    found = row["now"] if isinstance(row, dict) else row[0]
    assert isinstance(found, datetime)
    return found.astimezone(UTC)


def _tell(conn: Connection[Any], schema: str) -> None:
    conn.execute("SELECT pg_notify(%s, 'schedules')", (schema,))


def _values(row: dict[str, Any]) -> dict[str, Any]:
    """Return the audit log's values of a schedule, without arguments, which may be secret."""
    job = ("task", "queue", "priority", "group_key", "key", "expires_in")
    kept = (*job, "cron", "timezone", "missed", "max_missed", "tick_argument")
    every = row["every"]
    values = {name: row[name] for name in kept if row[name] is not None}
    found: dict[str, Any] = json.loads(
        json.dumps({**values, "every": None if every is None else every.total_seconds()})
    )
    return {name: value for name, value in found.items() if value is not None}
