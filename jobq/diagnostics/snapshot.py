"""The facts that checks share, each read once."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from psycopg import Connection

from jobq import queries
from jobq.queries import ChoreInfo, CountedQueues, DueTask, Failing, ParkedTask, QueueInfo, ScheduleInfo, WorkerInfo

# Schedules that are looked at by doctor, and by the page, which is made again every few seconds.
_SCHEDULES, _FEW_SCHEDULES = 1_000, 100


class Snapshot:
    """What one examination reads of the database at `connection`; nothing is read before a check needs it.

    `thorough` (default): also what takes longer than a page may. `queue`: one queue, known already, that alone is looked at.
    `tasks`: whether the workers' tasks are read, too, which takes time in a large fleet.
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
        """How many queues a check may look at, if it needs a query for each."""
        return 1_000 if self.thorough else 20

    @cached_property
    def queues(self) -> list[QueueInfo]:
        """The queues: see `jobq.queries.queues`."""
        return [self._queue] if self._queue is not None else self.counted.queues

    @cached_property
    def counted(self) -> CountedQueues:
        """The queues and what is in all of them: see `jobq.queries.counted_queues`."""
        return queries.counted_queues(self.connection, self.schema)

    @cached_property
    def workers(self) -> list[WorkerInfo]:
        """All workers that have a row."""
        return queries.workers(self.connection, self.schema, tasks=self._tasks)

    @cached_property
    def alive(self) -> list[WorkerInfo]:
        """Workers heard of within their leases."""
        return [worker for worker in self.workers if worker.health != "silent"]

    @cached_property
    def _of_all_queues(self) -> list[int]:
        return [n for n, worker in enumerate(self.alive) if worker.queues is None]

    @cached_property
    def _by_queue(self) -> dict[str, list[int]]:
        # Hundreds of workers and thousands of queues: no worker is asked about each queue.
        found: dict[str, list[int]] = {}
        for n, worker in enumerate(self.alive):
            for queue in dict.fromkeys(worker.queues or ()):
                found.setdefault(queue, []).append(n)
        return found

    def serving(self, queue: str) -> list[WorkerInfo]:
        """Return the live workers that serve `queue`, whether they claim at present or not."""
        found = self._serving.get(queue)
        if found is None:
            places = sorted([*self._of_all_queues, *self._by_queue.get(queue, ())])
            found = self._serving[queue] = [self.alive[n] for n in places]
        return found

    def claiming(self, queue: str) -> list[WorkerInfo]:
        """Return those of them that claim: neither quiet, nor starting, nor draining."""
        return [worker for worker in self.serving(queue) if worker.state == "running"]

    @cached_property
    def due_tasks(self) -> list[DueTask]:
        """The tasks of due jobs: see `jobq.queries.due_tasks`."""
        return queries.due_tasks(self.connection, self.schema, None if self._queue is None else self._queue.name)

    @cached_property
    def parked(self) -> list[ParkedTask]:
        """Jobs that no code could run so far, by task; those of the one queue, if it is about one."""
        found = queries.parked_tasks(self.connection, self.schema)
        return [one for one in found if self._queue is None or self._queue.name in one.queues]

    @cached_property
    def chores(self) -> list[ChoreInfo]:
        """The maintenance chores."""
        return queries.chores(self.connection, self.schema)

    @cached_property
    def schedules(self) -> list[ScheduleInfo]:
        """The first 1,000 schedules by name; 100 if not `thorough`."""
        most = _SCHEDULES if self.thorough else _FEW_SCHEDULES
        return queries.schedules(self.connection, self.schema, limit=most, preview=0)

    @cached_property
    def failing(self) -> Failing:
        """How many jobs have failed for good."""
        return queries.failing(self.connection, self.schema)
