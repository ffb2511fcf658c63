"""Prometheus metrics of one worker, with prometheus_client (`pip install 'jobq[metrics]'`).

The set of labels is bounded, whatever the database holds. `task` is a task that this worker's
application registers, otherwise ``(unknown)``. `queue` is one of the first queues seen; all others
are ``(other)``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from jobq._worker.health.state import WorkerHealth
from jobq._worker.ipc.messages import Disposition, Failure, Job, Success

if TYPE_CHECKING:
    from prometheus_client.core import Metric

# Maximum number of separate combinations of task and queue.
MAX_PAIRS = 200
MAX_QUEUES = 50
# Rendering takes milliseconds of the dispatcher's only thread. A scraper in a tight loop gets the
# same text again.
RENDER_EVERY = 1.0
_BUCKETS = (0.005, 0.02, 0.1, 0.5, 1, 2.5, 10, 30, 60, 300, 1800, 7200)

_OUTCOMES = {
    Disposition.RETRY: "retried",
    Disposition.FAIL: "failed",
    Disposition.CANCEL: "cancelled",
    Disposition.SNOOZE: "snoozed",
    Disposition.RELEASE: "released",
    Disposition.CRASH: "crashed",
    Disposition.EXPIRE: "expired",
    Disposition.PARK: "parked",
    Disposition.SUCCEED: "succeeded",
}


class Metrics:
    """Counts what the claim loop reports, and renders it together with `vitals` for a scraper."""

    def __init__(self, vitals: WorkerHealth, observe: Callable[[], None], tasks: Callable[[], Iterable[str]]) -> None:
        """Create the metrics.

        Args:
            vitals: The worker's health.
            observe: Updates `vitals`.
            tasks: Returns the names of the registered tasks.

        Raises:
            ModuleNotFoundError: prometheus_client is not installed.
        """
        from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
        from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

        self.content_type = CONTENT_TYPE_LATEST
        self._generate = generate_latest
        self._vitals = vitals
        self._observe = observe
        self._tasks = tasks
        # Use a registry of our own, not that of the process: a test or an embedding program may
        # have several workers.
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._executions = Counter(
            "jobq_executions",
            "Executions that have ended, by how; crashed and released ones will run again, as retried and snoozed do.",
            ("task", "queue", "outcome"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "jobq_execution_seconds",
            "How long executions took, from their start in a runner to their end.",
            ("task",),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._round_trips = Histogram(
            "jobq_claim_round_trip_seconds",
            "How long statements that acknowledge and claim took.",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30),
            registry=self._registry,
        )
        self._registry.register(_Gauges(vitals))
        self._labels: dict[tuple[str, str], tuple[str, str]] = {}
        self._queues: set[str] = set()
        self._counters: dict[tuple[str, str, str], Any] = {}
        self._histograms: dict[str, Any] = {}
        self._under_way: dict[tuple[int, int, int], tuple[str, str]] = {}
        self._rendered = b""
        self._rendered_at = -RENDER_EVERY

    def claimed(self, jobs: Iterable[Job]) -> None:
        """Note executions that belong to this worker from now on. The end of each is counted once."""
        for job in jobs:
            self._under_way[job.id, job.claims, job.started] = self._labels_of(job.task, job.queue)

    def succeeded(self, successes: Iterable[Success]) -> None:
        """Count successful executions, as their runner reports them."""
        numbers: dict[tuple[str, str], int] = {}
        for success in successes:
            if (labels := self._under_way.pop((success.id, success.claims, success.started), None)) is not None:
                numbers[labels] = numbers.get(labels, 0) + 1
                self._took(labels[0], success.seconds)
        for labels, number in numbers.items():
            self._count(labels, "succeeded", number)

    def ended(self, setback: Failure) -> None:
        """Count an execution that ended without success, as reported by runner or dispatcher."""
        if (labels := self._under_way.pop((setback.id, setback.claims, setback.started), None)) is None:
            return
        if setback.recorded == "timeout":
            name = "timed_out"
        elif setback.recorded == "crashed":
            name = "crashed"
        else:
            name = _OUTCOMES[setback.ending]
        self._count(labels, name, 1)
        if setback.seconds is not None:
            self._took(labels[0], setback.seconds)

    def _count(self, labels: tuple[str, str], name: str, number: int) -> None:
        key = (*labels, name)
        if (counter := self._counters.get(key)) is None:
            counter = self._counters[key] = self._executions.labels(*key)
        counter.inc(number)

    def _took(self, task: str, seconds: float) -> None:
        if (histogram := self._histograms.get(task)) is None:
            histogram = self._histograms[task] = self._seconds.labels(task)
        histogram.observe(seconds)

    def forget(self) -> None:
        """Forget the executions under way: another worker counts their ends."""
        self._under_way.clear()

    def round_trip(self, seconds: float) -> None:
        """Record the duration of a statement that acknowledges and claims."""
        self._round_trips.observe(seconds)

    def _labels_of(self, task: str, queue: str) -> tuple[str, str]:
        if (known := self._labels.get((task, queue))) is not None:
            return known
        known_task = task if task in self._tasks() else "(unknown)"
        if len(self._queues) < MAX_QUEUES:
            self._queues.add(queue)
        bounded = len(self._labels) < MAX_PAIRS
        labels = known_task, queue if bounded and queue in self._queues else "(other)"
        if bounded:
            # Keep no more: the table of names from the database must be bounded, too.
            self._labels[task, queue] = labels
        return labels

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format; at most one second old."""
        now = time.monotonic()
        if now - self._rendered_at >= RENDER_EVERY:
            self._observe()
            self._rendered = self._generate(self._registry)
            self._rendered_at = now
        return self._rendered


class _Gauges:
    """Converts WorkerHealth into metrics at each scrape."""

    def __init__(self, vitals: WorkerHealth) -> None:
        self._vitals = vitals

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics; prometheus_client calls this."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        vitals, now = self._vitals, time.monotonic()

        def age(then: float | None) -> float:
            return now - (vitals.started if then is None else then)

        gauges = {
            "jobq_running": ("Jobs that runners have, started or not.", vitals.running),
            "jobq_slots": ("Jobs that the ready runners can execute at the same time.", vitals.slots),
            "jobq_runners_ready": ("Runners that take jobs.", vitals.runners_ready),
            "jobq_runners": ("Runners that there should be.", vitals.runners_wanted),
            "jobq_outcomes_unrecorded": ("Outcomes that wait to be written.", vitals.unrecorded),
            "jobq_claim_age_seconds": ("Since the last claim or probe that succeeded.", age(vitals.claims.answered)),
            "jobq_heartbeat_age_seconds": ("Since the last heartbeat.", age(vitals.heartbeats.answered)),
            "jobq_listener_connected": ("Whether notifications arrive.", int(vitals.listener_connected)),
            "jobq_polling": (
                "Whether producers do not notify, and a lead poller looks for jobs.",
                int(vitals.silent_inserts),
            ),
            "jobq_lead_poller": ("Whether this worker is the lead poller.", int(vitals.leading)),
            "jobq_claiming": (
                "Whether jobs are claimed.",
                int(vitals.phase == "working" and vitals.held is None and not vitals.quiet),
            ),
            "jobq_quiet": ("Whether an operator has asked that no job is claimed.", int(vitals.quiet)),
            "jobq_problems": ("What the worker cannot do at present, and tries again.", len(vitals.problems)),
            "jobq_stuck": ("Whether the worker asks to be restarted.", int(vitals.stuck is not None)),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(name, text, value)
        yield CounterMetricFamily("jobq_outcomes_recorded", "Outcomes written to the database.", vitals.finished)
        yield CounterMetricFamily(
            "jobq_log_records_dropped",
            "Log records and lines that were dropped because their reader did not read them.",
            vitals.log_dropped,
        )
        deaths = CounterMetricFamily("jobq_runner_deaths", "Runners that ended, by why.", labels=("reason",))
        for reason in ("crashed", "killed"):
            deaths.add_metric([reason], vitals.runner_deaths[reason])
        yield deaths
        errors = CounterMetricFamily("jobq_database_errors", "Tries that the database failed.", labels=("connection",))
        errors.add_metric(["claims"], vitals.claims.errors)
        errors.add_metric(["heartbeats"], vitals.heartbeats.errors)
        errors.add_metric(["notifications"], vitals.listener_errors)
        yield errors
