"""Where jobs to claim may be: notifications and reads enter here, and the next claim looks there.

There are three kinds of places: the lanes of plain queues, limited queues (each claimed by itself),
and parked jobs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable

from jobq._worker.claiming.capacity import Capacity
from jobq._worker.claiming.parked import Parked
from jobq._worker.lanes.cursor import Cursor
from jobq._worker.lanes.full_scan import FullScan
from jobq._worker.lanes.lanes import Lanes
from jobq._worker.lanes.next_due import head_start
from jobq._worker.lease import Lease
from jobq._worker.limited.queues import LimitedQueues

# Seconds from a failed statement to the next look at all lanes.
LOOK_AGAIN = 0.1


class JobFinder:
    """The knowledge of one claim loop about jobs. It wakes the loop for them."""

    def __init__(
        self,
        *,
        lanes: Lanes,
        cursor: Cursor,
        survey: FullScan,
        limited: LimitedQueues,
        parked: Parked,
        capacity: Capacity,
        lease: Lease,
        woken: asyncio.Event,
    ) -> None:
        """Create the finder. `woken` is set when the claim loop must look again."""
        self.lanes = lanes
        self.cursor = cursor
        self.survey = survey
        self.limited = limited
        self.parked = parked
        self._capacity = capacity
        self._lease = lease
        self._woken = woken
        self._head_start: asyncio.TimerHandle | None = None
        """Ends when the other workers have had their time for a job that was left to them first."""
        self.sleeping = False
        """Whether the claim loop sleeps and waits for something to do."""
        self.told = False
        """Whether a notification is the reason to expect more jobs."""

    @property
    def more(self) -> bool:
        """Whether a claim may find jobs."""
        return self.lanes.more

    # --- notifications --------------------

    def heard_of(self, queue: str) -> None:
        """Handle a notification of a job in `queue`."""
        if self.limited.hear(queue):
            self._woken.set()
            return
        # Every worker has received the notification, and one of them is enough.
        wait = head_start(self._lease.peers) if self.sleeping and self._capacity.want() > 0 else 0.0
        if not self.lanes.hear(queue, ask=wait > 0):
            return
        self.told = True
        if not wait:
            self._woken.set()
        elif self._head_start is None:
            self._head_start = asyncio.get_running_loop().call_later(wait, self._head_start_is_over)

    def _head_start_is_over(self) -> None:
        self._head_start = None
        self._woken.set()

    def heard_of_many(self, *, missed: bool = False) -> None:
        """Handle a notification of more queues than could be named.

        `missed`: notifications of jobs at old places may have been lost.
        """
        self.limited.hear_all(missed=missed)
        self.survey.told_of_many()
        self._woken.set()

    def heard_of_parked(self, task: str) -> None:
        """Handle a notification that another worker has parked jobs of `task`."""
        if self.parked.hear(task):
            self._woken.set()

    def runner_ready(self) -> None:
        """A runner is ready. It may have newer code that can run parked jobs."""
        self.parked.wanted = True
        self._woken.set()

    def found(self, queue: str, priority: int | None = None) -> bool:
        """Handle due jobs that the lead poller has seen.

        Return whether this claim loop looks for them. If so, no other worker has to.
        """
        if self.limited.hear(queue):
            self._woken.set()
            return False
        # Set this even when no slot is free: a slot may free up without anything to write, and then
        # no claim would follow.
        if not (self.lanes.hear(queue) if priority is None else self.lanes.found(queue, priority, 0)):
            return False
        if self._capacity.want() <= 0:
            return False
        self._woken.set()
        return True

    def paused(self, queues: list[str]) -> None:
        """Replace the set of paused queues with these."""
        if self.lanes.pause(queues):
            self.cursor.doubt()
            self.parked.wanted = True
            self._woken.set()

    def lowered(self, queue: str, run_at: int) -> None:
        """Jobs of `queue` can be claimed again at their old places.

        `run_at`: that of the first of them, in microseconds.
        """
        self._read_lower(queue, run_at)
        self.heard_of(queue)

    def _read_lower(self, queue: str, run_at: int) -> None:
        self.cursor.lower(queue, run_at)
        self.limited.lower(queue)

    # --- own changes --------------------

    def put_back(self, queues: Collection[str], lowered: Iterable[tuple[str, int]]) -> None:
        """This worker has made jobs of `queues` claimable again.

        In the queues of `lowered` they keep their places.
        """
        for queue, run_at in lowered:
            self._read_lower(queue, run_at)
        for queue in queues:
            if not self.limited.hear(queue):
                self.lanes.hear(queue)
        if queues:
            self.look_again()
        self._woken.set()

    def look_again(self) -> None:
        """Look again after a failure or a put-back job: it is unknown what a claim would find."""
        self.lanes.poll()
        self.survey.hasten(LOOK_AGAIN)

    def lost(self) -> None:
        """The connection is lost: claimed jobs and missed notifications are unknown."""
        self.survey.stop()
        self.cursor.forget()
        self.limited.doubt()
        # Only a claim can show that claims work.
        self.look_again()
