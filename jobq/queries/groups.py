"""What is set for queues, and how their groups stand."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from jobq.flow import QueueSettings, settings_of
from jobq.queries.rows import fetch
from jobq.queries.values import COUNT_LIMIT
from jobq.queries.values_stats import GroupInfo, GroupLimit, Groups

_COLUMNS = (
    "max_running", "rate_jobs", "rate_seconds", "rate_burst", "group_mode", "group_limit", "group_retry",
    "group_rate_jobs", "group_rate_seconds", "group_rate_burst",
)  # fmt: skip
# Groups that are told one by one, and those with limits of their own.
_SHOWN = 10
_LIMITS = 50
# Waiting jobs that are counted in all groups together.
_BUDGET = 50_000
# Groups among which the largest are looked for.
_GROUPS = 2_000


def queue_settings(conn: Connection[Any], schema: str, name: str) -> QueueSettings:
    """Return what is set for queue `name`; where nothing ever was, that."""
    found = fetch(conn, schema, "queue_settings", {"queue": name})
    return settings_of(found[0]) if found else QueueSettings()


def groups(conn: Connection[Any], schema: str, name: str) -> Groups:
    """Return the groups of queue `name` that have waiting jobs, the largest ones by name, and the turns in line.

    `Groups.number` above `bound` means "more than"; so do counts above `counted_to`.
    """
    found = fetch(
        conn, schema, "queue_groups", {"queue": name, "bound": _GROUPS + 1, "budget": _BUDGET, "most": _SHOWN}
    )
    turns = fetch(conn, schema, "queue_turns", {"queue": name, "bound": COUNT_LIMIT + 1})[0]
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
    """Take the columns of a queue's settings out of `row`, which keeps when it was paused, and return what they say."""
    columns = {name: row.pop(name) for name in (*_COLUMNS, "changed_at")}
    if row["paused_at"] is None and not any(columns.values()):
        return _UNSET  # as most of thousands of queues are
    return settings_of(columns | {"paused_at": row["paused_at"]})
