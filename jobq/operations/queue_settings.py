"""Queue settings: limits, rates and group rules of a queue, and limits of single groups.

A change waits for the running claims of the queue, and later claims wait for its commit
(`queue_lock.sql`). Every claim therefore follows either the old rule or the new one, and once the
change is committed no job starts against it. Workers that claim the queue as a plain queue learn of
the change from the notification, or at the next heartbeat.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final, Literal, TypeAlias

from psycopg import Connection

from jobq._core.validation import check_int, check_text
from jobq._postgres.adapters import sync_executor
from jobq._postgres.script import Script, run_script
from jobq.errors import InvalidOption
from jobq.limits import MAX_NUMBER, SETTINGS_COLUMNS, Groups, QueueSettings, Rate, settings_of, stored_time
from jobq.operations.audit import Actor, AuditRecord

COLUMNS = (*SETTINGS_COLUMNS, "paused_at", "changed_at")
# Number of tries to count running jobs whose rows are locked.
_TRIES = 10


class UnsetType(Enum):
    """The value that leaves a setting unchanged; None clears it."""

    UNSET = "unchanged"

    def __repr__(self) -> str:
        return self.name


UNSET: Final = UnsetType.UNSET
Unset: TypeAlias = Literal[UnsetType.UNSET]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettingsPatch:
    """Settings to change, as given. UNSET leaves a value unchanged, None clears it.

    `rate` and `group_rate` are a `Rate`, which includes its burst, or its text. A burst without a
    rate applies to the existing rate. A rate as text without a burst keeps the existing burst.
    `groups` is a `Groups` or its text; None also clears the rate of groups.
    """

    limit: int | Unset | None = UNSET
    rate: Rate | str | Unset | None = UNSET
    burst: int | Unset = UNSET
    groups: Groups | str | Unset | None = UNSET
    group_rate: Rate | str | Unset | None = UNSET
    group_burst: int | Unset = UNSET

    def over(self, now: QueueSettings) -> QueueSettings:
        """Return the resulting settings.

        Raises InvalidOption with the field, its value and what to do.
        """
        groups = now.groups
        if self.groups is not UNSET:
            groups = Groups.parse(self.groups) if isinstance(self.groups, str) else self.groups
            if groups is not None and not isinstance(groups, Groups):
                raise InvalidOption(
                    f"groups={groups!r}: expected text such as 'ordered' or 'limited:3', Groups, or None"
                )
        group_rate = _rate("group_rate", self.group_rate, "group_burst", self.group_burst, now.group_rate)
        if groups is None and self.group_rate is UNSET and self.group_burst is UNSET:
            group_rate = None
        limit = now.limit if self.limit is UNSET else self.limit
        return replace(
            now, limit=limit, rate=_rate("rate", self.rate, "burst", self.burst, now.rate), groups=groups, group_rate=group_rate
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueChange:
    """The settings of a queue before and after. If `changed` is False, nothing was written."""

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
    limit: int | Unset | None = UNSET,
    rate: Rate | str | Unset | None = UNSET,
    burst: int | Unset = UNSET,
    groups: Groups | str | Unset | None = UNSET,
    group_rate: Rate | str | Unset | None = UNSET,
    group_burst: int | Unset = UNSET,
) -> QueueChange:
    """Change settings of `queue`, which need not exist yet: see :class:`QueueSettingsPatch`.

    Running jobs count at once. If a new limit is below the number of running jobs, they finish,
    and no job is admitted meanwhile. The group rule ``ordered`` removes the limits of single
    groups. In a caller's transaction, claims of the queue wait for its end: keep it short.

    Raises InvalidOption.
    """
    wanted = QueueSettingsPatch(
        limit=limit, rate=rate, burst=burst, groups=groups, group_rate=group_rate, group_burst=group_burst
    )
    script = configure_script(schema, queue, wanted, AuditRecord("configure", actor, reason))
    with conn.transaction():
        return run_script(sync_executor(conn), schema, script)


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
    """Let at most `limit` jobs of one group run at a time, instead of the queue's rule.

    None removes the group's own limit. Returns False if nothing changed. Raises InvalidOption,
    also if the queue has no group rule, or the rule ``ordered``.
    """
    script = configure_group_script(schema, queue, group, limit, AuditRecord("configure_group", actor, reason))
    with conn.transaction():
        return run_script(sync_executor(conn), schema, script)


def reading_script(queue: str) -> Script[QueueSettings]:
    """Read the settings of `queue`."""
    found = yield "queue_settings", {"queue": queue}
    return settings_of(dict(zip(COLUMNS, found[0], strict=True))) if found else QueueSettings()


def configure_script(schema: str, queue: str, wanted: QueueSettingsPatch, note: AuditRecord) -> Script[QueueChange]:
    """Do the work of :func:`configure`."""
    check_text("queue", queue, 100)
    # The current settings matter: a burst may apply to the existing rate. Refuse before any wait.
    yield "queue_lock", {"schema": schema, "queue": queue}
    before = yield from reading_script(queue)
    after = wanted.over(before)
    if after == before:
        return QueueChange(queue=queue, before=before, after=before, changed=False)
    found = yield "queue_configure", {"queue": queue, **_columns(after)}
    after = replace(after, changed_at=stored_time(found[0][0]))
    said = after.fields()
    if after.groups is not None and after.groups.mode == "ordered":
        # Otherwise claim_limited would apply them, and run several jobs of a group.
        removed = (yield "group_limit_clear_all", {"queue": queue})[0][0]
        if removed:
            said |= {"limits of groups taken away": removed}
    if after.limited:
        yield from _count_running(queue)
    yield from _rescale(queue, "rate_rescale", before.rate, after.rate)
    yield from _rescale(queue, "rate_rescale_groups", before.group_rate, after.group_rate)
    if (before.groups, before.group_rate) != (after.groups, after.group_rate):
        yield "group_heads_forget", {"queue": queue}
        yield "group_ready_all", {"queue": queue}
    yield "notify_queue", {"schema": schema, "queue": queue}
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


def configure_group_script(schema: str, queue: str, group: str, limit: int | None, note: AuditRecord) -> Script[bool]:
    """Do the work of :func:`configure_group`."""
    check_text("queue", queue, 100)
    check_text("group", group, 200)
    if limit is not None:
        check_int(
            "limit",
            limit,
            1,
            MAX_NUMBER,
            zero_hint="to start nothing of a group, cancel its jobs; to clear the limit, set none",
        )
    yield "queue_lock", {"schema": schema, "queue": queue}
    settings = yield from reading_script(queue)
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
    found = yield "group_limit_get", where
    former = found[0][0] if found else None
    if former == limit:
        return False
    yield ("group_limit_clear", where) if limit is None else ("group_limit_set", where | {"limit": limit})
    yield "group_ready_one", where
    yield "queue_touch", {"queue": queue}
    yield "notify_queue", {"schema": schema, "queue": queue}
    yield "audit_write", note.row(where, before={"limit": former}, after={"limit": limit})
    return True


def _count_running(queue: str) -> Script[None]:
    """Count running jobs. A locked row usually disappears soon; if it stays, it is tried again."""
    for left in reversed(range(_TRIES)):
        missed = (yield "count_running", {"queue": queue})[0][0]
        if not missed or not left:
            return
        yield "sleep_briefly", {}


def _rescale(queue: str, name: str, before: Rate | None, after: Rate | None) -> Script[None]:
    if before is None or before == after:
        return
    factor = None if after is None else after.share / before.share
    most = None if after is None else after.burst * after.share
    yield name, {"queue": queue, "factor": factor, "most": most}


def _rate(
    name: str, rate: Rate | str | Unset | None, burst_name: str, burst: int | Unset, now: Rate | None
) -> Rate | None:
    if burst is not UNSET:
        check_int(burst_name, burst, 1, MAX_NUMBER)
    if rate is UNSET:
        if burst is UNSET:
            return now
        if now is None:
            raise InvalidOption(f"{burst_name}={burst}: a burst needs a {name}: set {name} as well")
        return replace(now, burst=burst)
    if rate is None:
        if burst is not UNSET:
            raise InvalidOption(f"{burst_name}={burst}: a burst needs a {name}: set one, or leave out the burst")
        return None
    if isinstance(rate, str):
        kept = 1 if now is None else now.burst
        return Rate.parse(rate, burst=kept if burst is UNSET else burst, name=name)
    if not isinstance(rate, Rate):
        raise InvalidOption(f"{name}={rate!r}: expected text such as '50/s', a Rate, or None")
    if burst not in (UNSET, rate.burst):
        raise InvalidOption(
            f"{burst_name}={burst}: the {name} has its own burst, {rate.burst}: expected only one of them"
        )
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
