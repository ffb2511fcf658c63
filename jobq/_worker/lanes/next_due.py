"""When to claim without a notification: at the next due job, at the poll, after a full scan."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from jobq._worker.database import Connection, fetch
from jobq._worker.lanes.cursor import Cursor, scan_parameters
from jobq._worker.lanes.full_scan import FullScan
from jobq._worker.lanes.lanes import Lanes

# A poll finds jobs without a notification. While notifications arrive, polls are this many times
# rarer.
NOTIFY = 5
# Seconds between two look-ups while claims follow each other.
BUSY_EVERY = 0.1
# When a job is notified, about this many of all idle workers try to claim it at once. The others
# give them a head start of some milliseconds, longer the more workers there are, and then look
# before they claim.
AT_ONCE = 2
HEAD_START = 0.001
_EACH = 0.001
_LONGEST = 0.025


def head_start(peers: int) -> float:
    """Return the seconds for which this worker leaves a job to `peers` other workers.

    0: it tries to claim the job at once.
    """
    if random.random() * (peers + 1) < AT_ONCE:
        return 0.0
    return random.uniform(HEAD_START, min(max(5 * HEAD_START, _EACH * peers), _LONGEST))


class NextDueTimer:
    """The clock of one claim loop. All times are time.monotonic() seconds."""

    def __init__(
        self,
        schema: str,
        lanes: Lanes,
        cursor: Cursor,
        survey: FullScan,
        *,
        poll_interval: float,
        listening: Callable[[], bool],
    ) -> None:
        self._schema = schema
        self._lanes = lanes
        self._cursor = cursor
        self._survey = survey
        self._poll_interval = poll_interval
        self._listening = listening
        self._poll_at = 0.0
        self._look_at = 0.0

    def wake(self) -> None:
        """Include lanes with newly due jobs in the next claim.

        At the poll, include warm lanes, too.
        """
        self._lanes.wake()
        if self._lanes.many:
            self._survey.told_of_many()
        now = time.monotonic()
        if now >= self._poll_at:
            listening = self._listening()
            self._poll_at = now + self._poll_interval * (NOTIFY if listening else 1)
            self._survey.hasten(0.0)
            if not listening or self._survey.costly:
                self._lanes.poll()

    @property
    def next_at(self) -> float:
        """When there may be something to claim or look for without a notification."""
        return min(self._lanes.live.alarm_at, self._poll_at, self._survey.due_at)

    @property
    def look_up_at(self) -> float:
        """When to look up the next jobs of lanes without due jobs, while claims are frequent."""
        return self._look_at if self._lanes.unread else float("inf")

    async def look_up(self, connection: Connection) -> None:
        """Look up the first jobs of some lanes that were read to their ends.

        Raises psycopg.Error.
        """
        self._look_at = time.monotonic() + BUSY_EVERY
        lanes = self._lanes.to_look_up()
        if lanes:
            queues, priorities = [queue for queue, _ in lanes], [priority for _, priority in lanes]
            scan = self._cursor.plan(queues, priorities, remember=False)
            rows = await fetch(connection, self._schema, "next_due", **scan_parameters(scan))
            seconds = {lanes[place]: due for place, due in rows}
            for lane in lanes:
                self._lanes.looked_up(lane, seconds.get(lane))
        self._look_at = time.monotonic() + BUSY_EVERY
