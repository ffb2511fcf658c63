"""What the page's numbers return: series, groups of failures, one queue. All times are aware and from the database's clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from jobq.queries.values import JobRow, QueueInfo, WorkerInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """What a chart draws: parallel lists, oldest first. None: nothing was counted then (no worker ran), or nothing measured.

    `at` is when each span begins, in seconds since 1970; durations are seconds; `ready` is as found at the end of the span, and
    None throughout for a task. Counts of a busy system (some 4,000 jobs a second) are estimates from a sample.
    """

    span: int
    at: list[int]
    succeeded: list[int | None]
    failed: list[int | None]
    cancelled: list[int | None]
    expired: list[int | None]
    ready: list[int | None]
    oldest_ready: list[float | None]
    wait_p50: list[float | None]
    wait_p95: list[float | None]
    wait_p99: list[float | None]
    run_p50: list[float | None]
    run_p95: list[float | None]
    run_p99: list[float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentiles:
    """Half, 95 % and 99 % of the durations are at most so many seconds; None where nothing was measured."""

    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureGroup:
    """Dead letters of one task whose errors differ in what changes from job to job only.

    `error` is the text without that, `sample` the newest one's own (300 characters); `trend` counts by hour, 24 of them, the
    running one last, among the jobs searched.
    """

    fingerprint: str
    task: str
    error: str
    sample: str
    count: int
    first_at: datetime
    last_at: datetime
    last_id: int
    queues: list[str]
    trend: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """Groups among the newest `searched` dead letters, largest first. `complete`: these are all there are.

    `number` is how many groups there are of those asked for, of which `groups` may be a part, and `total` how many of all.
    """

    groups: list[FailureGroup]
    number: int
    total: int
    searched: int
    complete: bool
    read_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureDetail:
    """One group with its newest jobs, newest first."""

    group: FailureGroup
    jobs: list[JobRow]
    searched: int
    complete: bool
    read_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueTask:
    """Due jobs of one task, among those of the queue that were looked at."""

    task: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupInfo:
    """One group of a queue. `limit`: how many of it may run at a time, where that is set for it alone."""

    key: str
    waiting: int
    running: int
    limit: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLimit:
    """How many of one group may run at a time."""

    key: str
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """The groups of one queue that have waiting jobs.

    `number` is how many they are, above `bound`: more than that, and `largest` are the largest of these; counts of their jobs
    above `counted_to` mean "more than". `turns` is how many times a claim is to look at one of them, `turns_due` at once, and
    `oldest_turn_seconds` for how long the first of these has been due. `limits`: groups with limits of their own, the first
    by name, all of them where `limits_complete`.
    """

    number: int
    bound: int
    counted_to: int
    largest: list[GroupInfo]
    turns: int
    turns_due: int
    oldest_turn_seconds: float | None
    limits: list[GroupLimit]
    limits_complete: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueDetail:
    """One queue. `tasks` counts among the `looked_at` jobs that are next in line; `waits` and `runs` are of the last hour;
    `groups` is None where it has no rule for groups and no job waits for its group's turn.
    """

    info: QueueInfo
    tasks: list[QueueTask]
    looked_at: int
    complete: bool
    workers: list[WorkerInfo]
    waits: Percentiles
    runs: Percentiles
    finished_last_hour: int
    failed_last_hour: int
    known: bool
    read_at: datetime
    groups: Groups | None = None
