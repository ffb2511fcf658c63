"""The facts that checks share. Each is read once."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from psycopg import Connection

from jobq import queries
from jobq.queries import (
    CountedQueues,
    DueTask,
    Failing,
    MaintenanceTaskInfo,
    ParkedTask,
    QueueInfo,
    ScheduleInfo,
    WorkerInfo,
)

# Schedules checked by doctor, and by the page, which is made every few seconds.
_SCHEDULES, _FEW_SCHEDULES = 1_000, 100


class Snapshot:
    """The facts that one examination reads over `connection`. A fact is read when a check needs it.

    `thorough` (default): include reads that take longer than a page may. `queue`: examine only this
    queue, which was read already. `tasks`: read the workers' tasks, too, which takes time in a
    large fleet.
    """

    def __init__(
        self,
        connection: Connection[Any],
        schema: str,
        *,
        thorough: bool = True,
        queue: QueueInfo | None = None,
        tasks: bool = True,
    ) -> None:
        self.connection = connection
        self.schema = schema
        self.thorough = thorough
        self._queue = queue
        self._tasks = tasks
        self._serving: dict[str, list[WorkerInfo]] = {}

    @property
    def most_queues(self) -> int:
        """The number of queues that a check may examine, if it needs a query for each."""
        return 1_000 if self.thorough else 20

    @cached_property
    def queues(self) -> list[QueueInfo]:
        """The queues: see `jobq.queries.queues`."""
        return [self._queue] if self._queue is not None else self.counted.queues

    @cached_property
    def counted(self) -> CountedQueues:
        """The queues and their totals: see `jobq.queries.counted_queues`."""
        return queries.counted_queues(self.connection, self.schema)

    @cached_property
    def workers(self) -> list[WorkerInfo]:
        """All workers with a row."""
        return queries.workers(self.connection, self.schema, tasks=self._tasks)

    @cached_property
    def alive(self) -> list[WorkerInfo]:
        """Workers with a heartbeat within their leases."""
        return [worker for worker in self.workers if worker.health != "silent"]

    @cached_property
    def _of_all_queues(self) -> list[int]:
        return [n for n, worker in enumerate(self.alive) if worker.queues is None]

    @cached_property
    def _by_queue(self) -> dict[str, list[int]]:
        # With hundreds of workers and thousands of queues, workers are not checked for each queue.
        found: dict[str, list[int]] = {}
        for n, worker in enumerate(self.alive):
            for queue in dict.fromkeys(worker.queues or ()):
                found.setdefault(queue, []).append(n)
        return found

    def serving(self, queue: str) -> list[WorkerInfo]:
        """Return the live workers that serve `queue`, whether they claim now or not."""
        found = self._serving.get(queue)
        if found is None:
            places = sorted([*self._of_all_queues, *self._by_queue.get(queue, ())])
            found = self._serving[queue] = [self.alive[n] for n in places]
        return found

    def claiming(self, queue: str) -> list[WorkerInfo]:
        """Return the live workers that claim from `queue`.

        Such a worker is not quiet, not starting and not draining.
        """
        return [worker for worker in self.serving(queue) if worker.state == "running"]

    @cached_property
    def due_tasks(self) -> list[DueTask]:
        """The tasks of due jobs: see `jobq.queries.due_tasks`."""
        return queries.due_tasks(self.connection, self.schema, None if self._queue is None else self._queue.name)

    @cached_property
    def parked(self) -> list[ParkedTask]:
        """Jobs that no code could run so far, by task; only of the one queue, if there is one."""
        found = queries.parked_tasks(self.connection, self.schema)
        return [one for one in found if self._queue is None or self._queue.name in one.queues]

    @cached_property
    def maintenance_tasks(self) -> list[MaintenanceTaskInfo]:
        """The maintenance tasks."""
        return queries.maintenance_tasks(self.connection, self.schema)

    @cached_property
    def schedules(self) -> list[ScheduleInfo]:
        """The first 1,000 schedules by name; 100 if not `thorough`."""
        most = _SCHEDULES if self.thorough else _FEW_SCHEDULES
        return queries.schedules(self.connection, self.schema, limit=most, preview=0)

    @cached_property
    def failing(self) -> Failing:
        """The number of dead letters."""
        return queries.failing(self.connection, self.schema)
