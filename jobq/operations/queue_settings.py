"""What a queue is set to: limits, rates and rules for groups, for the queue or for one of its groups.

A change waits for the claims of the queue that are under way, and those after it wait for its commit (`queue_lock.sql`): so
every claim is by the old rule or by the new one, and when the change is committed no job starts against it. Workers that claim
the queue as one without rules hear of it at the notification, or at the next heartbeat.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final, Literal, TypeAlias

from psycopg import Connection

from jobq.connections import sync_executor
from jobq.errors import InvalidOption
from jobq.flow import Groups, QueueSettings, Rate, settings_of, stored_time, whole
from jobq.operations.actors import Actor, Note, checked_name
from jobq.operations.scripts import Script, play

COLUMNS = (
    "max_running", "rate_jobs", "rate_seconds", "rate_burst", "group_mode", "group_limit", "group_retry",
    "group_rate_jobs", "group_rate_seconds", "group_rate_burst", "paused_at", "changed_at",
)  # fmt: skip
# How often running jobs with locked rows are tried.
_TRIES = 10


class Unchanged(Enum):
    """The one value that leaves a setting as it is; None clears it."""

    UNCHANGED = "unchanged"

    def __repr__(self) -> str:
        return self.name


UNCHANGED: Final = Unchanged.UNCHANGED
Keep: TypeAlias = Literal[Unchanged.UNCHANGED]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be set, as it was given; each value UNCHANGED leaves what there is, None clears it.

    `rate` and `group_rate`: a `Rate`, which has its burst, or its text. A burst without a rate is for the one there is; a rate
    as text without a burst keeps the one there is. `groups`: `Groups` or its text; None clears the rate of groups as well.
    """

    limit: int | Keep | None = UNCHANGED
    rate: Rate | str | Keep | None = UNCHANGED
    burst: int | Keep = UNCHANGED
    groups: Groups | str | Keep | None = UNCHANGED
    group_rate: Rate | str | Keep | None = UNCHANGED
    group_burst: int | Keep = UNCHANGED

    def over(self, now: QueueSettings) -> QueueSettings:
        """Return the settings that come of it. Raises InvalidOption with the field, its value and what to do."""
        groups = now.groups
        if self.groups is not UNCHANGED:
            groups = Groups.parse(self.groups) if isinstance(self.groups, str) else self.groups
            if groups is not None and not isinstance(groups, Groups):
                raise InvalidOption(f"groups={groups!r}: give text such as 'ordered' or 'limited:3', Groups, or None")
        group_rate = _rate("group_rate", self.group_rate, "group_burst", self.group_burst, now.group_rate)
        if groups is None and self.group_rate is UNCHANGED and self.group_burst is UNCHANGED:
            group_rate = None
        limit = now.limit if self.limit is UNCHANGED else self.limit
        return replace(
            now, limit=limit, rate=_rate("rate", self.rate, "burst", self.burst, now.rate), groups=groups, group_rate=group_rate
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueChange:
    """What a queue was set to, and is now; `changed` is False when that was so before, and then nothing was written."""

    queue: str
    before: QueueSettings
    after: QueueSettings
    changed: bool


def configure(
    conn: Connection[Any],
    schema: str,
    queue: str,
    *,
    actor: str | Actor,
    reason: str | None = None,
    limit: int | Keep | None = UNCHANGED,
    rate: Rate | str | Keep | None = UNCHANGED,
    burst: int | Keep = UNCHANGED,
    groups: Groups | str | Keep | None = UNCHANGED,
    group_rate: Rate | str | Keep | None = UNCHANGED,
    group_burst: int | Keep = UNCHANGED,
) -> QueueChange:
    """Set what is given for `queue`, which need not exist yet: see :class:`Wanted`. The rest stays.

    Running jobs count at once; a limit below what runs lets them finish and admits none meanwhile. A rule of ``ordered`` takes
    limits of single groups away. In a caller's transaction the queue's claims wait for its end: keep that short. Raises
    InvalidOption.
    """
    wanted = Wanted(limit=limit, rate=rate, burst=burst, groups=groups, group_rate=group_rate, group_burst=group_burst)
    script = configuring(schema, queue, wanted, Note("configure", actor, reason))
    with conn.transaction():
        return play(sync_executor(conn), schema, script)


def configure_group(
    conn: Connection[Any],
    schema: str,
    queue: str,
    group: str,
    *,
    limit: int | None,
    actor: str | Actor,
    reason: str | None = None,
) -> bool:
    """Let at most `limit` jobs of one group run at a time, instead of what the queue's rule says; None: as that says.

    False when it was so before. Raises InvalidOption, also for a queue without a rule for its groups or with ``ordered``.
    """
    script = configuring_group(schema, queue, group, limit, Note("configure_group", actor, reason))
    with conn.transaction():
        return play(sync_executor(conn), schema, script)


def reading(queue: str) -> Script[QueueSettings]:
    """Return what `queue` is set to."""
    found = yield "queue_settings", {"queue": queue}
    return settings_of(dict(zip(COLUMNS, found[0], strict=True))) if found else QueueSettings()


def configuring(schema: str, queue: str, wanted: Wanted, note: Note) -> Script[QueueChange]:
    """Carry out :func:`configure`."""
    checked_name("queue", queue, 100)
    # Of the settings that there are now, a burst for instance may be for a rate; what can be refused is, before any wait.
    yield "queue_lock", {"schema": schema, "queue": queue}
    before = yield from reading(queue)
    after = wanted.over(before)
    if after == before:
        return QueueChange(queue=queue, before=before, after=before, changed=False)
    found = yield "queue_configure", {"queue": queue, **_columns(after)}
    after = replace(after, changed_at=stored_time(found[0][0]))
    said = after.fields()
    if after.groups is not None and after.groups.mode == "ordered":
        # claim_managed would heed them, and let several of a group run.
        removed = (yield "gates_unlimit", {"queue": queue})[0][0]
        if removed:
            said |= {"limits of groups taken away": removed}
    if after.managed:
        yield from _count_running(queue)
    yield from _rescale(queue, "gate_rescale", before.rate, after.rate)
    yield from _rescale(queue, "gates_rescale", before.group_rate, after.group_rate)
    if (before.groups, before.group_rate) != (after.groups, after.group_rate):
        yield "gates_forget", {"queue": queue}
        yield "turns_all", {"queue": queue}
    yield "queue_tell", {"schema": schema, "queue": queue}
    former = before.fields()
    differ = [name for name, value in said.items() if former.get(name) != value]
    yield (
        "audit_write",
        note.row(
            {"queue": queue},
            before={name: former.get(name) for name in differ},
            after={name: said[name] for name in differ},
        ),
    )
    return QueueChange(queue=queue, before=before, after=after, changed=True)


def configuring_group(schema: str, queue: str, group: str, limit: int | None, note: Note) -> Script[bool]:
    """Carry out :func:`configure_group`."""
    checked_name("queue", queue, 100)
    checked_name("group", group, 200)
    if limit is not None:
        whole("limit", limit, hint="to start nothing of a group, cancel its jobs; to clear the limit, give none")
    yield "queue_lock", {"schema": schema, "queue": queue}
    settings = yield from reading(queue)
    if limit is not None and settings.groups is None:
        raise InvalidOption(
            f"group={group[:50]!r}, limit={limit}: queue {queue!r} has no rule for its groups; set one, such as groups='fair'"
        )
    if limit is not None and settings.groups is not None and settings.groups.mode == "ordered":
        raise InvalidOption(
            f"group={group[:50]!r}, limit={limit}: queue {queue!r} is ordered, which runs one job of a group at a time; "
            "set groups to limited:N or fair first"
        )
    where = {"queue": queue, "group": group}
    found = yield "gate_limit", where
    former = found[0][0] if found else None
    if former == limit:
        return False
    yield ("gate_clear", where) if limit is None else ("gate_set", where | {"limit": limit})
    yield "turn_give", where
    yield "queue_touch", {"queue": queue}
    yield "queue_tell", {"schema": schema, "queue": queue}
    yield "audit_write", note.row(where, before={"limit": former}, after={"limit": limit})
    return True


def _count_running(queue: str) -> Script[None]:
    """Let running jobs count. A locked row is usually about to go; one that stays is tried again."""
    for left in reversed(range(_TRIES)):
        missed = (yield "manage_running", {"queue": queue})[0][0]
        if not missed or not left:
            return
        yield "pause_a_moment", {}


def _rescale(queue: str, name: str, before: Rate | None, after: Rate | None) -> Script[None]:
    if before is None or before == after:
        return
    factor = None if after is None else after.share / before.share
    most = None if after is None else after.burst * after.share
    yield name, {"queue": queue, "factor": factor, "most": most}


def _rate(
    name: str, rate: Rate | str | Keep | None, burst_name: str, burst: int | Keep, now: Rate | None
) -> Rate | None:
    if burst is not UNCHANGED:
        whole(burst_name, burst)
    if rate is UNCHANGED:
        if burst is UNCHANGED:
            return now
        if now is None:
            raise InvalidOption(f"{burst_name}={burst}: there is no {name} that it could be of; give {name} as well")
        return replace(now, burst=burst)
    if rate is None:
        if burst is not UNCHANGED:
            raise InvalidOption(f"{burst_name}={burst}: there is no {name} that it could be of; give one, or no burst")
        return None
    if isinstance(rate, str):
        kept = 1 if now is None else now.burst
        return Rate.parse(rate, burst=kept if burst is UNCHANGED else burst, name=name)
    if not isinstance(rate, Rate):
        raise InvalidOption(f"{name}={rate!r}: give text such as '50/s', a Rate, or None")
    if burst not in (UNCHANGED, rate.burst):
        raise InvalidOption(f"{burst_name}={burst}: the {name} has a burst of its own, {rate.burst}; give one of them")
    return rate


def _columns(settings: QueueSettings) -> Mapping[str, Any]:
    groups = settings.groups
    found: dict[str, Any] = {
        "max_running": settings.limit,
        "group_mode": None if groups is None else groups.mode,
        "group_limit": None if groups is None else groups.limit,
        "group_retry": None if groups is None else groups.retry,
    }
    for name in ("rate", "group_rate"):
        rate: Rate | None = getattr(settings, name)
        found |= {
            f"{name}_jobs": None if rate is None else rate.jobs,
            f"{name}_seconds": None if rate is None else rate.seconds,
            f"{name}_burst": None if rate is None else rate.burst,
        }
    return found
