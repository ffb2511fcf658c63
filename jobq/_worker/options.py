"""The options of a worker: the default of each, and the cost of another value."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from jobq._core.logs.formats import LogFormat
from jobq._worker.listen_address import Address
from jobq._worker.queue_spec import MAX_NAME, MAX_NUMBER, QueueOrder, QueueSpec, no_twins
from jobq.errors import ConfigurationError
from jobq.settings import Settings


def _default_processes() -> int:
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """Options of one worker daemon. Raises ConfigurationError for an unusable value."""

    app: str
    """The application as ``module:attribute``; only runners import it."""

    settings: Settings
    """Database, schema and limits."""

    queues: tuple[str, ...] | None = None
    """Queues to serve (default: None, every queue).

    Named queues keep slow work from delaying quick work.

    The cost: a queue that no worker names stands still.
    """

    queue_weights: Mapping[str, int] = field(default_factory=dict)
    """Weights of named queues, at least 1 (default: 1 each).

    While all have due jobs, jobs are claimed from them in this proportion, counted in jobs, not in
    their run time. More for one queue is less for the others, though never nothing. Other queues
    get what a queue does not need.
    """

    queue_caps: Mapping[str, int] = field(default_factory=dict)
    """Most jobs of a named queue that this worker holds at a time, at least 1 (default: no cap).

    A cap keeps slots free for other queues, and leaves them idle if only this queue has jobs.
    """

    queue_order: QueueOrder | None = None
    """How the worker chooses between queues.

    The default is None: `SHARES` if a weight is given, else `PRIORITY`.
    `PRIORITY` puts high priorities before low ones over all queues, so a queue with only low ones
    can starve. `SHARES` keeps the proportions whatever the priorities, so a job of priority 9 can
    wait for another queue's job of priority 0. `STRICT` serves the queues in the order of their
    names in the option, so the last can starve.
    """

    aging: float | None = None
    """Seconds of waiting that raise a due job by one priority in its queue.

    The default is None: strict priorities. With a number, the lowest priority progresses under a
    constant load of higher ones: a job of priority 0 goes before a new job of priority 9 after nine
    times this. A shorter time makes priorities matter less, and polls the queues more often (four
    times in this time, at most four times a second, while there is a backlog).
    """

    concurrency: int = 16
    """Jobs that one runner executes at the same time (default: 16).

    Each takes a thread of the runner. More suits tasks that wait; fewer suits tasks that compute or
    use much memory.
    """

    processes: int = field(default_factory=_default_processes)
    """Runner processes (default: the number of CPUs).

    More use more CPUs for tasks that compute, and keep a task that holds the interpreter from
    stopping the others. Each imports the application, so each costs its memory.
    """

    isolated: int = 2
    """Most processes for jobs that run alone (default: 2).

    This many serve tasks with ``isolation="process"`` and jobs that were interrupted twice because
    of other jobs. The same number again serves jobs that have crashed a runner. More run more such
    jobs at a time; each costs the application's memory while it works and for 10 seconds after.
    Further jobs wait in the database and are polled every few seconds.
    """

    max_jobs_per_runner: int | None = None
    """Jobs after which a runner is replaced (default: None, never).

    A number bounds the effect of a leak, at the cost of an import of the application every so many
    jobs. The successor is started ahead of time.
    """

    max_rss_mb: int | None = None
    """Resident memory, in MiB, above which a runner is replaced (default: None, no limit).

    The runner then gets no more jobs and ends after its current ones. At one and a half times this,
    it is killed at once, which counts as a crash of its running jobs: leave room for what the jobs
    of one runner need together. Programs that tasks start are not counted.
    """

    preload: bool = False
    """Whether runners are forked from a process that has imported the application (default: False).

    If False, each runner imports it. If True, a replacement runner, and one for a job that runs
    alone, is ready in milliseconds, and runners share the memory of the import. The cost is one
    more process, and one more import at the start. What the import made is the same in each such
    runner, including `random.Random` objects and ids made from the process id; and a replacement
    runner runs the code of the worker's start. If the import starts threads or processes, or opens
    connections, event loops or files, nothing is forked: the log says why.
    """

    import_timeout: float = 120.0
    """Seconds that a runner gets to import the application (default: 120).

    Longer suits heavy imports; shorter detects an import that hangs sooner.
    """

    timeout_grace: float = 2.0
    """Seconds from a job's timeout, which interrupts it, to killing its runner (default: 2).

    Longer lets tasks clean up; shorter frees the slot of a task that does not react sooner. See
    `bystander_grace` for the jobs beside it.
    """

    bystander_grace: float = 30.0
    """Seconds that other jobs in a runner get before it is killed because of one job (default: 30).

    Meanwhile the runner gets no new jobs and another has taken its place, so up to twice as many
    runners use memory. The job in question continues, and is tried again only after its end. Longer
    interrupts fewer jobs; 0 kills the runner at once. An interrupted job runs again without a
    penalty, and alone from the second time on.
    """

    drain: bool = False
    """Exit with 0 if no job is ready, running or due (default: False). Future jobs are left."""

    shutdown_timeout: float = 25.0
    """Seconds that running jobs get after SIGTERM (default: 25).

    The default is below the kill times of systemd (90) and Kubernetes (30). Longer lets longer jobs
    finish, and makes deployments slower. An interrupted job runs again without a penalty.
    """

    poll_interval: float = 1.0
    """Seconds between polls if notifications cannot be heard, or inserts send none (default: 1).

    Inserts send none while many jobs arrive. Otherwise the worker polls a fifth as often. Shorter
    finds jobs sooner whose notification was lost, and costs a query each time.
    """

    heartbeat_interval: float = 2.0
    """Seconds between heartbeats (default: 2)."""

    lease: float = 30.0
    """Seconds without a heartbeat after which other workers may take this one's jobs (default: 30).

    Shorter recovers sooner from a lost machine, and kills running jobs sooner if the database
    cannot be reached.
    """

    suspicion: float = 3.5
    """The same if the worker's advisory lock is free, as after its process has died (default: 3.5).

    Shorter runs a killed worker's jobs again sooner. If a worker loses its connection, and sends no
    heartbeat until half a second before this time is over, it ends its running jobs: a shorter time
    leaves it less time to reconnect.
    """

    max_crashes: int = 3
    """Times that a job may crash its runner before it fails permanently (default: 3).

    More gives a job that crashes by chance another try; each crash also interrupts the jobs beside
    it.
    """

    park_patience: float = 3600.0
    """Seconds until a job fails if its arguments fit no live worker's task (default: 3600).

    Longer suits deployments that take long or must be undone; shorter makes a wrong call a dead
    letter sooner. Jobs of a task that no worker has wait forever.
    """

    max_error_bytes: int = 64 * 1024
    """Largest traceback kept of an attempt, in bytes (default: 64 KiB; the middle is cut out).

    More keeps deep ones whole, and makes the table of attempts larger.
    """

    keep_succeeded_days: float = 7.0
    """Days that succeeded jobs stay in the history, and succeeded workflows with their results (default: 7)."""

    keep_failed_days: float = 90.0
    """Days that failed, cancelled and expired jobs, attempts, and other ended workflows are kept (default: 90)."""

    health_address: str | None = None
    """Address of /livez, /readyz and /metrics: HOST:PORT or unix:PATH (default: None, not served).

    Any client that reaches it can read the state and the names of tasks and queues, without a
    password: bind it to loopback or to a private network.
    """

    log_format: LogFormat = "text"
    """Format of the runners' logs, the same as the dispatcher's (default: text)."""

    log_level: str = "INFO"
    """Lowest level that the runners log (default: INFO)."""

    log_tracebacks: bool = False
    """Whether the log line of a failed attempt has the traceback (default: False).

    The log has at most 4,000 characters of it. It is stored with the attempt in any case. True
    shows it where logs are read, and makes them much larger while many jobs fail.
    """

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
        """The queues as `--queues` would name them, including weights and caps."""
        if self.queues is None:
            return "all"
        weights, caps = self.queue_weights, self.queue_caps
        return ",".join(
            str(QueueSpec(name=queue, weight=weights.get(queue), cap=caps.get(queue))) for queue in self.queues
        )

    @property
    def queues_by(self) -> QueueOrder:
        """The order in which the queues are served."""
        if self.queue_order is not None:
            return self.queue_order
        return QueueOrder.SHARES if self.queue_weights else QueueOrder.PRIORITY
