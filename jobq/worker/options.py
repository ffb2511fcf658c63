"""What a worker is told: each option's default, and what choosing otherwise costs."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from jobq.config import Settings
from jobq.errors import ConfigurationError
from jobq.logs import LogFormat
from jobq.worker.httpd import Address


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

    concurrency: int = 16
    """Jobs that one runner executes at the same time (default: 16). Each takes a thread of the runner; more suits tasks
    that wait, fewer suits tasks that compute or use much memory."""

    processes: int = field(default_factory=_default_processes)
    """Runner processes (default: as many as CPUs). More use more CPUs for tasks that compute, and keep a task that holds
    the interpreter from stopping the others; each imports the application, so each costs its memory."""

    isolated: int = 2
    """Most processes for jobs that run alone: those of tasks with ``isolation="process"``, and those that have crashed
    runners before (default: 2). More run more such jobs at a time; each costs the application's memory while it works
    and for 10 seconds after. Jobs beyond that wait in the database and are looked at every few seconds."""

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
    lets tasks clean up; shorter frees the slot of one that does not react sooner. Each such end interrupts the jobs
    beside it, which run again, unpunished."""

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

    suspicion: float = 4.0
    """The same when the worker's advisory lock is free, as it is once its process has died (default: 4)."""

    max_crashes: int = 3
    """Times that a job may take its runner down before it fails for good (default: 3). More give a job that crashes by
    chance another try; each crash also interrupts the jobs beside it."""

    max_error_bytes: int = 64 * 1024
    """Largest traceback kept of an attempt, in bytes (default: 64 KiB; the middle is cut out). More keeps deep ones whole,
    and makes the table of attempts larger."""

    keep_succeeded_days: float = 7.0
    """Days that succeeded jobs stay in history (default: 7)."""

    keep_failed_days: float = 90.0
    """Days that failed, cancelled and expired jobs and the attempts stay in history (default: 90)."""

    health_address: str | None = None
    """Where /livez, /readyz and /metrics are served: HOST:PORT or unix:PATH (default: None, nowhere). Whoever reaches the
    address can read the state and the names of tasks and queues, without a password: bind it to loopback or to a network
    of your own."""

    log_format: LogFormat = "text"
    """Format of the runners' logs, as the dispatcher's (default: text)."""

    log_level: str = "INFO"
    """Least level that the runners log (default: INFO)."""

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
        for name in ("shutdown_timeout", "timeout_grace"):
            if not getattr(self, name) >= 0:
                raise ConfigurationError(f"{name}={getattr(self, name)!r}: give a number of seconds, 0 or more")
        if not self.heartbeat_interval < self.suspicion <= self.lease:
            raise ConfigurationError(
                f"heartbeat_interval={self.heartbeat_interval}, suspicion={self.suspicion}, lease={self.lease}: "
                "each must be longer than the one before"
            )
        if self.health_address is not None:
            Address.parse(self.health_address)
        if self.queues is not None and not all(1 <= len(queue) <= 100 for queue in self.queues):
            raise ConfigurationError(f"queues={','.join(self.queues)!r}: give names of 1 to 100 characters")
