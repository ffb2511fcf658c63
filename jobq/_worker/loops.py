"""The loops of a dispatcher, and their common interface.

All loops run in one event loop. Each has its own connection, so no loop waits for another's
statement. To add one (a workflow engine, for example), write a class with the members of `Loop`,
and add an instance in `Dispatcher.__init__`. It is then started, woken by notifications, reported
if it stalls, and closed like the others.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from jobq._worker.health.stalls import Stall

logger = logging.getLogger("jobq.worker")


class Topic(NamedTuple):
    """The subject of a notification: its first word, and the rest."""

    kind: str
    subject: str = ""

    @classmethod
    def of(cls, payload: str) -> Topic:
        """Return the topic of a notification.

        An empty payload means: notifications may have been missed.
        """
        kind, _, subject = payload.partition(" ")
        return cls(kind, subject)

    @property
    def place(self) -> tuple[str, int] | None:
        """The queue of a ``below`` topic, and the run_at (microseconds) from which it has jobs.

        None: it is another topic, or malformed. Any database client can send any notification.
        """
        run_at, _, queue = self.subject.partition(" ")
        if self.kind != "below" or not re.fullmatch(r"-?[0-9]{1,18}", run_at):
            return None
        return queue, int(run_at)


MISSED = Topic("")
"""Some notifications may have been missed."""


class Loop(Protocol):
    """One loop of a dispatcher."""

    @property
    def name(self) -> str:
        """A unique name. Stack dumps, stall reports and the log use it."""

    async def run(self) -> None:
        """Run until cancelled.

        An error ends the worker: a worker with missing parts is worse than none.

        A database that is away, locked or slow is no such error: `run` handles it. Only the claim
        loop returns: the worker stops, or has nothing left to do.
        """

    def wake(self, topic: Topic | None = None) -> None:
        """React to a notification that concerns this loop; None: check your state now.

        This must not wait or raise.
        """

    def stall(self) -> Stall | None:
        """Return since when and why it cannot work; None if it can.

        Another thread calls it twice a second.
        """

    async def close(self) -> None:
        """Release its resources.

        This is called after `run` has ended; calling it again does nothing.
        """


class Loops:
    """The loops of one dispatcher, in the order in which they get notifications."""

    def __init__(self) -> None:
        self._loops: dict[str, Loop] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def __iter__(self) -> Iterator[Loop]:
        """Return the loops in order."""
        return iter(self._loops.values())

    def add(self, *loops: Loop) -> None:
        """Add loops. Raises ValueError if a name is taken."""
        for loop in loops:
            if loop.name in self._loops:
                raise ValueError(f"there is a loop {loop.name!r} already: give each loop a name of its own")
            self._loops[loop.name] = loop

    # --- notifying all loops --------------------

    def notified(self, payload: str) -> None:
        """Wake the loops that a notification concerns.

        Empty: notifications may have been missed.
        """
        topic = Topic.of(payload)
        for loop in self._loops.values():
            loop.wake(topic)

    @property
    def stalls(self) -> Mapping[str, Callable[[], Stall | None]]:
        """The stall check of each loop, by its name."""
        return {name: loop.stall for name, loop in self._loops.items()}

    # --- running all loops --------------------

    def start(self) -> None:
        """Start every loop as a task with its name."""
        for name, loop in self._loops.items():
            run: Coroutine[Any, Any, None] = loop.run()
            self._tasks[name] = asyncio.create_task(run, name=name)

    async def first_end(self) -> None:
        """Wait until one loop has ended."""
        await asyncio.wait(self._tasks.values(), return_when=asyncio.FIRST_COMPLETED)

    def has_ended(self, name: str) -> bool:
        """Return whether the loop with this name has ended by itself without an error."""
        task = self._tasks[name]
        return task.done() and not task.cancelled() and task.exception() is None

    def others_end(self, name: str) -> bool:
        """Return whether any other loop has ended."""
        return any(task.done() for other, task in self._tasks.items() if other != name)

    def failure(self) -> tuple[str, BaseException] | None:
        """Return the name and the error of a failed loop; None if none has failed."""
        for name, task in self._tasks.items():
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                return name, error
        return None

    async def cancel(self) -> None:
        """Cancel the running loops, and wait for them."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def close(self) -> None:
        """Close all loops. An error of one is logged, and the others are closed."""
        for loop in self._loops.values():
            try:
                await loop.close()
            except Exception:
                logger.exception("a part of the worker could not be closed", extra={"part": loop.name})
