"""Result types of the reads.

Times are aware and from the database's clock; durations are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from jobq.limits import QueueSettings
from jobq.queries.cursor import Cursor

# Counts stop here, so that a page does not take longer because a table is larger.
COUNT_LIMIT = 10_000
# A worker with an older heartbeat is late. If the heartbeat is older than its own lease, the
# worker is silent.
LATE_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueInfo:
    """One queue. Counts above COUNT_LIMIT mean "more than".

    If there are many queues, each is counted less far: counts of `ready` and `scheduled` mean "more
    than" already above `counted_to`. `waiting`: jobs that wait for their groups. `parked`: jobs
    that wait for a worker with other code. `failed` counts among the newest COUNT_LIMIT dead
    letters. `due` counts all due jobs: ready, waiting, or parked; `oldest_ready_seconds` is how
    long the oldest of them has been due. `oldest_unheld_seconds` is the same for jobs in state
    ready alone, which neither their groups nor missing code holds back.
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
    """One job in a list. `state` is one of STATES; `args` is None if they are larger than 2 kB."""

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
    """Rows found by a search, newest first. `before_id` continues it; None: nothing is left.

    If the search gave up after many jobs before the page was full, `complete` is False. `searched`
    is then the number of jobs of the requested states that it looked at, and `floor_id` is the
    lowest id of them. If an index leads to the jobs, only the returned rows were looked at.

    `order` is ``id`` or ``finished``. With ``finished``, the page ends with the job that finished
    at `before_at`, and `before` has both values.
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
        """The cursor that continues the page, in its own order."""
        return None if self.before_id is None else Cursor(self.before_id, self.before_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt that did not succeed.

    `claims` identifies attempts across snoozes and redrives.
    """

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
    log: str | None = None
    """The newest log records of the attempt, in UTC.

    None: it logged nothing, its runner was killed, or logs are not kept.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class JobNode:
    """The node of a workflow's run that a job is."""

    id: int
    """The run."""
    name: str
    """The workflow."""
    node: str
    """The node's name."""
    number: int
    """The node's number in the run, from 1."""
    item: int | None
    """The item of a map, from 0; None if the node is no map."""
    parent_job_id: int | None = None
    """The durable job whose child the run is; None: it is no child."""

    def __str__(self) -> str:
        item = "" if self.item is None else f", item {self.item},"
        return f"node '{self.node}'{item} of workflow run {self.id} '{self.name}'"


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
    """When workers' code first refused it; None if it was not refused, or has run since."""
    parked_reason: str | None = None
    parked_signature: str | None = None
    key_scope: str | None = None
    """For a job with a key: ``task``, or ``global`` if all tasks share the key."""
    attempts: list[Attempt] = field(default_factory=list)
    workflow: JobNode | None = None
    """The node that it is; None if it belongs to no run, or retention has removed the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """One dispatcher, as of its last heartbeat. `queues` is None if it serves every queue.

    `requested_state` is the state that an operator has requested (``quiet``, ``stop``; None: work). `state`
    is the actual state, which follows within a heartbeat. `rss` is the memory of the worker and its
    runners in bytes; None: unknown. `problems` lists what it cannot do at present: each entry has
    ``what``, ``error``, ``since`` (ISO 8601), ``tries`` and its subject (``job``, …).
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
    requested_state: str | None
    rss: int | None
    started_at: datetime
    heartbeat_at: datetime
    heartbeat_seconds: float
    lease: float
    """Seconds without a heartbeat after which other workers take its jobs."""
    problems: list[dict[str, Any]] = field(default_factory=list)

    @property
    def health(self) -> str:
        """``alive``, ``late`` (no heartbeat for 5 s) or ``silent``.

        A worker is silent if its last heartbeat is older than its lease: other workers take its
        jobs.
        """
        if self.heartbeat_seconds >= self.lease:
            return "silent"
        return "late" if self.heartbeat_seconds >= LATE_SECONDS else "alive"


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceTaskInfo:
    """One maintenance task: when it is due, when it last ran, and the result."""

    name: str
    due_at: datetime
    last_run_at: datetime | None
    last_worker: UUID | None
    last_report: str | None
    last_error: str | None
    overdue_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One operator's action and its target.

    The target is ``{"ids": […]}``, ``{"queue": …}``, ``{"worker": …}`` or ``{"operation": …}``.
    `role` and `address` are set if the action came from the status page. `before` and `after` are
    the changed values: ``{"priority": 5}`` for one job, the same by id for several jobs, or None.
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
    """Jobs that finished within one minute. `minutes_ago` is 0 for the current minute."""

    minutes_ago: int
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    expired: int = 0

    @property
    def total(self) -> int:
        """Number of jobs that finished in this minute."""
        return self.succeeded + self.failed + self.cancelled + self.expired


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """The last hour, oldest minute first.

    `since` is set if only the time after it could be read cheaply.
    """

    minutes: list[Minute]
    since: datetime | None

    @property
    def total(self) -> int:
        """Number of jobs that finished in the covered time."""
        return sum(minute.total for minute in self.minutes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """The state of the whole system at one moment. Counts above COUNT_LIMIT mean "more than".

    If `aside_complete` is False, parked jobs were counted only among the newest COUNT_LIMIT live
    jobs. `estimates` has the planner's number for each state with more than COUNT_LIMIT jobs: it is
    never exact, and as old as the last ANALYZE.
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
    """Due jobs in any state, as far as they were counted.

    `oldest_ready_seconds` covers the same jobs.
    """

    @property
    def workers_alive(self) -> int:
        """Workers with a heartbeat within their leases."""
        return sum(worker.health != "silent" for worker in self.workers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """The numbers of :class:`Overview` without its lists, for programs."""

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
