"""Result types of the page's statistics: series, failure groups, one queue.

All times are aware and from the database's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from jobq.queries.values import JobRow, QueueInfo, WorkerInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Data of a chart: parallel lists, oldest first.

    None: nothing was counted (no worker ran), or nothing was measured. `at` is the start of each
    span in seconds since 1970; durations are seconds. `ready` is the number at the end of the span;
    it is always None for a task. In a busy system (about 4,000 jobs a second) counts are estimates
    from a sample.
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
    """50 %, 95 % and 99 % of the durations are at most this many seconds; None: not measured."""

    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureGroup:
    """Dead letters of one task whose errors differ only in text that varies from job to job.

    `error` is the text without that part; `sample` is the newest error itself (300 characters).
    `trend` counts the searched jobs by hour: 24 hours, the current one last.
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
    """Groups among the newest `searched` dead letters, largest first.

    `complete`: there are no other dead letters. `number`: how many groups match the request;
    `groups` may be a part of them. `total`: how many groups there are.
    """

    groups: list[FailureGroup]
    number: int
    total: int
    searched: int
    complete: bool
    read_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureDetail:
    """One group with its newest jobs first."""

    group: FailureGroup
    jobs: list[JobRow]
    searched: int
    complete: bool
    read_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueTask:
    """Due jobs of one task among the jobs of the queue that were looked at."""

    task: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupInfo:
    """One group of a queue. `limit`: its own limit of running jobs; None: not set."""

    key: str
    waiting: int
    running: int
    limit: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLimit:
    """Most jobs of one group that may run at a time."""

    key: str
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """The groups of one queue that have waiting jobs.

    `number` is the number of groups; above `bound` it means "more than". `largest` are the largest
    of these; counts of jobs above `counted_to` mean "more than". `turns` is the number of ready
    groups, `turns_due` the number that are due now, and `oldest_turn_seconds` how long the first
    has been due. `limits` are groups with their own limits, the first ones by name;
    `limits_complete` says whether these are all.
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
    """One queue. `tasks` counts the `looked_at` next jobs; `waits` and `runs` cover the last hour.

    `groups` is None if the queue has no group rule and no job waits for its group.
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
