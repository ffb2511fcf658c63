"""Settings of queues, and the state of their groups."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from jobq._postgres.statements import fetch
from jobq.limits import SETTINGS_COLUMNS, QueueSettings, settings_of
from jobq.queries.values import COUNT_LIMIT
from jobq.queries.values.stats import GroupInfo, GroupLimit, Groups

# Number of groups that are listed, and of groups with limits of their own.
_SHOWN = 10
_LIMITS = 50
# Most waiting jobs to count in all groups together.
_BUDGET = 50_000
# Number of groups among which the largest are searched.
_GROUPS = 2_000


def queue_settings(conn: Connection[Any], schema: str, name: str) -> QueueSettings:
    """Return the settings of queue `name`; empty settings if none were ever set."""
    found = fetch(conn, schema, "queue_settings", {"queue": name})
    return settings_of(found[0]) if found else QueueSettings()


def groups(conn: Connection[Any], schema: str, name: str) -> Groups:
    """Return the groups of queue `name` that have waiting jobs, and its ready groups.

    The largest groups are listed by name. `Groups.number` above `bound` means "more than", and so
    do counts above `counted_to`.
    """
    found = fetch(
        conn, schema, "queue_groups", {"queue": name, "bound": _GROUPS + 1, "budget": _BUDGET, "most": _SHOWN}
    )
    turns = fetch(conn, schema, "queue_ready_groups", {"queue": name, "bound": COUNT_LIMIT + 1})[0]
    limits = fetch(conn, schema, "queue_limits", {"queue": name, "most": _LIMITS + 1})
    return Groups(
        number=found[0]["groups"] if found else 0,
        bound=_GROUPS,
        counted_to=found[0]["counted_to"] if found else COUNT_LIMIT,
        largest=[
            GroupInfo(key=row["key"], waiting=row["waiting"], running=row["running"], limit=row["limit_of"])
            for row in found
        ],
        turns=turns["turns"],
        turns_due=turns["due"],
        oldest_turn_seconds=turns["oldest_seconds"] if turns["due"] else None,
        limits=[GroupLimit(**row) for row in limits[:_LIMITS]],
        limits_complete=len(limits) <= _LIMITS,
    )


_UNSET = QueueSettings()


def take_settings(row: dict[str, Any]) -> QueueSettings:
    """Remove the columns of a queue's settings from `row`, and return the settings.

    `paused_at` stays in `row`.
    """
    columns = {name: row.pop(name) for name in (*SETTINGS_COLUMNS, "changed_at")}
    if row["paused_at"] is None and not any(columns.values()):
        return _UNSET  # the common case among thousands of queues
    return settings_of(columns | {"paused_at": row["paused_at"]})
