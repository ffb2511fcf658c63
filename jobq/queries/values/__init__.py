"""What the reads return. All times are aware and from the database's clock; all durations are seconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from jobq.flow import QueueSettings
from jobq.queries.cursor import Cursor

# Counts stop here: a page must not take longer because a table is larger.
COUNT_LIMIT = 10_000
# A worker whose heartbeat is older than the first is late, older than its lease silent. The second stands for the lease of a
# worker whose row does not tell it: one of an earlier version.
LATE_SECONDS = 5.0
SILENT_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueInfo:
    """One queue. Counts above COUNT_LIMIT mean "more than", those of `ready` and `scheduled` already above `counted_to`: where
    there are many queues, each is counted less far. `waiting`: for their groups' turn. `parked`: for a worker with other code.
    `failed` counts among the newest
    COUNT_LIMIT dead letters. `due` counts all jobs that are due, whatever their state: ready, waiting, or parked; and
    `oldest_ready_seconds` is how long the oldest of these has been due. `oldest_unheld_seconds` is the same of those in state
    ready alone, which neither a group's turn nor other code holds back.
    """

    name: str
    ready: int
    scheduled: int
    running: int
    failed: int
    oldest_ready_seconds: float | None
    paused_at: datetime | None
    paused_by: str | None
    pause_reason: str | None
    counted_to: int = COUNT_LIMIT
    waiting: int = 0
    parked: int = 0
    due: int = 0
    oldest_unheld_seconds: float | None = None
    settings: QueueSettings = field(default_factory=QueueSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """One job in a list. `state` is one of STATES; `args` is None when they are too large for a list (over 2
    kB).
    """

    id: int
    task: str
    queue: str
    state: str
    priority: int
    attempt: int
    max_attempts: int
    run_at: datetime
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    cancel_requested_at: datetime | None
    worker_id: UUID | None
    key: str | None
    error: str | None
    args: Any
    progress: Any
    group_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPage:
    """Rows found by a search, newest first. `before_id` continues it, and is None when nothing is left to
    search.

    `complete` is False when the search gave up, having looked at many jobs, before the page was full: `searched` says at
    how many, those of the states asked for, and `floor_id` what the lowest of their ids is. Where an index leads to what
    is wanted, no more than the rows were looked at.

    `order` is ``id`` or ``finished``; in the latter the page ends with the job that finished at `before_at`, and `before` has
    both.
    """

    rows: list[JobRow]
    before_id: int | None
    complete: bool
    searched: int = 0
    floor_id: int | None = None
    before_at: datetime | None = None
    order: str = "id"

    @property
    def before(self) -> Cursor | None:
        """What continues it, in its own order."""
        return None if self.before_id is None else Cursor(self.before_id, self.before_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt that did not succeed. `claims` tells attempts apart across snoozes and redrives."""

    claims: int
    attempt: int
    outcome: str
    worker_id: UUID | None
    started_at: datetime | None
    finished_at: datetime
    retry_at: datetime | None
    error_type: str | None
    message: str | None
    traceback: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDetail:
    """One job, live or finished, with its newest unsuccessful attempts (oldest first, at most 100)."""

    id: int
    task: str
    queue: str
    state: str
    priority: int
    attempt: int
    max_attempts: int
    claims: int
    crashes: int
    run_at: datetime
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None
    cancel_requested_at: datetime | None
    worker_id: UUID | None
    timeout: float | None
    key: str | None
    group_key: str | None
    error: str | None
    args: Any
    headers: Any
    progress: Any
    result: Any
    read_at: datetime
    parked_at: datetime | None = None
    """Since when workers' code has refused it; None when it was not refused, or has run since."""
    parked_reason: str | None = None
    parked_signature: str | None = None
    key_scope: str | None = None
    """Of a job with a key: ``task``, or ``global`` for one key for all tasks."""
    attempts: list[Attempt] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """One dispatcher, as its last heartbeat left it. `queues` is None when it serves every queue.

    `asked` is what an operator wants of it (``quiet``, ``stop``; None: that it works), `state` what it does: it hears of the
    one, and shows the other, within a heartbeat. `rss` is its memory and its runners', in bytes; None: unknown. `problems` are
    what it cannot do at present: each with ``what``, ``error``, ``since`` (ISO 8601), ``tries`` and its subject (``job``, …).
    """

    id: UUID
    host: str
    pid: int
    version: str
    app: str | None
    state: str
    queues: list[str] | None
    tasks: list[str]
    slots: int
    running: int
    asked: str | None
    rss: int | None
    started_at: datetime
    heartbeat_at: datetime
    heartbeat_seconds: float
    lease: float | None = None
    """Seconds without a heartbeat after which its jobs are others'."""
    problems: list[dict[str, Any]] = field(default_factory=list)

    @property
    def health(self) -> str:
        """``alive``, ``late`` (no heartbeat for 5 s) or ``silent`` (for as long as its lease: its jobs are being given to
        others).
        """
        if self.heartbeat_seconds >= (SILENT_SECONDS if self.lease is None else self.lease):
            return "silent"
        return "late" if self.heartbeat_seconds >= LATE_SECONDS else "alive"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoreInfo:
    """One maintenance chore: when it is due, when it last ran, and how that went."""

    name: str
    due_at: datetime
    last_run_at: datetime | None
    last_worker: UUID | None
    last_report: str | None
    last_error: str | None
    overdue_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One operator's action and what it touched: ``{"ids": […]}``, ``{"queue": …}``, ``{"worker": …}`` or ``{"operation": …}``.

    `role` and `address` are of those who came over the status page. `before` and `after` are what the action changed: of one
    job ``{"priority": 5}``, of several the same by id; None where nothing is to be told.
    """

    id: int
    at: datetime
    actor: str
    action: str
    target: Any
    reason: str | None
    role: str | None
    address: str | None
    before: Any
    after: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Minute:
    """Jobs that finished within one minute; `minutes_ago` 0 is the running one."""

    minutes_ago: int
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    expired: int = 0

    @property
    def total(self) -> int:
        """All that finished in this minute."""
        return self.succeeded + self.failed + self.cancelled + self.expired


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """The last hour, oldest minute first. `since` is set when only the time after it could be read
    cheaply.
    """

    minutes: list[Minute]
    since: datetime | None

    @property
    def total(self) -> int:
        """All that finished in the time seen."""
        return sum(minute.total for minute in self.minutes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """The state of the whole at one moment. Counts above COUNT_LIMIT mean "more than".

    `aside_complete` is False when parked jobs were counted among the newest COUNT_LIMIT live jobs
    only. `estimates` has the planner's number for each state whose count is more than COUNT_LIMIT: never exact, and as old as
    the last ANALYZE.
    """

    counts: dict[str, int]
    aside_complete: bool
    queues: list[QueueInfo]
    oldest_ready_seconds: float | None
    workers: list[WorkerInfo]
    throughput: Throughput | None
    failures: list[JobRow]
    revision: str | None
    read_at: datetime
    estimates: dict[str, int] = field(default_factory=dict)
    due: int = 0
    """Jobs that are due, whatever their state, as far as they were counted; `oldest_ready_seconds` is of these."""

    @property
    def workers_alive(self) -> int:
        """Workers heard of within their leases."""
        return sum(worker.health != "silent" for worker in self.workers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """The numbers of :class:`Overview` without its lists, for machines."""

    counts: dict[str, int]
    queues: list[QueueInfo]
    oldest_ready_seconds: float | None
    workers_alive: int
    slots: int
    finished_last_hour: int
    failed_last_hour: int
    finished_since: datetime | None
    estimates: dict[str, int] = field(default_factory=dict)
    due: int = 0
