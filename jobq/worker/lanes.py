"""Which queues a worker serves, and in which order a claim looks at them."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable

from jobq.worker.database import Connection, fetch
from jobq.worker.options import WorkerOptions

logger = logging.getLogger("jobq.worker")

PRIORITIES = range(9, -1, -1)


class Lanes:
    """The lanes (queue, priority) of a claim: higher priorities first in every queue, queues taking turns at being first."""

    def __init__(self, only: tuple[str, ...] | None) -> None:
        self._only = frozenset(only) if only is not None else None
        self._known: set[str] = set(only or ())
        self._paused: frozenset[str] = frozenset()
        self._managed: frozenset[str] = frozenset()
        self._turn = 0
        self._order: list[str] = []
        self._rebuild()

    def _rebuild(self) -> None:
        self._order = sorted(self._known - self._paused - self._managed)

    def hear(self, queue: str) -> bool:
        """Take note of a queue that has jobs. Return whether this worker serves it now."""
        if self._only is not None and queue not in self._only:
            return False
        if queue not in self._known:
            self._known.add(queue)
            self._rebuild()
        return queue not in self._paused

    def refresh(self, rows: Iterable[tuple[str, bool, bool]]) -> bool:
        """Replace what is known by the rows of lanes.sql. Return whether a queue can be served that could not before."""
        before = set(self._order)
        found = list(rows)
        self._known = set(self._only) if self._only is not None else {queue for queue, _, _ in found}
        self._paused = frozenset(queue for queue, paused, _ in found if paused)
        self._managed = frozenset(queue for queue, _, managed in found if managed)
        self._rebuild()
        return bool(set(self._order) - before)

    def pause(self, queues: Iterable[str]) -> bool:
        """These queues are paused, and no others. Return whether a queue can be served that could not before."""
        paused = frozenset(queues)
        if paused == self._paused:
            return False
        before, self._paused = set(self._order), paused
        self._rebuild()
        return bool(set(self._order) - before)

    @property
    def managed(self) -> set[str]:
        """The queues that are served now, each by itself (`managed.py`), and are in none of the lanes."""
        return self._known & self._managed - self._paused

    def arrays(self) -> tuple[list[str], list[int]]:
        """Return the lanes for the next claim as parallel arrays: every queue's first priority before any second one.

        The queues take turns at being first, so that a full one cannot keep the others of its priority waiting.
        """
        if not self._order:
            return [], []
        self._turn = (self._turn + 1) % len(self._order)
        queues = self._order[self._turn :] + self._order[: self._turn]
        return queues * len(PRIORITIES), [priority for priority in PRIORITIES for _ in queues]


async def warn_of_unknown_queues(connection: Connection, options: WorkerOptions, of_tasks: Iterable[str]) -> None:
    """Say which of the worker's queues nobody else has named: they may be misspelt, or their first job still to come."""
    if options.queues is None:
        return
    known = {*of_tasks, *(row[0] for row in await fetch(connection, options.settings.schema, "lanes"))}
    for queue in sorted(set(options.queues) - known):
        near = difflib.get_close_matches(queue, sorted(known), n=3)
        logger.warning(
            "no task and no job names this queue: it is served all the same",
            extra={"queue": queue, "near": ", ".join(near) or None, "known": ", ".join(sorted(known)[:20])},
        )
