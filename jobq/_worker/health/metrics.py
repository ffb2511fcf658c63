"""Prometheus metrics of one worker, through prometheus_client (`pip install 'jobq[metrics]'`).

Labels are bounded, whatever the database holds: `task` is a task that this worker's application registers, else
``(unknown)``; `queue` is one of the first queues seen, further ones are ``(other)``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from jobq.worker.frames import Ending, Job, Setback, Success
from jobq.worker.vitals import Vitals

if TYPE_CHECKING:
    from prometheus_client.core import Metric

# Combinations of task and queue that are told apart.
MAX_PAIRS = 200
MAX_QUEUES = 50
# Rendering takes milliseconds of the dispatcher's only thread: a scraper in a tight loop gets the same text again.
RENDER_EVERY = 1.0
_BUCKETS = (0.005, 0.02, 0.1, 0.5, 1, 2.5, 10, 30, 60, 300, 1800, 7200)

_OUTCOMES = {
    Ending.RETRY: "retried",
    Ending.FAIL: "failed",
    Ending.CANCEL: "cancelled",
    Ending.SNOOZE: "snoozed",
    Ending.RELEASE: "released",
    Ending.CRASH: "crashed",
    Ending.EXPIRE: "expired",
    Ending.PARK: "parked",
    Ending.SUCCEED: "succeeded",
}


class Metrics:
    """Counts what the advance loop reports and renders it, together with what `vitals` says, for a scraper."""

    def __init__(self, vitals: Vitals, observe: Callable[[], None], tasks: Callable[[], Iterable[str]]) -> None:
        """`observe` fills `vitals`, `tasks` returns the registered tasks. Raises ModuleNotFoundError without the extra."""
        from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
        from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

        self.content_type = CONTENT_TYPE_LATEST
        self._generate = generate_latest
        self._vitals = vitals
        self._observe = observe
        self._tasks = tasks
        # Our own, not the process's: a test, or an embedding program, may have several workers.
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
        """These executions are ours from now on; each is told as ended once."""
        for job in jobs:
            self._under_way[job.id, job.claims, job.started] = self._labels_of(job.task, job.queue)

    def succeeded(self, successes: Iterable[Success]) -> None:
        """Executions have succeeded, by their runner's word."""
        numbers: dict[tuple[str, str], int] = {}
        for success in successes:
            if (labels := self._under_way.pop((success.id, success.claims, success.started), None)) is not None:
                numbers[labels] = numbers.get(labels, 0) + 1
                self._took(labels[0], success.seconds)
        for labels, number in numbers.items():
            self._count(labels, "succeeded", number)

    def ended(self, setback: Setback) -> None:
        """An execution has ended otherwise, by its runner's word or by our judgement."""
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
        """The executions under way are no longer ours: how they end is another worker's to count."""
        self._under_way.clear()

    def round_trip(self, seconds: float) -> None:
        """A statement of work took this long."""
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
            # Not beyond: the table of names that the database may send must be bounded, too.
            self._labels[task, queue] = labels
        return labels

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format; at most a second old."""
        now = time.monotonic()
        if now - self._rendered_at >= RENDER_EVERY:
            self._observe()
            self._rendered = self._generate(self._registry)
            self._rendered_at = now
        return self._rendered


class _Gauges:
    """Turns Vitals into metrics at each scrape."""

    def __init__(self, vitals: Vitals) -> None:
        self._vitals = vitals

    def collect(self) -> Iterable[Metric]:
        """What prometheus_client calls for."""
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
            "jobq_brisk": ("Whether producers do not notify, and a sentinel looks for jobs.", int(vitals.brisk)),
            "jobq_sentinel": ("Whether this worker is the sentinel.", int(vitals.sentinel)),
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
        errors.add_metric(["advance"], vitals.claims.errors)
        errors.add_metric(["lease"], vitals.heartbeats.errors)
        errors.add_metric(["listen"], vitals.listener_errors)
        yield errors
