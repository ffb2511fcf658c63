"""What a worker is told: each option's default, and what choosing otherwise costs."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from jobq.config import Settings
from jobq.errors import ConfigurationError
from jobq.logs import LogFormat
from jobq.worker.httpd import Address
from jobq.worker.served import MAX_NAME, MAX_NUMBER, QueueOrder, ServedQueue, no_twins


def _default_processes() -> int:
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """Options of one worker daemon. Raises ConfigurationError for a value that cannot be used."""

    app: str
    """The application as ``module:attribute``; only runners import it."""

    settings: Settings
    """Database, schema and limits."""

    queues: tuple[str, ...] | None = None
    """Queues to serve (default: None, every queue). Naming some keeps slow work from holding up quick work, at the price
    that a queue which no worker names stands still."""

    queue_weights: Mapping[str, int] = field(default_factory=dict)
    """Weights of queues that are named, from 1 on (default: 1 each): while all have due jobs, jobs are claimed from them in
    this proportion, counted in jobs, not in the time that they take. More for one is less for the others, though never
    nothing; what a queue does not need, the others get."""

    queue_caps: Mapping[str, int] = field(default_factory=dict)
    """Most jobs of a named queue that this worker holds at a time, from 1 on (default: no limit but its slots). A cap keeps
    slots free for the other queues, and leaves them idle when only this queue has jobs."""

    queue_order: QueueOrder | None = None
    """How it is chosen between the queues (default: None, `SHARES` when a weight is given, else `PRIORITY`). `PRIORITY` keeps
    high priorities ahead of low ones over all queues, so a queue with only low ones can starve; `SHARES` keeps the
    proportions whatever the priorities, so a job of priority 9 can wait for another queue's of priority 0; `STRICT` serves
    the queues in the order in which they are named, so the last can starve."""

    aging: float | None = None
    """Seconds of waiting for which a due job counts as one priority higher within its queue (default: None, strict
    priorities). A number lets the lowest move under a constant load of higher ones: one of priority 0 goes before a new one
    of priority 9 after nine times this. Shorter makes priorities mean less, and looks at the queues more often (four times
    in this time, at most four times a second, while there is a backlog)."""

    concurrency: int = 16
    """Jobs that one runner executes at the same time (default: 16). Each takes a thread of the runner; more suits tasks
    that wait, fewer suits tasks that compute or use much memory."""

    processes: int = field(default_factory=_default_processes)
    """Runner processes (default: as many as CPUs). More use more CPUs for tasks that compute, and keep a task that holds
    the interpreter from stopping the others; each imports the application, so each costs its memory."""

    isolated: int = 2
    """Most processes for jobs that run alone (default: 2): so many for tasks with ``isolation="process"`` and for jobs that
    were interrupted twice on account of other jobs, and so many again for jobs that have cost a runner its life. More run
    more such jobs at a time; each costs the application's memory while it works and for 10 seconds after. Jobs beyond
    that wait in the database and are looked at every few seconds."""

    max_jobs_per_runner: int | None = None
    """Jobs after which a runner is replaced (default: None, never). A number bounds what a leak can take, at the price of
    an import of the application every so many jobs; its successor is started ahead of time."""

    max_rss_mb: int | None = None
    """Resident memory, in MiB, above which a runner is replaced: it gets no more jobs and ends with those that it has
    (default: None, no limit). At one and a half times this it is killed at once, which counts as a crash of what it was
    running: leave room for what the jobs of one runner need together. Programs that tasks start are not counted."""

    import_timeout: float = 120.0
    """Seconds that a runner gets to import the application (default: 120). Longer suits heavy imports; shorter notices
    an import that hangs sooner."""

    timeout_grace: float = 2.0
    """Seconds between a job's timeout, when it is interrupted, and the end of its runner by force (default: 2). Longer
    lets tasks clean up; shorter frees the slot of one that does not react sooner. See `bystander_grace` for the jobs
    beside it."""

    bystander_grace: float = 30.0
    """Seconds that the jobs beside one that must be ended by force get to end by themselves (default: 30). Meanwhile their
    runner gets no new jobs and another has taken its place, so up to twice as many runners use memory, and the job that is
    to be ended goes on, and is tried again only after its end. Longer interrupts fewer jobs; 0 ends the runner at once. What
    is interrupted runs again, unpunished, and alone from the second time on."""

    drain: bool = False
    """Exit with 0 when no job is ready, running or due (default: False). Future jobs are left."""

    shutdown_timeout: float = 25.0
    """Seconds that running jobs get after SIGTERM (default: 25, below systemd's and Kubernetes' kill at 90 and 30).
    Longer lets longer jobs finish, and makes deployments slower; a job that is cut off runs again, unpunished."""

    poll_interval: float = 1.0
    """Seconds between looks at the queues while notifications cannot be heard, or inserts are silent because many come
    (default: 1), made a fifth as often else. Shorter finds jobs sooner whose notification was lost, and costs a
    query each time."""

    heartbeat_interval: float = 2.0
    """Seconds between heartbeats (default: 2)."""

    lease: float = 30.0
    """Seconds without heartbeat after which another worker may take this one's jobs (default: 30). Shorter recovers
    sooner from a lost machine, and kills running jobs sooner when the database cannot be reached."""

    suspicion: float = 3.5
    """The same when the worker's advisory lock is free, as it is once its process has died (default: 3.5). Shorter runs a
    killed worker's jobs again sooner. A worker that loses its connection, and has not beaten again half a second before this
    time is over, ends its running jobs: so shorter leaves it less time to connect again."""

    max_crashes: int = 3
    """Times that a job may take its runner down before it fails for good (default: 3). More give a job that crashes by
    chance another try; each crash also interrupts the jobs beside it."""

    park_patience: float = 3600.0
    """Seconds that a job waits whose stored arguments fit the parameters of no live worker's task, before it fails
    (default: 3600). Longer suits deployments that take long or have to be undone; shorter makes a dead letter of a
    wrong call sooner. Jobs of a task that no worker has wait for ever."""

    max_error_bytes: int = 64 * 1024
    """Largest traceback kept of an attempt, in bytes (default: 64 KiB; the middle is cut out). More keeps deep ones whole,
    and makes the table of attempts larger."""

    keep_succeeded_days: float = 7.0
    """Days that succeeded jobs stay in history (default: 7)."""

    keep_failed_days: float = 90.0
    """Days that failed, cancelled and expired jobs and the attempts stay in history (default: 90)."""

    health_address: str | None = None
    """Where /livez, /readyz and /metrics are served: HOST:PORT or unix:PATH (default: None, nowhere). Any client that reaches
    the address can read the state and the names of tasks and queues, without a password: bind it to loopback or to a network
    of your own."""

    log_format: LogFormat = "text"
    """Format of the runners' logs, as the dispatcher's (default: text)."""

    log_level: str = "INFO"
    """Least level that the runners log (default: INFO)."""

    log_tracebacks: bool = False
    """Whether the log line of a failed attempt has the traceback, of at most 4,000 characters (default: False; it is kept with
    the attempt in any case). True shows it where logs are read, and makes them much larger while many jobs fail."""

    def __post_init__(self) -> None:
        for name in ("concurrency", "processes", "isolated", "max_jobs_per_runner", "max_rss_mb", "max_crashes"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigurationError(f"{name}={value!r}: give a number of at least 1")
        for name in (
            "poll_interval",
            "heartbeat_interval",
            "lease",
            "suspicion",
            "import_timeout",
            "keep_succeeded_days",
            "keep_failed_days",
        ):
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"{name}={getattr(self, name)!r}: give a number above 0")
        for name in ("shutdown_timeout", "timeout_grace", "bystander_grace", "park_patience"):
            if not getattr(self, name) >= 0:
                raise ConfigurationError(f"{name}={getattr(self, name)!r}: give a number of seconds, 0 or more")
        if not self.heartbeat_interval < self.suspicion <= self.lease:
            raise ConfigurationError(
                f"heartbeat_interval={self.heartbeat_interval}, suspicion={self.suspicion}, lease={self.lease}: "
                "each must be longer than the one before"
            )
        if self.health_address is not None:
            Address.parse(self.health_address)
        if self.aging is not None and not 0 < self.aging < math.inf:
            raise ConfigurationError(f"aging={self.aging!r}: give a number of seconds above 0, or None")
        self._check_queues()

    def _check_queues(self) -> None:
        queues = self.queues or ()
        if self.queues is not None and not (queues and all(1 <= len(queue) <= MAX_NAME for queue in queues)):
            raise ConfigurationError(f"queues={','.join(queues)!r}: give names of 1 to {MAX_NAME} characters")
        no_twins(queues)
        for name, numbers in (("queue_weights", self.queue_weights), ("queue_caps", self.queue_caps)):
            for queue, number in numbers.items():
                if queue not in queues:
                    raise ConfigurationError(f"{name} has {queue!r}, which is not among queues: name it there, too")
                if not isinstance(number, int) or not 1 <= number <= MAX_NUMBER:
                    raise ConfigurationError(
                        f"{name}[{queue!r}]={number!r}: give a whole number from 1 to {MAX_NUMBER:,}"
                    )
        if self.queue_order is QueueOrder.STRICT:
            if not queues:
                raise ConfigurationError(
                    "queue_order='strict' serves queues in the order in which they are named: name them"
                )
            if self.queue_weights:
                raise ConfigurationError(
                    "queue_order='strict' has no use for weights: leave them out, or choose 'shares'"
                )

    @property
    def queues_text(self) -> str:
        """The queues as `--queues` would name them, with weights and caps."""
        if self.queues is None:
            return "all"
        weights, caps = self.queue_weights, self.queue_caps
        return ",".join(
            str(ServedQueue(name=queue, weight=weights.get(queue), cap=caps.get(queue))) for queue in self.queues
        )

    @property
    def queues_by(self) -> QueueOrder:
        """How it is chosen between the queues."""
        if self.queue_order is not None:
            return self.queue_order
        return QueueOrder.SHARES if self.queue_weights else QueueOrder.PRIORITY
