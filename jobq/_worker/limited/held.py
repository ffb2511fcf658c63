"""The jobs of limited queues that one worker holds: claimed and not ended."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any


class HeldLimitedJobs:
    """The held jobs of one worker."""

    def __init__(self, caps: Mapping[str, int]) -> None:
        """`caps`: the most jobs of a queue that this worker holds at a time, by queue."""
        self.caps = dict(caps)
        self.queues: dict[int, str] = {}
        """The queue of each job, by job id."""
        self.counts: Counter[str] = Counter()
        """Number of held jobs of each queue."""
        self.strays: set[int] = set()
        """Jobs that were claimed in our name and never arrived, until they are put back.

        Their queues are unknown.
        """

    def room(self, queue: str) -> float:
        """Return how many more jobs of `queue` this worker may hold. Infinity: there is no cap."""
        return self.caps.get(queue, math.inf) - self.counts[queue]

    def adopt(self, jobs: Iterable[tuple[Any, ...]]) -> None:
        """Add running jobs (id, queue) that were not claimed from their queue alone.

        The queue was a plain one, or the jobs were parked.
        """
        for job_id, queue in jobs:
            if job_id not in self.queues:
                self.queues[job_id] = queue
                self.counts[queue] += 1

    def claimed(self, ids: list[int], queue: str) -> None:
        """Add claimed jobs of `queue`."""
        for job_id in ids:
            self.queues[job_id] = queue
        self.counts[queue] += len(ids)

    def strayed(self, ids: Iterable[int]) -> None:
        """Add jobs that were claimed in our name and never arrived. They are put back next."""
        self.strays.update(ids)

    def forget(self) -> None:
        """Drop all: the held jobs belong to another worker now."""
        self.queues.clear()
        self.counts.clear()
        self.strays.clear()
