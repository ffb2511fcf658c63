"""Schedules made at run time, and what operators do with any: pause, resume, remove, run now. Workers hear of it at once."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from psycopg import Connection

from jobq.errors import InvalidOption, UnknownSchedule
from jobq.operations.actors import Actor, Note, checked_text
from jobq.operations.rows import execute, rows
from jobq.schedules import Schedule
from jobq.ticks import NeverAgain, when


def set_schedule(
    conn: Connection[Any],
    schema: str,
    schedule: Schedule,
    *,
    actor: str | Actor,
    reason: str | None = None,
    replace: bool = False,
) -> bool:
    """Make a schedule at run time; with `replace`, give the one of its name other values. True when it is new.

    Its first tick is the next one from now; that of one whose times stay as they are is where it was. A pause stays. The
    arguments are not compared with the task's signature here, where the task is not known: ``JobQ.add_schedule`` does that.
    Raises InvalidOption for a name that is taken, by one in code even with `replace`.
    """
    note = Note("schedule_set", actor, reason)
    with conn.transaction():
        before = _locked(conn, schema, schedule.name)
        if before is not None and before["source"] == "code":
            raise InvalidOption(
                f"name={schedule.name!r} is taken by a schedule that application {before['app']} declares: "
                "change it there, or give another name"
            )
        if before is not None and not replace:
            raise InvalidOption(
                f"name={schedule.name!r} is taken by a schedule of task {before['task']}: give another, or replace it"
            )
        next_at = schedule.when.next(_now(conn))
        made_by = note.actor.name
        if not rows(conn, schema, "schedule_set", {**schedule.columns(), "next_at": next_at, "made_by": made_by}):
            raise InvalidOption(
                f"name={schedule.name!r} was taken a moment ago by a schedule in code: give another name"
            )
        after = _locked(conn, schema, schedule.name)
        assert after is not None
        note.write(conn, schema, {"schedule": schedule.name}, before=before and _values(before), after=_values(after))
        _tell(conn, schema)
    return before is None


def remove_schedule(
    conn: Connection[Any], schema: str, name: str, *, actor: str | Actor, reason: str | None = None
) -> None:
    """Remove a schedule; jobs that it has inserted stay.

    Raises UnknownSchedule; InvalidOption for one that a live worker's application declares: it would come back.
    """
    note = Note("schedule_remove", actor, reason)
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
    """Let a schedule tick no more until it is resumed. False when it was paused already. Raises UnknownSchedule."""
    note = Note("schedule_pause", actor, reason)
    with conn.transaction():
        _known(conn, schema, name)
        params = {"name": name, "actor": note.actor.name, "reason": note.reason}
        changed = bool(rows(conn, schema, "schedule_pause", params))
        if changed:
            note.write(conn, schema, {"schedule": name})
            _tell(conn, schema)
    return changed


def resume_schedule(
    conn: Connection[Any], schema: str, name: str, *, actor: str | Actor, reason: str | None = None
) -> bool:
    """Let a schedule go on with its next tick; those of the pause are not made up for. False when it was not paused.

    Raises UnknownSchedule.
    """
    note = Note("schedule_resume", actor, reason)
    with conn.transaction():
        known = _known(conn, schema, name)
        try:
            next_at = when(known["cron"], known["every"], known["timezone"]).next(_now(conn))
        except (InvalidOption, NeverAgain):
            # Written by hand, and not to be understood: a worker will say so.
            next_at = None
        changed = bool(rows(conn, schema, "schedule_resume", {"name": name, "next_at": next_at}))
        if changed:
            note.write(conn, schema, {"schedule": name})
            _tell(conn, schema)
    return changed


def run_schedule(
    conn: Connection[Any], schema: str, name: str, *, actor: str | Actor, reason: str | None = None
) -> int:
    """Insert one job of a schedule now and return its id. It is no tick: the schedule goes on as before, paused or not.

    Raises UnknownSchedule.
    """
    note = Note("schedule_run", actor, reason)
    with conn.transaction():
        _known(conn, schema, name)
        [row] = rows(conn, schema, "schedule_run", {"name": name})
        note.write(conn, schema, {"schedule": name, "job": row["id"]})
    return int(row["id"])


def _locked(conn: Connection[Any], schema: str, name: str) -> dict[str, Any] | None:
    checked_text("schedule", name, 200)
    found = rows(conn, schema, "schedule_lock", {"name": name})
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
    """What the audit keeps of a schedule. Not the arguments, which may be secret."""
    kept = ("task", "queue", "priority", "cron", "timezone", "missed", "max_missed", "tick_argument")
    every = row["every"]
    values = {name: row[name] for name in kept if row[name] is not None}
    found: dict[str, Any] = json.loads(
        json.dumps({**values, "every": None if every is None else every.total_seconds()})
    )
    return {name: value for name, value in found.items() if value is not None}
